"""An object store that answers with errors and time-outs in the middle of things: every row is in Delta once."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from s3_faults import FAULTS, S3Faults
from s3_server import BUCKET, S3Server
from table_reading import LogSource, fold_topic, reader_of

from tailrace.errors import RetriableError
from tailrace.lake import LakeLimits, LakeLocation, TopicSource, VersionTable, compact, snapshot_version, tidy
from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.tables import StagedFiles, rows_message

pytestmark = pytest.mark.timeout(900)  # the server may have to be built first

ORDERS = Partition("shop.orders")
LIMITS = LakeLimits(files_joined_min=2, checkpoint_every=2, commits_kept=4, removed_kept=timedelta(0))
TRIES_MAX = 20


class Shop:
    """A log with one table, and its lake behind a proxy that fails."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.lake = LakeLocation.parse(f"s3://{BUCKET}/{secrets.token_hex(4)}")
        self.born_ms = log.create_topics([TopicSpec(ORDERS.topic)])[ORDERS.topic].born_ms
        self.table: VersionTable | None = None
        self.failures = 0

    def rows(self, *rows: dict[str, Any], **head: Any) -> None:
        full = {"kind": "rows", "n": len(rows), "fields": {"k": "Integer", "v": "Text"}, **head}
        self.log.append(ORDERS, [NewRecord(rows_message(full, orjson.dumps(rows)))])

    def step(self) -> None:
        """A snapshot and upkeep, tried again as the snapshotter does, with what it has open or anew."""
        fold = fold_topic(self.log, ORDERS)
        assert fold.active is not None
        source = TopicSource(ORDERS.topic, self.born_ms, LogSource(self.log, ORDERS), StagedFiles(Path("/nowhere")))
        for _ in range(TRIES_MAX):
            try:
                done = snapshot_version(self.lake, source, fold, fold.active.name, table=self.table, limits=LIMITS)
                self.table = done.table
                compact(self.table, limits=LIMITS)
                tidy(self.table, limits=LIMITS)
                return
            except RetriableError:
                self.failures += 1
                self.table = None
        raise AssertionError("the step does not come to an end")

    def check(self) -> None:
        """The Delta table, read as others read it, holds what the fold says."""
        reader = reader_of(self.log, ORDERS, fold_topic(self.log, ORDERS))
        assert reader is not None and self.table is not None
        delta = DeltaTable(self.lake.uri(self.table.folder), storage_options=self.lake.storage_options)
        rows = sorted(pa.table(delta.to_pyarrow_table()).to_pylist(), key=lambda row: row["patterns_id"])
        assert rows == reader.table(id_column="patterns_id").to_pylist()


@pytest.fixture
def faults(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Faults]:
    faults = S3Faults(s3.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{faults.port}")
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    yield faults
    faults.close()


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.chaos), pytest.param(3, marks=pytest.mark.chaos)]
)
def test_each_kind_of_fault_in_each_kind_of_step(
    faults: S3Faults, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """New, appended, keyed, merged and widened; one answer that is lost, and so many that the client gives up."""
    long = request.node.get_closest_marker("chaos") is not None
    chance = random.Random(seed)
    kinds: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"k": 1, "v": "a"}, {}),
        ({"k": 2, "v": "b"}, {}),
        ({"k": 2, "w": True}, {"fields": {"k": "Integer", "w": "Boolean"}}),
        ({"k": 3, "v": "c"}, {"key": ["k"]}),
        ({"k": 2, "v": "d"}, {}),
        ({"k": 1.5, "v": "e"}, {"fields": {"k": "Float", "v": "Text"}}),
        ({"k": 1, "v": "f"}, {}),
    ]
    for fault in FAULTS if long else [chance.choice(FAULTS[:6]), "hang after"]:
        log = open_log(f"sqlite:///{tmp_path}/{fault.replace(' ', '-')}.db")
        shop = Shop(log)
        for number, (row, head) in enumerate(kinds if long else kinds[1:6]):
            shop.rows(row, **head)
            first = chance.randrange(4)
            many = chance.random() < 0.5 if long else number == 3 and not fault.startswith("hang")
            faults.plan(fault, set(range(first, first + (6 if many else 1))))
            shop.step()
            faults.plan("", set())
            shop.check()
        log.close()
    assert faults.struck > 5
