"""`idle` and `start`: the example without traffic, and from nothing to the first answer."""

from __future__ import annotations

import contextlib
import gzip
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import requests

from benchmarks.houses import cpu_s, process_tree, pss_bytes, snapshotters
from benchmarks.result import Result
from tailrace.cli.house import CONTACT_FILE
from tailrace.log import Log, Partition, open_log

__all__ = ["idle", "start"]

EXAMPLE = Path(__file__).parent.parent / "examples" / "github"
WEBHOOK = "gh7webhk"
STARTS = 7

_BARE = """
import sqlite3, sys
from aiohttp import web
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE posts (id INTEGER PRIMARY KEY, body BLOB)")
async def post(request):
    db.execute("INSERT INTO posts (body) VALUES (?)", (await request.read(),))
    return web.Response()
app = web.Application()
app.router.add_post("/webhooks/x", post)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None)
"""


def _payload() -> Any:
    return orjson.loads(gzip.decompress((EXAMPLE / "payloads.json.gz").read_bytes()))[0]["payload"]


@contextlib.contextmanager
def _up(data: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`tailrace up` over the example, as a person starts it; its lines of JSON go to the file given back."""
    out = data.with_name(f"{data.name}.out")
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tailrace.cli", "up", str(EXAMPLE), "--data", str(data), "--port", "0", "--json"],
            stdout=file,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield process, out
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until(process: subprocess.Popen[bytes], what: str, timeout_s: float, condition: Any) -> Any:
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        found = condition()
        if found:
            return found
        if process.poll() is not None:
            raise RuntimeError(f"it ended (status {process.returncode}) before {what}")
        time.sleep(0.005)
    raise TimeoutError(f"not within {timeout_s:g} s: {what}")


def _contact(data: Path) -> dict[str, Any] | None:
    try:
        return orjson.loads((data / CONTACT_FILE).read_bytes())  # type: ignore[no-any-return]
    except (OSError, orjson.JSONDecodeError):
        return None


def _ran(out: Path) -> set[str]:
    """Nodes that have ended a run well."""
    found = set()
    for line in out.read_bytes().splitlines():
        with contextlib.suppress(orjson.JSONDecodeError):
            entry = orjson.loads(line)
            if entry.get("type") == "run" and entry.get("kind") == "ok":
                found.add(str(entry["title"]))
    return found


def _post(session: requests.Session, url: str, payload: Any) -> None:
    assert session.post(url, json=payload, timeout=30).status_code == 200


def _local() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def start(*, quick: bool) -> Result:
    """Process start to the first webhook answered, and to the first run of a node."""
    payload = _payload()
    answered: list[float] = []
    ran: list[float] = []
    bare: list[float] = []
    for _ in range(2 if quick else STARTS):
        with tempfile.TemporaryDirectory(prefix="bench-") as name, _local() as session:
            folder = Path(name)
            bare.append(_bare_start(folder / "bare.db", session, payload))
            began_s = time.monotonic()
            data = folder / "data"
            with _up(data) as (process, out):
                contact = _until(process, "it listens", 60, lambda data=data: _contact(data))
                _post(session, f"{contact['url']}/webhooks/{WEBHOOK}", payload)
                answered.append(time.monotonic() - began_s)
                _until(process, "a node ran", 60, lambda out=out: "Normalise" in _ran(out))
                ran.append(time.monotonic() - began_s)
    value, first_run = statistics.median(answered), statistics.median(ran)
    return Result(
        name="start",
        value=value,
        unit="s",
        baseline=statistics.median(bare),
        what="`tailrace up` on the example to its first webhook answered",
        against="a bare aiohttp server that puts posts into SQLite",
        wanted="2 s, and 4 s to the first run",
        met=value <= 2 and first_run <= 4,
        extra={
            "first_run_s": round(first_run, 2),
            "worst_s": round(max(answered), 2),
            "first_run_worst_s": round(max(ran), 2),
            "samples": len(answered),
        },
    )


def _bare_start(path: Path, session: requests.Session, payload: Any) -> float:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began_s = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", _BARE, str(path), str(port)], stdin=subprocess.DEVNULL)
    try:

        def answered() -> bool:
            try:
                return session.post(f"http://127.0.0.1:{port}/webhooks/x", json=payload, timeout=30).status_code == 200
            except requests.ConnectionError:
                return False

        _until(process, "it answered", 60, answered)
        return time.monotonic() - began_s
    finally:
        process.terminate()
        process.wait()


def idle(*, quick: bool) -> Result:
    """CPU time, memory and writes of the example while nothing comes in."""
    seconds = 10 if quick else 60
    with tempfile.TemporaryDirectory(prefix="bench-") as name, _local() as session:
        data = Path(name) / "data"
        with _up(data) as (process, out):
            contact = _until(process, "it listens", 60, lambda: _contact(data))
            _post(session, f"{contact['url']}/webhooks/{WEBHOOK}", _payload())
            _until(process, "all nodes ran", 60, lambda: {"Normalise", "Count by kind"} <= _ran(out))
            log = open_log(f"sqlite:///{data / 'tailrace.db'}")
            try:
                _until(process, "a snapshotter came", 60, lambda: snapshotters(process.pid))
                _until(process, "it went", 120, lambda: not snapshotters(process.pid))
                _settled(log)
                before, before_s = _ends(log), _cpu(process.pid)
                time.sleep(seconds)
                used, after = (_cpu(process.pid) - before_s) / seconds, _ends(log)
            finally:
                log.close()
            pss = {pid: pss_bytes(pid) for pid in process_tree(process.pid)}
    total = sum(pss.values())
    return Result(
        name="idle",
        value=used * 100,
        unit="% of a core",
        baseline=2.0,
        what=f"the example without traffic for {seconds} s",
        against="the bound",
        wanted="under 2 % of a core, 300 MB PSS in all, no write to the log",
        met=used < 0.02 and total < 300e6 and before == after,
        extra={
            "pss_MB": round(total / 1e6),
            "pss_MB_each": sorted((round(each / 1e6) for each in pss.values()), reverse=True),
            "records_written": sum(after.values()) - sum(before.values()),
            "seconds": seconds,
        },
    )


def _cpu(pid: int) -> float:
    return sum(cpu_s(each, with_ended=True) for each in process_tree(pid))


def _ends(log: Log) -> dict[Partition, int]:
    return {**log.ends([Partition(topic) for topic in log.topics()])}


def _settled(log: Log) -> None:
    """Until nothing has been written for three seconds: runs are told to the journal a second late."""
    known, since_s = _ends(log), time.monotonic()
    until_s = time.monotonic() + 60
    while time.monotonic() - since_s < 3:
        time.sleep(0.1)
        if (now := _ends(log)) != known:
            known, since_s = now, time.monotonic()
        if time.monotonic() > until_s:
            return
