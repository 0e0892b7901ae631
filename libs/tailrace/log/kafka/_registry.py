"""When topics were born, and which of the cluster's topics are ours: a fold over one compacted topic."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tailrace.log.contract import Append, NewRecord, Offset, Partition, TopicInfo, TopicSpec, Writer
from tailrace.log.errors import (
    FencedError,
    LogFormatError,
    LogUnavailableError,
    OutcomeUnknownError,
    TopicNotFoundError,
)
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import INTERNAL, Cluster, Deadline, TopicFound
from tailrace.log.kafka._reader import Reader
from tailrace.runtime import Runtime

__all__ = ["REGISTRY_WRITER", "Registry"]

_TOPIC = Partition(f"{INTERNAL}topics")
REGISTRY_WRITER = f"{INTERNAL}topics"
_FORMAT = 1
_FLOOR_KEY = b"/floor"
"""No topic can have this name: its record holds the latest birth among the deleted ones."""

_RACE_TIMES = 6
"""How many times a call's usual time it has while others register topics, too: each takes its turn. Less ends services that
start together on a slow machine."""
_STAND_BACK_S = 10.0
"""Longest that who was overtaken leaves the others alone."""

_SETTINGS = {"segment.bytes": str(4 << 20), "min.cleanable.dirty.ratio": "0.1"}


class _Entry(NamedTuple):
    id: str
    """The cluster's id of the topic: another one when somebody made it again behind our back."""
    born_ms: int
    compacted: bool


class OpenWriter(Protocol):
    """Opens the registry's writer."""

    def __call__(self, name: str) -> Writer: ...


