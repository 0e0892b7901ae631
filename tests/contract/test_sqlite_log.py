"""The log's contract on SQLite, and what SQLite alone has: its file, its disk, its doorbells."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from full_disk import mounted
from log_contract import (
    DEADLINE_S,
    LogContract,
    MakeLog,
    everything,
    fresh,
    numbered,
    record,
    texts,
)

from tailrace.log import (
    Append,
    DiskFullError,
    Log,
    LogFormatError,
    LogLimits,
    LogUnavailableError,
    LogUrlError,
    NewRecord,
    Offset,
    Partition,
    Place,
    TopicSpec,
    open_log,
)
from tailrace.log.sqlite import SqliteLog
from tailrace.runtime import SYSTEM, Crash, CrashAt, ManualClock, Runtime

HASTY = LogLimits(request_timeout=timedelta(milliseconds=200))


@pytest.fixture
def log_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/data/tailrace.db"


@pytest.fixture
def make_log(log_url: str) -> Iterator[MakeLog]:
    handles: list[Log] = []

    def make(*, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> Log:
        handles.append(open_log(log_url, limits=limits, runtime=runtime))
        return handles[-1]

    yield make
    for handle in handles:
        handle.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tailrace.db"


class TestSqliteLog(LogContract):
    """On a new file each."""

    @pytest.fixture
    def commit_points(self) -> tuple[str, str]:
        return "sqlite-commit-before", "sqlite-commit-after"


# The file


@pytest.mark.parametrize("form", ["sqlite://{}", "sqlite:///{}"])
def test_a_missing_folder_is_made(tmp_path: Path, form: str) -> None:
    """With three slashes and a path, or with SQLAlchemy's four."""
    log = open_log(form.format(tmp_path / "new" / "deep" / "tailrace.db"))
    log.create_topics([TopicSpec("orders")])
    log.close()
    assert (tmp_path / "new" / "deep" / "tailrace.db").is_file()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///tailrace.db", "sqlite://relative/tailrace.db", "sqlite:x"]
)
def test_an_unclear_url_is_refused(url: str) -> None:
    with pytest.raises(LogUrlError):
        open_log(url)


def test_a_newer_format_is_left_alone(database: Path, log_url: str, make_log: MakeLog) -> None:
    make_log().close()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = database.read_bytes()
    with pytest.raises(LogFormatError, match=r"log format 2; this program reads log format 1 .*install") as told:
        open_log(log_url)
    assert told.value.path == str(database)
    assert database.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(database: Path, log_url: str) -> None:
    database.parent.mkdir()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = database.read_bytes()
    with pytest.raises(LogFormatError, match="another program"):
        open_log(log_url)
    assert database.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(database: Path, log_url: str) -> None:
    database.parent.mkdir()
    database.write_text("a letter to a friend\n" * 100)
    with pytest.raises(LogFormatError, match="no SQLite log"):
        open_log(log_url)
    assert database.read_text().startswith("a letter")


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "tailrace.db", tmp_path / "folder"):
        with pytest.raises(LogUnavailableError) as told:
            open_log(f"sqlite://{path}")
        assert str(path) in str(told.value) or str(path.parent) in str(told.value)


