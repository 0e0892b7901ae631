"""A snapshot and the log after it are the log: whatever happened, wherever the snapshot and the cut lie."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.tables import (
    HIDDEN_ID,
    IdMaker,
    MergedReader,
    Messages,
    Snapshot,
    SnapshotFile,
    SnapshotReader,
    StagedFiles,
    TableFold,
    VersionReader,
    VersionView,
    alike,
    arrow_message,
    joined_view,
    message,
    rows_message,
    webhook_message,
)
from tailrace.tables.schema import RowEncoder, parse_type, rows_to_arrow, to_stored

BORN_MS = 1_700_000_000_000
TOPIC = "shop.orders"
IDS = IdMaker(TOPIC, BORN_MS)
LANES = (IDS, IdMaker(TOPIC, BORN_MS, 1))
MARKERS = {"version", "reset", "back"}
"""They begin and swap versions; in a Table with several partitions they stand in all of them at once."""

# What a field may become, in the order of a lattice: each is wider than the one before.
CHAINS = (
    ("Boolean", "Integer", "Decimal(38, 6)", "Text"),
    ("Integer", "Float", "Text"),
    ("Date", "DateTime", "DateTime(timezone=True)", "Text"),
    ("Time", "Text"),
    ("Json", "Text"),
)
VALUES: dict[str, list[Any]] = {
    "Boolean": [True, False, "maybe"],
    "Integer": [0, 1, 2, 2**53, 2**53 + 1, "x"],
    "Decimal(38, 6)": ["0.5", 1, Decimal("2.25")],
    "Float": [-0.0, 0.0, 0.5, 2, "Infinity"],
    "Text": ["a", "007", "1", "true"],
    "Date": ["2020-01-01", "2020-01-02"],
    "DateTime": ["2020-01-01", "2020-01-01T10:00:00.000001"],
    "DateTime(timezone=True)": ["2020-01-01T10:00:00+01:00", "2020-01-01"],
    "Time": ["10:30:00", "10:30:00.000001"],
    "Json": [{"a": 1}, {"b": 1, "a": 1}, [1], "words"],
}


class Topic:
    """Messages in a list, with gaps between their offsets, which can be trimmed."""

    def __init__(self, messages: list[bytes], tied_ms: int | None = None) -> None:
        self.tied_ms = tied_ms
        self.messages = [(2 * at + at % 2, BORN_MS + at, value) for at, value in enumerate(messages)]
        self.end = self.messages[-1][0] + 1 if messages else 0
        self.log_start = 0

    def fold(self, cut: int) -> TableFold:
        fold = TableFold("orders", self.tied_ms)
        fold.advance([entry for entry in self.messages if entry[0] < cut], cut)
        return fold

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        assert start >= self.log_start, "asked for what is trimmed"
        wanted = [entry for entry in self.messages if start <= entry[0] < stop]
        for at in range(0, len(wanted), 3):
            part = wanted[at : at + 3]
            values = [value for _, _, value in part]
            yield Messages(
                [offset for offset, _, _ in part],
                [ts_ms for _, ts_ms, _ in part],
                [len(value) for value in values],
                b",".join(values),
            )


def rows_of(data: st.DataObject, types: dict[str, str]) -> list[dict[str, Any]]:
    """A few rows of these types, NULLs, misfits and missing values among them."""
    rows = []
    for _ in range(data.draw(st.integers(1, 4))):
        row = {}
        for name, kind in types.items():
            value = data.draw(st.sampled_from([None, *VALUES[kind]]))
            row[name] = str(value) if isinstance(value, Decimal) else value
        rows.append(row if data.draw(st.integers(0, 9)) else {})
    return rows


def history(
    data: st.DataObject, ids: IdMaker = IDS, *, shows_id: bool | None = None, markers: bool = True
) -> list[bytes]:
    """Messages of a table whose fields widen, whose key changes, and that is truncated, replaced and put back."""
    options: dict[str, Any] = {}
    if data.draw(st.booleans()) if shows_id is None else not shows_id:
        options["id"] = None
    head = {"settings": options} if options else {}
    chains = {name: data.draw(st.sampled_from(CHAINS)) for name in data.draw(st.sampled_from(["k", "kn", "kKn"]))}
    places = dict.fromkeys(chains, 0)
    fields = list(chains)[: data.draw(st.integers(1, len(chains)))]
    out: list[bytes] = []
    posts = not options and data.draw(st.integers(0, 5)) == 0
    offsets: list[int] = []

    def types() -> dict[str, str]:
        return {name: chains[name][places[name]] for name in fields}

    for _ in range(data.draw(st.integers(1, 12))):
        at = len(out)
        kind = data.draw(
            st.sampled_from(
                ["rows"] * 8
                + ["upsert"] * 3
                + ["widen"] * 3
                + ["delete"] * 3
                + ["arrow", "key", "truncate", "version", "reset", "back", "field", "signal", "foreign"]
            ).filter(lambda kind: markers or kind not in MARKERS)
        )
        if kind == "widen":
            name = data.draw(st.sampled_from(fields))
            places[name] = min(places[name] + 1, len(chains[name]) - 1)
        elif kind == "field":
            fields = list(chains)[: len(fields) + 1]
        if kind in ("rows", "widen", "field", "upsert", "key"):
            if posts and kind == "rows":
                body = data.draw(st.sampled_from([b'{"a":1},[2]', b'"words"', b'"{\\"a\\":1}"', b"5,null"]))
                own = {} if (key := data.draw(st.sampled_from([None, None, "x", "y"]))) is None else {"id": key}
                out.append(webhook_message({"ts": BORN_MS + at, **own, **head}, body, body.count(b",") + 1))
            else:
                rows = rows_of(data, types())
                extra: dict[str, Any] = dict(head)
                if kind == "upsert":
                    extra["key"] = ["k"]
                elif kind == "key":
                    extra["key"] = data.draw(st.sampled_from([[], ["k"], fields]))
                encoded = RowEncoder({}, grows=False).encode(rows)
                out.append(rows_message({"kind": "rows", "n": len(rows), "fields": types(), **extra}, encoded))
            offsets.append(2 * at + at % 2)
        elif kind == "arrow":
            typed = {name: parse_type(text) for name, text in types().items()}
            rows = [
                {name: value for name, value in row.items() if value not in ("x", "maybe", "words")}
                for row in rows_of(data, types())
            ]
            out.append(arrow_message({"fields": types(), **head}, rows_to_arrow(rows, typed)))
            offsets.append(2 * at + at % 2)
        elif kind == "delete":
            places_ = data.draw(st.lists(st.tuples(st.sampled_from([*offsets, 99]), st.integers(0, 3)), max_size=3))
            out.append(message({"kind": "delete", "ids": [*(ids.id_at(*place) for place in places_), "no id"]}))
        elif kind == "back":
            fold = Topic(out).fold(1 << 30)
            names = list(fold.versions)
            out.append(message({"kind": "activate", "name": data.draw(st.sampled_from(names)) if names else ""}))
        elif kind == "foreign":
            out.append(data.draw(st.sampled_from([b"5", b"{", b'{"kind":"rows","rows":[1,{"k":null}]}'])))
        else:
            out.append(message({"kind": kind, "fields": types(), **head} if kind == "version" else {"kind": kind}))
    return out


def snapshot_of(
    data: st.DataObject, topic: Topic, view: VersionView, position: int, folder: Path, ids: IdMaker = IDS
) -> SnapshotReader:
    """A snapshot of `view`, the version as of `position`: sorted files of any sizes."""
    reader = VersionReader(view, ids, topic, StagedFiles(folder))
    id_column = view.settings.monotonic_id or HIDDEN_ID
    table = reader.table(id_column=id_column)
    stored = to_stored(table, reader.fields, id_column=id_column)
    files = []
    at = 0
    while at < table.num_rows:
        part = stored.slice(at, data.draw(st.integers(1, 4)))
        at += part.num_rows
        path = f"part-{ids.partition}-{at}.parquet"
        pq.write_table(part, folder / path, row_group_size=data.draw(st.integers(1, 3)))
        held = part.column(id_column).to_pylist()
        files.append(SnapshotFile(path, part.num_rows, 1, held[0], held[-1]))
    snapshot = Snapshot(
        version=view.name,
        folder="any",
        delta_version=0,
        position=position,
        fields=reader.fields,
        unique_on=view.settings.unique_on,
        id_column=id_column,
        files=tuple(files),
    )
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    return SnapshotReader(snapshot, folder)


def streamed(reader: VersionReader, place: tuple[int, int]) -> list[tuple[type, dict[str, Any], tuple[int, int]]]:
    return [
        (type(row), row, after)
        for batch in reader.stream(*place)
        for row, after in zip(batch.rows, batch.places, strict=True)
    ]


@given(st.data())
@settings(max_examples=30)
def test_a_snapshot_and_its_tail_are_the_log(data: st.DataObject) -> None:
    """Reads, counts and streams from any place give the same rows, values, ids and places."""
    topic = Topic(history(data))
    cut = data.draw(st.integers(0, topic.end))
    position = data.draw(st.integers(0, cut))
    fold = topic.fold(cut)
    for name, version in fold.versions.items():
        view = VersionView.from_json(version.view(cut).to_json())
        with tempfile.TemporaryDirectory() as temporary:
            then = topic.fold(position).view_of(name)
            folder = Path(temporary)
            past = snapshot_of(data, topic, then, position, folder) if then is not None else None
            unwritten = data.draw(st.sampled_from([None, position, cut]))
            whole = VersionReader(view, IDS, topic, StagedFiles(folder), unwritten_from=unwritten)
            both = VersionReader(
                view, IDS, topic, StagedFiles(folder), unwritten_from=unwritten, snapshot=past, log_start=position
            )
            expected = whole.table(id_column="id")
            stream = streamed(whole, (0, 0))
            rows_max = data.draw(st.integers(1, 5))
            start = data.draw(st.tuples(st.integers(0, cut + 1), st.integers(0, 4)))
            later = [row for chunk in whole.tables(id_column="id", start=start) for row in chunk.to_pylist()]
            if past is None:
                continue
            topic.log_start = position
            try:
                found = both.table(id_column="id")
                assert found.schema.equals(expected.schema, check_metadata=True)
                assert found.to_pylist() == expected.to_pylist()
                for chunk in both.tables(rows_max, columns=list(both.fields)[-1:]):
                    assert chunk.column_names == list(both.fields)[-1:]
                narrow = (
                    [row for chunk in both.tables(rows_max, columns=["k"]) for row in chunk["k"].to_pylist()]
                    if "k" in both.fields
                    else []
                )
                assert narrow == (expected["k"].to_pylist() if "k" in both.fields else [])
                part = [row for chunk in both.tables(id_column="id", start=start) for row in chunk.to_pylist()]
                assert part == later
                assert both.count() == expected.num_rows
                assert streamed(both, (0, 0)) == stream or position == 0
                for at in data.draw(st.sets(st.integers(0, max(len(stream) - 1, 0)), max_size=3)) if stream else ():
                    assert streamed(both, stream[at][2]) == stream[at + 1 :]
            finally:
                topic.log_start = 0


@given(st.data())
@settings(max_examples=20)
def test_lanes_with_snapshots_of_their_own_are_the_table(data: st.DataObject) -> None:
    """Each partition has its cut and its snapshot; the types and the key that tie them are as of the cuts."""
    shows_id = data.draw(st.booleans())
    topics = [Topic(history(data, ids, shows_id=shows_id, markers=False), BORN_MS) for ids in LANES]
    cuts = [data.draw(st.integers(0, topic.end)) for topic in topics]
    positions = [data.draw(st.integers(0, cut)) for cut in cuts]
    views = alike([topic.fold(cut).view(cut) for topic, cut in zip(topics, cuts, strict=True)], cuts)
    whole = joined_view(views)
    if whole is None:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        from_log: list[VersionReader] = []
        from_both: list[VersionReader] = []
        for ids, topic, view, position in zip(LANES, topics, views, positions, strict=True):
            if view is not None:
                then = topic.fold(position).view_of(view.name)
                past = snapshot_of(data, topic, then, position, folder, ids) if then is not None else None
                start = position if past is not None else 0
                from_log.append(VersionReader(view, ids, topic, StagedFiles(folder)))
                from_both.append(VersionReader(view, ids, topic, StagedFiles(folder), snapshot=past, log_start=start))
        expected = MergedReader(whole, from_log).table(id_column="id")
        for topic, view, position in zip(topics, views, positions, strict=True):
            if view is not None and topic.fold(position).view_of(view.name) is not None:
                topic.log_start = position
        found = MergedReader(whole, from_both).table(id_column="id")
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert found.to_pylist() == expected.to_pylist()
        assert found["id"].to_pylist() == sorted(set(found["id"].to_pylist()))
