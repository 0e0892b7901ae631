"""`backup`, `restore` and `migrate` of a deployment that lives: rows once, positions and ids as they were."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from s3_server import BUCKET, S3Server, find_server

from tailrace.backup import ArchiveDamagedError, ArchiveFormatError, Progress, check_archive, write_archive
from tailrace.cli.client import Client
from tailrace.lake import LakeLocation, LakeObjects
from tailrace.log import NewRecord, Partition, TopicSpec, open_log
from tailrace.runtime import SYSTEM
from tailrace.testing.kafka import LocalKafka
from up_process import UpProcess, tailrace, up, write_app

GRAPH = """\
title: Shop
slug: shop
functions:
  - {webhook: orders, id: webhook1}
  - {node_file: total.py, id: totalpy1, inputs: {orders: orders}, outputs: {totals: totals}}
stores:
  - {table: orders, id: storeord, freshness: 1s}
  - {table: totals, id: storetot}
"""
TOTAL = """\
from patterns import State, Table

orders, totals, state = Table("orders"), Table("totals", "w"), State()
for row in orders.as_stream():
    total = state.get_value("total", 0) + row["number"]
    state.set_value("total", total)
    totals.append({"number": row["number"], "total": total})
"""

pytestmark = pytest.mark.timeout(240)


def post(process: UpProcess, *numbers: int) -> None:
    for number in numbers:
        requests.post(process.webhooks["orders"], json={"number": number}, timeout=30).raise_for_status()


def totals(process: UpProcess, count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = process.until(lambda: process.rows("totals"), wanted=lambda rows: len(rows) >= count)
    return rows


def in_lake(process: UpProcess, rows: int) -> None:
    def asked() -> int:
        return int(
            next(each["rows"] for each in Client(process.data_dir).get("lake")["tables"] if each["table"] == "orders")
        )

    process.until(asked, wanted=lambda found: found >= rows)


def test_a_deployment_comes_back_from_its_backup(tmp_path: Path) -> None:
    """Taken while everything runs, put into another folder: State goes on, no row is there twice, ids are the same."""
    app = write_app(tmp_path / "shop", GRAPH, total__py=TOTAL)
    backup = tmp_path / "shop.backup"
    with up(tmp_path / "data", app) as process:
        post(process, 1, 2, 3)
        before = totals(process, 3)
        in_lake(process, 3)
        ids = [row["patterns_id"] for row in process.rows("orders")]
        made = tailrace("backup", backup, "--data", tmp_path / "data", "--json", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["bytes"] == backup.stat().st_size
        post(process, 100)
        totals(process, 4)
    sound = tailrace("restore", backup, "--check", cwd=tmp_path)
    assert (sound.returncode, "is sound" in sound.stderr) == (0, True)
    again = tmp_path / "again"
    killed = tailrace("restore", backup, "--data", again, cwd=tmp_path, TAILRACE_KILL_AT="restore-filled")
    assert killed.returncode == -9
    done = tailrace("restore", backup, "--data", again, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with up(again, app) as process:
        assert [row["patterns_id"] for row in process.rows("orders")] == ids
        assert process.rows("totals") == before
        post(process, 4)
        assert [row["total"] for row in totals(process, 4)] == [1, 3, 6, 10]
        in_lake(process, 4)
    refused = tailrace("restore", backup, "--data", again, cwd=tmp_path)
    assert refused.returncode == 1
    assert "is not empty" in refused.stderr


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    program = find_server()
    if program is None:
        pytest.skip("the S3 server could not be built (that takes go and a network)")
    server = S3Server(program, tmp_path / "s3")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.start()
    yield server
    server.stop()


def test_a_lake_in_an_object_store_comes_along_or_stays_where_it_is(tmp_path: Path, s3: S3Server) -> None:
    """Its objects are in the backup and in the lake that it is restored into; or, `--without-lake`, in neither, and what was
    restored reads them where they are."""
    app = write_app(tmp_path / "shop", GRAPH, total__py=TOTAL)
    first, second = f"s3://{BUCKET}/first", f"s3://{BUCKET}/second"

    def objects(lake: str) -> dict[str, int]:
        return LakeObjects(LakeLocation.parse(lake)).sizes()

    with up(tmp_path / "data", app, arguments=("--lake", first)) as process:
        post(process, 1, 2, 3)
        before = totals(process, 3)
        in_lake(process, 3)
        ids = [row["patterns_id"] for row in process.rows("orders")]
    there = objects(first)
    assert any(path.endswith(".parquet") for path in there)
    made = {}
    for name, more in (("whole", ()), ("log", ("--without-lake",))):
        done = tailrace(
            "backup", tmp_path / name, "--data", tmp_path / "data", "--lake", first, "--json", *more, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        made[name] = json.loads(done.stdout)
    assert made["whole"]["files"] - made["log"]["files"] == len(there)
    for name, lake, more in (("whole", second, ()), ("log", first, ("--without-lake",))):
        data = tmp_path / f"again-{name}"
        done = tailrace("restore", tmp_path / name, "--data", data, "--lake", lake, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert objects(lake) == there
        with up(data, app, arguments=("--lake", lake)) as process:
            assert [row["patterns_id"] for row in process.rows("orders")] == ids
            assert process.rows("totals") == before
            post(process, 4)
            assert [row["total"] for row in totals(process, 4)] == [1, 3, 6, 10]
            in_lake(process, 4)
    taken = tailrace("restore", tmp_path / "whole", "--data", tmp_path / "third", "--lake", second, cwd=tmp_path)
    assert (taken.returncode, "is not empty" in taken.stderr) == (1, True)


def test_a_backup_that_was_touched_is_refused(tmp_path: Path) -> None:
    """Wherever it is cut off, and wherever a bit turns that says anything: nothing is restored from it."""
    data, backup = tmp_path / "data", tmp_path / "a.backup"
    log = open_log(f"sqlite://{data}/tailrace.db")
    log.create_topics([TopicSpec("shop.orders")])
    log.append(Partition("shop.orders"), [NewRecord(b"row %d" % number) for number in range(500)])
    write_archive(log, {}, backup, head=("1", "here"), runtime=SYSTEM, progress=Progress())
    log.close()
    whole = backup.read_bytes()
    assert check_archive(backup, Progress()).records == 500
    for at in range(0, len(whole), max(len(whole) // 15, 1)):
        backup.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with contextlib.suppress(ArchiveDamagedError, ArchiveFormatError):
            assert check_archive(backup, Progress()).records == 500  # a bit of zstd's own that says nothing
        backup.write_bytes(whole[:at])
        with pytest.raises((ArchiveDamagedError, ArchiveFormatError)):
            check_archive(backup, Progress())
    failed = tailrace("restore", backup, "--data", tmp_path / "again", cwd=tmp_path)
    assert failed.returncode == 1
    assert "is damaged" in failed.stderr
    assert not (tmp_path / "again" / "tailrace.db").exists()


@pytest.fixture
def own_broker() -> Iterator[LocalKafka]:
    with LocalKafka() as broker:
        yield broker


@pytest.mark.kafka
def test_a_deployment_moves_to_kafka_and_back(tmp_path: Path, own_broker: LocalKafka) -> None:
    """Streams go on where they stood, with the lake that they had, on both logs."""
    app, data = write_app(tmp_path / "shop", GRAPH, total__py=TOTAL), tmp_path / "data"
    embedded = f"sqlite://{data}/tailrace.db"
    with up(data, app) as process:
        post(process, 1, 2, 3)
        totals(process, 3)
        in_lake(process, 3)
        ids = [row["patterns_id"] for row in process.rows("orders")]
    dry = tailrace("migrate", embedded, own_broker.url, "--dry-run", cwd=tmp_path)
    assert (dry.returncode, "nothing was copied" in dry.stderr) == (0, True)
    moved = tailrace("migrate", embedded, own_broker.url, cwd=tmp_path)
    assert moved.returncode == 0, moved.stderr
    (data / "tailrace.db").rename(tmp_path / "old.db")
    for beside in data.glob("tailrace.db-*"):
        shutil.rmtree(beside) if beside.is_dir() else beside.unlink()
    with up(data, app, log=own_broker.url) as process:
        assert [row["patterns_id"] for row in process.rows("orders")] == ids
        post(process, 4)
        assert [row["total"] for row in totals(process, 4)] == [1, 3, 6, 10]
        in_lake(process, 4)
        ids = [row["patterns_id"] for row in process.rows("orders")]
    back = tailrace("migrate", own_broker.url, embedded, cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    with up(data, app) as process:
        assert [row["patterns_id"] for row in process.rows("orders")] == ids
        post(process, 5)
        assert [row["total"] for row in totals(process, 5)] == [1, 3, 6, 10, 15]