class Registry:
    """Thread-safe.

    Making a topic: 1. the cluster makes it; 2. it is registered here. A crash in between leaves a topic that is not
    listed; whoever makes it again completes it. Deleting: 1. the cluster deletes it; 2. its entry is taken away. A
    crash in between leaves an entry whose id no topic has, which counts for nothing but the next birth of that name.

    The first registration of a topic wins: it is written only through a writer that was opened before the fold was
    read, so of two that race one is fenced, and reads what the other wrote. It stands back for a while by chance, or
    services that start together would overtake each other for ever.
    """

    def __init__(
        self, clients: Clients, cluster: Cluster, reader: Reader, runtime: Runtime, open_writer: OpenWriter
    ) -> None:
        self._clients, self._cluster, self._reader, self._runtime = clients, cluster, reader, runtime
        self._open_writer = open_writer
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._floor_ms = 0
        self._at = Offset(0)
        self._writer: Writer | None = None

    def create(self, specs: Sequence[TopicSpec]) -> dict[str, TopicInfo]:
        names = [spec.name for spec in specs]
        with self._lock:
            self._read()
            found = self._cluster.describe(names)
            if missing := [spec for spec in specs if spec.name not in found]:
                self._cluster.create(missing)
                found = self._cluster.describe(names)
            compacted = {spec.name: spec.compacted for spec in specs}
            self._write(lambda: self._births(found, compacted))
            return {name: info for name in names if (info := self._info(name, found.get(name))) is not None}

    def register(self, topics: Mapping[str, TopicInfo]) -> None:
        """Take topics that the cluster has for ours, as old as they are said to be: all of them or none."""
        with self._lock:
            self._read()
            found = self._cluster.describe(list(topics))
            born_ms = max((info.born_ms for info in topics.values()), default=0)
            records = [
                _registered(found[name].id, info.born_ms, compacted=info.compacted, name=name)
                for name, info in topics.items()
            ]
            records.append(NewRecord(json.dumps({"format": _FORMAT, "born_ms": born_ms}).encode(), _FLOOR_KEY))
            self._write(lambda: [] if all(name in self._entries for name in topics) else records)

    def delete(self, names: Sequence[str]) -> None:
        with self._lock:
            self._cluster.delete(names)
            self._read()
            self._write(lambda: self._deaths(names))

    def topics(self, prefix: str) -> dict[str, TopicInfo]:
        names = [name for name in self._cluster.names() if name.startswith(prefix)]
        with self._lock:
            self._read()
            known = [name for name in names if name in self._entries]
        found = self._cluster.describe(known)
        with self._lock:
            return {name: info for name in known if (info := self._info(name, found.get(name))) is not None}

    def close(self) -> None:
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _info(self, name: str, found: TopicFound | None) -> TopicInfo | None:
        entry = self._entries.get(name)
        if entry is None or found is None or entry.id != found.id:
            return None
        return TopicInfo(name, found.partitions, entry.compacted, entry.born_ms)

    def _births(self, found: Mapping[str, TopicFound], compacted: Mapping[str, bool]) -> list[NewRecord]:
        born_ms = max(self._runtime.clock.now_ms(), self._floor_ms + 1)
        records = []
        for name, topic in found.items():
            entry = self._entries.get(name)
            if entry is None or entry.id != topic.id:
                since_ms = born_ms if entry is None else max(born_ms, entry.born_ms + 1)
                records.append(_registered(topic.id, since_ms, compacted=compacted[name], name=name))
        return records

    def _deaths(self, names: Sequence[str]) -> list[NewRecord]:
        gone = [name for name in names if name in self._entries]
        if not gone:
            return []
        floor_ms = max(self._floor_ms, *(self._entries[name].born_ms for name in gone))
        floor = {"format": _FORMAT, "born_ms": floor_ms}
        return [
            NewRecord(json.dumps(floor).encode(), _FLOOR_KEY),
            *(NewRecord(None, name.encode()) for name in gone),
        ]

    def _write(self, decide: Callable[[], list[NewRecord]]) -> None:
        """Write what `decide` makes of the fold, through a writer that nobody overtook since the fold was read."""
        deadline, race = self._cluster.deadline(), self._cluster.deadline(_RACE_TIMES)
        overtaken = 0
        while decide():
            began_s = time.monotonic()
            try:
                if self._writer is None:
                    self._writer = self._open(deadline)
                    self._read()
                if records := decide():
                    self._writer.commit([Append(_TOPIC, records)])
                    self._read()
                return
            except OutcomeUnknownError:
                self._writer = None
                if deadline.passed:
                    raise
                deadline.pause()
                self._read()
            except FencedError as error:
                self._writer = None
                if race.passed:
                    cause = "others register topics there at every moment"
                    raise LogUnavailableError(self._clients.url.shown, cause) from error
                overtaken += 1
                took_s = time.monotonic() - began_s
                self._stand_back(min(took_s * 2**overtaken, _STAND_BACK_S, race.left_s))
                deadline = self._cluster.deadline()
                self._read()

    def _stand_back(self, seconds_max: float) -> None:
        time.sleep(self._runtime.random.uniform(0, seconds_max))

    def _open(self, deadline: Deadline) -> Writer:
        if not self._cluster.describe([_TOPIC.topic]):
            self._cluster.create([TopicSpec(_TOPIC.topic, compacted=True)], _SETTINGS)
        return self._open_writer(REGISTRY_WRITER)

    def _read(self) -> None:
        try:
            end = self._cluster.settled_ends([_TOPIC])[_TOPIC]
        except TopicNotFoundError:
            return
        if self._at == 0:
            self._at = self._cluster.edges([_TOPIC], "start")[_TOPIC]
        while self._at < end:
            batch = self._reader.read(_TOPIC, self._at, end, 10_000, 16 << 20)
            for record in batch.records:
                self._fold(record.key, record.value)
            self._at = batch.next

    def _fold(self, key: bytes | None, value: bytes | None) -> None:
        name = (key or b"").decode()
        if value is None:
            self._entries.pop(name, None)
            return
        entry = json.loads(value)
        if entry["format"] != _FORMAT:
            raise LogFormatError(
                self._clients.url.shown, f"topics registered in format {entry['format']}", f"format {_FORMAT}"
            )
        if key == _FLOOR_KEY:
            self._floor_ms = entry["born_ms"]
        else:
            self._entries[name] = _Entry(entry["id"], entry["born_ms"], entry["compacted"])


def _registered(id_: str, born_ms: int, *, compacted: bool, name: str) -> NewRecord:
    value = {"format": _FORMAT, "id": id_, "born_ms": born_ms, "compacted": compacted}
    return NewRecord(json.dumps(value).encode(), name.encode())
