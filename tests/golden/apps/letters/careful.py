from patterns import State, Table

tries = Table("tries", "w")
state = State()
with Table("incoming").as_stream().consume_with_rollback() as rows:
    for row in rows:
        tries.append({"n": row["record"]["n"]})
        state.set_value("done", state.get_value("done", 0) + 1)
        if row["record"].get("flaky"):
            raise ConnectionError("try again")
