"""Partitions and parallel slots: where rows go for ever, what graph.yml may say, what a node may and may not do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from node_apps import Nodes

from tailrace.gateway import webhook_problems
from tailrace.graph import App, build_app
from tailrace.runner.deployment import ParallelismError, check_slots, deploy
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.slots import SlotState
from tailrace.tables import RowKey, lane_of, partition_of_key, split_lane

GRAPH = """\
title: Shares
slug: shares
functions:
  - {{webhook: events, id: wh000001{webhook}}}
  - {{node_file: copy.{kind}, id: py000001, parallelism: {slots}}}
stores:
  - {{table: events, id: st000001, partitions: {partitions}{store}}}
  - {{table: copies, id: st000002}}
"""
IMPORT = b"from patterns import State, Table\n"
STREAMS = IMPORT + b'for row in Table("events").as_stream(): Table("copies", "w").append(row)'


def app(
    code: bytes = STREAMS, *, slots: int = 2, partitions: int = 4, store: str = "", webhook: str = "", kind: str = "py"
) -> App:
    graph = GRAPH.format(slots=slots, partitions=partitions, store=store, webhook=webhook, kind=kind)
    return build_app({"graph.yml": graph.encode(), f"copy.{kind}": code}, folder_name="shares")


def told(given: App) -> list[tuple[int, str, str]]:
    problems = (*given.errors, *webhook_problems(given))
    return [(error.line, error.severity, error.message) for error in problems if not error.message.startswith("Table(")]


@pytest.mark.parametrize(
    ("key", "partition"),
    [
        (None, 0),
        ("key-1", 3),
        ("7", 2),
        (7, 2),
        (7.0, 2),
        (Decimal("7.00"), 2),
        (True, 3),
        (date(2026, 1, 2), 1),
        (datetime(2026, 1, 2), 1),
        (datetime(2026, 1, 2, tzinfo=UTC), 1),
        (datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))), 1),
        ({"b": 1, "a": [1, 2]}, 0),
        ({"a": [1, 2], "b": 1}, 0),
    ],
)
def test_a_key_says_its_partition_for_ever(key: Any, partition: int) -> None:
    """Rows that are in the log were dealt by it; and values that are equal in a wider column go together."""
    assert partition_of_key(key, 4) == partition
    assert partition_of_key(key, 1) == 0


def test_a_key_is_a_column_or_a_pointer() -> None:
    assert RowKey("k").of({"k": 1}) == 1 and RowKey("k").is_column
    assert RowKey("/k").is_column and RowKey("a/b").of({"a/b": 3}) == 3
    row = {"record": {"user": {"id~": [5, 6]}}}
    assert RowKey("/record/user/id~0/1").of(row) == 6
    assert RowKey("/record/none/id").of(row) is None and RowKey("/record/user/id~0/x").of(row) is None
    assert [split_lane(lane_of("shares.st000001", number)) for number in (0, 3)] == [
        ("shares.st000001", 0),
        ("shares.st000001", 3),
    ]


@pytest.mark.parametrize(
    ("given", "line", "severity", "message"),
    [
        ({"partitions": 1}, 5, "error", "parallelism shares partitions"),
        (
            {"code": IMPORT + b'Table("copies", "w").append(Table("events").read())'},
            5,
            "error",
            "parallelism is for nodes that stream",
        ),
        (
            {"code": STREAMS + b'\nTable("events", "w").append({})'},
            5,
            "error",
            "its slots would fire each other by events",
        ),
        ({"code": STREAMS + b"; State()"}, 5, "warning", "a State of its own"),
        ({"slots": 9}, 5, "warning", "parallelism 9 is more than the 4 partitions"),
        ({"store": ", storage: none"}, 7, "error", "storage does not apply to a table with several partitions"),
        ({"store": ", partition_key: /a~2"}, 7, "error", 'partition_key "/a~2" is no column'),
        ({"store": ", partition_key: k", "partitions": 1, "slots": 1}, 7, "warning", "does nothing"),
        ({"store": ", partition_key: k"}, 4, "error", "is not this of the posts"),
        ({"store": ", partition_key: /record/k", "webhook": ", partition_key: /other"}, 4, "error", "is not this of"),
        ({"slots": 1000}, 5, "error", "parallelism must be a whole number from 1 to 256"),
    ],
)
def test_what_cannot_be_is_told_with_its_line(given: dict[str, Any], line: int, severity: str, message: str) -> None:
    found = told(app(**given))
    assert any(each[:2] == (line, severity) and message in each[2] for each in found), found


def test_a_parallel_node_has_slots_that_share_the_partitions(tmp_path: Path) -> None:
    given = app(store=", partition_key: /record/k")
    assert told(given) == []
    deployment = deploy(given, tmp_path, RunnerSettings())
    assert deployment.slots_of("py000001") == ["shares/py000001", "shares/py000001~1"]
    reads = {slot: sorted(node.spec.reads) for slot, node in deployment.nodes.items()}
    topic = "shares.st000001"
    assert reads == {"shares/py000001": [topic, f"{topic}/2"], "shares/py000001~1": [f"{topic}/1", f"{topic}/3"]}
    assert {spec.name: spec.partitions for spec in deployment.topics()}[topic] == 4


def test_the_number_of_slots_is_fixed_once_they_have_streamed(tmp_path: Path) -> None:
    """Else a slot would begin a partition anew whose place another one has."""
    deployment = deploy(app(), tmp_path, RunnerSettings())
    place = {"shares.st000001/2": (5, 0)}
    check_slots(deployment, {"shares/py000001": SlotState(places=place, slots=2)})
    check_slots(deployment, {"shares/py000001": SlotState(places={"shares.st000002": (5, 0)}, slots=1)})
    with pytest.raises(ParallelismError, match=r"has streamed with parallelism 1, and graph\.yml asks for 2"):
        check_slots(deployment, {"shares/py000001": SlotState(places=place, slots=1)})


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    nodes = Nodes(tmp_path, "out")
    nodes.app.table("events", partitions=3, partition_key="k")
    return nodes


def test_an_upsert_needs_its_key_to_say_the_partition(nodes: Nodes) -> None:
    """Rows of one key in two partitions: none could tell which came last."""
    run = nodes.run('t = Table("events", "w"); t.init(unique_on=["n"]); t.upsert({"k": 1, "n": 1})')
    assert not run.ok and "Write `partition_key: n` at the store" in str(run.error)
    nodes.ok('t = Table("events", "w"); t.init(unique_on=["k", "n"]); t.upsert([{"k": 1, "n": 1}, {"k": 1, "n": 1}])')
    assert nodes.rows("events") == [{"k": 1, "n": 1}]


def test_frames_are_dealt_by_their_column(nodes: Nodes) -> None:
    nodes.ok(
        """
        import pandas as pd
        import pyarrow as pa
        t = Table("events", "w")
        t.append(pd.DataFrame({"k": [1, 2, None, 4] * 50, "n": range(200)}))
        t.append(pa.table({"k": [float(n % 5) for n in range(1000)], "n": range(1000)}))
        assert t.record_count == 1200
        frame = t.read_dataframe()
        assert sorted(frame["n"]) == sorted([*range(200), *range(1000)])
        """
    )
    for number, lane in enumerate(nodes.app.lanes["events"]):
        found = {row["k"] for row in lane.read()}
        assert {partition_of_key(key, 3) for key in found} <= {number}


def test_rows_without_a_key_take_turns(nodes: Nodes) -> None:
    nodes.app.table("turns", partitions=3)
    nodes.ok('t = Table("turns", "w")\nfor n in range(9): t.append({"n": n})')
    nodes.ok('Table("turns", "w").append([{"n": n} for n in range(300)])')
    assert [len(lane.read()) for lane in nodes.app.lanes["turns"]] == [103, 103, 103]


def test_a_stream_over_partitions_goes_on_where_it_stopped(nodes: Nodes) -> None:
    """Also after a failure, from a seek, and for the record that failed."""
    nodes.app.append("events", [{"k": k, "n": n} for n in range(6) for k in range(5)])
    follow = """
        out = Table("out", "w")
        for row in Table("events").as_stream():
            out.append({"k": row["k"], "n": row["n"]})
        """
    for _ in range(5):
        nodes.ok(follow, rows_max=7)
    rows = nodes.rows("out")
    assert len(rows) == 30
    assert {k: [row["n"] for row in rows if row["k"] == k] for k in range(5)} == {k: list(range(6)) for k in range(5)}
    nodes.app.append("events", [{"k": k, "n": 6} for k in range(5)])
    failing = dedent(follow) + '    if row["k"] == 3: raise ValueError("three")\n'
    nodes.run(failing, node="node.py")
    nodes.ok(follow)
    assert sorted(row["k"] for row in nodes.rows("out")[30:]) == [0, 1, 2, 3, 4]
    (letter,) = nodes.app.dead_letters
    number = partition_of_key(3, 3)
    assert letter.record["k"] == 3 and letter.table == lane_of(nodes.app.table("events").ref.key, number)
    nodes.ok(
        """
        stream = Table("events").as_stream()
        assert list(stream) == []
        stream.rewind()
        ids = [row["patterns_id"] for row in stream]
        assert len(ids) == 35 and ids == sorted(ids)
        stream.seek(ids[20])
        assert [row["patterns_id"] for row in stream] == ids[21:]
        by_n = [row["n"] for row in Table("events").as_stream(order_by="n")]
        assert by_n == sorted(by_n) and len(by_n) == 35
        """
    )
