"""An app that is edited between two `up`s: ids carry State, places and webhook URLs over, whatever else changes."""

from __future__ import annotations

from pathlib import Path

from golden import Golden
from up_process import UpProcess, write_app

GRAPH = """\
title: Edited
slug: edited
functions:
  - {webhook: posts, id: edwebho1}
  - {node_file: root.py, id: edroot01}
  - {node_file: FILE, title: TITLE, id: NODE}
stores:
  - {table: posts, id: edposts1}
  - {table: roots, id: edroots1}
  - {table: NAME, id: edout001}
"""
COUNT = """\
from patterns import State, Table
out, state = Table("NAME", "w"), State()
for row in Table("posts").as_stream():
    state.set_value("seen", state.get_value("seen", 0) + 1)
    out.append({"n": row["record"]["n"], "seen": state.get_value("seen")})
"""
ROOT = 'from patterns import Table\nTable("roots", "w").append({"a": 1})\n'


def app(folder: Path, *, file: str, title: str, node: str, name: str) -> Path:
    """The app with a node of this file, title and id, and a store of this name."""
    graph = GRAPH.replace("FILE", file).replace("TITLE", title).replace("NODE", node).replace("NAME", name)
    files = {file.replace(".", "__"): COUNT.replace("NAME", name)}
    return write_app(folder, graph, root__py=ROOT, **files)


def test_an_edited_app_goes_on_where_its_ids_stand(tmp_path: Path) -> None:
    """New file, title and store name under the old ids: nothing is handled twice. A new id begins at the beginning."""
    first = app(tmp_path / "first", file="count.py", title="Count", node="edcount1", name="out")
    with UpProcess(tmp_path / "data", first) as process:
        house = Golden(process)
        house.send("posts", {"n": 1}, {"n": 2})
        house.until_rows("out", "edited", [{"n": 1, "seen": 1}, {"n": 2, "seen": 2}], key="n")
        house.until(lambda: len(house.rows("roots", "edited")), wanted=lambda count: count == 1)
        path = process.webhooks["posts"].removeprefix(process.url)
    second = app(tmp_path / "second", file="other.py", title="Renamed", node="edcount1", name="results")
    with UpProcess(tmp_path / "data", second) as process:
        house = Golden(process)
        assert process.webhooks["posts"] == process.url + path
        house.send("posts", {"n": 3})
        expected = [{"n": n, "seen": n} for n in (1, 2, 3)]
        house.until_rows("results", "edited", expected, key="n")
        assert len(house.rows("roots", "edited")) == 1, "a root node runs once, at its first deploy"
    third = app(tmp_path / "third", file="other.py", title="Renamed", node="edcount2", name="results")
    with UpProcess(tmp_path / "data", third) as process:
        house = Golden(process)
        rows = house.until(lambda: house.rows("results", "edited"), wanted=lambda rows: len(rows) >= 6)
        assert [(row["n"], row["seen"]) for row in rows] == [(n, n) for n in (1, 2, 3, 1, 2, 3)]
