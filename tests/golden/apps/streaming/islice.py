"""One living iterator, slices of it, rollbacks between them."""

from itertools import islice

from patterns import State, Table

numbers = Table("numbers")
state = State()
state.reset()
stream = numbers.as_stream()
assert stream.order_by_field == "patterns_id", stream.order_by_field
it = iter(stream)
assert [row["n"] for row in islice(it, 10)] == list(range(10))
stream.checkpoint()
assert [row["n"] for row in islice(it, 10)] == list(range(10, 20))
stream.rollback()
assert [row["n"] for row in islice(it, 5)] == list(range(10, 15)), "a living iterator goes on where the rollback put it"
stream.rollback()
# Each call of as_stream() shares the place.
assert next(numbers.as_stream().consume_records())["n"] == 10
assert next(iter(numbers.as_stream()))["n"] == 11
for row in numbers.as_stream():
    if row["n"] == 14:
        break
assert next(numbers.as_stream().consume_records())["n"] == 15, "breaking out keeps the place"
assert [n for n, _ in enumerate(numbers.as_stream())] == list(range(14))
assert list(numbers.as_stream()) == []
stream.rewind()
assert len(list(stream.consume_records())) == 30
stream.rollback()
assert next(stream.consume_records())["n"] == 10, "back to the last checkpoint of this execution"
