"""Posts that come again: which ids were taken already, from the log itself.

A message carries its post's id in its head. What a gateway knows of ids is a fold over the tails of the topics: it is
read back at the start, and followed while posts come, so that restarts forget nothing and several gateways learn from
each other within a second. An id that two gateways take within that second makes two messages; both carry it, and
readers leave the second one out (`tailrace.tables.fold`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from tailrace.errors import RejectedError, TailraceError
from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.pointers import find, is_pointer
from tailrace.gateway.schemes import Provider, Source
from tailrace.log import Log, Offset, OffsetRange, Partition, Watch, scan
from tailrace.runtime import Clock
from tailrace.tables import SeenIds, split_head

__all__ = ["Repeats", "delivery_id"]

_LOGGER = logging.getLogger("tailrace.gateway")

ID_CHARACTERS_MAX = 255
"""Longest id that is kept as it is; a longer one is kept as its digest. Real ones have 20 to 70."""

REPLAY_PREFIX = "tailrace-replay:"
"""Begins the keys of posts that `tailrace webhook replay` sends: they count before any id that the post has itself."""

_TOLD_S = 0.25
"""From asking for a topic's end to reading up to it. What this process wrote before that end is told of by its appender
meanwhile, so that nothing of it is read; posts that reach another gateway are known here after twice this time."""

_CHUNK_OFFSETS = 10_000
_LOAD_BYTES_MAX = 256 << 20
"""Most bytes of a topic that are read back at the start; some seconds. Ids before that are forgotten over a restart."""


def delivery_id(
    place: str | None, provider: Provider | None, headers: Mapping[str, str], rows: list[Any]
) -> str | None:
    """The id of a post, if it has one.

    Args:
        place: a header or JSON pointer that the webhook names; None: `Idempotency-Key`, else the provider's.
        rows: the posted values; a pointer goes into the one value, or into the array of them.
    """
    source = None
    key = headers.get("Idempotency-Key")
    if key is not None and (place is None or key.startswith(REPLAY_PREFIX)):
        source = Source(header="Idempotency-Key")
    elif place is not None:
        source = Source(pointer=place) if is_pointer(place) else Source(header=place)
    elif provider is not None:
        source = provider.delivery_id
    if source is None:
        return None
    if source.header:
        found = Delivery(headers=headers).read(source)
        text = found[0].strip().strip('"') if found else ""
    else:
        values = find(rows[0] if len(rows) == 1 else rows, source.pointer)
        text = str(values[0]) if values and isinstance(values[0], str | int) else ""
    if len(text) > ID_CHARACTERS_MAX:
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=32).hexdigest()
    return text or None


class _Topic:
    """What is known of one topic."""

    def __init__(self, window_ms: int, ids_max: int) -> None:
        self.seen = SeenIds(window_ms, ids_max)
        self.pending: dict[str, asyncio.Future[None]] = {}
        self.next: dict[Partition, Offset] = {}
        self.loading: asyncio.Task[None] | None = None


class Repeats:
    """Knows which posts came before. Belongs to one event loop; topics are looked at from their first id on.

    Args:
        ids_max: most ids kept of one topic.
    """

    def __init__(self, log: Log, clock: Clock, *, ids_max: int) -> None:
        self._log, self._clock, self._ids_max = log, clock, ids_max
        self._topics: dict[str, _Topic] = {}
        self._watch: Watch | None = None
        self._following: asyncio.Task[None] | None = None

    async def first(self, topic: str, key: str, window_s: float) -> bool:
        """Whether nobody has posted `key` within the window. If so the caller appends it now, and then calls `settle`.

        Waits while another request of this process appends the same key. Raises what reading the log raises.
        """
        state = await self._state(topic, window_s)
        while key in state.pending:
            await asyncio.shield(state.pending[key])
        if state.seen.has(key, self._clock.now_ms()):
            return False
        state.pending[key] = asyncio.get_running_loop().create_future()
        return True

    def settle(self, topic: str, key: str, *, durable: bool) -> None:
        """The append of `key` has ended; where it is not known to be durable, a repeat may try again."""
        state = self._topics[topic]
        if durable:
            state.seen.add(key, self._clock.now_ms())
        state.pending.pop(key).set_result(None)

    def follow(self, topic: str, window_s: float) -> None:
        """Begin to read the topic back, before its first post comes."""
        self._topic(topic, window_s)

    def wrote(self, partition: Partition, offsets: OffsetRange) -> None:
        """Records of this process lie there: their ids are known, so that they need not be read."""
        state = self._topics.get(partition.topic)
        if state is not None and offsets.start <= state.next.get(partition, -1) < offsets.stop:
            state.next[partition] = offsets.stop

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [state.loading for state in self._topics.values() if state.loading is not None]
        for task in (*tasks, self._following):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, TailraceError):
                    await task

    def _topic(self, topic: str, window_s: float) -> _Topic:
        state = self._topics.get(topic)
        if state is None:
            state = self._topics[topic] = _Topic(int(window_s * 1000), self._ids_max)
        state.seen.window_ms = int(window_s * 1000)
        if state.loading is None:
            state.loading = asyncio.ensure_future(self._load(topic, state))
        return state

    async def _state(self, topic: str, window_s: float) -> _Topic:
        state = self._topic(topic, window_s)
        assert state.loading is not None
        if not state.loading.done():
            await asyncio.wait({state.loading})
        if state.loading.cancelled() or state.loading.exception() is not None:
            failed, state.loading = state.loading, None  # the next post tries again
            failed.result()
        return state

    async def _load(self, topic: str, state: _Topic) -> None:
        found = await asyncio.to_thread(self._read_back, topic, state)
        for ts_ms, key in found:
            state.seen.add(key, ts_ms)
        if self._watch is None:
            self._watch = self._log.watch()
            self._following = asyncio.ensure_future(self._follow(self._watch))
        self._watch.add(sorted(state.next))

    def _read_back(self, topic: str, state: _Topic) -> list[tuple[int, str]]:
        """Times and ids of the topic's tail, oldest first. In a thread."""
        info = self._log.topics(topic).get(topic)
        found: list[tuple[int, str]] = []
        for partition in (Partition(topic, number) for number in range(info.partitions if info else 0)):
            stop = self._log.ends([partition])[partition]
            begin = self._log.starts([partition])[partition]
            state.next[partition] = stop
            size = 0
            while stop > begin and len(found) < self._ids_max and size < _LOAD_BYTES_MAX:
                start = Offset(max(begin, stop - _CHUNK_OFFSETS))
                try:
                    records = [each for batch in scan(self._log, partition, start, stop) for each in batch.records]
                except RejectedError:  # trimmed meanwhile
                    break
                size += sum(len(record.value or b"") for record in records)
                found += _ids((record.ts_ms, record.value) for record in records)
                if records and self._clock.now_ms() - records[0].ts_ms > state.seen.window_ms:
                    break
                stop = start
        found.sort()
        return found

    async def _follow(self, watch: Watch) -> None:
        """Learn of what is written, by whomever."""
        try:
            while True:
                stops = await asyncio.to_thread(self._ends, await watch.wait())
                await asyncio.sleep(_TOLD_S)
                for partition, stop in stops.items():
                    await self._catch_up(partition, stop)
        finally:
            watch.close()

    def _ends(self, partitions: Iterable[Partition]) -> dict[Partition, Offset]:
        ends: dict[Partition, Offset] = {}
        for partition in partitions:  # each by itself: a topic that is gone holds up no other
            try:
                ends |= self._log.ends([partition])
            except TailraceError as error:
                _not_followed(partition, error)
        return ends

    async def _catch_up(self, partition: Partition, stop: Offset) -> None:
        """Learn of what lies before `stop` and was not told of by `wrote`."""
        state = self._topics[partition.topic]
        start = state.next[partition]
        if start >= stop:
            return
        try:
            found, start = await asyncio.to_thread(self._read_on, partition, start, stop)
        except TailraceError as error:
            _not_followed(partition, error)
            return
        state.next[partition] = max(start, state.next[partition])
        for ts_ms, key in found:
            state.seen.add(key, ts_ms)

    def _read_on(self, partition: Partition, start: Offset, stop: Offset) -> tuple[list[tuple[int, str]], Offset]:
        start = max(start, self._log.starts([partition])[partition])
        found: list[tuple[int, str]] = []
        for batch in scan(self._log, partition, start, stop):
            found += _ids((record.ts_ms, record.value) for record in batch.records)
            start = batch.next
        return found, start


def _not_followed(partition: Partition, error: TailraceError) -> None:
    _LOGGER.warning("ids of %s are not followed for now: %s", partition.topic, error)


def _ids(records: Iterable[tuple[int, bytes | None]]) -> list[tuple[int, str]]:
    """Time and id of each message that has one; the time is when the gateway took it, else when the log did."""
    found = []
    for at_ms, value in records:
        if value is not None and 0 < value.find(b'"id":"') < value.find(b',"rows":['):
            head = split_head(value)
            key, ts_ms = head.get("id"), head.get("ts", at_ms)
            if isinstance(key, str) and isinstance(ts_ms, int):
                found.append((ts_ms, key))
    return found
