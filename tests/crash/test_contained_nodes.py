"""What node code cannot reach, try as it may: the log, other apps, other nodes, credentials, the machine's memory and disk."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio

from tailrace.cli.house import CONTACT_FILE, House, HouseSettings
from tailrace.node._confine import landlock_abi
from tailrace.runner import Entry, LogLine, RunEntry, RunnerSettings
from tailrace.runner.pids import PidsGroups
from tailrace.runtime import Runtime

pytestmark = pytest.mark.timeout(180)

needs_landlock = pytest.mark.skipif(not landlock_abi(), reason="the kernel has no Landlock")
needs_groups = pytest.mark.skipif(PidsGroups.find() is None, reason="no control groups can be made here (pids)")
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap (bwrap) is not installed")

SECRET = "only-for-the-host-6f1d"

SNOOP = """
import glob, json, os, signal, socket, subprocess
from pathlib import Path

from patterns import Parameter

found = {}

def attempt(name, what):
    try:
        found[name] = repr(what())[:200]
    except BaseException as error:
        found[name] = f"{type(error).__name__}: {error}"

def environments():
    read = []
    for place in glob.glob("/proc/[0-9]*/environ"):
        try:
            text = Path(place).read_bytes()
        except OSError:
            continue
        if b"SECRET" in text:
            read.append(place)
    return read

def memory(pid):
    with open(f"/proc/{pid}/mem", "rb") as file:
        return file.read(1)

def others():
    found = []
    for place in glob.glob("/proc/[0-9]*/comm"):
        try:
            name = Path(place).read_text().strip()
        except OSError:
            continue
        if name == Path("/proc/self/comm").read_text().strip() and place != f"/proc/{os.getpid()}/comm":
            found.append(place.split("/")[2])
    return found

def of_another_worker(read):
    refused = ProcessLookupError("there is no other worker")
    for pid in others():
        try:
            return read(pid)
        except OSError as error:
            refused = error
    raise refused

def descriptors():
    for place in glob.glob(f"/proc/{host}/fd/*"):
        try:
            return os.readlink(place)
        except PermissionError:
            try:
                return os.open(place, os.O_RDWR)
            except PermissionError:
                pass
    raise PermissionError("not one")

def connect(path):
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)

