"""Who may import whom (ARCHITECTURE.md), read from the source: a room that reaches into another shows here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBS = {
    "errors": set(),
    "runtime": set(),
    "durations": set(),
    "sqltext": set(),
    "log": {"errors", "runtime"},
    "tables": {"errors", "runtime", "log"},
    "lake": {"errors", "runtime", "log", "tables"},
    "backup": {"errors", "runtime", "log"},
    "doctor": {"log", "lake"},
    "graph": {"errors", "durations", "sqltext"},
    "process": {"durations"},
    "engine": {"errors"},
    "control": {"errors", "runtime", "log", "graph"},
    "sql": {"errors", "runtime", "sqltext"},
    "node": {"errors", "runtime", "tables", "sql"},
    "testing": {"errors", "runtime", "tables", "node"},
}
"""Room -> the rooms that it may import. Those that are not here are services and the command line."""
SERVICES = {"gateway", "runner", "snapshotter", "api"}
LIBRARIES_WITH_ONE_ROOM = {
    "confluent_kafka": ("log/kafka",),
    "duckdb": ("sql",),
    "deltalake": ("lake",),
    "obstore": ("lake",),
    "faust": ("runner/spread",),
    "typer": ("cli",),
    "aiohttp": ("gateway", "api", "cli"),
}
NO_IO = {"asyncio", "socket", "subprocess", "threading", "time", "random", "requests", "aiohttp", "sqlite3"}


@cache
def sources() -> list[Path]:
    return sorted([*(ROOT / "libs" / "tailrace").rglob("*.py"), *(ROOT / "services" / "tailrace").rglob("*.py")])


def place_of(path: Path) -> str:
    """`log/kafka/_url.py` for a file of either half."""
    half = ROOT / ("libs" if path.is_relative_to(ROOT / "libs") else "services") / "tailrace"
    return path.relative_to(half).as_posix()


def room_of(path: Path) -> str:
    return place_of(path).split("/")[0].removesuffix(".py")


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Line and full name of each module that a file imports, inside functions too; not those for type checkers."""
    tree = ast.parse(path.read_bytes())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.append((node.lineno, node.module or ""))
            if node.module == "tailrace":
                found += [(node.lineno, f"tailrace.{alias.name}") for alias in node.names]
    return found


def rooms_imported(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] == "tailrace" and len(parts) > 1:
            yield line, parts[1]


@pytest.mark.parametrize("room", LIBS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    wrong = [
        f"{place_of(path)}:{line} imports tailrace.{other}"
        for path in sources()
        if room_of(path) == room
        for line, other in rooms_imported(path)
        if other != room and other not in LIBS[room]
    ]
    assert wrong == []


def test_no_service_imports_another_nor_the_command_line() -> None:
    wrong = [
        f"{place_of(path)}:{line} imports tailrace.{other}"
        for path in sources()
        if room_of(path) in SERVICES
        for line, other in rooms_imported(path)
        if other in (SERVICES | {"cli", "testing"}) - {room_of(path)}
    ]
    assert wrong == []


def test_every_room_has_its_rule() -> None:
    """A new room is put on the map first."""
    rooms = {room_of(path) for path in sources()}
    assert rooms == set(LIBS) | SERVICES | {"cli"}
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    assert [room for room in rooms if f"{room}/`" not in architecture and f"{room}.py`" not in architecture] == []


@pytest.mark.parametrize("library", LIBRARIES_WITH_ONE_ROOM)
def test_a_library_stays_behind_its_room(library: str) -> None:
    allowed = LIBRARIES_WITH_ONE_ROOM[library]
    wrong = [
        f"{place_of(path)}:{line}"
        for path in sources()
        for line, name in imports(path)
        if name.split(".")[0] == library and not place_of(path).startswith(tuple(f"{room}/" for room in allowed))
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ["graph", "engine"])
def test_deciding_rooms_do_no_io(room: str) -> None:
    """They need no loop, file or clock to be tested (`graph/load.py` reads an app's folder, and only it)."""
    wrong = [
        f"{place_of(path)}:{line} imports {name}"
        for path in sources()
        if room_of(path) == room and place_of(path) != "graph/load.py"
        for line, name in imports(path)
        if name.split(".")[0] in NO_IO | {"os", "pathlib"}
    ]
    assert wrong == []


def test_the_halves_of_the_namespace_have_no_init() -> None:
    assert not [half for half in ("libs", "services") if (ROOT / half / "tailrace" / "__init__.py").exists()]
