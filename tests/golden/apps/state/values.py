from datetime import date, datetime, timedelta, timezone

from patterns import State

state = State()
run = state.get_value("run", 0)
now = datetime(2021, 1, 2, 3, 4, 5, 678901)
aware = now.replace(tzinfo=timezone.utc)
if run == 0:
    assert state.get() == {} and state.get_value("x") is None and state.get_datetime("x") is None
    assert state.get_datetime("x", now) == now
    state.set_value("naive", now)
    state.set_value("aware", aware)
    state.set_value("text", "2021-01-02T03:04:05")
    state.set_value("utc text", aware.isoformat())
    state.set_value("none", None)
    state.set_value("nested", {"list": [1, 2.5, None, {"a": True}], "at": now})
    nested = state.get_value("nested")
    nested["list"].append("not kept")
else:
    assert state.get_datetime("naive") == now and state.get_datetime("naive").tzinfo is None
    assert state.get_datetime("naive") < datetime.now()
    assert datetime.now(timezone.utc) - state.get_datetime("aware") > timedelta(1)
    assert state.get_datetime("text") == datetime(2021, 1, 2, 3, 4, 5)
    assert state.get_datetime("utc text") == aware
    assert "none" in state.get() and state.get_value("none", "default") is None
    assert state.get_value("nested")["list"] == [1, 2.5, None, {"a": True}]
    assert state.get_value("nested")["at"] == now
    state.set({"only": 1, "run": run})
    assert set(state.get()) == {"only", "run"}
    state.reset()
    assert state.get() == {}
    state.set_value("day", date(2021, 1, 1))
    assert state.get_datetime("day") == datetime(2021, 1, 1)
state.set_value("run", run + 1)
assert state.should_continue() and state.should_continue(pct_of_limit=0.5) and state.should_continue(seconds_till_limit=10)
assert not state.should_continue(pct_of_limit=0) and not state.should_continue(seconds_till_limit=600)