tmp = Path(os.environ["TMPDIR"])
data = tmp.parents[2]
zygote = os.getppid()
host = int(Path(f"/proc/{zygote}/stat").read_text().rpartition(")")[2].split()[1]) or 1
attempt("processes", lambda: len(glob.glob("/proc/[0-9]*")))
attempt("own file", lambda: Path(__file__).read_text()[:1])
attempt("own folder", lambda: (tmp / "x").write_text("x"))
attempt("program", lambda: subprocess.run(["/bin/sh", "-c", "echo ran"], capture_output=True, check=True).stdout)
attempt("the log", lambda: (data / "tailrace.db").read_bytes()[:1])
attempt("the log's folder", lambda: os.listdir(data))
attempt("the contact file", lambda: (data / "up.json").read_text())
attempt("the staging key", lambda: (data / "staging.key").read_bytes())
attempt("staged files", lambda: os.listdir(data / "staging"))
attempt("other apps", lambda: os.listdir(data / "apps"))
attempt("another app's file", lambda: (data / "apps" / "other").glob("*/*/*.py").__next__().read_text())
attempt("another worker's folder", lambda: os.listdir(tmp.parent))
attempt("the source", lambda: (data.parent / "app" / "graph.yml").read_text())
attempt("its own code", lambda: Path(__file__).write_text("changed"))
attempt("a library", lambda: Path(json.__file__).open("r+"))
attempt("a password file", lambda: Path("/etc/shadow").read_text())
attempt("home", lambda: os.listdir(os.path.expanduser("~root")))
attempt("elsewhere", lambda: Path("/tmp/tailrace-was-here").write_text("x"))
attempt("shared memory", lambda: (Path("/dev/shm/x").write_text("x"), os.listdir("/dev/shm")))
attempt("environments", environments)
attempt("the host's memory", lambda: memory(host))
attempt("the zygote's memory", lambda: memory(zygote))
attempt("the host's descriptors", descriptors)
attempt("another worker's memory", lambda: of_another_worker(memory))
attempt("another worker's environment", lambda: of_another_worker(lambda pid: Path(f"/proc/{pid}/environ").read_bytes()))
attempt("another node's secret", lambda: Parameter("token"))
attempt("a signal", lambda: os.kill(host, signal.SIGCONT))
attempt("a unix socket", lambda: connect("/var/run/docker.sock"))
attempt("a loopback link", lambda: socket.create_connection(("127.0.0.1", PORT), timeout=2))
attempt("metadata", lambda: socket.create_connection(("169.254.169.254", 80), timeout=2))
attempt("metadata by number", lambda: socket.create_connection(("2852039166", 80), timeout=2))
attempt("secrets of its environment", lambda: [name for name in os.environ if "SECRET" in name])
print("FOUND " + json.dumps(found))
"""
REFUSED = (
    *("the log", "the log's folder", "the contact file", "the staging key", "staged files", "other apps"),
    *("another worker's folder", "the source", "its own code", "a library", "a password file", "home", "elsewhere"),
    *("another worker's memory", "another worker's environment"),
    *("the host's memory", "the zygote's memory", "the host's descriptors"),
    *("a unix socket", "metadata", "metadata by number"),
)
FORKS = """
import os, time
children = 0
try:
    for _ in range(2_000):  # bounded by itself, should nothing else bound it
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        children += 1
finally:
    print("FORKED", children)
"""
FILLS = """
import os, time
from pathlib import Path
for number in range(600):  # bounded by itself: 600 MB
    Path(os.environ["TMPDIR"], str(number)).write_bytes(b"x" * (1 << 20))
time.sleep(60)
"""
TALKS = """
import os
line = b"y" * 1023 + b"\\n"
for _ in range(512):  # half a gigabyte
    os.write(1, line * 1024)
"""
SWALLOWS = """
import signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
while True:
    pass
