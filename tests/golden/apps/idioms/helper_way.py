"""The way of shared helpers: a fresh stream for each record, State asked in between, an early return."""

from patterns import State, Table

state = State()
numbers = Table("numbers", required=False)
calls = 0


def records():
    if not numbers.is_connected:
        return
    while True:
        found = next(numbers.as_stream().consume_records(), None)
        if found is None:
            return
        yield found


def enrich(limit):
    global calls
    for record in records():
        calls += 1
        if not state.should_continue():
            state.request_new_run()
            return
        if calls == limit:
            return


place = "latest_streamed_idnumber_patterns_id"
state.set_value(place, state.get_value(place))
before = state.get_value("done", 0)
enrich(5)
state.set_value("done", before + calls)
assert (before, calls) in [(0, 5), (5, 5), (10, 2)], (before, calls)
