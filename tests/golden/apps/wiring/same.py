from patterns import Table

source, target = Table("source"), Table("target", "w")
for row in source.as_stream():
    target.append({"n": row["n"], "factor": row["factor"]})
