"""Group commit in one event loop: who writes together, and what an appender tells of where records went."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping

import pytest

from tailrace.log import LogLimits, NewRecord, Offset, OffsetRange, Partition, Wrote, group_commit
from tailrace.log.group_commit import GroupAppender, Outcome

ONE, TWO = Partition("one"), Partition("two")


class Written:
    """A log that notes its groups."""

    def __init__(self, *, apart: bool = False, disk_s: float = 0.0) -> None:
        self.groups: list[Mapping[Partition, list[NewRecord]]] = []
        self.ends = dict.fromkeys((ONE, TWO), 0)
        self._apart = apart
        """Whether somebody else writes into the middle of each group."""
        self._disk_s = disk_s

    def __call__(self, group: Mapping[Partition, list[NewRecord]]) -> dict[Partition, Outcome]:
        self.groups.append(group)
        time.sleep(self._disk_s)
        outcomes: dict[Partition, Outcome] = {}
        for partition, records in group.items():
            start = self.ends[partition]
            self.ends[partition] = start + len(records) + self._apart
            outcomes[partition] = OffsetRange(Offset(start), Offset(self.ends[partition]))
        return outcomes

    def sizes(self) -> list[int]:
        return [sum(map(len, group.values())) for group in self.groups]


@contextlib.asynccontextmanager
async def appender(write: Written, wrote: Wrote | None = None) -> AsyncIterator[GroupAppender]:
    appender = GroupAppender("memory://", LogLimits(), write, lambda: None, wrote)
    yield appender
    await appender.close()


async def test_those_who_post_again_write_together() -> None:
    """Halves that take turns would have thread and loop wait for each other all the time."""
    log = Written(disk_s=0.002)
    over = asyncio.Event()

    async def caller(to: GroupAppender) -> None:
        while not over.is_set():
            await to.append(ONE, NewRecord(b"x"))

    async with appender(log) as to, asyncio.timeout(30):
        callers = [asyncio.create_task(caller(to)) for _ in range(32)]
        while not log.groups:  # the others come while these are written
            await asyncio.sleep(0)
        callers += [asyncio.create_task(caller(to)) for _ in range(32)]
        while log.sizes()[-20:].count(64) < 15:
            await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*callers)


async def test_who_posts_alone_does_not_wait() -> None:
    log = Written()
    async with appender(log) as to:
        for number in range(5):
            appending = asyncio.ensure_future(to.append(ONE, NewRecord(b"%d" % number)))
            await asyncio.sleep(0)
            assert to._is_writing and to._gathering is None
            await appending
    assert log.sizes() == [1] * 5


async def test_a_group_closes_without_those_who_went_away() -> None:
    """Who was answered need not come back: a moment later the rest are written."""
    log = Written()
    async with appender(log) as to, asyncio.timeout(30):
        await asyncio.gather(*(to.append(ONE, NewRecord(b"x")) for _ in range(50)))
        await asyncio.gather(*(to.append(ONE, NewRecord(b"y")) for _ in range(3)))
    assert log.sizes() == [50, 3]


async def test_closing_writes_what_is_gathering() -> None:
    log = Written()
    async with appender(log) as to:
        await asyncio.gather(*(to.append(ONE, NewRecord(b"x")) for _ in range(9)))
        last = asyncio.ensure_future(to.append(ONE, NewRecord(b"y")))
        await asyncio.sleep(0)
        await to.close()
        await last
    assert sum(log.sizes()) == 10


async def test_a_group_is_no_larger_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over it goes with the next one, in order."""
    monkeypatch.setattr(group_commit, "GROUP_BYTES_MAX", 10)
    log = Written()
    async with appender(log) as to, asyncio.timeout(30):
        await asyncio.gather(*(to.append(ONE, NewRecord(b"%04d" % number)) for number in range(7)))
    assert log.sizes() == [2, 2, 2, 1]
    assert [record.value for group in log.groups for record in group[ONE]] == [b"%04d" % n for n in range(7)]


@pytest.mark.parametrize("apart", [False, True])
async def test_an_appender_tells_where_its_records_are(apart: bool) -> None:
    """Not where somebody else's lie between them: those must be read."""
    told: list[tuple[Partition, int, int]] = []
    log = Written(apart=apart)
    async with appender(log, lambda partition, offsets: told.append((partition, *offsets))) as to:
        await asyncio.gather(*(to.append(partition, NewRecord(b"x")) for partition in (ONE, TWO, ONE)))
        await to.append(TWO, NewRecord(b"y"))
    assert told == ([] if apart else [(ONE, 0, 2), (TWO, 0, 1), (TWO, 1, 2)])
