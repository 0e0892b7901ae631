"""The newest part of a Table as the host keeps it: folded on, pinned, and handed out from memory where it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.runner import RunnerSettings
from tailrace.runner.tails import TableTail
from tailrace.tables import webhook_message

ORDERS = Partition("orders")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    log.create_topics([TopicSpec(ORDERS.topic)])
    yield log
    log.close()


class Calls:
    """Runs calls of the log in threads, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, function: Callable[[], Any]) -> Any:
        self.count += 1
        return await asyncio.to_thread(function)


def put(log: Log, count: int) -> None:
    start = log.ends([ORDERS])[ORDERS]
    for number in range(start, start + count):
        log.append(ORDERS, [NewRecord(webhook_message({"ts": 1_700_000_000_000}, b'{"n":%d}' % number, 1))])


def tail_of(log: Log, calls: Calls, **settings: int) -> TableTail:
    return TableTail(log, log.topics()[ORDERS.topic], "orders", RunnerSettings(**settings), calls)


async def test_scans_give_each_record_once_whatever_is_in_memory(log: Log) -> None:
    """Pieces are joined, cut and dropped as they grow; no reader may notice."""
    calls = Calls()
    tail = tail_of(log, calls, scan_records_max=7, tail_bytes_max=5_000)
    for some in (1, 2, 10, 3, 20):
        put(log, some)
        assert await tail.advance()
    for records_max in (1, 3, 5, 100):
        at, found = 0, []
        while at < 36:
            batch = await tail.scan(at, 34, records_max)
            found += batch.messages.offsets
            assert len(batch.messages.offsets) <= min(records_max, 7)
            if batch.next <= at:
                break
            at = batch.next
        assert found == list(range(34))


async def test_one_change_of_threads_sees_what_is_new(log: Log) -> None:
    """A record on its way through a stream waits for each of them."""
    calls = Calls()
    tail = tail_of(log, calls)
    put(log, 1)
    assert await tail.advance()
    pin = await tail.pin()
    batch = await tail.scan(0, pin.cut, 100)
    assert (pin.cut, len(batch.messages.offsets), calls.count) == (1, 1, 1)
    assert pin.view is not None and pin.view.appended == 1


async def test_advancing_stops_where_it_is_told(log: Log) -> None:
    """A run over a long backlog begins before all of it was looked at."""
    put(log, 20)
    tail = tail_of(log, Calls(), scan_records_max=5)
    assert not await tail.advance(until=8)
    assert tail.fold.position == 10
    assert await tail.advance()
    assert tail.fold.position == 20


async def test_a_pin_does_not_wait_for_the_fold(log: Log) -> None:
    """A run begins while its table is read ahead: it reads what was looked at so far."""
    put(log, 10)
    tail = tail_of(log, Calls(), scan_records_max=5)
    await tail.advance(until=5)
    with tail._folding:  # a step is at work
        pin = await asyncio.wait_for(tail.pin(), 5)
    assert pin.cut == 5


async def test_a_step_whose_waiter_is_gone_counts_once(log: Log) -> None:
    """A discarded run leaves its read going on in a thread; the next one begins at the same place."""
    put(log, 5)
    began, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Slow(Calls):
        async def __call__(self, function: Callable[[], Any]) -> Any:
            if self.count == 0:
                self.count += 1
                late.append(loop.run_in_executor(None, function))
                began.set()
                await go_on.wait()
            return await asyncio.to_thread(function)

    late: list[asyncio.Future[Any]] = []
    tail = tail_of(log, Slow())
    first = asyncio.create_task(tail.advance())
    await began.wait()
    first.cancel()
    await asyncio.wait([first])
    assert await tail.advance()
    await late[0]
    view = (await tail.pin()).view
    assert view is not None and view.appended == 5
    assert (await tail.scan(0, 5, 10)).messages.offsets == [0, 1, 2, 3, 4]
