"""A proxy before Kafka that knows just enough of the protocol to lose, delay and reorder what ends transactions.

It runs an event loop in a thread. Requests are frames of size (4 bytes), api key (2), version (2), correlation id (4);
answers begin with size and correlation id.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from typing import Any

END_TXN = 26
FIND_COORDINATOR = 10


class Fault(Enum):
    """What happens to one request that ends a transaction."""

    LOSE_REQUEST = "it never arrives"
    LOSE_ANSWER = "it is done, and nobody is told"
    HOLD_REQUEST = "it arrives after the next writer of the name was opened"
    HOLD_AND_CUT = (
        "it is held and its connection cut; a repetition goes through, and it arrives in the next transaction"
    )
    CUT_BEFORE = "its connection is cut before it arrives"
    CUT_AFTER = "its connection is cut after it arrived, before the answer"
    DELAY_ANSWER = "the answer comes late, but in time"


class KafkaProxy:
    """Listens on `port`; forwards to `upstream`, which is set before the first client connects."""

    def __init__(self) -> None:
        self.upstream = ("127.0.0.1", 0)
        self._plans: dict[bytes, Fault] = {}
        self._held: dict[bytes, list[tuple[asyncio.StreamWriter, bytes]]] = {}
        self.swallowed: frozenset[int] = frozenset()
        """Kinds of requests (api keys) that nobody ever answers."""
        self.done: dict[Fault, int] = dict.fromkeys(Fault, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self.streams: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka-proxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def plan(self, transactional_id: str, fault: Fault) -> None:
        """Do this to the next request that ends a transaction of this id."""
        self._plans[transactional_id.encode()] = fault

    def forget_plan(self, transactional_id: str) -> None:
        """What was planned did not come about."""
        self._plans.pop(transactional_id.encode(), None)

    def holds(self, transactional_id: str) -> bool:
        """Whether a request of this id waits here."""
        return bool(self._held.get(transactional_id.encode()))

    def deliver_held(self, transactional_id: str) -> None:
        """Send what was held of this id to the broker now; its answers go nowhere."""
        self._call(self._deliver(transactional_id.encode()))

    def close(self) -> None:
        """Cut every connection and stop."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> KafkaProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self.streams:
            stream.close()
        await asyncio.gather(*(stream.wait_closed() for stream in self.streams), return_exceptions=True)

    async def _deliver(self, transactional_id: bytes) -> None:
        for broker, frame in self._held.pop(transactional_id, []):
            broker.write(frame)
            await broker.drain()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection(self, reader, writer)
        try:
            await connection.run()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            connection.close()

    def fault_for(self, frame: bytes) -> tuple[Fault | None, bytes]:
        """What is planned for this request, once; and whose it is."""
        if struct.unpack_from(">h", frame, 4)[0] == END_TXN:
            # Longest first: one id may begin like another.
            for transactional_id in sorted(self._plans, key=len, reverse=True):
                if transactional_id in frame:
                    fault = self._plans.pop(transactional_id)
                    self.done[fault] += 1
                    return fault, transactional_id
        return None, b""

    def hold(self, transactional_id: bytes, broker: asyncio.StreamWriter, frame: bytes) -> None:
        """Keep the frame, and the connection it belongs on, until `deliver_held`."""
        self._held.setdefault(transactional_id, []).append((broker, frame))


class _Connection:
    def __init__(self, proxy: KafkaProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        proxy.streams.add(writer)
        self._broker: asyncio.StreamWriter | None = None
        self._keeps_broker = False
        self._faults: dict[int, Fault] = {}
        """What is to be done to the answers, by correlation id."""

    async def run(self) -> None:
        from_broker, self._broker = await asyncio.open_connection(*self._proxy.upstream)
        self._proxy.streams.add(self._broker)
        answers = asyncio.create_task(self._pump_answers(from_broker))
        try:
            await self._pump_requests(self._broker)
        finally:
            if self._keeps_broker:
                self._writer.close()  # the client is gone; what is held goes on from here, answers into the void
            else:
                answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    def close(self) -> None:
        self._writer.close()
        if self._broker is not None and not self._keeps_broker:
            self._broker.close()

    async def _pump_requests(self, broker: asyncio.StreamWriter) -> None:
        while True:
            frame = await _read_frame(self._reader)
            if struct.unpack_from(">h", frame, 4)[0] in self._proxy.swallowed:
                continue
            fault, whose = self._proxy.fault_for(frame)
            correlation = struct.unpack_from(">i", frame, 8)[0]
            if fault is Fault.LOSE_REQUEST:
                continue
            if fault in (Fault.HOLD_REQUEST, Fault.HOLD_AND_CUT):
                self._keeps_broker = True
                self._proxy.hold(whose, broker, frame)
                if fault is Fault.HOLD_AND_CUT:
                    return
                continue
            if fault is Fault.CUT_BEFORE:
                return
            if fault is not None:
                self._faults[correlation] = fault
            broker.write(frame)
            await broker.drain()

    async def _pump_answers(self, from_broker: asyncio.StreamReader) -> None:
        while True:
            frame = await _read_frame(from_broker)
            fault = self._faults.pop(struct.unpack_from(">i", frame, 4)[0], None)
            if fault is Fault.LOSE_ANSWER:
                continue
            if fault is Fault.CUT_AFTER:
                self._writer.close()
                return
            if fault is Fault.DELAY_ANSWER:
                await asyncio.sleep(0.05)
            if not self._writer.is_closing():
                self._writer.write(frame)
                await self._writer.drain()


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(struct.unpack(">i", head)[0])
