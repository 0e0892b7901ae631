"""Requests that wait for a node's answer, and how it finds them: straight from a host in this process, or by the log."""

from __future__ import annotations

import asyncio
import logging

import orjson
from aiohttp import web

from tailrace.errors import TailraceError
from tailrace.log import Log, Offset, OffsetGapError, Partition, TopicSpec
from tailrace.tables import Answer, answers_topic, read_answer

__all__ = ["Answers", "answer_response"]

_LOGGER = logging.getLogger("tailrace.gateway")

_PAUSE_S = 0.25
"""Before a log that is away is asked again."""

_JSON = "application/json"
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "content-type", "date", "server"})
"""Headers of an answer that are the gateway's to set (`Content-Type` by way of the body)."""


class Answers:
    """The waiting requests of one gateway, by their key."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._followers: dict[str, tuple[asyncio.Task[None], asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    async def follow(self, topic: str) -> None:
        """Return once answers to requests of the graph with this topic will be seen: before the request is in the log.

        Raises what the log raises.
        """
        topic = answers_topic(topic)
        follower = self._followers.get(topic)
        if follower is None or (follower[0].done() and not follower[0].cancelled()):
            begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            begun.add_done_callback(lambda each: each.cancelled() or each.exception())  # nobody may be left to ask
            follower = self._followers[topic] = (asyncio.create_task(self._follow(Partition(topic), begun)), begun)
        await asyncio.shield(follower[1])

    def expect(self, key: str) -> asyncio.Future[Answer]:
        """Where the answer with this key will be; `forget` it afterwards."""
        future = self._waiting[key] = asyncio.get_running_loop().create_future()
        return future

    def forget(self, key: str) -> None:
        """Nobody waits for this one any more."""
        self._waiting.pop(key, None)

    def give(self, answer: Answer) -> bool:
        """Whether somebody waits here for this answer; the first one counts."""
        future = self._waiting.get(answer.key)
        if future is None:
            return False
        if not future.done():
            future.set_result(answer)
        return True

    async def close(self) -> None:
        tasks = [task for task, _ in self._followers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, partition: Partition, begun: asyncio.Future[None]) -> None:
        log = self._log
        try:
            await asyncio.to_thread(log.create_topics, [TopicSpec(partition.topic)])
            position = (await asyncio.to_thread(log.ends, [partition]))[partition]
            watch = log.watch([partition])
        except TailraceError as error:
            begun.set_exception(error)
            return
        begun.set_result(None)
        try:
            while True:
                await watch.wait()
                position = await self._read_on(partition, position)
        finally:
            watch.close()

    async def _read_on(self, partition: Partition, position: Offset) -> Offset:
        """Hand out all answers from `position` on; returns where to go on."""
        while True:
            try:
                batch = await asyncio.to_thread(self._log.read, partition, position, records_max=1_000)
            except OffsetGapError:
                position = (await asyncio.to_thread(self._log.starts, [partition]))[partition]
                continue
            except TailraceError as error:
                _LOGGER.warning("answers of %s cannot be read just now: %s", partition.topic, error)
                await asyncio.sleep(_PAUSE_S)
                continue
            for record in batch.records:
                answer = read_answer(record.value)
                if answer is not None:
                    self.give(answer)
            position = batch.next
            if not batch.records:
                return position


def answer_response(answer: Answer) -> web.Response:
    """The HTTP answer: the payload as JSON, or a text as it is where the headers name another type."""
    kinds = [value for name, value in answer.headers.items() if name.lower() == "content-type"]
    kind = kinds[-1] if kinds else _JSON
    headers = {
        name: value for name, value in answer.headers.items() if name.lower() not in _OURS and _is_plain(name, value)
    }
    if isinstance(answer.payload, str) and not kind.startswith(_JSON) and _is_plain("Content-Type", kind):
        body, headers["Content-Type"] = answer.payload.encode("utf-8", "replace"), kind
    else:
        body, headers["Content-Type"] = orjson.dumps(answer.payload, default=str), _JSON
    status = answer.status if 200 <= answer.status <= 599 else 200
    if status in (204, 304):
        return web.Response(status=status)
    return web.Response(status=status, body=body, headers=headers)


def _is_plain(name: str, value: str) -> bool:
    """A header that ends where it seems to."""
    return name.replace("-", "").isalnum() and name.isascii() and all(" " <= char != "\x7f" for char in value)
