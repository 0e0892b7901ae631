"""The Tables that a host knows: their topics, their tails, and the indexes that spare a start the folding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from tailrace.errors import RejectedError
from tailrace.log import Log, NewRecord, Partition, TopicInfo, TopicSpec
from tailrace.runner.deployment import Deployment
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.slots import newest
from tailrace.runner.tails import CallLog, Pin, TableTail
from tailrace.tables import TableFold, VersionView

__all__ = ["Catalog", "UnknownTableError"]


class UnknownTableError(RejectedError):
    """No deployed app has such a table."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, list(known)
        super().__init__(f"there is no table {name!r}; there are: {', '.join(sorted(known)) or 'none'}")


class Catalog:
    """Topics and tails by topic; a tail is made when it is first asked for.

    Args:
        deployments: the host's own, which it replaces at each deploy.
        call: runs a call of the log off the event loop.
    """

    def __init__(
        self, log: Log, settings: RunnerSettings, deployments: Callable[[], Mapping[str, Deployment]], call: CallLog
    ) -> None:
        self._log = log
        self._settings = settings
        self._deployments = deployments
        self._call = call
        self._infos: dict[str, TopicInfo] = {}
        self._tails: dict[str, TableTail] = {}
        self._indexed: dict[str, Any] = {}

    def __getitem__(self, topic: str) -> TableTail:
        """The table's tail; its topic is known already."""
        tail = self._tails.get(topic)
        if tail is None:
            tail = self._tails[topic] = TableTail(
                self._log, self._infos[topic], self._name(topic), self._settings, self._call
            )
        return tail

    @property
    def tails(self) -> Mapping[str, TableTail]:
        """Those that were asked for."""
        return self._tails

    def born_ms(self, topic: str) -> int:
        """When the topic was born."""
        return self._infos[topic].born_ms

    def _name(self, topic: str) -> str:
        for deployment in self._deployments().values():
            for table in deployment.tables.values():
                if topic == table.topic:
                    return table.store.name
                if topic == table.dead_letters:
                    return f"{table.store.name}_dead_letters"
        return topic

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics that are missing."""
        self._infos.update(await self._call(lambda: self._log.create_topics(specs)))

    async def ensure(self, topic: str) -> None:
        """Make the topic if it is missing."""
        if topic not in self._infos:
            await self.create([TopicSpec(topic)])

    async def know(self, topic: str) -> bool:
        """Whether there is such a topic; it can be asked for afterwards."""
        if topic not in self._infos:
            found: dict[str, TopicInfo] = await self._call(lambda: self._log.topics(topic))
            if topic not in found:
                return False
            self._infos[topic] = found[topic]
        return True

    async def look(self, topic: str) -> Pin:
        """A table as it is now."""
        if not await self.know(topic):
            raise UnknownTableError(topic, list(self._infos))
        tail = self[topic]
        await tail.advance()
        return await tail.pin()

    async def versions(self, topic: str) -> list[VersionView]:
        """The table's versions, oldest first."""
        pin = await self.look(topic)
        return await self[topic].views(pin.cut)

    # -- indexes: caches of folds, each as of a position ----------------------------------------------------------

    async def load_indexes(self) -> None:
        """Begin the folds of deployed tables where their indexes are."""
        for deployment in self._deployments().values():
            partition = Partition(deployment.index_topic)
            index: dict[bytes, bytes | None] = await self._call(lambda p=partition: self._read_index(p))  # type: ignore[misc]
            for key, value in index.items():
                topic = key.decode()
                if topic in deployment.tables and topic not in self._tails and value is not None:
                    data = orjson.loads(value)
                    if data.get("born_ms") == self._infos[topic].born_ms:
                        self[topic].fold = TableFold.from_json(data)
                        self._indexed[topic] = data["position"]

    def _read_index(self, partition: Partition) -> dict[bytes, bytes | None]:
        return newest(self._log, partition, self._log.settled_ends([partition])[partition])

    async def save_index(self, topic: str, *, every_offsets: int = 1) -> None:
        """Write the table's fold down, if it moved on by `every_offsets` since it was last written."""
        tail = self._tails[topic]
        if tail.fold.position - self._indexed.get(topic, 0) < every_offsets:
            return
        deployment = next((d for d in self._deployments().values() if topic in d.tables), None)
        if deployment is None:
            return
        data = await tail.saved()
        record = NewRecord(orjson.dumps(data), topic.encode())
        await self._call(lambda: self._log.append(Partition(deployment.index_topic), [record]))
        self._indexed[topic] = data["position"]

    async def save_indexes(self) -> None:
        """Write down the folds that have moved on."""
        for topic in list(self._tails):
            await self.save_index(topic)
