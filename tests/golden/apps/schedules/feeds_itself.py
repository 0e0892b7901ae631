"""Streams the table that it alone writes: somebody has to begin, and its own rows then wake it up."""

from patterns import Table

links = Table("chain", "w")
if not links.exists:
    links.append({"n": 0})
for link in Table("chain").as_stream():
    if link["n"] < 3:
        links.append({"n": link["n"] + 1})
