from patterns import State, Table

swapped = Table("swapped")
state = State()
for place in ("latest_streamed_stswappe_patterns_id", "latest_streamed_stswappe_n"):
    state.set_value(place, state.get_value(place))
rows = [row["n"] for row in swapped.as_stream()]
by_n = [row["n"] for row in swapped.as_stream(order_by="n")]
print(rows, by_n)
expected = state.get_value("expected", [])
run = state.get_value("run", 0) + 1
state.set_value("run", run)
writer = Table("swapped", "w")
if run == 1:
    assert rows == by_n == []
    writer.replace([{"n": 1}, {"n": 2}])
elif run == 2:
    assert rows == by_n == [1, 2]
    writer.replace([{"n": 2}, {"n": 3}])
elif run == 3:
    assert rows == [2, 3], "all rows of a replaced table are new"
    assert by_n == [3], "but a stream by a field of one's own gives larger values only"
    writer.reset()
    assert list(Table("swapped").as_stream()) == []
elif run == 4:
    assert rows == by_n == []
    writer.append({"n": 9})
elif run == 5:
    assert rows == by_n == [9]
