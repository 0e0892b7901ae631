"""A transaction that a host left open when it died holds nobody up who comes after it: Kafka hides what comes behind it, and
whoever waits for it to end must have it ended first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from tailrace.control import place_files
from tailrace.engine import shard_of
from tailrace.graph import App, build_app
from tailrace.log import Log, LogLimits, open_log
from tailrace.log.kafka._unmarked import transactional_id
from tailrace.runner import Host, RunnerSettings, deploy
from tailrace.runner.shards import writer_name
from tailrace.runner.slots import state_topic
from tailrace.runtime import SYSTEM
from tailrace.tables import index_topic
from tailrace.testing.kafka import LocalKafka

SETTINGS = RunnerSettings(shards=32)
NODES = {f"lcount{number:02}": f"count{number}.py" for number in range(24)}
"""So many that their shards are more than a host has threads for one purpose."""
SHARDS = {shard_of(f"leftopen/{node}", SETTINGS.shards) for node in NODES}

LINES = "\n".join(f"  - {{node_file: {file}, id: {node}}}" for node, file in NODES.items())
GRAPH = f"""
slug: leftopen
functions:
{LINES}
stores:
  - {{table: counts, id: lcounts1, partitions: 2, partition_key: n}}
"""
COUNT = """
from patterns import State, Table
state = State()
state.set_value("n", state.get_value("n", 0) + 1)
Table("counts", "w").append({"n": state.get_value("n")})
"""


@asynccontextmanager
async def hosting(log: Log, folder: Path, app: App) -> AsyncIterator[Host]:
    host = Host(log, data_dir=folder / "data", runtime=SYSTEM, settings=SETTINGS)
    await host.start()
    try:
        await host.prepare([app])
        await host.deploy([deploy(app, place_files(app, folder / "apps"), SETTINGS)])
        yield host
    finally:
        await host.stop()


async def until_each_has_counted(host: Host, n: int) -> None:
    query = {"sql": f"select count(*) from counts where n = {n}"}
    found = None
    while found != len(NODES):
        await asyncio.sleep(0.05)
        answer = orjson.loads(b"".join([piece async for piece in host.ask("leftopen", "query", query)]))
        found = answer["rows"][0][0]


def leave_open(kafka: LocalKafka, writer: str, *topics: str) -> Producer:
    """A transaction of a writer that nobody ends until its name is opened again; the broker would after ten minutes."""
    dead = Producer(
        {
            "bootstrap.servers": kafka.address,
            "transactional.id": transactional_id(writer),
            "transaction.timeout.ms": 600_000,
        }
    )
    dead.init_transactions(30)
    dead.begin_transaction()
    for topic in topics:
        dead.produce(topic, b"left open", b"left open", partition=0)
    dead.flush(30)
    return dead


@pytest.mark.kafka
@pytest.mark.timeout(180)
async def test_a_new_host_goes_on_at_once(tmp_path: Path, kafka_broker: LocalKafka) -> None:
    """Wherever each of its shards' writers stood."""
    app = build_app({"graph.yml": GRAPH.encode(), **{file: COUNT.encode() for file in NODES.values()}})
    for_ever = LogLimits(transaction_timeout=timedelta(minutes=10))
    with closing(open_log(kafka_broker.url, limits=for_ever)) as log:
        async with hosting(log, tmp_path / "first", app) as host:
            await until_each_has_counted(host, 1)
        topics = state_topic("leftopen"), index_topic("leftopen")
        dead = [leave_open(kafka_broker, writer_name(shard), *topics) for shard in SHARDS]
        assert len(dead) > 8
        async with asyncio.timeout(90), hosting(log, tmp_path / "second", app) as host:
            for node in NODES:
                await host.trigger("leftopen", node)
            await until_each_has_counted(host, 2)
        del dead