def test_a_folder_without_permission_is_told() -> None:
    """As somebody else where this is root, whom no permission stops."""
    script = (
        "import os, sys\n"
        "from tailrace.log import *\n"
        "import tailrace.log.sqlite\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: open_log(sys.argv[1])\n"
        "except LogUnavailableError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        for path in (f"{folder}/tailrace.db", f"{folder}/new/tailrace.db"):
            ran = subprocess.run(
                [sys.executable, "-c", script, f"sqlite://{path}"], capture_output=True, text=True, timeout=60
            )
            assert folder in ran.stdout, (ran.stdout, ran.stderr)
            assert "check that the folder can be written to" in ran.stdout


def test_two_first_openers_make_one_log(log_url: str) -> None:
    """They meet at the empty file; neither may find half of the tables."""
    handles: list[Log] = []
    threads = [threading.Thread(target=lambda: handles.append(open_log(log_url))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handles) == 6
    handles[0].create_topics([TopicSpec("orders")])
    assert [list(handle.topics()) for handle in handles] == [["orders"]] * 6
    for handle in handles:
        handle.close()


def test_a_crash_inside_a_commit_leaves_nothing(make_log: MakeLog) -> None:
    log = make_log(runtime=Runtime(probe=CrashAt("sqlite-commit-before", 4)))
    log.create_topics([TopicSpec("orders")])
    writer = log.open_writer("w")
    orders = Partition("orders")
    writer.commit([Append(orders, numbered(2))])
    with pytest.raises(Crash):
        writer.commit([Append(orders, numbered(2))], {"g": {orders: Place(Offset(2))}})
    other = make_log()
    assert len(everything(other, orders)) == 2
    assert other.open_writer("w").commits == 1
    assert other.places("g", [orders]) == {}


# Turns


def test_a_process_that_holds_the_lock_for_ever_is_told(make_log: MakeLog, database: Path) -> None:
    log = make_log(limits=HASTY)
    log.create_topics([TopicSpec("orders")])
    with Path(f"{database}-lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for _ in range(2):
            with pytest.raises(LogUnavailableError, match=r"another process has been writing for 0\.2 s"):
                log.append(Partition("orders"), [record("a")])
        assert log.read(Partition("orders"), Offset(0)).records == []  # readers do not care
    log.append(Partition("orders"), [record("b")])
    assert texts(everything(log, Partition("orders"))) == ["b"]


def test_a_program_that_locks_the_database_is_told(make_log: MakeLog, database: Path) -> None:
    log = make_log(limits=HASTY)
    log.create_topics([TopicSpec("orders")])
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailableError, match="locked"):
        log.append(Partition("orders"), [record("a")])
    other.execute("ROLLBACK")
    other.close()
    log.append(Partition("orders"), [record("b")])
    assert texts(everything(log, Partition("orders"))) == ["b"]


def test_a_stopped_writer_of_another_process_gives_its_turn_back_by_dying(make_log: MakeLog, log_url: str) -> None:
    """Stopped in the middle of its transaction (Ctrl-Z, a debugger), then killed."""
    log = make_log(limits=HASTY)
    log.create_topics([TopicSpec("orders")])
    script = (
        "import os, signal, sys\n"
        "from tailrace.log import *\n"
        "from tailrace.runtime import Probe, Runtime\n"
        "class Stop(Probe):\n"
        "    def reached(self, point): print('inside', flush=True); os.kill(os.getpid(), signal.SIGSTOP)\n"
        "open_log(sys.argv[1], runtime=Runtime(probe=Stop())).append(Partition('orders'), [NewRecord(b'half')])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, log_url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    with pytest.raises(LogUnavailableError):
        log.append(Partition("orders"), [record("a")])
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    log.append(Partition("orders"), [record("b")])
    assert texts(everything(log, Partition("orders"))) == ["b"]


# What lies in the file


def rows(database: Path, table: str) -> int:
    connection = sqlite3.connect(database)
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    connection.close()
    return int(count)


def test_a_compacted_topic_stays_small(make_log: MakeLog, database: Path) -> None:
    log = make_log()
    log.create_topics([TopicSpec("state", compacted=True)])
    for number in range(50):
        log.append(Partition("state"), [record(str(number), f"k{which}") for which in (0, 1, 2, 1)])
    assert rows(database, "records") == rows(database, "keys") == 3


def test_tombstones_go_after_a_day(make_log: MakeLog, database: Path) -> None:
    """A reader that is behind learns for a day that the key is gone; then nothing is left of it."""
    clock = ManualClock()
    log = make_log(runtime=Runtime(clock=clock))
    log.create_topics([TopicSpec("state", compacted=True)])
    state = Partition("state")
    log.append(state, [record("a", "a"), record("b", "b")])
    log.append(state, [NewRecord(None, b"a")])
    clock.advance_ms(24 * 3_600_000 - 1)
    log.append(state, [record("c", "c")])
    assert [one.key for one in everything(log, state)] == [b"b", b"a", b"c"]
    clock.advance_ms(2)
    log.append(state, [record("d", "d")])
    assert [one.key for one in everything(log, state)] == [b"b", b"c", b"d"]
    assert rows(database, "keys") == 3


def test_nothing_is_left_of_a_deleted_topic(make_log: MakeLog, database: Path) -> None:
    log = make_log()
    log.create_topics([TopicSpec("big", 2), TopicSpec("state", compacted=True), TopicSpec("stays")])
    for number in range(3):
        log.append(Partition("big", number % 2), numbered(6_000))
    log.append(Partition("state"), [record("x", str(number)) for number in range(6_000)])
    log.append(Partition("stays"), numbered(3))
    log.open_writer("w").commit(
        places={"g": {Partition("big"): Place(Offset(1)), Partition("stays"): Place(Offset(2))}}
    )
    log.delete_topics(["big", "state"])
    assert {
        table: rows(database, table) for table in ("records", "keys", "partitions", "places", "dropped_partitions")
    } == {
        "records": 3,
        "keys": 0,
        "partitions": 1,
        "places": 1,
        "dropped_partitions": 0,
    }


def test_a_delete_that_was_cut_short_is_completed_by_the_next_trim(make_log: MakeLog, database: Path) -> None:
    log = make_log(runtime=Runtime(probe=CrashAt("sqlite-commit-after", 4)))
    log.create_topics([TopicSpec("big"), TopicSpec("stays")])
    log.append(Partition("big"), numbered(20))
    log.append(Partition("stays"), numbered(3))
    with pytest.raises(Crash):
        log.delete_topics(["big"])
    other = make_log()
    assert list(other.topics()) == ["stays"]
    assert rows(database, "records") == 23
    other.trim(Partition("stays"), Offset(1))
    assert rows(database, "records") == 2
    assert rows(database, "dropped_partitions") == 0


def test_a_trim_takes_at_most_5_000_records_at_a_time(make_log: MakeLog) -> None:
    log = make_log()
    log.create_topics([TopicSpec("big")])
    log.append(Partition("big"), numbered(12_000))
    assert log.trim(Partition("big"), Offset(11_000), records_max=1_000_000) == 5_000
    assert log.trim(Partition("big"), Offset(11_000), records_max=1_000_000) == 10_000
    assert log.trim(Partition("big"), Offset(11_000), records_max=1_000_000) == 11_000


# Doorbells


def test_sockets_of_the_dead_are_taken_away(make_log: MakeLog, database: Path) -> None:
    log = make_log()
    log.create_topics([TopicSpec("orders")])
    bells = Path(f"{database}-bells")
    watch = log.watch()
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with_fd = os.open(bells, os.O_RDONLY)
    dead.bind(f"/proc/self/fd/{with_fd}/dead")
    os.close(with_fd)
    dead.close()
    assert len(list(bells.iterdir())) == 2
    log.append(Partition("orders"), [record("a")])
    assert len(list(bells.iterdir())) == 1
    watch.close()
    assert list(bells.iterdir()) == []


def test_a_closed_log_closes_its_watches(make_log: MakeLog, database: Path) -> None:
    log = make_log()
    log.watch()
    log.close()
    assert list(Path(f"{database}-bells").iterdir()) == []


async def test_a_commit_without_a_ring_is_found(make_log: MakeLog) -> None:
    """Its process was killed between the commit and the ring: nothing else may ever tell of it."""
    log, other = make_log(), make_log(runtime=Runtime(probe=CrashAt("sqlite-commit-after", 1)))
    log.create_topics([TopicSpec("orders"), TopicSpec("quiet")])
    orders = Partition("orders")
    watch = log.watch([orders, Partition("quiet")])
    assert len(await watch.wait(DEADLINE_S)) == 2
    with pytest.raises(Crash):
        other.append(orders, [record("unheard")])
    async with asyncio.timeout(DEADLINE_S):
        assert await watch.wait() == {orders}
    watch.close()


async def test_watching_works_where_no_socket_can_be(make_log: MakeLog, database: Path) -> None:
    """A file system without sockets: then it looks, which costs a little more."""
    log = make_log()
    log.create_topics([TopicSpec("orders")])
    Path(f"{database}-bells").write_text("in the way")
    watch = log.watch([Partition("orders")])
    assert await watch.wait(DEADLINE_S)
    log.append(Partition("orders"), [record("a")])
    async with asyncio.timeout(DEADLINE_S):
        assert await watch.wait() == {Partition("orders")}
    watch.close()


async def test_bells_ring_at_the_end_of_a_long_path(tmp_path: Path) -> None:
    """A UNIX socket's address holds about a hundred bytes."""
    log = open_log(f"sqlite://{tmp_path}/{'long' * 30}/{'name' * 20}.db")
    log.create_topics([TopicSpec("orders")])
    watch = log.watch([Partition("orders")])
    assert await watch.wait(DEADLINE_S)
    loop = asyncio.get_running_loop()
    delays_s = []
    for _ in range(9):
        log.append(Partition("orders"), [record("a")])
        began_s = loop.time()
        async with asyncio.timeout(DEADLINE_S):
            assert await watch.wait() == {Partition("orders")}
        delays_s.append(loop.time() - began_s)
    assert sorted(delays_s)[4] < 0.1
    log.close()


async def test_waiting_writes_nothing_and_takes_no_time(make_log: MakeLog, database: Path) -> None:
    """Two watches for a second: some looks at a counter, no write."""
    log = make_log()
    log.create_topics([TopicSpec("orders")])
    watches = [log.watch([Partition("orders")]) for _ in range(2)]
    for watch in watches:
        await watch.wait(DEADLINE_S)
    before = {path: path.stat().st_mtime_ns for path in database.parent.iterdir()}
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    assert await asyncio.gather(*(watch.wait(1.2) for watch in watches)) == [frozenset(), frozenset()]
    assert sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - used_s < 0.1
    assert {path: path.stat().st_mtime_ns for path in database.parent.iterdir()} == before


# The disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 2 MiB."""
    with mounted(tmp_path / "disk", mib=2) as folder:
        yield folder


async def test_a_full_disk_loses_nothing_and_goes_on_by_itself(small_disk: Path) -> None:
    log = open_log(f"sqlite://{small_disk}/tailrace.db")
    log.create_topics([TopicSpec("orders"), TopicSpec("live")])
    orders = Partition("orders")
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 600_000)
    writer = log.open_writer("w")
    appender = log.appender()
    accepted = 0
    with pytest.raises(DiskFullError) as told:
        while accepted < 10_000:
            writer.commit([Append(orders, [NewRecord(b"%d" % accepted + b" " * 2_000)] * 3)])
            accepted += 1
    assert told.value.path == f"{small_disk}/tailrace.db"
    for _ in range(3):
        with pytest.raises(DiskFullError):
            log.append(orders, [NewRecord(b"n" * 100_000)])
        with pytest.raises(DiskFullError):
            await appender.append(orders, NewRecord(b"n" * 100_000))
        with pytest.raises(DiskFullError):
            writer.commit([Append(orders, [NewRecord(b"n" * 100_000)])], {"g": {orders: Place(Offset(9))}})

    def check(handle: Log) -> None:
        found = [one.value for one in everything(handle, orders)]
        assert [value and value.split()[0] for value in found] == [
            b"%d" % number for number in range(accepted) for _ in range(3)
        ]
        assert handle.places("g", [orders]) == {}

    check(log)
    ballast.unlink()
    writer.commit([Append(Partition("live"), [NewRecord(b"on it goes" * 5_000)])])
    await appender.append(Partition("live"), record("and on"))
    assert writer.commits == accepted + 1
    check(log)
    assert len(everything(log, Partition("live"))) == 2
    await appender.close()
    log.close()
    again = open_log(f"sqlite://{small_disk}/tailrace.db")
    check(again)
    again.close()


def test_a_full_disk_at_the_first_opening_is_told(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4_096)
    with pytest.raises(DiskFullError):
        open_log(f"sqlite://{small_disk}/tailrace.db")
    ballast.unlink()
    log = open_log(f"sqlite://{small_disk}/tailrace.db")
    log.create_topics([TopicSpec(fresh("orders"))])
    log.close()


def test_a_small_file_limit_is_no_lost_record(log_url: str) -> None:
    """A write that the kernel refuses half way (RLIMIT_FSIZE, a quota) is taken back as a whole."""
    script = (
        "import resource, signal, sys\n"
        "from tailrace.log import *\n"
        "log = open_log(sys.argv[1]); log.create_topics([TopicSpec('orders')])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))\n"
        "n = 0\n"
        "try:\n"
        "    while n < 5_000: log.append(Partition('orders'), [NewRecord(b'%d ' % n + b' ' * 2_000)] * 2); n += 1\n"
        "except TailraceError as error: print(n, type(error).__name__, flush=True)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "log.append(Partition('orders'), [NewRecord(b'%d ' % n)] * 2); log.close()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, log_url], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    count, kind = ran.stdout.split()
    assert kind in {"LogUnavailableError", "DiskFullError"}
    log = SqliteLog(log_url)
    found = [one.value and one.value.split()[0] for one in everything(log, Partition("orders"))]
    assert found == [b"%d" % number for number in range(int(count) + 1) for _ in range(2)]
    log.close()
