"""Reads whole the table that it writes: its own writes do not fire it."""

from patterns import Table

seen = Table("roots").read()
counted = Table("counted")
Table("counted", "w").append({"before": len(counted.read()), "seen": len(seen)})
