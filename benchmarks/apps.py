"""The small apps that are measured, and where their tables lie in the log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tailrace.graph import load_app
from tailrace.runner import RunnerSettings, deploy

__all__ = ["FIRE", "MEMORY", "OPEN", "READ", "STREAM", "bulk_app", "parallel_app", "topics", "write_app"]

STREAM = {
    "graph.yml": """\
title: Stream
slug: stream
functions:
  - {webhook: orders, id: wh000001}
  - {node_file: totals.py, id: py000001}
stores:
  - {table: orders, id: st000001}
  - {table: totals, id: st000002}
""",
    "totals.py": """\
from patterns import Table

orders = Table("orders")
totals = Table("totals", "w")

for row in orders.as_stream():
    order = row["record"]
    order["total"] = order["price"] * order["quantity"]
    totals.append(order)
""",
}
"""The stream sample: take each record once, change it, append it."""

FIRE = {
    "graph.yml": """\
title: Fire
slug: fire
functions:
  - {node_file: count.py, id: py000001}
stores:
  - {table: measures, id: st000001}
""",
    "count.py": """\
from patterns import Table

measures = Table("measures")
print(len(measures.read_dataframe()))
""",
}
"""A trivial node that reads a whole table when it changes."""

_BULK_GRAPH = """\
title: Bulk
slug: bulk
functions:
  - {{node_file: load.py, id: py000001, trigger: manual, parameter_values: {{rows: {rows}}}}}
stores:
  - {{table: measures, id: st000001}}
"""
_BULK_CODE = """\
import time

from frame import frame_of
from patterns import Parameter, Table

frame = frame_of(Parameter("rows", type=int))
measures = Table("measures", "w")
measures.reset()
print("append", time.monotonic_ns())
measures.append(frame)
print("appended", time.monotonic_ns())
"""


def bulk_app(rows: int) -> dict[str, str]:
    """A node that writes a frame of so many rows at once."""
    frame = Path(__file__).with_name("frame.py").read_text()
    return {"graph.yml": _BULK_GRAPH.format(rows=rows), "load.py": _BULK_CODE, "frame.py": frame}


MEMORY = {
    "graph.yml": """\
title: Memory
slug: memory
functions:
  - {node_file: totals.py, id: py000001}
  - {node_file: chunks.py, id: py000002, trigger: manual}
stores:
  - {table: orders, id: st000001}
  - {table: totals, id: st000002}
  - {table: measures, id: st000003}
""",
    "totals.py": STREAM["totals.py"],
    "chunks.py": """\
from patterns import Table

rows = 0
total = 0.0
for frame in Table("measures").read_dataframe(chunksize=10_000):
    rows += len(frame)
    total += float(frame["value"].sum())
print("rows", rows, "total", round(total, 3))
""",
}
"""A stream, and a node that reads a large table in chunks."""


READ = {
    "graph.yml": """\
title: Read
slug: read
functions:
  - {node_file: totals.py, id: py000001, trigger: manual}
stores:
  - {table: measures, id: st000001}
""",
    "totals.py": """\
import json
import time

from patterns import Table

measures = Table("measures")
query = "select city, count(*) as n, sum(amount) as total, max(value) as highest from {} group by city order by city"
began_s = time.perf_counter()
rows = measures.read_sql(query.format(measures))
took_ms = (time.perf_counter() - began_s) * 1e3
found = [[row["city"], row["n"], int(row["total"]), row["highest"]] for row in rows]
print(json.dumps({"took_ms": took_ms, "rows": found}))
""",
}
"""A node that asks for one aggregate of a large table."""

OPEN = {
    **READ,
    "totals.py": """\
import json
import time

from patterns import Table

began_s = time.perf_counter()
(row,) = next(iter(Table("measures").read(chunksize=1)))
took_ms = (time.perf_counter() - began_s) * 1e3
print(json.dumps({"took_ms": took_ms, "row": {"number": row["number"], "name": row["name"]}}))
""",
}
"""A node that asks for the first row of a table."""


def parallel_app(slots: int) -> dict[str, str]:
    """A stream whose records cost about half a millisecond of work each, in so many slots."""
    return {
        "graph.yml": f"""\
title: Parallel
slug: parallel
functions:
  - {{node_file: score.py, id: py000001, parallelism: {slots}}}
stores:
  - {{table: clicks, id: st000001, partitions: 4, partition_key: k}}
  - {{table: scores, id: st000002, partitions: 4, partition_key: k}}
""",
        "score.py": """\
from patterns import Table

clicks = Table("clicks")
scores = Table("scores", "w")

for row in clicks.as_stream():
    score = 0
    for step in range(8_000):
        score = (score * 31 + step) % 1_000_003
    scores.append({"k": row["k"], "n": row["n"], "score": score})
""",
    }


def write_app(folder: Path, files: Mapping[str, str]) -> Path:
    """The app's files below `folder`; returns the app's folder."""
    app = folder / "app"
    for name, text in files.items():
        path = app / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return app


def topics(app: Path) -> dict[str, str]:
    """Topic by store name."""
    deployment = deploy(load_app(app), app, RunnerSettings())
    return {table.store.name: topic for topic, table in deployment.tables.items()}
