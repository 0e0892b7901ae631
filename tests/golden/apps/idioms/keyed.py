from patterns import State, Table

kept = Table("kept", "w")
kept.init(unique_on=["id"])
state = State()
run = state.get_value("run", 0)
state.set_value("run", run + 1)
if run == 0:
    kept.upsert([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}])
elif run == 1:
    kept.upsert([{"id": 2, "v": "B"}, {"id": 3, "v": "c"}])
elif run == 2:
    kept.truncate()
    kept.upsert({"id": 4, "v": "d"})
elif run == 3:
    kept.execute_sql(f"delete from {kept} where id = 4")
    kept.upsert({"id": 5, "v": "e"})
