"""Reads the posted keys on the row itself, and forwards the row."""

from patterns import Table

events = Table("events")
direct = Table("direct", "w")
for row in events.as_stream().consume_records():
    assert "record" in row and "timestamp" in row
    direct.append({"email": row["email"], "missing": row.get("missing"), "got": row.get("plan"), "keys": sorted(row)})
