from patterns import State, Table

numbers = Table("numbers")
seen = Table("seen", "w")
state = State()
state.set_value("runs", state.get_value("runs", 0) + 1)
# Standing where it stands, said aloud: a run that does so goes on to the end, on the slowest machine too.
place = "latest_streamed_stnumber_patterns_id"
state.set_value(place, state.get_value(place))
for row in numbers.as_stream():
    row["patterns_id_in"] = row["patterns_id"]
    seen.append(row)
print("run", state.get_value("runs"))
