"""Whatever node code does to its process: it ends with a reason that a person understands, and all else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tailrace.errors import SettingError
from tailrace.node import _process
from tailrace.runner.worker_output import OutputLimits, OutputLine
from tailrace.runner.workers import PRELOAD, Worker, WorkerLimits, WorkerPool, WorkerSpec, WorkerStartError

HERE = str(Path(__file__).parent)
MIB = 1 << 20


def spec(entry: str = "serve", **fields: Any) -> WorkerSpec:
    return WorkerSpec(entry=f"workers_entry:{entry}", **fields)


async def call(worker: Worker, do: str, **arguments: Any) -> Any:
    """The worker's answer; ConnectionError where it ended instead."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(worker.sock, json.dumps({"do": do, **arguments}).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        if not (data := await loop.sock_recv(worker.sock, 65536)):
            raise ConnectionError("the worker closed the connection")
        answer += data
    return json.loads(answer)


async def tell(worker: Worker, do: str, **arguments: Any) -> None:
    """Have the worker do something that it does not answer."""
    message = json.dumps({"do": do, **arguments}).encode() + b"\n"
    await asyncio.get_running_loop().sock_sendall(worker.sock, message)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def all_lines(worker: Worker) -> list[OutputLine]:
    """All lines of a worker that has ended."""
    await worker.wait()
    return [line async for line in worker.output]


