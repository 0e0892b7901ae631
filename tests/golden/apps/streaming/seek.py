from patterns import State, Table

numbers = Table("numbers")
State().reset()
stream = numbers.as_stream(order_by="n")
assert stream.order_by_field == "n"
stream.seek(26)
assert [row["n"] for row in stream.consume_records()] == [27, 28, 29], "strictly greater"
stream.rewind()
assert next(stream.consume_records())["n"] == 0
by_word = numbers.as_stream(order_by="word", starting_value="w27")
assert [row["word"] for row in by_word] == ["w28", "w29"]
assert next(stream.consume_records())["n"] == 1, "another ordering has its own place"
ids = numbers.as_stream()
third = [row["patterns_id"] for row in ids][2]
ids.seek(third)
assert next(ids.consume_records())["n"] == 3
