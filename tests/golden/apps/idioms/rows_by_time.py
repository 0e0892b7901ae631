from patterns import Table

by_time = Table("by_time", "w")
for row in Table("hooks").as_stream(order_by="timestamp"):
    by_time.append({"kind": row["record"].get("kind"), "at": row["timestamp"]})