class Pool(WorkerPool):
    """One that closes our ends of all sockets when it is closed."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self._socks: list[socket.socket] = []

    async def spawn(self, spec: WorkerSpec, *, preloaded: bool = False) -> Worker:
        worker = await super().spawn(spec, preloaded=preloaded)
        self._socks.append(worker.sock)
        return worker

    async def close(self, grace_s: float = 1.0) -> None:
        await super().close(grace_s)
        for sock in self._socks:
            sock.close()


@contextlib.asynccontextmanager
async def opened(folder: Path, **fields: Any) -> AsyncIterator[WorkerPool]:
    """A pool; after it, none of its processes and none of its files are there."""
    pool = Pool(folder=folder, **{"paths": [HERE], "preload": (), **fields})
    await pool.start()
    fds = open_files()
    try:
        yield pool
    finally:
        await pool.close()
    assert _process.kill_processes_of(str(folder)) == []
    assert list(folder.iterdir()) == []
    assert open_files() <= fds, "what it opened it closed"


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[WorkerPool]:
    async with opened(tmp_path / "pools") as pool:
        yield pool


# -- what a worker is


async def test_a_worker_has_nothing_of_its_host(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its environment, which holds credentials, nor its descriptors, folder, session or terminal."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the host")
    monkeypatch.setenv("PYTHONPATH", "/of/the/host")
    worker = await pool.spawn(spec(environment={"ENVIRONMENT": "staging"}))
    seen = await call(worker, "look")
    folder = pool.folder / "w1"
    assert seen["pid"] == worker.pid == seen["sid"] == seen["pgid"]
    assert seen["ppid"] == pool.zygote_pid != os.getpid()
    assert seen["cwd"] == seen["environ"]["TMPDIR"] == seen["environ"]["HOME"] == str(folder)
    assert seen["environ"]["TZ"] == "UTC"
    assert seen["environ"]["ENVIRONMENT"] == "staging"
    allowed = {*_process._PASSED_ON, *_process._LIBRARY_SETTINGS, "PATH", "LANG", "TZ", "HOME", "TMPDIR", "ENVIRONMENT"}
    assert set(seen["environ"]) <= allowed
    assert {line.partition("=")[0] for line in seen["initial_environ"] if line} <= allowed
    assert sorted(map(int, seen["fds"])) == [0, 1, 2, 3]
    assert seen["fds"]["0"] == "/dev/null"
    assert seen["fds"]["3"].startswith("socket:")
    assert seen["stdin"] == ""
    assert seen["umask"] == "0077"
    assert seen["oom_score_adj"] >= 500
    assert seen["no_new_privs"] == "1"
    assert seen["threads"] == 1
    assert int(seen["blocked"], 16) == 0
    limits = worker.spec.limits
    assert seen["limits"]["data"] == [limits.memory_bytes_max] * 2
    assert seen["limits"]["files"] == [limits.open_files_max] * 2
    assert seen["limits"]["core"] == [0, 0]
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_workers_draw_different_random_numbers(pool: WorkerPool) -> None:
    first, second = [await call(await pool.spawn(spec()), "look") for _ in range(2)]
    assert first["random"] != second["random"]


async def test_a_worker_ends_in_good_order_when_its_socket_is_closed(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec(spec={"node": "n1"}))
    assert await call(worker, "echo", x=1) == {"spec": {"node": "n1"}, "x": 1}
    end = await worker.close()
    assert (end.reason, end.orderly, end.status) == ("ended in good order", True, 0)
    assert pool.workers == []


async def test_many_start_at_once(pool: WorkerPool) -> None:
    workers = await asyncio.gather(*(pool.spawn(spec(spec={"n": n})) for n in range(20)))
    answers = await asyncio.gather(*(call(worker, "echo") for worker in workers))
    assert [answer["spec"]["n"] for answer in answers] == list(range(20))


async def test_workers_are_forked_before_all_is_imported_and_the_zygote_has_one_thread(tmp_path: Path) -> None:
    """A first run that does without pandas must not wait for it; and a fork with threads leaves locks held for ever."""
    async with opened(tmp_path / "pools", preload=PRELOAD) as pool:
        early = await pool.spawn(spec())
        assert not set(PRELOAD) <= set((await call(early, "look"))["modules"])
        late = await pool.spawn(spec(), preloaded=True)
        seen = await call(late, "look")
        assert set(PRELOAD) <= set(seen["modules"])
        assert seen["threads"] == 1
        assert len(list(Path(f"/proc/{pool.zygote_pid}/task").iterdir())) == 1
        assert pool.zygotes_started == 1
        # An ordinary day's work of the large libraries passes under the ordinary limits.
        result = await call(late, "heavy")
        assert (result["rows"], result["groups"], result["ordered"]) == (2_000_000, 2_000_000, 5)
        assert await call(late, "pss_kb") > 0


async def test_a_module_that_starts_a_thread_is_left_to_the_workers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "threaded_module.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    )
    async with opened(
        tmp_path / "pools", preload=["colorsys", "threaded_module", "not_there"], paths=[HERE, str(tmp_path)]
    ) as pool:
        await until(lambda: pool.zygotes_started == 2)
        await pool.preloaded()
        assert await call(await pool.spawn(spec()), "echo")
    assert "threaded_module starts a thread when imported" in caplog.text


# -- ends


@pytest.mark.parametrize(
    ("do", "arguments", "reason"),
    [
        ("end", {"status": 3}, r"ended itself with os\._exit\(3\)"),
        ("end", {"status": 0}, r"ended itself with os\._exit\(0\)"),
        ("segfault", {}, r"killed by signal 11 \(SIGSEGV\): a crash in native code"),
        ("recurse_in_c", {}, r"killed by signal 11 \(SIGSEGV\)|failed outside of the node's code"),
        ("kill_self", {"number": 9}, r"killed by signal 9 \(SIGKILL\): most likely the machine was out of memory"),
        ("kill_self", {"number": 15}, r"killed by signal 15 \(SIGTERM\): sent from outside or by its own code"),
        ("kill_self", {"number": 6}, r"killed by signal 6 \(SIGABRT\)"),
        ("close_socket", {}, r"failed outside of the node's code"),
    ],
)
async def test_its_end_has_a_reason_and_others_go_on(
    pool: WorkerPool, do: str, arguments: dict[str, Any], reason: str
) -> None:
    other = await pool.spawn(spec())
    worker = await pool.spawn(spec())
    await tell(worker, do, **arguments)
    end = await worker.wait()
    assert not end.orderly
    assert re.match(reason, end.reason), end.reason
    assert await call(other, "echo")
    assert pool.zygotes_started == 1


async def test_a_leak_ends_in_a_memory_error_at_the_limit(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec(limits=WorkerLimits(memory_bytes_max=256 * MIB)))
    answer = await call(worker, "leak")
    assert answer.startswith("MemoryError after 2")
    assert await call(worker, "echo"), "an error that it caught is the node's own business"


async def test_a_leak_in_native_code_is_told_from_a_crash(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec(limits=WorkerLimits(memory_bytes_max=256 * MIB)))
    await tell(worker, "leak_natively")
    assert (await worker.wait()).reason.startswith("hit its memory limit of 256 MiB (it had 2")


async def test_recursion_without_end_stays_in_its_limits(pool: WorkerPool) -> None:
    """Python's own recursion needs no C stack any more, so it is the memory that ends it."""
    worker = await pool.spawn(spec(limits=WorkerLimits(memory_bytes_max=256 * MIB)))
    await tell(worker, "recurse")
    end = await worker.wait()
    assert not end.orderly
    assert end.memory_peak_bytes < 400 * MIB


