"""The worker's loop over a real socket pair, with a host that speaks frames."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from node_apps import Nodes

from tailrace.node import Table
from tailrace.node.protocol import Channel, Outcome, encode_frame
from tailrace.node.worker import serve
from tailrace.testing.app import MemoryHost


class Host:
    """Speaks to a worker that serves in this thread: `run` gives it one order and closes the socket afterwards."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.scans: list[int] = []
        """The offset that each scan began at."""

    def run(self, *kinds: str, between: Callable[[], None] | None = None, **changes: Any) -> tuple[Outcome, MemoryHost]:
        """Give orders, answer what the worker asks, and return how the last one ended; `between` any two, do that."""
        ours, theirs = socket.socketpair()
        ended: list[tuple[Outcome, MemoryHost]] = []

        def drive() -> None:
            with ours:
                for kind in kinds:
                    if ended and between is not None:
                        between()
                    ended.append(self._one(Channel(ours), kind, changes))

        driver = threading.Thread(target=drive, daemon=True)
        driver.start()
        with theirs:
            serve(theirs, {})  # returns when the host is gone
        driver.join(10)
        assert len(ended) == len(kinds)
        return ended[-1]

    def _one(self, channel: Channel, kind: str, changes: dict[str, Any]) -> tuple[Outcome, MemoryHost]:
        order = self.nodes.app.order(**{"kind": kind, **changes})
        memory = MemoryHost(self.nodes.app, order)
        channel.send(order.to_json())
        while True:
            header, payload = channel.receive()
            if header["op"] == "end":
                return memory.end(Outcome.from_json(header["outcome"])), memory
            memory.send(header, payload)
            if header["op"] == "scan":
                self.scans.append(header["start"])
            if header["op"] in ("view", "versions", "snapshot", "scan", "commit"):
                channel.send(*memory.receive())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(Nodes(tmp_path, "t", "output_table"))


def body(memory: MemoryHost) -> bytes:
    return b"".join(payload for _, payload in memory.results)


def test_orders_one_after_the_other(host: Host) -> None:
    """Reads and queries, an order that fails, and one after it that does not."""
    host.nodes.app.append("t", [{"n": 1, "doc": {"a": [1]}}, {"n": 2}])
    outcome, memory = host.run("query", arguments={"sql": "select n, count(*) from t group by n order by n"})
    assert outcome.kind == "ok", outcome.traceback
    assert (
        body(memory)
        == b'{"columns":[{"name":"n","type":"Integer"},{"name":"count","type":"Integer"}],"rows":[[1,1],[2,1]]}'
    )
    outcome, memory = host.run("query", arguments={"sql": "select * from nothing"})
    assert outcome.kind == "failed" and "nothing" in str(outcome.error)
    outcome, memory = host.run("read", arguments={"table": "t", "limit": 1, "offset": 1, "format": "ndjson"})
    assert outcome.kind == "ok", outcome.traceback
    assert body(memory).startswith(b'{"n":2,"doc":null,"patterns_id":"')


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "parquet"])
def test_a_table_in_every_format(host: Host, form: str) -> None:
    import io

    import orjson
    import pyarrow.parquet as pq

    host.nodes.app.append("t", [{"n": 1, "s": 'a "b"', "doc": {"a": [1]}}, {"n": 2, "b": True}])
    outcome, memory = host.run("read", arguments={"table": "t", "format": form})
    assert outcome.kind == "ok", outcome.traceback
    data = body(memory)
    if form == "json":
        rows = orjson.loads(data)
        assert rows[0]["doc"] == {"a": [1]} and rows[1]["b"] is True and len(rows[1]["patterns_id"]) == 26
    elif form == "ndjson":
        assert [orjson.loads(line)["n"] for line in data.splitlines()] == [1, 2]
    elif form == "csv":
        lines = data.decode().splitlines()
        assert lines[0] == "n,s,doc,b,patterns_id"
        assert lines[1].startswith('1,"a ""b""","{""a"":[1]}",,') and lines[2].startswith("2,,,true,")
    else:
        assert pq.read_table(io.BytesIO(data)).column("n").to_pylist() == [1, 2]
    outcome, memory = host.run("read", arguments={"table": "output_table", "format": form})
    assert outcome.kind == "ok", outcome.traceback
    if form == "json":
        assert body(memory) == b"[]"


