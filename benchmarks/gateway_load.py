"""The load of the gateway's benchmarks: `python -m benchmarks.gateway_load PLAN`, a process of its own.

Each connection posts, waits for the whole answer, and posts again; at most one request a connection is under way, so the
load is bounded by what is answered. It speaks just enough HTTP to be cheaper than what it measures.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from pathlib import Path
from typing import Any, cast

import orjson
import uvloop


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._began_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._load.ready(self)

    def send(self) -> None:
        assert self._transport is not None
        request = self._load.next_request()
        self._began_ns = time.perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        data = self._head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data
            return
        at = data.find(b"Content-Length: ")
        length = int(data[at + 16 : data.find(b"\r", at)]) if 0 <= at < end else 0
        if len(data) < end + 4 + length:
            self._head = data
            return
        self._head = b""
        self._load.answered(self, data[9:12], time.perf_counter_ns() - self._began_ns)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.lost += 1


class _Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self._requests = [bytes.fromhex(each) for each in orjson.loads(Path(plan["requests"]).read_bytes())]
        self._next = 0
        self._measuring = False
        self._over = False
        self._pause_s: float = plan.get("pause_s", 0.0)
        self.latencies_ns: list[int] = []
        self.statuses: dict[str, int] = {}
        self.lost = 0

    def next_request(self) -> bytes:
        self._next += 1
        return self._requests[self._next % len(self._requests)]

    def ready(self, connection: _Connection) -> None:
        if self._over:
            return
        if self._pause_s:
            asyncio.get_running_loop().call_later(self._pause_s, connection.send)
        else:
            connection.send()

    def answered(self, connection: _Connection, status: bytes, took_ns: int) -> None:
        if self._measuring:
            self.latencies_ns.append(took_ns)
            text = status.decode()
            self.statuses[text] = self.statuses.get(text, 0) + 1
        self.ready(connection)

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        for _ in range(self.plan["connections"]):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.plan["port"])
        await asyncio.sleep(self.plan["warm_up_s"])
        gc.disable()
        self._measuring = True
        began_s = time.perf_counter()
        await asyncio.sleep(self.plan["seconds"])
        self._measuring = False
        took_s = time.perf_counter() - began_s
        lost, self._over = self.lost, True
        return {
            "posts_per_s": len(self.latencies_ns) / took_s,
            "latencies_ms": [round(each / 1e6, 3) for each in self.latencies_ns],
            "statuses": self.statuses,
            "lost": lost,
        }


if __name__ == "__main__":
    given = orjson.loads(sys.argv[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(orjson.dumps(runner.run(_Load(given).run())))
