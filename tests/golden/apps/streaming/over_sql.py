from patterns import State, Table

State().reset()
agg = Table("agg")
assert [row["id"] for row in agg.as_stream(order_by="id")] == [0, 1, 2]
assert [(row["id"], row["count"]) for row in agg.read()] == [(2, 10), (1, 10), (0, 10)]
assert "patterns_id" not in agg.read()[0]
