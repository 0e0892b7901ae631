"""Posts without end, as a process to be killed: `python gateway_storm_client.py PORT JOURNAL`.

The journal tells what was sent (`s`, written before) and what was accepted (`a`, written after). A client that starts over
reads it: what has an id and is not known to be accepted is sent again under the same id, and so are some that are.
What has no id is sent once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
from pathlib import Path

CONNECTIONS = 24
PARTS = 5
TIMEOUT_S = 15.0


def has_id(number: int) -> bool:
    return number % 4 != 2


def parts_of(number: int) -> int:
    """Elements of the posted array; 1: a post that is no array."""
    return PARTS if number % 4 == 0 else 1


def request(number: int) -> bytes:
    rows = [{"n": number, "part": part, "pad": "x" * 200} for part in range(parts_of(number))]
    body = json.dumps(rows if len(rows) > 1 else rows[0]).encode()
    own = f"Idempotency-Key: post-{number}\r\n" if has_id(number) else ""
    head = f"POST /webhooks/storm HTTP/1.1\r\nHost: x\r\n{own}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def read_journal(path: Path) -> tuple[set[int], set[int]]:
    """What was sent, and what was accepted. The last line may be torn."""
    text = path.read_bytes() if path.exists() else b""
    found: dict[bytes, set[int]] = {b"s": set(), b"a": set()}
    for kind, number in re.findall(rb"^([sa]) (\d+)$", text[: text.rfind(b"\n") + 1], re.MULTILINE):
        found[kind].add(int(number))
    return found[b"s"], found[b"a"]


class Client:
    def __init__(self, port: int, journal: Path) -> None:
        self._port = port
        sent, accepted = read_journal(journal)
        self._next = max(sent, default=-1) + 1
        known = sorted(number for number in accepted if has_id(number))
        self._chance = random.Random(self._next)
        self._again = [number for number in sorted(sent - accepted) if has_id(number)]
        self._again += self._chance.sample(known, min(len(known), 200))
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(self._journal, b"\n")  # ends a line that was torn
        self._over = False

    async def run(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._finish)
        await asyncio.gather(*(self._post_on() for _ in range(CONNECTIONS)))

    def _finish(self) -> None:
        self._over = True

    def _job(self) -> int | None:
        if self._again:
            return self._again.pop(0)
        if self._over:
            return None
        number, self._next = self._next, self._next + 1
        os.write(self._journal, b"s %d\n" % number)
        return number

    async def _post_on(self) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while (number := self._job()) is not None:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    if reader is None or writer is None:
                        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    writer.write(request(number))
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"Content-Length: (\d+)", head)
                    await reader.readexactly(int(length[1]) if length else 0)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                if writer is not None:
                    writer.close()
                reader = writer = None
                self._failed(number)
                await asyncio.sleep(0.02)
                continue
            if head.startswith(b"HTTP/1.1 200"):
                os.write(self._journal, b"a %d\n" % number)
                if has_id(number) and self._chance.random() < 0.05:
                    self._again.append(number)
            else:
                self._failed(number)
                await asyncio.sleep(0.05)

    def _failed(self, number: int) -> None:
        if has_id(number):
            self._again.append(number)


if __name__ == "__main__":
    asyncio.run(Client(int(sys.argv[1]), Path(sys.argv[2])).run())