"""
SPINS = "while True:\n    pass\n"
KEEPS = "from patterns import Parameter\nprint(len(Parameter('token', type=str)))\n"
SHARES = "import multiprocessing.pool\nprint(multiprocessing.pool.ThreadPool(4).map(str, range(3)))\n"
NODES = {
    "keeps": (KEEPS, "    parameter_values: {token: '${{ token }}'}\n"),
    "snoop": (SNOOP, ""),
    "snoop_offline": (SNOOP, "    network: false\n"),
    "snoop_in_bubblewrap": (SNOOP, "    executor: bubblewrap\n    network: false\n"),
    "forks": (FORKS, ""),
    "forks_in_bubblewrap": (FORKS, "    executor: bubblewrap\n"),
    "fills": (FILLS, "    timeout: 20\n"),
    "talks": (TALKS, "    timeout: 60\n"),
    "swallows": (SWALLOWS, "    timeout: 2\n"),
    "spins": (SPINS, "    cpu: 1s\n    timeout: 60\n"),
    "shares": (SHARES, ""),
}
GOOD = "from patterns import Table\nout = Table('out', 'w')\nfor row in Table('orders').as_stream():\n    out.append({'n': row['record']['n']})\n"


class Street:
    """A house with two apps, the nodes of one of them hostile."""

    def __init__(self, house: House, entries: list[Entry], session: aiohttp.ClientSession) -> None:
        self.house, self.entries, self.session = house, entries, session

    async def trigger(self, node: str) -> tuple[RunEntry, str]:
        """Run a node now: how that ended, and what it printed last."""
        before = len(self.entries)
        async with self.session.post(f"{self.house.base_url}/api/local/trigger", json={"node": node}) as response:
            assert response.status == 200, await response.text()
        run = await self.ended(node, before)
        lines = [each.text for each in self.entries[before:] if isinstance(each, LogLine) and each.title == node]
        return run, lines[-1] if lines else ""

    async def ended(self, node: str, before: int) -> RunEntry:
        async with asyncio.timeout(90):
            while True:
                for entry in self.entries[before:]:
                    if isinstance(entry, RunEntry) and entry.title == node:
                        return entry
                await asyncio.sleep(0.02)

    async def good_work(self) -> None:
        """The good node beside it goes on as if nothing was."""
        before = len(self.entries)
        async with self.session.post(f"{self.house.base_url}/webhooks/orders1", json={"n": 1}) as response:
            assert response.status == 200
        assert (await self.ended("good", before)).kind == "ok"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def street(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    server = socket.create_server(("127.0.0.1", 0))
    functions = ["  - {webhook: orders, id: orders1}", "  - {node_file: good.py, id: good1}"]
    (folder / "app").mkdir()
    for name, (source, keys) in NODES.items():
        (folder / "app" / f"{name}.py").write_text(source.replace("PORT", str(server.getsockname()[1])))
        functions.append(
            f"  - node_file: {name}.py\n    id: {name.replace('_', '')}\n    trigger: manual\n{keys}".rstrip()
        )
    (folder / "app" / "good.py").write_text(GOOD)
    stores = ["stores:", "  - {table: orders, id: t1}", "  - {table: out, id: t2}"]
    text = "\n".join(["title: Hostile", "slug: hostile", "functions:", *functions, *stores])
    (folder / "app" / "graph.yml").write_text(text + "\n")
    (folder / "other").mkdir()
    (folder / "other" / "graph.yml").write_text(
        "slug: other\nfunctions:\n  - {node_file: n.py, id: n1, trigger: manual}\n"
    )
    (folder / "other" / "n.py").write_text("print('secret recipe')\n")
    entries: list[Entry] = []
    settings = RunnerSettings(
        time_limit_grace=timedelta(seconds=1),
        retry_pauses=(timedelta(minutes=1),) * 4,
        processes_max=48,
        temp_bytes_max=32 << 20,
        cpu_limit=timedelta(seconds=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAILRACE_SECRET_TOKEN", SECRET)
        apps = [folder / "app", folder / "other"]
        house = House(
            HouseSettings(apps=apps, data_dir=folder / "data", port=0, runner=settings), Runtime(), entries.append
        )
        await house.start()
        token = orjson.loads((folder / "data" / CONTACT_FILE).read_bytes())["token"]
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
            yield Street(house, entries, session)
        await house.stop()
        server.close()
    assert not house.failure.done(), house.failure


@needs_landlock
@pytest.mark.asyncio(loop_scope="module")
async def test_a_node_reaches_its_own_things_and_no_others(street: Street) -> None:
    """Its code, its folder and programs; not the log, other apps, other processes, nor the machine's credentials or those
    of a node beside it."""
    kept, length = await street.trigger("keeps")  # its worker stays for its next run, and has the secret in its memory
    assert (kept.kind, length) == ("ok", str(len(SECRET))), (kept.error, kept.traceback)
    run, text = await street.trigger("snoop")
    assert run.kind == "ok", (run.error, run.traceback)
    found = json.loads(text.removeprefix("FOUND "))
    assert found["own file"] == r"'\n'"
    assert found["own folder"] == "1"
    assert found["program"] == r"b'ran\n'"
    assert found["a loopback link"].startswith("<socket")
    assert {name: found[name] for name in REFUSED if "PermissionError" not in found[name]} == {}
    assert found["another app's file"].startswith(("PermissionError", "StopIteration"))
    assert found["environments"] == found["secrets of its environment"] == "[]"
    assert SECRET not in found["another node's secret"]
    if landlock_abi() >= 6:
        assert found["a signal"].startswith("PermissionError")
    assert found["shared memory"] in ("(1, ['x'])", "PermissionError: [Errno 13] Permission denied: '/dev/shm'")
    assert not Path("/tmp/tailrace-was-here").exists()
    await street.good_work()


@needs_landlock
@pytest.mark.asyncio(loop_scope="module")
async def test_a_node_without_network_reaches_nothing_of_this_machine_either(street: Street) -> None:
    run, text = await street.trigger("snoop_offline")
    assert run.kind == "ok", (run.error, run.traceback)
    found = json.loads(text.removeprefix("FOUND "))
    for name in ("a loopback link", "metadata", "metadata by number", "a unix socket"):
        assert found[name].startswith("PermissionError"), found[name]


@needs_bubblewrap
@pytest.mark.asyncio(loop_scope="module")
async def test_in_bubblewrap_a_node_does_not_even_see_the_rest(street: Street) -> None:
    """Other files, processes and networks are not there, whatever the kernel's Landlock can do."""
    run, text = await street.trigger("snoop_in_bubblewrap")
    assert run.kind == "ok", (run.error, run.traceback)
    found = json.loads(text.removeprefix("FOUND "))
    assert found["own folder"] == "1" and found["program"] == r"b'ran\n'", found
    assert found["processes"] == "3", "its namespace's first, the one that it was forked from, and itself"
    assert found["a loopback link"].startswith(("PermissionError", "ConnectionRefusedError"))
    errors = (
        "PermissionError",
        "FileNotFoundError",
        "NotADirectoryError",
        "StopIteration",
        "OSError",
        "ProcessLookupError",
    )
    reached = {name: found[name] for name in (*REFUSED, "a signal") if not found[name].startswith(errors)}
    assert reached == {}
    assert found["environments"] == found["secrets of its environment"] == "[]"


