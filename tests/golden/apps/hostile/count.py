from patterns import Table

counted = Table("counted", "w")
for row in Table("posts").as_stream():
    record = row["record"]
    counted.append({"name": record.get("name"), "size": len(str(record)), "keys": len(record)})
