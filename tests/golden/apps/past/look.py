from patterns import Table

events, plain, latest = Table("events"), Table("plain"), Table("latest")
found = Table("found", "w")

stream = events.as_stream()
stream.rewind()
streamed = [event["n"] for event in stream]
ordered = latest.as_stream(order_by="n")
ordered.rewind()
found.replace(
    [
        {"way": "stream", "value": streamed},
        {"way": "by field", "value": [row["n"] for row in ordered]},
        {"way": "records", "value": [row["n"] for row in plain.read()]},
        {"way": "frame", "value": plain.read_dataframe()["n"].tolist()},
        {"way": "chunks", "value": [row["n"] for chunk in plain.read(chunksize=7) for row in chunk]},
        {"way": "sql", "value": [row["n"] for row in plain.read_sql(f"select n from {plain} order by n")]},
        {"way": "keyed", "value": sorted(row["n"] for row in latest.read())},
        {"way": "count", "value": [events.record_count, plain.record_count, latest.record_count]},
    ]
)
