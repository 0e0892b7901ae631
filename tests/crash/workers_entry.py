"""What the workers of the tests run: a tiny serve loop, and things that node code should not do.

Runs in the worker. The host sends one JSON line a call, `{"do": name, ...}`, and gets one JSON line back.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def serve(sock: socket.socket, spec: dict[str, Any]) -> None:
    with sock.makefile("rwb") as stream:
        for line in stream:
            call = json.loads(line)
            answer = globals()[call.pop("do")](spec=spec, sock=sock, **call)
            sys.stdout.flush()
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()


def fail(sock: socket.socket, spec: dict[str, Any]) -> None:
    raise RuntimeError("serve itself is broken")


def echo(**call: Any) -> Any:
    return {key: value for key, value in call.items() if key != "sock"}


def look(**_: Any) -> dict[str, Any]:
    """What the worker sees of itself."""
    fds = {int(fd.name): str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if _is_open(int(fd.name))}
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "sid": os.getsid(0),
        "pgid": os.getpgid(0),
        "cwd": str(Path.cwd()),
        "fds": fds,
        "environ": dict(os.environ),
        "initial_environ": Path("/proc/self/environ").read_bytes().decode().split("\0"),
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
        "umask": status["Umask"],
        "threads": int(status["Threads"]),
        "no_new_privs": status["NoNewPrivs"],
        "blocked": status["SigBlk"],
        "limits": {
            "data": resource.getrlimit(resource.RLIMIT_DATA),
            "files": resource.getrlimit(resource.RLIMIT_NOFILE),
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "fsize": resource.getrlimit(resource.RLIMIT_FSIZE),
            "cpu": resource.getrlimit(resource.RLIMIT_CPU),
        },
        "stdin": sys.stdin.read(),
        "modules": sorted(sys.modules),
        "random": __import__("random").random(),
    }


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def printing(bytes_: int, line_bytes: int = 100, stream: str = "stdout", **_: Any) -> int:
    line = "x" * (line_bytes - 1)
    out = getattr(sys, stream)
    for _number in range(bytes_ // line_bytes):
        print(line, file=out)
    print("the last line", file=out)
    return bytes_


def leak(chunk_bytes: int = 8 << 20, **_: Any) -> str:
    kept = []
    try:
        while True:
            kept.append(bytearray(chunk_bytes))
    except MemoryError:
        count = len(kept)
        kept.clear()
        return f"MemoryError after {count * chunk_bytes >> 20} MiB"


def leak_natively(**_: Any) -> None:
    """As a C library does: no exception, just an end."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while place := libc.malloc(ctypes.c_size_t(8 << 20)):
        ctypes.memset(place, 1, 8 << 20)
    os.abort()


def end(status: int, **_: Any) -> None:
    os._exit(status)


def segfault(**_: Any) -> None:
    ctypes.string_at(0)


def recurse(**_: Any) -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    sys.setrecursionlimit(1 << 30)
    deeper(0)


def recurse_in_c(**_: Any) -> None:
    sys.setrecursionlimit(1 << 30)

    class Endless:
        def __repr__(self) -> str:
            return repr(self)

    repr(Endless())


def kill_self(number: int, **_: Any) -> None:
    os.kill(os.getpid(), number)


def spin(**_: Any) -> None:
    """One C call that never gives the interpreter a turn."""
    sum(iter(int, 1))


def busy(**_: Any) -> None:
    while True:
        pass


def close_socket(sock: socket.socket, **_: Any) -> None:
    os.close(sock.fileno())


def block_signals(**_: Any) -> str:
    everything = set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}
    signal.pthread_sigmask(signal.SIG_BLOCK, everything)
    for number in everything:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    return "deaf"


def children(count: int = 3, **_: Any) -> list[int]:
    return [subprocess.Popen(["sleep", "600"]).pid for _number in range(count)]


def forked_child_speaks(sock: socket.socket, **_: Any) -> str:
    """What a forked child does with the inherited socket."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            sock.send(b"garbage")
            os.write(write, b"it could speak")
        except OSError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    return os.read(read, 1000).decode()


def daemons(count: int = 3, scrub: bool = False, **_: Any) -> list[int]:
    """Double-fork with a session of their own, as daemons do, deaf to signals."""
    pids = []
    for _number in range(count):
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                os.write(write, str(os.getpid()).encode())
                while True:
                    time.sleep(600)
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        pids.append(int(os.read(read, 100)))
        os.close(read)
    return pids


def threads(count: int = 3, **_: Any) -> int:
    for _number in range(count):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return threading.active_count()


def fill_folder(**_: Any) -> str:
    place = Path(os.environ["TMPDIR"])
    try:
        with (place / "big").open("wb") as file:
            while True:
                file.write(b"x" * (1 << 20))
                file.flush()
    except OSError as error:
        (place / "big").unlink()
        return str(error.strerror)


def litter(**_: Any) -> str:
    place = Path(os.environ["TMPDIR"]) / "deep" / "er"
    place.mkdir(parents=True)
    (place / "file").write_text("left")
    place.chmod(0o500)
    return str(place)


def heavy(**_: Any) -> dict[str, Any]:
    """A day's work with the large libraries, under the memory limit."""
    import duckdb
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 2_000_000
    frame = pd.DataFrame({"k": np.arange(rows) % 1000, "v": np.random.default_rng(0).random(rows), "s": "text"})
    arrow_table = pa.Table.from_pandas(frame)
    path = Path(os.environ["TMPDIR"]) / "t.parquet"
    pq.write_table(arrow_table, path)
    connection = duckdb.connect()
    total = connection.sql(f"select count(*), sum(v) from '{path}'").fetchall()[0]
    groups = len(frame.merge(frame.groupby("k", as_index=False).v.sum(), on="k"))
    ordered = connection.sql("select * from arrow_table order by v desc limit 5").fetchall()
    path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {"rows": total[0], "groups": groups, "ordered": len(ordered), "peak": peak, "data": status["VmData"].strip()}


def pss_kb(**_: Any) -> int:
    return next(int(x.split()[1]) for x in Path("/proc/self/smaps_rollup").read_text().splitlines() if x[:4] == "Pss:")


def run(text: str, limit_s: float | None = None, cpu_s: float | None = None, **_: Any) -> dict[str, Any]:
    """Run a script in this warm process, as a worker does."""
    from tailrace.node.script import collect_garbage, error_place, format_user_traceback, run_script

    app = Path(os.environ["TMPDIR"]) / "app"
    app.mkdir(exist_ok=True)
    (app / "node.py").write_text(text)
    began_s = time.perf_counter()
    try:
        end = run_script(app / "node.py", app, limit_s=limit_s, cpu_s=cpu_s)
    except BaseException as error:
        return {"error": format_user_traceback(error, app), "place": error_place(error, app)}
    finally:
        collect_garbage(if_grown=True)
    return {
        "took_ms": 1000 * (time.perf_counter() - began_s),
        "clean": end.leftovers.clean,
        "threads": end.leftovers.threads,
        "children": end.leftovers.children,
        "broken": end.leftovers.broken,
    }
