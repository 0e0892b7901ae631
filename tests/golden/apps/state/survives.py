from patterns import State

state = State()
if state.get_value("status") is None:
    state.set_value("status", "error")
    raise RuntimeError("told once")
assert state.get_value("status") == "error"
