"""Scripts in a real warm worker: what a run leaves behind is seen, and limits end in errors with a place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tailrace.runner.workers import Worker, WorkerLimits, WorkerPool, WorkerSpec


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    pool = WorkerPool(folder=tmp_path / "pools", paths=[str(Path(__file__).parent)], preload=())
    await pool.start()
    worker = await pool.spawn(
        WorkerSpec(entry="workers_entry:serve", limits=WorkerLimits(memory_bytes_max=256 << 20, cpu_s_max=60))
    )
    yield worker
    await pool.close()
    worker.sock.close()


async def run(worker: Worker, text: str, **options: Any) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(worker.sock, json.dumps({"do": "run", "text": text, **options}).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        data = await loop.sock_recv(worker.sock, 65536)
        assert data, await worker.wait()
        answer += data
    return json.loads(answer)


async def test_runs_follow_each_other_within_milliseconds(worker: Worker) -> None:
    """A stream node answers a record in milliseconds although each run is a whole script."""
    took_ms = sorted([(await run(worker, "import json\nx = 1"))["took_ms"] for _ in range(50)])
    assert took_ms[25] < 20  # 1 ms on a quiet machine


async def test_processes_are_seen_also_those_that_became_daemons(worker: Worker) -> None:
    """The worker adopts what its script's children leave, so a double fork hides nothing."""
    text = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
"""
    end = await run(worker, text)
    assert len(end["children"]) == 1
    assert not end["clean"]


async def test_a_leak_is_a_memory_error_with_place_and_way_out(worker: Worker) -> None:
    end = await run(worker, "kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))\n")
    assert "MemoryError" in end["error"]
    assert end["place"] == ["node.py", 3]
    assert "hint: the node hit its memory limit of 0.25 GiB" in end["error"]


async def test_recursion_into_the_memory_limit_still_has_a_text(worker: Worker) -> None:
    text = "import sys\nsys.setrecursionlimit(1 << 30)\ndef f(n):\n    return f(n + 1)\nf(0)\n"
    end = await run(worker, text)
    assert "MemoryError" in end["error"] or "SystemError" in end["error"]  # CPython is not at its best there
    assert "hint: a function calls itself without end" in end["error"]
    # Which of the two depends on how much memory was left to write the chain of calls down.
    assert "calls in the middle are left out" in end["error"] or "more times]" in end["error"]
    assert end["place"] == ["node.py", 4]


async def test_recursion_ends_at_pythons_own_limit(worker: Worker) -> None:
    end = await run(worker, "def f():\n    f()\nf()\n")
    assert "RecursionError" in end["error"]
    assert end["place"] == ["node.py", 2]


async def test_the_time_limit_is_raised_into_the_script(worker: Worker) -> None:
    end = await run(worker, "import time\ntime.sleep(600)\n", limit_s=0.1)
    assert "NodeTimeLimitError: the node ran longer than its time limit of 0.1 s" in end["error"]
    assert end["place"] == ["node.py", 2]


async def test_each_run_has_its_own_cpu_time(worker: Worker) -> None:
    """Else a warm worker would be killed some day for what its first thousand runs used."""
    burn = "import time\nbegan = time.process_time()\nwhile time.process_time() < began + 0.9: pass\n"
    for _ in range(4):
        assert (await run(worker, burn, cpu_s=2))["clean"]


async def test_closed_streams_are_seen_and_mended(worker: Worker) -> None:
    worker.output.begin_run("r1")
    end = await run(worker, "import sys\nsys.stdout.close()\n")
    assert end["broken"] == ["sys.stdout was closed"]
    assert (await run(worker, "print('still there')"))["clean"]
    end = await run(worker, "import os\nos.close(2)\n")
    assert end["broken"] == ["a standard stream was closed or put elsewhere"]
    worker.output.end_run()
    await worker.close()
    assert [line.text async for line in worker.output] == ["still there"]


async def test_memory_does_not_grow_with_the_runs(worker: Worker) -> None:
    """Each run's 32 MB are let go of before the next one's: eight together are the limit."""
    text = "big = bytearray(32 << 20)\ndef f(): return big\nclass C: b = big\n"
    for _ in range(20):
        assert (await run(worker, text))["clean"]
