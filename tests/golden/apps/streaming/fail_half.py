from patterns import State, Table

numbers = Table("numbers")
state = State()
state.set_value("before", "survives")
place = "latest_streamed_stnumber_patterns_id"
state.set_value(place, state.get_value(place))
for row in numbers.as_stream():
    if row["n"] == 5:
        raise ValueError(f"cannot take {row['n']}")
