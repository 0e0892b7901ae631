"""Which nodes get a worker that has the large libraries ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.graph import build_app
from tailrace.runner.deployment import deploy
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.weight import wants_libraries


@pytest.mark.parametrize(
    "code",
    [
        "from patterns import State, Table\nfor row in Table('a').as_stream():\n    State()",
        "import json, datetime as d\nfrom urllib.parse import quote",
        "import helper\nfrom .sub import thing\nfrom helper.deep import x",
        "from patterns import Table\nTable('b', 'w').append({'n': 1})",
        "def (",
        "x = '\0'",
    ],
)
def test_plain_code_does_without(code: str) -> None:
    assert not wants_libraries(["node.py"], {"node.py": code.encode(), "helper.py": b""})


@pytest.mark.parametrize(
    "code",
    [
        "import pandas as pd",
        "def f():\n    from numpy.random import default_rng",
        "import helper.x",
        "from patterns import Table\nTable('a').read()",
        "from patterns import Table\nTable('a').read_sql('select 1')",
        "from patterns import Table\nTable('a', 'w').execute_sql('select 1')",
        "from patterns import Table\nfor row in Table('a').as_stream(order_by='n'):\n    pass",
    ],
)
def test_what_loads_them_gets_them(code: str) -> None:
    assert wants_libraries(["node.py"], {"node.py": code.encode()})
    assert wants_libraries(["node.py"], {"node.py": b"import deep.er", "deep/er.py": code.encode()})


def test_a_deployment_says_it_for_each_node(tmp_path: Path) -> None:
    """A node's own file counts, and what it imports of its app; SQL always needs duckdb."""

    def weights(**files: str) -> dict[str, bool]:
        graph = """title: Weights
functions:
  - {node_file: plain.py, id: plain}
  - {node_file: frames.py, id: frames}
  - {node_file: query.sql, id: query}
stores:
  - {table: t, id: t}
"""
        texts = {"plain.py": "import helper\n", "frames.py": "import pandas\n", "query.sql": "select 1\n", **files}
        app = build_app({name: text.encode() for name, text in {"graph.yml": graph, "helper.py": "", **texts}.items()})
        return {node.node.key: node.libraries for node in deploy(app, tmp_path, RunnerSettings()).nodes.values()}

    assert weights() == {"plain": False, "frames": True, "query": True}
    assert weights(**{"other.py": "import numpy\n"}) == {"plain": False, "frames": True, "query": True}
    assert weights(**{"helper.py": "from . import other\n", "other.py": "import numpy\n"}) == {
        "plain": True,
        "frames": True,
        "query": True,
    }
    assert weights(**{"helper.py": "import plain, numpy\n"}) == {"plain": True, "frames": True, "query": True}
