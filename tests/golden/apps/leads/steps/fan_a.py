from patterns import Table

clean = Table("clean")
out = Table("out", mode="w")
for record in clean.as_stream():
    for n in range(2):
        record["n"] = n
        record["by"] = "a"
        out.append(record)
