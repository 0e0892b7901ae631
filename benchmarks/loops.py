"""What we are compared with: the same work written by hand, without any of our code.

Their settings are fixed here: a baseline that moves proves nothing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

__all__ = ["KAFKA_LOOP_RECORDS", "SQLITE_LOOP_RECORDS", "kafka_loop", "sqlite_loop"]

SQLITE_LOOP_RECORDS = 1_000
KAFKA_LOOP_RECORDS = 10_000

_PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 5,
    "batch.size": 1 << 20,
    "compression.type": "none",
    "queue.buffering.max.messages": 1_000_000,
    # With the default of 100 ms each transaction that sends offsets takes 105 ms.
    "retry.backoff.ms": 1,
    "retry.backoff.max.ms": 20,
}
_CONSUMER = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "fetch.min.bytes": 1,
    "queued.min.messages": 100_000,
    "fetch.max.bytes": 50 << 20,
    "max.partition.fetch.bytes": 10 << 20,
}


def _change(value: bytes) -> list[bytes]:
    changed = []
    for row in orjson.loads(value)["rows"]:
        row["total"] = row["price"] * row["quantity"]
        changed.append(orjson.dumps(row))
    return changed


def sqlite_loop(path: Path, values: Sequence[bytes]) -> tuple[float, list[Any]]:
    """Seconds for all values through a consume/change/write loop, `SQLITE_LOOP_RECORDS` a transaction, and the rows.

    Durable (WAL, synchronous=FULL), exactly once (the place is in the same transaction).
    """
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE input (id INTEGER PRIMARY KEY, value BLOB)")
    connection.execute("CREATE TABLE output (id INTEGER PRIMARY KEY, value BLOB)")
    connection.execute("CREATE TABLE place (one INTEGER PRIMARY KEY, id INTEGER)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO input (value) VALUES (?)", ((value,) for value in values))
    connection.execute("INSERT INTO place VALUES (1, 0)")
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    began_s = time.perf_counter()
    (place,) = connection.execute("SELECT id FROM place").fetchone()
    while True:
        found = connection.execute(
            "SELECT id, value FROM input WHERE id > ? ORDER BY id LIMIT ?", (place, SQLITE_LOOP_RECORDS)
        ).fetchall()
        if not found:
            break
        place = found[-1][0]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO output (value) VALUES (?)", [(row,) for _, value in found for row in _change(value)]
        )
        connection.execute("UPDATE place SET id = ?", (place,))
        connection.execute("COMMIT")
    took_s = time.perf_counter() - began_s
    rows = [orjson.loads(value) for (value,) in connection.execute("SELECT value FROM output ORDER BY id")]
    connection.close()
    return took_s, rows


def kafka_loop(servers: str, source: str, target: str, count: int) -> float:
    """Seconds for `count` records of `source` through a consume/change/produce loop into `target`.

    Exactly once: outputs and the group's offsets in transactions of `KAFKA_LOOP_RECORDS`.
    """
    from confluent_kafka import Consumer, Producer, TopicPartition

    producer = Producer({"bootstrap.servers": servers, "transactional.id": f"{target}-loop", **_PRODUCER})
    producer.init_transactions(30)
    consumer = Consumer({"bootstrap.servers": servers, "group.id": f"{target}-loop", **_CONSUMER})
    consumer.assign([TopicPartition(source, 0, 0)])
    group = consumer.consumer_group_metadata()
    done = 0
    began_s = time.perf_counter()
    while done < count:
        records: list[Any] = []
        while len(records) < min(KAFKA_LOOP_RECORDS, count - done):
            records += consumer.consume(min(KAFKA_LOOP_RECORDS, count - done) - len(records), 1.0)
        producer.begin_transaction()
        out = [{"value": row} for record in records for row in _change(record.value())]
        assert producer.produce_batch(target, out) == len(out)
        last: Any = records[-1]
        producer.send_offsets_to_transaction([TopicPartition(source, 0, last.offset() + 1)], group)
        producer.commit_transaction(30)
        done += len(records)
    took_s = time.perf_counter() - began_s
    consumer.close()
    return took_s
