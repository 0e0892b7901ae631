"""Lakes in an object store, on a real S3 server: the same rows, rivals fenced, and errors that can be waited out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from s3_server import BUCKET, S3Server
from table_reading import LogSource, fold_topic

from tailrace.lake import (
    LakeLimits,
    LakeLocation,
    LakeUnavailableError,
    Snapshotted,
    TopicSource,
    VersionTable,
    compact,
    rebuild_fold,
    snapshot_version,
    tidy,
)
from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.tables import IdMaker, StagedFiles, TableFold, VersionReader, rows_message

pytestmark = pytest.mark.timeout(900)  # the server may have to be built first

ORDERS = Partition("shop.orders")
LIMITS = LakeLimits(files_joined_min=2, checkpoint_every=2, commits_kept=4, removed_kept=timedelta(0))


class Shop:
    """A log with one table, of which one partition is written to, and its lake in a place of its own in the bucket."""

    def __init__(self, log: Log, lane: int | None) -> None:
        self.log, self.lane = log, lane
        self.partition = Partition(ORDERS.topic, lane or 0)
        self.lake = LakeLocation.parse(f"s3://{BUCKET}/{secrets.token_hex(4)}/lake/")
        log.create_topics([TopicSpec(ORDERS.topic, 1 if lane is None else 2)])
        self.born_ms = log.topics()[ORDERS.topic].born_ms

    def rows(self, *rows: dict[str, Any], **head: Any) -> None:
        full = {"kind": "rows", "n": len(rows), "fields": {"k": "Integer", "v": "Text"}, **head}
        self.log.append(self.partition, [NewRecord(rows_message(full, orjson.dumps(rows)))])

    def fold(self) -> TableFold:
        tied_ms = None if self.lane is None else self.born_ms
        return fold_topic(self.log, self.partition, TableFold(ORDERS.topic, tied_ms))

    def snapshot(self) -> Snapshotted:
        fold = self.fold()
        assert fold.active is not None
        messages, files = LogSource(self.log, self.partition), StagedFiles(Path("/nowhere"))
        source = TopicSource(ORDERS.topic, self.born_ms, messages, files, 0, self.lane)
        return snapshot_version(self.lake, source, fold, fold.active.name, limits=LIMITS)

    def check(self, table: VersionTable) -> None:
        """The Delta table, read as others read it, holds what the fold says."""
        view, ids = self.fold().view(), IdMaker(ORDERS.topic, self.born_ms, self.lane or 0)
        assert view is not None
        reader = VersionReader(view, ids, LogSource(self.log, self.partition), StagedFiles(Path("/nowhere")))
        delta = DeltaTable(self.lake.uri(table.folder), storage_options=self.lake.storage_options)
        rows = sorted(pa.table(delta.to_pyarrow_table()).to_pylist(), key=lambda row: row["patterns_id"])
        assert rows == reader.table(id_column="patterns_id").to_pylist()


@pytest.fixture(params=[None, 1], ids=["the only partition", "one of several"])
def shop(s3: S3Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    yield Shop(log, request.param)
    log.close()


def test_a_lake_in_an_object_store_is_as_one_in_a_folder(shop: Shop, tmp_path: Path) -> None:
    """Every kind of step, upkeep, and what is rebuilt from it."""
    shop.rows({"k": 1, "v": "a"}, {"k": 2, "v": "b"})
    assert shop.lake.folders(ORDERS.topic, shop.lane) == []
    kinds = [shop.snapshot().kind]
    shop.rows({"k": 3, "w": "10:30:00"}, fields={"k": "Integer", "w": "Time"})
    kinds.append(shop.snapshot().kind)
    shop.rows({"k": 3, "v": "c"}, key=["k"])
    kinds.append(shop.snapshot().kind)
    shop.rows({"k": 1, "v": "d"})
    kinds.append(shop.snapshot().kind)
    shop.rows({"k": 1.5, "v": "e"}, fields={"k": "Float", "v": "Text"})
    done = shop.snapshot()
    kinds.append(done.kind)
    assert kinds == ["rewrite", "append", "rewrite", "merge", "rewrite"]
    shop.check(done.table)
    shop.rows({"k": 7, "v": "f"})
    done = shop.snapshot()
    assert compact(done.table, limits=LIMITS) == 2
    tidied = tidy(done.table, limits=LIMITS)
    assert tidied.checkpoint and tidied.files_deleted > 0
    shop.check(done.table)
    fold, snapshots = rebuild_fold(shop.lake, ORDERS.topic, shop.lane)
    assert fold.to_json() == shop.fold().to_json()
    file = snapshots[0].files[0]
    shop.lake.fetch(snapshots[0].folder, file.path, tmp_path / "file")
    assert (tmp_path / "file").stat().st_size == file.size_bytes


def test_rivals_on_an_object_store_write_each_row_once(shop: Shop) -> None:
    """Each of them makes the same steps at the same time; conditional puts let one of them through."""
    for number in range(4):
        shop.rows({"k": number}, {"k": number + 1}, **({"key": ["k"]} if number == 2 else {}))
        with ThreadPoolExecutor(3) as pool:
            found = [each.result() for each in [pool.submit(shop.snapshot) for _ in range(3)]]
        assert sorted(each.kind == "nothing" for each in found) == [False, True, True]
        shop.check(found[0].table)


def test_wrong_credentials_name_the_table_and_can_be_mended(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.rows({"k": 1})
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(LakeUnavailableError, match=r"shop/orders_.*SignatureDoesNotMatch.*credentials"):
            shop.snapshot()
    shop.check(shop.snapshot().table)


def test_a_store_that_is_away_for_a_while(shop: Shop, s3: S3Server) -> None:
    """Nothing is lost, and the next step catches up."""
    shop.rows({"k": 1})
    shop.snapshot()
    shop.rows({"k": 2})
    s3.stop()
    try:
        with pytest.raises(LakeUnavailableError, match="shop/orders_"):
            shop.snapshot()
    finally:
        s3.start()
    shop.check(shop.snapshot().table)
