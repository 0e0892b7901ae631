from patterns import State, Table

good = Table("good", "w")
state = State()
for row in Table("incoming").as_stream():
    state.set_value("handled", state.get_value("handled", 0) + 1)
    if row["record"].get("bad"):
        raise ValueError(f"bad record {row['record']['n']}")
    good.append({"n": row["record"]["n"], "handled": state.get_value("handled")})
