from itertools import islice

from patterns import State, Table

numbers = Table("numbers")
out = Table("out", "w")
state = State()
step = state.get_value("step", 0)
state.set_value("step", step + 1)
# Standing where it stands, said aloud: a run that does so goes on to the end, on the slowest machine too.
place = "latest_streamed_idnumber_patterns_id"
state.set_value(place, state.get_value(place))
stream = numbers.as_stream()
if step == 0:
    with stream.consume_with_rollback() as records:
        for record in islice(records, 3):
            out.append({"step": step, "n": record["n"]})
elif step == 1:
    with stream.consume_with_rollback() as stream:
        for record in stream:
            if record["n"] == 3:
                continue
            if record["n"] == 5:
                break
            out.append({"step": step, "n": record["n"]})
elif step == 2:
    try:
        with stream.consume_with_rollback() as records:
            for record in records:
                out.append({"step": step, "n": record["n"]})
                if record["n"] == 8:
                    raise KeyError("caught outside")
    except KeyError:
        pass
    assert next(iter(numbers.as_stream()))["n"] == 8, "the failing record is handed out again"
    stream.rollback()
elif step == 3:
    first = next(stream.consume_records(), None)
    assert first["n"] == 8, first
    rest = [record["n"] for record in stream]
    assert rest == [9, 10, 11] and next(stream.consume_records(), None) is None
    stream.rollback()
elif step == 4:
    assert [record["n"] for record in stream.consume_records(with_metadata=False)] == [8, 9, 10, 11]
