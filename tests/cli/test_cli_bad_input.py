"""Bad input ends with a place and a way out, an exit status, and no traceback of ours."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tailrace.cli.app import run
from up_process import UpProcess, tailrace, up, write_app

GOOD = """\
functions:
  - webhook: inbox
    id: webhook1
  - node_file: copy.py
    id: copynode
stores:
  - {table: inbox, id: inbox001}
  - {table: copies, id: copies01}
"""
COPY = """\
from patterns import Table
inbox, copies = Table("inbox"), Table("copies", "w")
for row in inbox.as_stream():
    copies.append({"n": row["record"]["n"]})
"""


@pytest.fixture
def good_app(tmp_path: Path) -> Path:
    return write_app(tmp_path / "good", GOOD, copy__py=COPY)


Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """A command in this process: what a process of its own would only do more slowly."""
    monkeypatch.chdir(tmp_path)
    for name in ("TAILRACE_DATA", "TAILRACE_LOG", "TAILRACE_PORT", "TAILRACE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAILRACE_TRACEBACK", "")

    def run_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as end:
            run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return subprocess.CompletedProcess(arguments, end.value.code, said.out, said.err)

    return run_here


def assert_told(done: subprocess.CompletedProcess[str], status: int, *parts: str) -> None:
    """It ended with `status`, and said each of `parts` without a traceback of ours."""
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    assert "Traceback" not in said
    for part in parts:
        assert part in said


BAD_GRAPHS = {
    "wrong type": ("functions: 7\n", {}, ("graph.yml:1: error:", "functions")),
    "no yaml": ("functions: [\n", {}, ("graph.yml:", "error:")),
    "a text": ("hello\n", {}, ("graph.yml:1: error:",)),
    "missing node file": (GOOD, {}, ("graph.yml:4: error:", "copy.py")),
    "syntax error": (GOOD, {"copy__py": "x = 1\nfor row in\n"}, ("copy.py:2: error:",)),
    "no UTF-8 in a node": (GOOD, {"copy__py": b"x = '\xff\xfe'\n"}, ("copy.py:1: error:", "UTF-8")),
    "a cycle of subgraphs": (
        "functions:\n  - node_file: sub/graph.yml\n    id: subgraph\n",
        {"sub/graph__yml": "functions:\n  - node_file: ../graph.yml\n    id: maingrph\n"},
        ("error:", "graph.yml"),
    ),
}


def test_check_names_each_place(tmp_path: Path, good_app: Path) -> None:
    """File, line and reason, as editors and people expect of a compiler; and status 1 for scripts."""
    for case, (graph, files, _) in BAD_GRAPHS.items():
        for name, content in files.items():
            write_app(tmp_path / case, graph, **{name: content})
        write_app(tmp_path / case, graph)
    (write_app(tmp_path / "no UTF-8", "") / "graph.yml").write_bytes(b"title: \xff\xfe\n")
    done = tailrace("check", *BAD_GRAPHS, "no UTF-8", good_app, cwd=tmp_path)
    assert_told(done, 1, "no UTF-8/graph.yml:1: error:", "good: no errors in 2 nodes and 2 stores")
    for case, (_, _, parts) in BAD_GRAPHS.items():
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"{case}/")]
        assert any(all(part in line for part in parts) for line in lines), (case, lines)


@pytest.mark.parametrize("graph", ["functions: 7\n", "functions: [\n", "hello\n", None])
def test_up_without_a_usable_graph_ends(here: Here, tmp_path: Path, graph: str | None) -> None:
    """There is nothing to run, so it must not sit there as if it ran something."""
    (tmp_path / "app").mkdir()
    if graph is not None:
        write_app(tmp_path / "app", graph)
    assert_told(here("up", "app", "--port", "0"), 1, "error: app holds no graph", "graph.yml")
    assert not (tmp_path / ".tailrace").exists(), "nothing was opened for it"


def test_up_runs_what_is_good_of_a_graph(tmp_path: Path) -> None:
    """One bad node is told with its place, and holds up no other."""
    graph = GOOD.replace("stores:", "  - node_file: bad.py\n    id: badnode1\nstores:")
    app = write_app(tmp_path / "app", graph, copy__py=COPY, bad__py="def (\n")
    with up(tmp_path / "data", app) as process:
        problem = process.wait_for(lambda entry: entry["type"] == "problem")
        assert (problem["file"], problem["line"], problem["severity"]) == ("bad.py", 1, "error")
        assert requests.post(process.webhooks["inbox"], json={"n": 1}, timeout=30).status_code == 200
        run = process.wait_for(lambda entry: entry["type"] == "run" and entry["node"] == "copynode")
        assert run["kind"] == "ok", run


def test_a_failing_node_says_where(tmp_path: Path) -> None:
    """The file and line of the user's code stand in the run's error, and its traceback holds no frame of ours."""
    app = write_app(tmp_path / "app", GOOD, copy__py=COPY.replace('row["record"]["n"]', '1 / row["record"]["n"]'))
    with up(tmp_path / "data", app) as process:
        requests.post(process.webhooks["inbox"], json={"n": 0}, timeout=30)
        failed = process.wait_for(lambda entry: entry["type"] == "run" and entry["kind"] == "failed")
        assert "ZeroDivisionError" in failed["error"] and "copy.py" in failed["error"]
        assert "tailrace/node" not in failed["traceback"]
        runs = process.json("runs", "--status", "failed")
        assert [run["node"] for run in runs] == ["copynode"]


def test_a_port_in_use(tmp_path: Path, good_app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_told(tailrace("up", good_app, "--port", str(port), cwd=tmp_path), 1, f"error: port {port}", "--port")


def test_an_address_of_another_machine(tmp_path: Path, good_app: Path) -> None:
    done = tailrace("up", good_app, "--port", "0", "--host", "192.0.2.1", cwd=tmp_path)  # kept for documentation
    assert_told(done, 1, "error: port 0 of 192.0.2.1 cannot be listened on: Cannot assign", "--host")


def test_a_data_folder_that_cannot_be_made(tmp_path: Path, good_app: Path) -> None:
    (tmp_path / "file").touch()
    done = tailrace("up", good_app, "--port", "0", "--data", "file", cwd=tmp_path)
    assert_told(done, 1, f"error: {tmp_path / 'file'} cannot be written: File exists", "--data")


def test_a_data_folder_in_use(tmp_path: Path, good_app: Path) -> None:
    with up(tmp_path / "data", good_app) as process:
        second = tailrace("up", good_app, "--port", "0", "--data", "data", cwd=tmp_path)
        assert_told(second, 1, "error: another `tailrace up` uses", "--data")
        assert requests.post(process.webhooks["inbox"], json={"n": 1}, timeout=30).status_code == 200


def test_a_log_of_a_newer_format(tmp_path: Path, good_app: Path) -> None:
    """An older program must not write into it; and must leave it as it was."""
    with up(tmp_path / "data", good_app):
        pass
    file = tmp_path / "data" / "tailrace.db"
    with sqlite3.connect(file) as database:
        version = database.execute("pragma user_version").fetchone()[0]
        database.execute(f"pragma user_version = {version + 1}")
    database.close()
    done = tailrace("up", good_app, "--port", "0", "--data", "data", cwd=tmp_path)
    assert_told(done, 1, "error: ", "tailrace.db", str(version + 1))


def test_a_log_that_is_none(tmp_path: Path, good_app: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tailrace.db").write_bytes(b"no database at all, but long enough to be one" * 100)
    assert_told(tailrace("up", good_app, "--port", "0", "--data", "data", cwd=tmp_path), 1, "error: ", "tailrace.db")


@pytest.mark.parametrize("url", ["nonsense", "redis://localhost", "kafka://"])
def test_a_log_url_that_cannot_be_understood(here: Here, good_app: Path, url: str) -> None:
    assert_told(here("up", good_app, "--port", "0", "--log", url), 2, "error: log url", url)


def test_a_kafka_that_is_not_there(tmp_path: Path, good_app: Path) -> None:
    with socket.socket() as nobody:  # bound, but not listening
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        done = tailrace("up", good_app, "--port", "0", "--log", f"kafka://{address}", cwd=tmp_path)
    assert_told(done, 3, "error: ", address)


def test_sql_that_fails(tmp_path: Path, good_app: Path) -> None:
    with up(tmp_path / "data", good_app) as process:
        requests.post(process.webhooks["inbox"], json={"n": 1}, timeout=30)
        process.wait_for(lambda entry: entry["type"] == "run")
        assert_told(process.cli("sql", "select nope from copies"), 1, "error: ", "nope")
        assert_told(process.cli("sql", "selec"), 1, "error: ")
        assert_told(process.cli("sql", "select * from nowhere"), 1, "error: ", "nowhere")
        assert_told(process.cli("table", "head", "nowhere"), 1, "error: there is no table 'nowhere'", "copies")
        assert_told(process.cli("trigger", "nowhere"), 1, "error: there is no node 'nowhere'", "copy")
        assert_told(process.cli("trigger", "nowhere", "--wait"), 1, "error: there is no node 'nowhere'", "copy")
        assert_told(process.cli("runs", "--status", "odd"), 2, "error: ", "timed_out")


@pytest.mark.parametrize(
    "arguments",
    [("status",), ("tables",), ("table", "head", "x"), ("sql", "select 1"), ("runs",), ("logs", "-f"), ("webhooks",)],
)
def test_without_a_running_up(here: Here, arguments: tuple[str, ...]) -> None:
    assert_told(here(*arguments), 3, "error: no running `tailrace up`", "tailrace up APP")


def test_an_up_that_was_killed(tmp_path: Path, good_app: Path) -> None:
    """Its contact file is still there; that must not look like an answer."""
    with UpProcess(tmp_path / "data", good_app) as process:
        process.kill()
        assert_told(process.cli("status"), 3, "error: no running `tailrace up`")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nonsense",), "nonsense"),
        (("up", "--nonsense"), "--nonsense"),
        (("up", "--port", "x"), "--port"),
        (("table",), "Usage"),
        (("sql",), "QUERY"),
        (("sql", " "), "empty"),
        (("up",), "no app was named"),
        (("check",), "no app was named"),
        (("new", "node", "x.txt"), ".py or .sql"),
        (("new", "node", "x.py"), "no graph.yml"),
        (("table", "export", "x", "--format", "xlsx"), "xlsx"),
    ],
)
def test_wrong_usage_is_2(here: Here, arguments: tuple[str, ...], part: str) -> None:
    assert_told(here(*arguments), 2, part)


def test_a_traceback_is_shown_on_request(here: Here) -> None:
    done = here("--traceback", "status")
    assert done.returncode == 3
    assert "Traceback (most recent call last)" in done.stderr and "NotUpError" in done.stderr