async def test_a_loop_ends_at_the_cpu_limit(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec(limits=WorkerLimits(cpu_s_max=1)))
    await tell(worker, "busy")
    end = await worker.wait()
    assert end.reason == "hit its CPU limit of 1 s"
    assert end.signal == signal.SIGXCPU


@pytest.mark.parametrize("do", ["spin", "busy"])
async def test_one_that_never_yields_is_killed_with_the_reason_given(pool: WorkerPool, do: str) -> None:
    worker = await pool.spawn(spec())
    await tell(worker, do)
    end = await worker.kill("ran longer than its time limit of 600 s")
    assert end.reason == "ran longer than its time limit of 600 s"
    assert end.signal == signal.SIGKILL
    assert not lives(worker.pid)


async def test_one_that_blocks_all_signals_is_killed_and_closed(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec())
    assert await call(worker, "block_signals") == "deaf"
    await tell(worker, "spin")
    end = await worker.close(grace_s=0.05)
    assert end.reason == "killed by its host: it did not end when it was asked to"


async def test_killing_one_that_has_ended_tells_its_own_end(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec())
    await tell(worker, "end", status=5)
    await worker.wait()
    assert (await worker.kill()).reason == "ended itself with os._exit(5)"


async def test_an_entry_point_that_fails_says_why_on_stderr(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec("fail"))
    lines = await all_lines(worker)
    assert lines[-1] == OutputLine(None, "stderr", "RuntimeError: serve itself is broken")
    missing = await pool.spawn(WorkerSpec(entry="no_such_module:serve"))
    assert "No module named 'no_such_module'" in (await all_lines(missing))[-1].text


# -- what they start


@pytest.mark.parametrize("how", ["kill", "end", "close"])
@pytest.mark.parametrize("do", ["children", "daemons"])
async def test_what_it_started_goes_with_it(pool: WorkerPool, do: str, how: str) -> None:
    """Daemons too: they have another session and another parent than the worker."""
    worker = await pool.spawn(spec())
    pids = await call(worker, do)
    assert all(map(lives, pids))
    if how == "kill":
        end = await worker.kill()
    elif how == "end":
        await tell(worker, "end", status=1)
        end = await worker.wait()
    else:
        end = await worker.close()
    assert not any(map(lives, pids))
    if (do, how) == ("daemons", "end"):
        assert end.orphans == len(pids)


async def test_what_one_started_goes_and_what_another_started_stays(pool: WorkerPool) -> None:
    first, second = await pool.spawn(spec()), await pool.spawn(spec())
    theirs, others = await call(first, "daemons"), await call(second, "daemons")
    await first.kill()
    assert not any(map(lives, theirs))
    assert all(map(lives, others))


async def test_a_forked_child_cannot_speak_on_the_socket(pool: WorkerPool) -> None:
    """Two voices on one stream would garble it."""
    worker = await pool.spawn(spec())
    assert "Socket operation on non-socket" in await call(worker, "forked_child_speaks")
    assert await call(worker, "echo")


async def test_threads_do_not_keep_it_from_ending(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec())
    assert await call(worker, "threads") == 4
    assert (await worker.close()).orderly


# -- files


async def test_its_folder_goes_with_it_however_it_left_it(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec())
    place = Path(await call(worker, "litter"))
    assert place.exists()
    await worker.kill()
    await until(lambda: not place.parent.parent.exists())


async def test_a_file_without_end_fails_at_its_limit(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec(limits=WorkerLimits(file_bytes_max=8 * MIB)))
    assert await call(worker, "fill_folder") == "File too large"
    assert await call(worker, "echo")


