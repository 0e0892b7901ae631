from patterns import Table

plain = Table("plain")
assert [row["n"] for row in plain.as_stream(order_by="n")] == [1]
