"""`as_format`: the same rows as records, as frames of pandas and polars, and as Arrow tables, whole and in chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_apps import Nodes

WRITE = """
import datetime as dt
from decimal import Decimal
Table("things", "w").append([
    {"n": 1, "text": "a", "doc": {"a": [1]}, "at": dt.datetime(2026, 1, 2, 3, 4, 5, 6), "price": Decimal("1.10")},
    {"n": None, "text": "b", "doc": None, "at": None, "price": None},
    {"n": 3, "text": None, "doc": [], "at": None, "price": Decimal("2.25")},
])
"""


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    nodes = Nodes(tmp_path, "things", "none")
    nodes.ok(WRITE, name="write.py")
    return nodes


def test_every_form_holds_the_same_rows(nodes: Nodes) -> None:
    nodes.ok(
        """
        import pandas as pd
        import polars as pl
        import pyarrow as pa
        t = Table("things")
        for read in (lambda **how: t.read(**how), lambda **how: t.read_sql(f"select * from {t} order by text", **how)):
            records = read()
            arrow, polars, pandas = read(as_format="arrow"), read(as_format="polars"), read(as_format="dataframe")
            assert (type(arrow), type(polars), type(pandas)) == (pa.Table, pl.DataFrame, pd.DataFrame)
            assert arrow.to_pylist() == records, arrow.to_pylist()
            assert polars.to_dicts() == records, polars.to_dicts()
            assert list(pandas.columns) == list(records[0])
        """
    )


def test_chunks_come_in_every_form(nodes: Nodes) -> None:
    """And an empty table has none."""
    nodes.ok(
        """
        for form in ("records", "dataframe", "polars", "arrow"):
            assert [len(chunk) for chunk in Table("things").read(form, chunksize=2)] == [2, 1]
            assert list(Table("none").read(form, chunksize=2)) == []
            assert len(Table("none").read(form)) == 0
        """
    )


def test_another_form_is_refused_with_their_names(nodes: Nodes) -> None:
    run = nodes.run('Table("things").read("parquet")')
    assert not run.ok and run.error is not None and '"polars"' in run.error
