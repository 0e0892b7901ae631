from patterns import Table

both = Table("both")
collected = Table("collected", "w")
for record in both.as_stream():
    collected.append({"email": record["email"], "by": record["by"], "n": record["n"], "source": record["patterns_id"]})
