"""Runners on Kafka as processes, an app of streams for them, and its promises."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import orjson
from kill_harness import read_table, wait_for

from tailrace.errors import AbortableError, RetriableError
from tailrace.log import Log, NewRecord, Partition
from tailrace.tables.messages import rows_message
from up_process import environment

SESSION_S = 6.0
"""The shortest that a broker takes unless it is told otherwise."""

COPY = """
from patterns import State, Table

source, copied, state = Table("source"), Table("copied{n}", "w"), State()
for row in source.as_stream():
    count = state.get_value("count", 0) + 1
    copied.append({{"number": row["number"], "count": count}})
    state.set_value("count", count)
"""


def write_app(folder: Path, slug: str, nodes: int) -> Path:
    """An app whose nodes each copy one table, counting in their State."""
    folder.mkdir(parents=True)
    functions = "".join(f"  - {{node_file: copy{n}.py, id: copy{n}}}\n" for n in range(nodes))
    stores = "".join(f"  - {{table: copied{n}, id: copied{n}}}\n" for n in range(nodes))
    (folder / "graph.yml").write_text(
        f"title: {slug}\nslug: {slug}\nfunctions:\n{functions}stores:\n  - {{table: source, id: source}}\n{stores}"
    )
    for n in range(nodes):
        (folder / f"copy{n}.py").write_text(COPY.format(n=n))
    return folder


class Runner:
    """One `python -m tailrace.runner`; with `fault`, one that breaks that promise when `moment` asks for it
    (`runner_faulty.py`)."""

    def __init__(
        self, folder: Path, log_url: str, name: str, *arguments: str, fault: str = "", moment: Path | None = None
    ) -> None:
        self.name = name
        faulty = (str(Path(__file__).parent / "runner_faulty.py"), fault, str(moment))
        program = faulty if fault else ("-m", "tailrace.runner")
        self._errors = (folder / f"{name}.stderr").open("ab")
        self.process = subprocess.Popen(
            [
                *(sys.executable, *program, "--log", log_url),
                *("--data", str(folder / name), "--shared-folder", str(folder / "shared")),
                *("--port", "0", "--session-timeout", str(SESSION_S), *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(),
        )
        self._folder = folder
        self._url = ""

    def wait_until_ready(self) -> None:
        if self._url:
            return
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready: "), self.stderr()
        self._url = line.removeprefix("ready: ").strip()

    def is_ready(self) -> bool:
        """Whether it has joined; does not wait."""
        output = self.process.stdout
        if not self._url and output is not None and select.select([output], [], [], 0)[0]:
            line = output.readline().decode()  # empty once it has ended
            self._url = line.removeprefix("ready: ").strip() if line.startswith("ready: ") else ""
        return bool(self._url)

    def page(self, path: str) -> Any:
        """What it serves; None while it does not answer."""
        try:
            with urlopen(f"{self._url}/{path}", timeout=2) as answer:
                body = answer.read()
        except (URLError, OSError):
            return None
        return orjson.loads(body) if body.startswith(b"{") else body.decode()

    def shards(self) -> set[int]:
        """Those that it holds, as far as it says."""
        health = self.page("healthz")
        return set(health["shards"]) if health else set()

    def end(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    def stderr(self) -> str:
        return (self._folder / f"{self.name}.stderr").read_text(errors="replace")


class Feed(threading.Thread):
    """Appends numbers from 0 on to a table, in twos, until told to end; each is tried once."""

    def __init__(self, log: Log, topic: str, every_s: float) -> None:
        super().__init__(daemon=True)
        self.accepted: set[int] = set()
        self._log, self._partition, self._every_s = log, Partition(topic), every_s
        self._over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._over.wait(self._every_s):
            two = (number, number + 1)
            number += 2
            rows = orjson.dumps([{"number": each} for each in two])
            head = {"kind": "rows", "ts": int(time.time() * 1000), "n": 2, "fields": {"number": "Integer"}}
            with contextlib.suppress(RetriableError, AbortableError):  # not there, or nobody knows
                self._log.append(self._partition, [NewRecord(rows_message(head, rows))])
                self.accepted.update(two)

    def end(self) -> set[int]:
        """Stop; returns the numbers that the log said it has."""
        self._over.set()
        self.join(60)
        return self.accepted


def check_copies(log: Log, slug: str, nodes: int, accepted: set[int], patience_s: float = 60) -> None:
    """What was accepted is in the table, and each node has copied each of its rows once, in order, and counted each copy."""
    source = [row["number"] for row in read_table(log, f"{slug}.source")]
    assert accepted <= set(source), "rows that were accepted are lost"
    for n in range(nodes):
        topic = f"{slug}.copied{n}"
        wait_for(partial(_has, log, topic, len(source)), f"{topic} has all rows", patience_s)
        rows = read_table(log, topic)
        assert [row["number"] for row in rows] == source, f"{topic}: rows are missing, twice or out of order"
        counts = [row["count"] for row in rows]
        assert counts == list(range(1, len(source) + 1)), f"{topic}: State has lost or repeated something"


def _has(log: Log, topic: str, rows: int) -> bool:
    return len(read_table(log, topic)) >= rows
