"""Begins anew at each run, as code does that recomputes everything: the run must come to the end."""

import time

from patterns import State, Table

many = Table("many", "w")
handed = Table("handed", "w")
state = State()
if not many.exists:
    many.append([{"n": n} for n in range(250)])
else:
    state.set_value("latest_streamed_stmany01_patterns_id", None)
    stream = Table("many").as_stream()
    count = 0
    for count, row in enumerate(stream, 1):
        time.sleep(0.002)
    handed.append({"count": count})
    stream.rewind()
    assert len(list(stream)) == 250