async def test_a_full_disk_is_the_nodes_error(tmp_path: Path) -> None:
    """And nobody else's: the host's files lie elsewhere."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        async with opened(small / "pools") as pool:
            worker = await pool.spawn(spec())
            assert await call(worker, "fill_folder") == "No space left on device"
            assert await call(worker, "echo")
    finally:
        subprocess.run(["umount", small], check=True)


# -- output


async def test_ten_megabytes_of_output_block_nobody_and_fill_nothing(pool: WorkerPool) -> None:
    limits = OutputLimits(head_bytes_max=10_000, tail_bytes_max=5_000)
    worker = await pool.spawn(spec(output=limits))
    worker.output.begin_run("r1")
    assert await call(worker, "printing", bytes_=10_000_000) == 10_000_000
    worker.output.end_run()
    worker.output.begin_run("r2")
    await call(worker, "printing", bytes_=1000)
    worker.output.end_run()
    await worker.close()
    lines = await all_lines(worker)
    first = [line for line in lines if line.run == "r1"]
    assert sum(len(line.text) + 1 for line in first if line.stream == "stdout") <= 15_000
    assert [line.stream for line in first].count("notice") == 1
    notice = next(line.text for line in first if line.stream == "notice")
    kept = sum(1 for line in first if line.text[:1] == "x")
    assert notice == f"... {(100_000 - kept) * 100:,} bytes ({100_000 - kept:,} lines) of output left out here ..."
    assert first[-1].text == "the last line"
    assert [line.text for line in lines if line.run == "r2"] == ["x" * 99] * 10 + ["the last line"]


async def test_a_line_without_end_is_cut(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec(output=OutputLimits(line_bytes_max=1000)))
    await call(worker, "printing", bytes_=3500, line_bytes=3500)
    await worker.close()
    assert [len(line.text) for line in await all_lines(worker)] == [1000, 1000, 1000, 499, 13]


async def test_output_that_nobody_reads_is_bounded(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec(output=OutputLimits(waiting_bytes_max=20_000)))
    for number in range(5):
        worker.output.begin_run(str(number))
        await call(worker, "printing", bytes_=100_000)
        worker.output.end_run()
    await worker.close()
    lines = await all_lines(worker)
    assert sum(len(line.text) for line in lines) <= 20_000
    assert "nobody read them in time" in lines[0].text


async def test_both_streams_are_told_apart(pool: WorkerPool) -> None:
    worker = await pool.spawn(spec())
    await call(worker, "printing", bytes_=0, stream="stderr")
    await call(worker, "printing", bytes_=0, stream="stdout")
    await worker.close()
    assert {line.stream for line in await all_lines(worker)} == {"stdout", "stderr"}


# -- the zygote


async def test_when_the_zygote_is_killed_its_workers_are_told_and_another_starts(
    pool: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    worker = await pool.spawn(spec())
    daemons = await call(worker, "daemons")
    zygote = pool.zygote_pid
    assert zygote is not None
    os.kill(zygote, signal.SIGKILL)
    end = await worker.wait()
    assert end.reason == "killed because the process it was forked from was killed by signal 9 (SIGKILL)"
    await until(lambda: not any(map(lives, [worker.pid, *daemons])))  # the kernel kills them one after the other
    assert await call(await pool.spawn(spec()), "echo")
    assert pool.zygotes_started == 2
    assert "starting another" in caplog.text


async def test_a_stuck_zygote_holds_no_kill(pool: WorkerPool) -> None:
    pool.kill_patience_s = 0.05
    worker = await pool.spawn(spec())
    assert pool.zygote_pid is not None
    os.kill(pool.zygote_pid, signal.SIGSTOP)
    end = await worker.kill("enough")
    assert end.reason == "enough"
    assert await call(await pool.spawn(spec()), "echo")


async def test_a_zygote_that_cannot_start_is_told_with_what_it_said(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho broken interpreter >&2\nexit 3\n")
    broken.chmod(0o755)
    async with opened(tmp_path / "pools", python=str(broken), spawn_timeout_s=0.5) as pool:
        with pytest.raises(WorkerStartError, match="ended with 3: broken interpreter"):
            await pool.spawn(spec())
        assert pool.zygotes_started < 10, "it pauses between two"
    async with opened(tmp_path / "pools", python=str(tmp_path / "away"), spawn_timeout_s=0.2) as pool:
        with pytest.raises(WorkerStartError, match="No such file"):
            await pool.spawn(spec())


async def test_when_the_host_is_killed_nothing_stays(tmp_path: Path) -> None:
    """The zygote hears of it and kills all workers with what they started."""
    script = f"""
