"""Nodes that misbehave: each of their runs fails with a clear reason, and everything else goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio

from tailrace.cli.house import CONTACT_FILE, House, HouseSettings
from tailrace.runner import Entry, RunEntry, RunnerSettings
from tailrace.runtime import Runtime

pytestmark = pytest.mark.timeout(180)

HOSTILE = {
    "leaks": ("chunks = []\nwhile True:\n    chunks.append(bytearray(64 << 20))\n", r"MemoryError|memory limit"),
    "recurses": ("def f():\n    f()\nf()\n", "RecursionError"),
    "ends": ("import os\nos._exit(3)\n", r"os\._exit\(3\)"),
    "is_killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "SIGKILL"),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", "SIGSEGV"),
    "never_ends": ("while True:\n    pass\n", "time limit"),
    "never_ends_quietly": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass\n",
        "hard limit",
    ),
    "has_a_syntax_error": ("def f(:\n", r"SyntaxError|has_a_syntax_error\.py:1"),
    "closes_its_socket": (
        "import os\nfor fd in range(3, 64):\n    try:\n        os.close(fd)\n    except OSError:\n        pass\n",
        "",
    ),
    "has_a_giant_state": (
        "from patterns import State\nState().set_value('x', 'y' * 9_000_000)\n",
        "State has .* over the limit",
    ),
    "imports_nothing_there": ("import not_there_at_all\n", "not_there_at_all"),
}
HARMLESS = {
    "forks": "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n",
    "daemonises": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)\n"
    ),
    "starts_threads": (
        "import threading, time\nfor _ in range(20):\n    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    ),
    "talks": "for _ in range(100_000):\n    print('x' * 100)\n",
    "changes_its_process": "import os, signal, sys\nos.chdir('/')\nos.environ.clear()\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsys.path.clear()\n",
    "exits": "import sys\nsys.exit(1)\n",
}
GOOD = "from patterns import Table\nout = Table('out', 'w')\nfor row in Table('orders').as_stream():\n    out.append({'n': row['record']['n']})\n"
LIMITS = "    memory: 512MB\n    trigger: manual\n"
ENDLESS = ("never_ends", "never_ends_quietly")
"""The others have time enough on any machine."""


def write_app(folder: Path) -> None:
    folder.mkdir()
    lines = ["title: Hostile", "slug: hostile", "functions:", "  - {webhook: orders, id: orders1}"]
    lines.append("  - {node_file: good.py, id: good1}")
    (folder / "good.py").write_text(GOOD)
    for name, source in {**{k: v[0] for k, v in HOSTILE.items()}, **HARMLESS}.items():
        (folder / f"{name}.py").write_text(source)
        limits = LIMITS + "    timeout: 3\n" * (name in ENDLESS)
        lines.append(f"  - node_file: {name}.py\n    id: {name.replace('_', '')}\n{limits}".rstrip())
    lines += ["stores:", "  - {table: orders, id: t1}", "  - {table: out, id: t2}"]
    (folder / "graph.yml").write_text("\n".join(lines) + "\n")


class Street:
    """A house with hostile nodes, and what it says."""

    def __init__(self, house: House, entries: list[Entry], session: aiohttp.ClientSession) -> None:
        self.house, self.entries, self.session = house, entries, session
        self.posted = 0

    async def trigger(self, node: str) -> RunEntry:
        """Run a node now; its entry in the journal."""
        before = len(self.entries)
        async with self.session.post(f"{self.house.base_url}/api/local/trigger", json={"node": node}) as response:
            assert response.status == 200, await response.text()
        return await self.next_run(node, before)

    async def next_run(self, node: str, before: int) -> RunEntry:
        async with asyncio.timeout(90):
            while True:
                for entry in self.entries[before:]:
                    if isinstance(entry, RunEntry) and entry.title == node:
                        return entry
                await asyncio.sleep(0.02)

    async def good_work(self) -> None:
        """The good node goes on as if nothing was."""
        before = len(self.entries)
        self.posted += 1
        async with self.session.post(f"{self.house.base_url}/webhooks/orders1", json={"n": self.posted}) as response:
            assert response.status == 200
        assert (await self.next_run("good", before)).kind == "ok"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def street(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    write_app(folder / "app")
    entries: list[Entry] = []
    pauses = (timedelta(minutes=1),) * 4
    settings = RunnerSettings(time_limit_grace=timedelta(seconds=1), retry_pauses=pauses)
    house = House(
        HouseSettings(apps=[folder / "app"], data_dir=folder / "data", port=0, runner=settings),
        Runtime(),
        entries.append,
    )
    await house.start()
    token = orjson.loads((folder / "data" / CONTACT_FILE).read_bytes())["token"]
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        yield Street(house, entries, session)
    await house.stop()
    assert not house.failure.done(), house.failure


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("node", [name for name, (_, reason) in HOSTILE.items() if reason])
async def test_a_hostile_node_fails_with_a_clear_reason(street: Street, node: str) -> None:
    """Its author is told what happened; the node beside it does not notice."""
    run = await street.trigger(node)
    assert run.kind in ("failed", "died", "timed_out")
    assert re.search(HOSTILE[node][1], f"{run.error} {run.traceback}"), (run.error, run.traceback)
    await street.good_work()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("node", [*HARMLESS, "closes_its_socket"])
async def test_a_node_that_leaves_things_behind_is_cleaned_up_after(street: Street, node: str) -> None:
    """Its worker is thrown away; the next run of the node starts clean."""
    for _ in range(2):
        run = await street.trigger(node)
        if node == "closes_its_socket":
            assert run.kind == "died"
            break
        assert run.kind == "ok", (run.error, run.traceback)
    await street.good_work()


@pytest.mark.asyncio(loop_scope="module")
async def test_ten_megabytes_of_output_are_kept_in_bounded_memory(street: Street) -> None:
    """The beginning and the end are kept, and how much was left out is said."""
    before = len(street.entries)
    run = await street.trigger("talks")
    assert run.kind == "ok"
    lines = [entry for entry in street.entries[before:] if not isinstance(entry, RunEntry)]
    assert sum(len(line.text) for line in lines) < 500_000
    assert any("left out" in line.text for line in lines)
