from patterns import Table

orders = Table("orders")
ranked = Table("ranked", "w")
best = sorted(orders.read(), key=lambda row: -(row["amount"] or 0))
ranked.replace([{"place": place, "id": row["id"]} for place, row in enumerate(best, 1)])
assert [row["id"] for row in ranked.read()] == [1, 3, 2]
assert ranked.read()[0]["place"] == 1
assert ranked.read_sql(f"select id from {ranked} where place = 2") == [{"id": 3}]
