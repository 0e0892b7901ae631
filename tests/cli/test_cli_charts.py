"""`charts` and `chart`: a chart with its table's rows, as it is and as it was, and pictures of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from up_process import UpProcess, up, write_app

GRAPH = """\
title: Prices
functions:
  - {node_file: fill.py, id: fillpy01, trigger: manual}
  - {node_file: prices.json, id: chart001, chart_input: prices, title: Prices by day}
  - {node_file: wrong.json, id: chart002, chart_input: prices}
stores:
  - {table: prices, id: store001}
"""
FILL = """\
from datetime import date, datetime, timezone
from decimal import Decimal
from patterns import State, Table

state, prices = State(), Table("prices", "w")
day = state.get_value("day", 0) + 1
state.set_value("day", day)
prices.append({"day": date(2026, 1, day), "at": datetime(2026, 1, day, 12, tzinfo=timezone.utc),
               "price": Decimal("12.50") + day, "note": {"n": [day]}, "none": None})
"""
SPEC = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "mark": "bar",
    "encoding": {"x": {"field": "day", "type": "temporal"}, "y": {"field": "price", "type": "quantitative"}},
}
FIRST = {"day": "2026-01-01", "price": 13.5, "note": {"n": [1]}}
SECOND = {"day": "2026-01-02", "price": 14.5, "note": {"n": [2]}}


@pytest.fixture(scope="module")
def prices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    folder = tmp_path_factory.mktemp("prices")
    wrong = orjson.dumps({"layer": [{"mark": "bar", "data": {"url": "http://127.0.0.1:9/rows.json"}}]})
    app = write_app(folder / "app", GRAPH, fill__py=FILL, prices__json=orjson.dumps(SPEC), wrong__json=wrong)
    with up(folder / "data", app) as process:
        assert process.cli("trigger", "fill", "--wait").returncode == 0
        yield process


def values(process: UpProcess, *more: str) -> list[dict[str, object]]:
    done = process.cli("chart", "Prices by day", *more)
    assert done.returncode == 0, done.stderr
    spec = orjson.loads(done.stdout)
    assert {key: value for key, value in spec.items() if key != "data"} == SPEC
    return [{name: row[name] for name in FIRST} for row in spec["data"]["values"]]


def test_a_chart_has_the_rows_of_its_table_as_they_are_and_as_they_were(prices: UpProcess) -> None:
    """Dates as text, decimals as numbers, JSON as given."""
    assert values(prices) == [FIRST]
    then = datetime.now(UTC)
    assert prices.cli("trigger", "fill", "--wait").returncode == 0
    assert values(prices) == [FIRST, SECOND]
    assert values(prices, "--at", then.isoformat()) == [FIRST]


def test_charts_are_listed(prices: UpProcess) -> None:
    assert [(each["chart"], each["title"], each["table"]) for each in prices.json("charts")] == [
        ("chart001", "Prices by day", "prices"),
        ("chart002", "wrong", "prices"),
    ]
    assert "Prices by day" in prices.cli("charts").stdout
    done = prices.cli("chart", "nothing")
    assert done.returncode == 1 and "'Prices by day'" in done.stderr


def test_pictures_need_no_network(prices: UpProcess, tmp_path: Path) -> None:
    """An HTML file loads nothing from elsewhere: the library and the rows are in it."""
    for form, magic in (("html", b"<!DOCTYPE html>"), ("svg", b"<svg"), ("png", b"\x89PNG")):
        file = tmp_path / f"prices.{form}"
        done = prices.cli("chart", "prices.json", "-o", str(file))
        assert done.returncode == 0, done.stderr
        assert file.read_bytes().startswith(magic)
    assert b"13.5" in (tmp_path / "prices.html").read_bytes()
    assert not re.search(rb"<script[^>]*src=|<link", (tmp_path / "prices.html").read_bytes())
    assert (tmp_path / "prices.svg").read_text().count('aria-roledescription="bar"') >= 1


def test_what_cannot_be_drawn_says_why(prices: UpProcess, tmp_path: Path) -> None:
    """Other data than the table's is not loaded for a picture: whoever wrote the chart may be a stranger."""
    done = prices.cli("chart", "wrong", "-o", str(tmp_path / "wrong.svg"))
    assert done.returncode == 1 and "chart 'wrong' cannot be drawn" in done.stderr
    assert "External data url not allowed" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "wrong.svg").exists()
    (tmp_path / "kept.svg").write_text("mine")
    assert prices.cli("chart", "wrong", "-o", str(tmp_path / "kept.svg")).returncode == 1
    assert (tmp_path / "kept.svg").read_text() == "mine"
    assert prices.cli("chart", "wrong", "-o", str(tmp_path / "chart.pdf")).returncode == 2
