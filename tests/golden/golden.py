"""One `tailrace up` with several apps, and what a test asks it: posts, triggers, tables, runs, output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import requests

from up_process import UpProcess

APPS = Path(__file__).parent / "apps"
PATIENT = Path(__file__).with_name("patient_tailrace.py")
REQUEST_TIMEOUT_S = 60.0


class Golden:
    """A running `up`, asked over the same local interface that the command line uses."""

    def __init__(self, process: UpProcess) -> None:
        self.process = process
        contact = orjson.loads((process.data_dir / "up.json").read_bytes())
        self._url = f"{contact['url']}/api/local"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {contact['token']}"

    def get(self, path: str, **query: str | int) -> Any:
        """What a route of the local interface answers."""
        response = self._session.get(f"{self._url}/{path}", params=query, timeout=REQUEST_TIMEOUT_S)
        assert response.status_code == 200, f"{path}: {response.text}"
        return response.json()

    def post(self, webhook: str, body: Any) -> requests.Response:
        """Post one body to a webhook, by its title or id; the answer is not looked at."""
        url = self.process.webhooks.get(webhook) or f"{self.process.url}/webhooks/{webhook}"
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Content-Type": "application/json"}
        return requests.post(url, data=data, headers=headers, timeout=REQUEST_TIMEOUT_S)

    def send(self, webhook: str, *bodies: Any) -> None:
        """Post each body, and let none be refused."""
        for body in bodies:
            answer = self.post(webhook, body)
            assert (answer.status_code, answer.text) == (200, ""), answer.text

    def run(self, node: str, app: str) -> Mapping[str, Any]:
        """Trigger a node and wait for the end of the run."""
        known = {run["run"] for run in self.runs(node)}
        asked = {"node": node, "app": app, "type": "manual"}
        response = self._session.post(f"{self._url}/trigger", json=asked, timeout=REQUEST_TIMEOUT_S)
        assert response.status_code == 200, response.text
        fresh: list[Mapping[str, Any]] = self.until(
            lambda: [run for run in self.runs(node) if run["run"] not in known], wanted=bool
        )
        return fresh[0]

    def passes(self, node: str, app: str) -> None:
        """Trigger a node whose script asserts what must hold; its error is this test's."""
        run = self.run(node, app)
        assert run["kind"] == "ok", f"{run['error']}\n{self.output(node)}"

    def runs(self, node: str | None = None, *, last: int = 500) -> list[dict[str, Any]]:
        """The newest runs, oldest first."""
        found: list[dict[str, Any]] = self.get("runs", last=last, **({"node": node} if node else {}))
        return found

    def output(self, node: str) -> str:
        """What a node printed."""
        return "\n".join(line["text"] for line in self.get("logs", node=node, last=1000))

    def rows(self, table: str, app: str, *, limit: int = 10_000) -> list[dict[str, Any]]:
        """Rows of a table, in order."""
        found: list[dict[str, Any]] = self.get(f"tables/{table}/rows", app=app, limit=limit)
        return found

    def sql(self, query: str, app: str) -> list[dict[str, Any]]:
        """The answer of a query over an app's tables."""
        response = self._session.post(f"{self._url}/sql", json={"sql": query, "app": app}, timeout=REQUEST_TIMEOUT_S)
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()
        return found

    def until(self, ask: Callable[[], Any], *, wanted: Callable[[Any], bool]) -> Any:
        """What `ask` gives once it is wanted."""
        return self.process.until(ask, wanted=wanted)

    def until_rows(self, table: str, app: str, expected: Sequence[Mapping[str, Any]], *, key: str) -> None:
        """Wait until a table has as many rows as expected; they must be these, whatever columns they have besides."""
        columns = list(expected[0]) if expected else []
        found = self.until(lambda: self.rows(table, app), wanted=lambda rows: len(rows) >= len(expected))
        assert sorted(({name: row.get(name) for name in columns} for row in found), key=lambda row: row[key]) == sorted(
            expected, key=lambda row: row[key]
        )


@contextmanager
def golden_up(data_dir: Path, *apps: str, log: str | None = None) -> Iterator[Golden]:
    """`up` with apps of the folder beside this file."""
    with UpProcess(data_dir, *(APPS / app for app in apps), log=log, program=PATIENT) as process:
        yield Golden(process)
