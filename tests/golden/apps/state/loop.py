from patterns import State, Table

state = State()
ticks = Table("ticks", "w")
page = state.get_value("page", 0)
while state.should_continue():
    if page >= 3:
        break
    ticks.append({"page": page})
    page += 1
    state.set_value("page", page)
    if page < 3:
        state.request_new_run(wait_atleast_seconds=0.1)
        break
