from patterns import Table

keyed = Table("keyed", "w")
keyed.init(unique_on="id")
keyed.reset()
keyed.upsert([{"id": 1, "v": "a"}, {"id": 2, "v": "b"}])
keyed.flush()
keyed.upsert({"id": 2, "v": "B"})
keyed.upsert([{"id": 3, "v": "c"}, {"id": 3, "v": "C"}])
rows = {row["id"]: row["v"] for row in keyed.read()}
assert rows == {1: "a", 2: "B", 3: "C"}, rows
assert len(keyed.read()) == 3
keyed.flush()
assert keyed.record_count == 3
assert keyed.read_sql(f"select v from {keyed} where id = 2") == [{"v": "B"}]

two = Table("keyed_two", "w")
two.init(unique_on=["a", "b"], auto_indexes=False)
two.upsert([{"a": 1, "b": 1, "v": 1}, {"a": 1, "b": 2, "v": 2}])
two.upsert([{"a": 1, "b": 1, "v": 3}])
assert sorted((row["a"], row["b"], row["v"]) for row in two.read()) == [(1, 1, 3), (1, 2, 2)]

log = Table("log", "w")
try:
    log.upsert({"id": 1})
except AssertionError:
    log.append({"id": 1})
else:
    raise RuntimeError("upsert without a key must raise AssertionError")