import asyncio, json, sys
sys.path.insert(0, {HERE!r})
from pathlib import Path
from test_workers_misbehave import call, spec
from tailrace.runner.workers import WorkerPool
async def main():
    pool = WorkerPool(folder=Path({str(tmp_path / "pools")!r}), paths=[{HERE!r}], preload=())
    await pool.start()
    worker = await pool.spawn(spec())
    daemons = await call(worker, "daemons")
    print(json.dumps([pool.zygote_pid, worker.pid, *daemons]), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    host = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert host.stdout is not None
    pids = json.loads(await asyncio.to_thread(host.stdout.readline))
    host.kill()
    host.wait()
    host.stdout.close()
    await until(lambda: not any(map(lives, pids)))
    await until(lambda: not list((tmp_path / "pools").iterdir()))


async def test_a_pool_cleans_up_after_one_that_was_killed_with_its_zygote(tmp_path: Path) -> None:
    left = tmp_path / "pools" / "pool-left"
    (left / "w1").mkdir(parents=True)
    stray = subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], "TMPDIR": str(left / "w1")})
    async with opened(tmp_path / "pools") as pool, opened(tmp_path / "pools2") as other:
        assert stray.wait() == -signal.SIGKILL
        assert not left.exists()
        assert pool.folder.exists()
        assert other.folder.exists()


async def test_pools_share_a_folder(tmp_path: Path) -> None:
    first = Pool(folder=tmp_path / "pools", paths=[HERE], preload=())
    await first.start()
    worker = await first.spawn(spec())
    second = Pool(folder=tmp_path / "pools", paths=[HERE], preload=())
    await second.start()
    await second.spawn(spec())
    await second.close()
    assert await call(worker, "echo")
    await first.close()


async def test_close_takes_less_than_two_seconds_whatever_they_do(pool: WorkerPool) -> None:
    workers = [await pool.spawn(spec()) for _ in range(4)]
    for worker, do in zip(workers, ["block_signals", "daemons", "threads", "echo"], strict=True):
        await call(worker, do)
    for worker in workers[:2]:
        await tell(worker, "spin")
    async with asyncio.timeout(2):
        await pool.close()
    assert all(worker.ended for worker in workers)
    with pytest.raises(WorkerStartError, match="the pool is closed"):
        await pool.spawn(spec())


async def test_two_who_close_a_pool_close_it_once(tmp_path: Path) -> None:
    """A descriptor that is closed twice may be somebody else's by then."""
    pool = Pool(folder=tmp_path / "pools", paths=[HERE], preload=())
    await pool.start()
    await pool.spawn(spec())
    folder = pool.folder

    async def close() -> int:
        await pool.close()
        assert not folder.exists()
        return os.open("/dev/null", os.O_RDONLY)  # it has the lowest number that is free

    for opened in await asyncio.gather(close(), close()):
        os.close(opened)  # nobody else has closed it


async def test_a_spawn_that_was_given_up_leaves_no_worker(pool: WorkerPool) -> None:
    await pool.spawn(spec())
    assert pool.zygote_pid is not None
    os.kill(pool.zygote_pid, signal.SIGSTOP)
    spawning = asyncio.create_task(pool.spawn(spec()))
    await until(lambda: pool._link is not None and bool(pool._link._spawning))
    spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning
    os.kill(pool.zygote_pid, signal.SIGCONT)
    await pool.spawn(spec())
    zygote = pool.zygote_pid
    await until(lambda: len(_process.child_processes(zygote)) == 2)
    assert len(pool.workers) == 2


async def test_a_request_that_is_too_large_is_refused(pool: WorkerPool) -> None:
    with pytest.raises(WorkerStartError, match="send it over the socket"):
        await pool.spawn(spec(spec={"x": "y" * 200_000}))


@pytest.mark.parametrize("limits", [{"memory_bytes_max": 1}, {"cpu_s_max": 0}, {"open_files_max": 3}])
def test_limits_that_cannot_work_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(SettingError):
        WorkerLimits(**limits)


async def test_the_zygotes_limits_are_not_lowered(pool: WorkerPool) -> None:
    """A limit is set in the fork alone; the next worker gets its own."""
    await pool.spawn(spec(limits=WorkerLimits(open_files_max=64)))
    seen = await call(await pool.spawn(spec()), "look")
    assert seen["limits"]["files"][0] == min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


async def test_pools_that_start_together_keep_their_folders(tmp_path: Path) -> None:
    """One that has made its folder and not locked it yet is not taken for one whose process is dead."""
    pools = [WorkerPool(folder=tmp_path, preload=()) for _ in range(6)]
    await asyncio.gather(*(pool.start() for pool in pools))
    try:
        assert len({pool.folder for pool in pools}) == len(pools)
        assert all(pool.folder.is_dir() for pool in pools)
    finally:
        await asyncio.gather(*(pool.close() for pool in pools))
