from patterns import State, Table

state = State()
run = state.get_value("run", 0)
state.set_value("run", run + 1)
if run < 2:
    state.request_new_run(trigger_downstream=False)
    Table("quietly", "w").append({"run": run})
