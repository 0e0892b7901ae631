"""A real S3 server on this machine (versitygw's, which knows conditional puts), for tests of lakes in object stores."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["S3Server", "begin_build", "find_server"]

SOURCE = Path(__file__).resolve().parents[2] / "deploy" / "s3" / "server"
BUCKET = "lake"
BUILD_S = 600


def find_server() -> Path | None:
    """The program, built once by `go` below `~/.cache/tailrace`; None where that cannot be done."""
    program, go = _program(), shutil.which("go")
    if not program.exists() and go is not None:
        program.parent.mkdir(parents=True, exist_ok=True)
        with (program.parent / "s3-server.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                _build(go, program)
    return program if program.exists() else None


def begin_build() -> None:
    """Build it while other tests run, in a process that takes the time that they leave. It takes a minute or two of two
    cores; `find_server` waits for it."""
    if not _program().exists():
        subprocess.run(
            ["sh", "-c", '"$@" &', "sh", sys.executable, __file__],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=True,
        )


def _program() -> Path:
    sources = b"".join((SOURCE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    return Path.home() / ".cache" / "tailrace" / "bin" / f"s3-server-{hashlib.sha256(sources).hexdigest()[:12]}"


def _build(go: str, program: Path) -> None:
    """Without optimizations, which take as long as the rest, and with more memory for less collecting."""
    draft = program.with_suffix(".draft")
    command = [go, "build", "-gcflags=all=-N -l -dwarf=false", "-ldflags=-s -w", "-o", str(draft), "."]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOGC": "400"}
    try:
        done = subprocess.run(command, cwd=SOURCE, env=environment, check=False, timeout=BUILD_S)
    except subprocess.TimeoutExpired:  # without a network, or with a slow one, there is none
        return
    if done.returncode == 0:
        draft.replace(program)


class S3Server:
    """One server with one bucket, `lake`, which it keeps over `stop` and `start`."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "buckets" / BUCKET).mkdir(parents=True)
        (folder / "sidecar").mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs, in the names of the AWS tools."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
        }

    def start(self) -> None:
        """Returns once it answers."""
        self._process = subprocess.Popen(
            [
                self._program,
                *("--listen", f"127.0.0.1:{self.port}"),
                *("--buckets", self._folder / "buckets", "--sidecar", self._folder / "sidecar"),
            ],
            env={"ROOT_ACCESS_KEY": "tester", "ROOT_SECRET_KEY": "not-a-secret"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._process.poll() is None, "the S3 server ended at once"
                assert time.monotonic() < deadline, "the S3 server does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


if __name__ == "__main__":
    os.nice(19)
    # Between sessions Linux shares the cores by groups, each with a weight of its own (sched(7)).
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
    find_server()