@needs_groups
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("node", ["forks", pytest.param("forks_in_bubblewrap", marks=needs_bubblewrap)])
async def test_a_fork_bomb_is_held_and_nothing_of_it_stays(street: Street, node: str) -> None:
    run, text = await street.trigger(node)
    assert run.kind == "failed"
    assert "BlockingIOError" in (run.error or "")
    assert 0 < int(text.rpartition(" ")[2]) < 60 or "Traceback" in text or "BlockingIOError" in text
    await street.good_work()
    groups = PidsGroups.find()
    assert groups is not None
    async with asyncio.timeout(30):
        while any(_procs(group) > 48 for group in groups.folder.glob(f"tailrace-{os.getpid()}-*")):
            await asyncio.sleep(0.02)


def _procs(group: Path) -> int:
    try:
        return len((group / "cgroup.procs").read_text().split())
    except OSError:
        return 0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("fills", "filled its temporary folder: .*more than its quota of 32 MiB"),
        ("swallows", "hard limit"),
        ("spins", "CPU limit"),
    ],
)
async def test_what_takes_too_much_is_ended_with_the_reason(street: Street, node: str, reason: str) -> None:
    run, _ = await street.trigger(node)
    assert run.kind in ("died", "timed_out"), run
    assert re.search(reason, run.error or ""), run.error
    await street.good_work()


@pytest.mark.asyncio(loop_scope="module")
async def test_half_a_gigabyte_of_output_is_taken_in_bounded_memory(street: Street) -> None:
    before = len(street.entries)
    run, _ = await street.trigger("talks")
    assert run.kind == "ok", run.error
    lines = [each for each in street.entries[before:] if isinstance(each, LogLine)]
    assert sum(len(line.text) for line in lines) < 500_000
    assert any("left out" in line.text for line in lines)


@pytest.mark.asyncio(loop_scope="module")
async def test_threads_go_on_as_ever(street: Street) -> None:
    run, text = await street.trigger("shares")
    assert (run.kind, text) == ("ok", "['0', '1', '2']"), (run.error, run.traceback)
