"""What people meet outside is explained: each command, error, setting and route; and what pages name exists."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tailrace.cli.app import cli
from tailrace.process import OPTIONS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
FAMILIES = ("RetriableError", "AbortableError", "RejectedError", "FatalError")
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


@cache
def classes() -> list[ast.ClassDef]:
    """The classes of all modules that are not private."""
    return [
        node
        for path in sorted([*(ROOT / "libs").rglob("*.py"), *(ROOT / "services").rglob("*.py")])
        for node in ast.parse(path.read_bytes()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def errors() -> list[str]:
    found: list[str] = []
    for _ in range(3):  # errors of errors, too
        known = {*FAMILIES, *found}
        found = [node.name for node in classes() if {ast.unparse(base) for base in node.bases} & known]
    return found


def settings() -> Iterator[tuple[str, str, str]]:
    """Class, field and default, as the source has them."""
    for node in classes():
        if node.name.endswith(("Settings", "Limits")) and node.name != "Settings":
            for field in node.body:
                if isinstance(field, ast.AnnAssign):
                    default = ast.unparse(field.value) if field.value else ""
                    factory = re.fullmatch(r"field\(default_factory=(\w+)\)", default)
                    yield node.name, ast.unparse(field.target), f"{factory[1]}()" if factory else default


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")


COMMANDS = dict(commands(get_command(cli)))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_is_explained(command: str) -> None:
    page = (REFERENCE / "cli.md").read_text()
    group, _, rest = command.partition(" ")
    assert f"\n## `{group}`\n" in page
    assert f"tailrace {group}" in page
    if rest:
        assert f"    tailrace {command}" in page


@pytest.mark.parametrize("command", sorted(name for name, each in COMMANDS.items() if not hasattr(each, "commands")))
def test_a_command_teaches_with_an_example(command: str) -> None:
    """`--help` shows at least one whole call of the command."""
    assert f"tailrace {command}" in (COMMANDS[command].help or "")


@pytest.mark.parametrize("command", sorted(name for name, each in COMMANDS.items() if not hasattr(each, "commands")))
def test_options_of_pages_exist(command: str) -> None:
    """No page names an option that the command does not have, and `cli.md` leaves out none but the shared ones."""
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    page = (REFERENCE / "cli.md").read_text()
    lines = [line for line in page.splitlines() if re.match(rf"    tailrace {command}( |$)", line)]
    named = {option for line in lines for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}
    assert named <= known | {"--json"}
    for parameter in COMMANDS[command].params:
        shared = {"--data", "--app", "--json"} & set(parameter.opts)
        if parameter.param_type_name == "option" and not shared:
            assert set(parameter.opts) & named, f"cli.md does not name {parameter.opts} of {command}"


def test_each_error_is_explained() -> None:
    page = (REFERENCE / "errors.md").read_text()
    missing = [name for name in errors() if f"\n| `{name}` |" not in page]
    assert missing == [], "give each a line in docs/reference/errors.md, below its family"


def test_each_explained_error_exists() -> None:
    named = re.findall(r"^\| `(\w+)` \|", (REFERENCE / "errors.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(set(errors()))


def test_each_setting_is_explained_with_its_default() -> None:
    page = (REFERENCE / "settings.md").read_text()
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    missing = [
        f"{name}: | `{field}` | `{default}` | ... |"
        for name, field, default in settings()
        if f"\n| `{field}` | `{default}` | " not in sections.get(name, "")
    ]
    assert missing == [], "give each its line in docs/reference/settings.md"


SERVICES = ("gateway", "runner", "snapshotter")


def options_of(service: str) -> set[str]:
    actions = importlib.import_module(f"tailrace.{service}.__main__")._parser()._actions
    return {flag for action in actions for flag in action.option_strings}


def test_each_option_of_a_service_is_listed_with_its_variable() -> None:
    """The list in settings.md is the table that the services are made from."""
    page = (REFERENCE / "settings.md").read_text()
    listed = re.findall(r"^\| `(--[\w-]+)` \| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    having = {service: options_of(service) for service in SERVICES}
    assert listed == [
        (
            option.flag,
            option.variable,
            ", ".join(service for service in SERVICES if option.flag in having[service]),
            option.help,
        )
        for option in OPTIONS
    ]


def test_variables_of_the_command_line_are_those_of_the_services() -> None:
    known = {option.flag: option.variable for option in OPTIONS}
    variables = {
        (option, parameter.envvar)
        for command in COMMANDS.values()
        for parameter in command.params
        for option in parameter.opts
        if parameter.envvar
    }
    assert variables
    assert {(option, known.get(option)) for option, _ in variables} == variables


def test_each_route_is_explained() -> None:
    page = (REFERENCE / "http.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "services").rglob("*.py"))
    routes = re.findall(r"router\.add_(get|post)\(\s*\"([^\"]+)\"", source)
    assert len(routes) >= 9
    for method, route in routes:
        written = re.sub(r"\{(\w+)\}", r"<\1>", route).replace("<webhook>", "<id>")
        assert f"`{method.upper()} {written}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    """Links lead to files, commands and make targets are there."""
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for called in re.findall(r"(?:^ {4}|`|/)tailrace ([a-z][a-z-]*(?: [a-z][a-z-]*)?)", text, re.MULTILINE):
        first = called.split()[0]
        assert first in COMMANDS, called
        if hasattr(COMMANDS[first], "commands") and " " in called:
            assert called in COMMANDS, called
    for path in re.findall(r"(?<![\w/<])(?:examples|docs|libs|services|tests)/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
