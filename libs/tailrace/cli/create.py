"""`new app`, `new node`: files to begin with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tailrace.cli.errors import ExistsError, FileWriteError, UsageError
from tailrace.cli.options import Json
from tailrace.cli.output import print_json

__all__ = ["cli"]

cli = typer.Typer(
    no_args_is_help=True,
    help="""Make an app, or a node of one.

    \b
    tailrace new app shop
    tailrace new node shop/clean.py
    tailrace new node shop/totals.sql --title "Totals"
    """,
)

_GRAPH = """\
title: {title}
slug: {slug}
description_file: README.md

functions:
  - webhook: inbox            # posts to its URL become rows of the table `inbox`
    id: {webhook}
  - node_file: measure.py     # runs whenever `inbox` gets a row
    id: {node}

stores:
  - table: inbox
    id: {inbox}
  - table: measured
    id: {measured}
"""

_NODE = '''\
"""Says of each posted record how many keys it has."""

from patterns import Table

inbox = Table("inbox")
measured = Table("measured", "w")

for row in inbox.as_stream():
    record = row["record"]
    keys = len(record) if isinstance(record, dict) else 0
    print(f"a record with {keys} keys")
    measured.append({"received_at": row["timestamp"], "keys": keys, "record": record})
'''

_README = """\
# {title}

A webhook, a Python node that handles each posted record once, and a table of its results.

    tailrace up {folder}
    curl --json '{{"hello": "world"}}' "$(tailrace webhooks --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["url"])')"
    tailrace table head measured
"""

_PYTHON = '''\
"""{title}"""

from patterns import Table

# Name the tables to read and to write; graph.yml lists them under `stores:`.
#
#   orders = Table("orders")
#   totals = Table("totals", "w")
#
#   for order in orders.as_stream():        # each row once
#       totals.append({{"total": order["price"] * order["pieces"]}})

print("{title} runs")
'''

_SQL = """\
-- {title}: its rows become a new version of the table that graph.yml names as its `output_table`. Name the tables to
-- read so:
--
--   select customer, sum(price) as total
--   from {{{{ Table("orders") }}}} as orders
--   group by 1

select 1 as one
"""


@cli.command("app")
def new_app(
    path: Annotated[Path, typer.Argument(metavar="NAME", help="Folder to make; its name is the app's.")],
    title: Annotated[str | None, typer.Option("--title", help="Shown name; else the folder's.")] = None,
    as_json: Json = False,
) -> None:
    """Make a small app that works: a webhook, a stream node, a table.

    \b
    tailrace new app shop
    tailrace up shop
    """
    from tailrace.cli.edit import new_id, yaml_text
    from tailrace.graph import slug_from

    folder = path.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExistsError(path, "choose another name, or use `tailrace new node` inside it")
    shown = title or folder.name
    ids = {name: new_id() for name in ("webhook", "node", "inbox", "measured")}
    _write(folder / "graph.yml", _GRAPH.format(title=yaml_text(shown), slug=slug_from(shown), **ids))
    _write(folder / "measure.py", _NODE)
    _write(folder / "README.md", _README.format(title=shown, folder=path))
    if as_json:
        print_json({"folder": str(folder), "title": shown, "slug": slug_from(shown), "ids": ids})
    else:
        print(f"made {path}: run it with `tailrace up {shlex.quote(str(path))}`")


@cli.command("node")
def new_node(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to make: .py or .sql.")],
    title: Annotated[str | None, typer.Option("--title", help="Shown name; else the file's stem.")] = None,
    as_json: Json = False,
) -> None:
    """Make a node's file, and add it to the nearest graph.yml upward; its comments stay.

    \b
    tailrace new node shop/clean.py
    tailrace new node shop/totals.sql --title "Totals"
    """
    from tailrace.cli.edit import add_function, new_id
    from tailrace.graph import OUTPUT_PORT

    templates = {".py": _PYTHON, ".sql": _SQL}
    if path.suffix not in templates:
        raise UsageError(f"{path} is no node: its name must end with .py or .sql")
    file = path.resolve()
    if file.exists():
        raise ExistsError(path, "choose another name")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", "make it first")
    graph = next((folder / "graph.yml" for folder in file.parents if (folder / "graph.yml").is_file()), None)
    if graph is None:
        raise UsageError(f"no graph.yml lies in {path.parent} or above it", "make an app first: tailrace new app NAME")
    shown = title or file.stem
    entry: dict[str, str | dict[str, str]] = {
        "node_file": file.relative_to(graph.parent).as_posix(),
        "title": shown,
        "id": new_id(),
    }
    store = None
    if path.suffix == ".sql":  # its result goes to a table of the file's name
        entry["outputs"] = {OUTPUT_PORT: file.stem}
        store = {"table": file.stem, "id": new_id()}
    text = add_function(graph, entry, store)
    _write(file, templates[path.suffix].format(title=shown.replace('"', "'").replace("\\", "/")))
    _write(graph, text)
    if as_json:
        print_json({"graph": str(graph), **entry})
    else:
        print(f"made {path}, and added it to {_shown(graph)}")


def _shown(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _write(path: Path, text: str) -> None:
    """Write the file beside, then rename: a file of that name is whole."""
    draft = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(text.encode())
        draft.replace(path)
    except OSError as error:
        raise FileWriteError(path, error.strerror or str(error)) from error