def test_a_version_by_name(host: Host) -> None:
    host.nodes.app.append("t", {"n": 1})
    fold = host.nodes.app.table("t").fold
    assert fold.active is not None
    name = fold.active.name
    host.nodes.ok("Table('t', 'w').replace([{'n': 2}])")
    for wanted, rows in ((name, b'"n":1'), (None, b'"n":2')):
        _, memory = host.run("read", arguments={"table": "k-t", "version": wanted})
        assert rows in body(memory)
    outcome, _ = host.run("read", arguments={"table": "t", "version": "t_0000000000"})
    assert "no version" in str(outcome.error)


def test_a_warm_worker_runs_a_node_again_and_again(host: Host) -> None:
    """Also where the table changes between runs, which the worker is not told."""
    code = "from patterns import *\nfor row in Table('t').as_stream():\n    Table('output_table', 'w').append(row)\n"
    (host.nodes.folder / "node.py").write_text(code)
    host.nodes.app.append("t", [{"n": n} for n in range(10)])
    outcome, _ = host.run(*["python"] * 6, file="node.py", rows_max=2)
    assert outcome.kind == "ok" and outcome.more == []
    assert [row["n"] for row in host.nodes.rows("output_table")] == list(range(10))
    assert host.scans.count(0) == 2, "the message is read once for its rows, and once to see that there are no more"
    assert outcome.duration_ms >= outcome.loop_ms > 0


def grown(host: Host) -> None:
    host.nodes.app.append("t", {"n": 10})


def widened(host: Host) -> None:
    host.nodes.app.append("t", {"n": 10.5})


def truncated(host: Host) -> None:
    with host.nodes.app.inside(node=""):
        Table("t", "w").truncate()
        Table("t", "w").append({"n": 20})


def replaced(host: Host) -> None:
    with host.nodes.app.inside(node=""):
        Table("t", "w").replace([{"n": 30}])


def one_deleted(host: Host) -> None:
    with host.nodes.app.inside(node=""):
        Table("t", "w").execute_sql("delete from t where n = 5")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (grown, [*range(11)]),
        (widened, [*map(float, range(10)), 10.5]),
        (truncated, [0, 1, 2, 3, 20]),
        (replaced, [0, 1, 2, 3, 30]),
        (one_deleted, [0, 1, 2, 3, 4, 6, 7, 8, 9]),
    ],
)
def test_what_a_run_left_of_a_batch_is_handed_out_only_where_the_table_has_but_grown(
    host: Host, change: Callable[[Host], None], expected: list[float]
) -> None:
    """A warm worker keeps rows that it has parsed; they must be what a worker that starts anew would read."""
    code = "from patterns import *\nfor row in Table('t').as_stream():\n    Table('output_table', 'w').append(row)\n"
    (host.nodes.folder / "node.py").write_text(code)
    host.nodes.app.append("t", [{"n": n} for n in range(10)])
    todo = [change]
    outcome, _ = host.run(
        *["python"] * 4, between=lambda: todo.pop()(host) if todo else None, file="node.py", rows_max=4
    )
    assert outcome.kind == "ok" and outcome.more == []
    assert [row["n"] for row in host.nodes.rows("output_table")] == expected


def test_a_host_that_goes_away_in_a_run_ends_the_worker(host: Host) -> None:
    host.nodes.app.append("t", [{"n": 1}])
    (host.nodes.folder / "node.py").write_text("from patterns import Table\nTable('t').read()\n")
    ours, theirs = socket.socketpair()
    ours.sendall(encode_frame(host.nodes.app.order("node.py").to_json()))
    ours.shutdown(socket.SHUT_WR)
    with ours, theirs:
        serve(theirs, {})
