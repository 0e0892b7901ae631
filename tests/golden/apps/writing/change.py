from patterns import Table

changed = Table("changed", "w")
changed.reset()
changed.execute_sql(f"create table {changed} as select 1 as id, 'one' as word")
changed.flush()
assert [(row["id"], row["word"]) for row in changed.read()] == [(1, "one")], changed.read()
changed.execute_sql(f"insert into {changed} select 2, 'two'")
changed.flush()
changed.execute_sql(f"update {changed} set word = 'TWO' where id = 2")
changed.flush()
assert sorted((row["id"], row["word"]) for row in changed.read()) == [(1, "one"), (2, "TWO")]
changed.execute_sql(f"delete from {changed} where id = 1")
changed.flush()
assert [(row["id"], row["word"]) for row in changed.read()] == [(2, "TWO")]
