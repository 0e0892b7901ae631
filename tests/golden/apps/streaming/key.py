"""Code that repositions its stream through State, as apps do."""

from patterns import State, Table

numbers = Table("numbers")
state = State()
state.set_value("latest_streamed_stnumber_n", 24)
assert [row["n"] for row in numbers.as_stream(order_by="n")] == [25, 26, 27, 28, 29]
assert state.get_value("latest_streamed_stnumber_n") == 29
assert state.get()["latest_streamed_stnumber_n"] == 29
state.set_value("latest_streamed_stnumber_n", 27)
assert [row["n"] for row in numbers.as_stream(order_by="n")] == [28, 29]
ids = [row["patterns_id"] for row in numbers.as_stream()]
if len(ids) == 30:
    state.set_value("latest_streamed_stnumber_patterns_id", ids[28])
    assert [row["n"] for row in numbers.as_stream()] == [29]
    assert state.get_value("latest_streamed_stnumber_patterns_id") == ids[29]
state.reset()
assert state.get() == {}, state.get()
assert len(list(numbers.as_stream())) == 30 and len(list(numbers.as_stream(order_by="n"))) == 30
state.set({"a": 1})
assert len(list(numbers.as_stream(order_by="n"))) == 30, "set() forgets the places too"
