from patterns import Table

clean = Table("clean", "r")
out = Table("out", "w")
with clean.as_stream().consume_with_rollback() as records:
    for record in records:
        out.append([{**record, "n": 0, "by": "b"}])
