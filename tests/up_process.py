"""The command line as real processes: one command, or `tailrace up` with what it prints."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from forked import fork

from tailrace.cli.client import Client

COMMAND = [sys.executable, "-m", "tailrace.cli"]
"""The command as it is started everywhere but in most tests, where it is forked: it is loaded once."""
PROGRAM = Path(__file__).with_name("cli_program.py")
PATIENCE_S = 60.0
"""Longest wait for a condition; far more than it takes on a machine that is not busy with other things."""


def environment(**more: str) -> dict[str, str]:
    """This environment without our own settings, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def tailrace(*arguments: str | Path, cwd: Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryFile() as errors:
        process = fork(PROGRAM, *words, env=environment(**more), cwd=cwd, stderr=errors, pipes=True)
        assert process.stdin is not None
        try:
            process.stdin.write(stdin.encode())
            said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.close()
        errors.seek(0)
        assert process.returncode is not None
        return subprocess.CompletedProcess(words, process.returncode, said.decode(), errors.read().decode())


class UpProcess:
    """`tailrace up APPS --json --port 0`, from ready to stopped."""

    def __init__(
        self,
        data_dir: Path,
        *apps: Path,
        log: str | None = None,
        arguments: Sequence[str] = (),
        program: Path = PROGRAM,
    ) -> None:
        self.data_dir = data_dir
        self.entries: list[Mapping[str, Any]] = []
        """What it printed, line by line."""
        self._news = threading.Condition()
        self._ended = False
        more = [*(["--log", log] if log else []), *arguments]
        self._errors = data_dir.with_name(f"{data_dir.name}.stderr")
        with self._errors.open("ab") as errors:
            words = ["up", *map(str, apps), "--data", str(data_dir), "--port", "0", "--json", *more]
            self.process = fork(program, *words, env=environment(), stderr=errors, pipes=True, session=True)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> UpProcess:
        try:
            self.ready = self.wait_for(lambda entry: entry["type"] == "ready")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            if kind is None:
                assert self.stop() == 0, self.errors
            else:
                self.kill()
        self._close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return str(self.ready["url"])

    @property
    def webhooks(self) -> dict[str, str]:
        """URL by title of all webhooks."""
        return {each["webhook"]: each["url"] for app in self.ready["apps"] for each in app["webhooks"]}

    @property
    def errors(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text(errors="replace")

    def wait_for(self, wanted: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        """The first entry, from the beginning on, that is wanted."""
        deadline = time.monotonic() + PATIENCE_S
        with self._news:
            while True:
                found = next((entry for entry in self.entries if wanted(entry)), None)
                if found is not None:
                    return found
                if self._ended or not self._news.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"it was not printed.\n{self.entries[-5:]}\n{self.errors}")

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that speaks to this `up`."""
        return tailrace(*arguments, "--data", self.data_dir, cwd=self.data_dir.parent)

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return orjson.loads(done.stdout)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table's rows, asked for without a process of its own."""
        path = f"tables/{table}/rows"
        found: list[dict[str, Any]] = orjson.loads(b"".join(Client(self.data_dir).pieces(path, format="json")))
        return found

    def until(self, ask: Callable[[], Any], *, wanted: Callable[[Any], bool]) -> Any:
        """What `ask` gives once it is wanted; asked again after each piece of news, and now and then."""
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(found := ask()):
            assert time.monotonic() < deadline and not self._ended, f"still {found!r}\n{self.errors}"
            with self._news:
                self._news.wait(0.2)
        return found

    def stop(self, number: int = signal.SIGINT) -> int:
        """Signal it (SIGINT: its whole process group, as a terminal does) and wait for its end; returns the status."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE_S)
        self._close()
        return status

    def kill(self) -> None:
        """End it as `kill -9` would, with everything of its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.entries.append(orjson.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _close(self) -> None:
        self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.contextmanager
def up(data_dir: Path, *apps: Path, log: str | None = None, arguments: Sequence[str] = ()) -> Iterator[UpProcess]:
    """A running `up` that must end with status 0."""
    with UpProcess(data_dir, *apps, log=log, arguments=arguments) as process:
        yield process


def write_app(folder: Path, graph: str, **files: str | bytes) -> Path:
    """An app in `folder`; a file's name has `__` for its dot: `node__py="..."`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.yml").write_text(graph)
    for name, content in files.items():
        file = folder / name.replace("__", ".")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder
