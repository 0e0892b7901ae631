from patterns import State, Table

whole = Table("whole", "w")
state = State()
run = state.get_value("run", 0)
state.set_value("run", run + 1)
whole.reset()
whole.append({"run": run})
if run == 1:
    raise RuntimeError("half a version must not be seen")
