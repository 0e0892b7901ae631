from patterns import Table

doubled = Table("doubled", "w")
for row in Table("posts").as_stream():
    doubled.append({"n": row["n"] * 2})
