from pydantic import BaseModel

from patterns import *

from .helper import Lead


class Checked(BaseModel):
    email: str
    amount: float | None = None


leads = Table("leads_in", description="what was posted")
clean = Table("clean", "w")
threshold = Parameter("2. threshold", type=float, default=10)
column = Parameter("Input Text Column", description="which", type=str)
model = Parameter("model", default="gpt-3.5-turbo")
prompt = Parameter("prompt", type=str)
empty = Parameter("empty", default="")
nothing = Parameter("nothing", default=None)
since = Parameter("since", type=datetime, default="2000-01-01") if "datetime" in globals() else None
openai = Parameter("openai", type=Connection("openai"))
words = Parameter("words", type=list)
state = State()

assert threshold == 25.0 and isinstance(threshold, float)
assert model == "gpt-3.5-turbo" and prompt == "{prompt} and {a[b]}" and empty == "" and nothing is None
assert words == ["a", "b"]
assert isinstance(openai, dict) and openai.get("api_key") is None and not openai

for row in leads.as_stream():
    record = row["record"]
    checked = Checked(**{name: record.get(name) for name in ("email", "amount")})
    lead = Lead(checked.email, checked.amount)
    row["email"] = lead.email
    row["amount"] = lead.amount
    row["city"] = lead.city
    row["comment"] = record.get(column)
    row["nested"] = record["address"]["lines"][0] if "address" in record else None
    clean.append(row)
    state.set_value("count", state.get_value("count", 0) + 1)
    print(f"lead {state.get_value('count')}: {lead}")
