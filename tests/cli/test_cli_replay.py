"""`tailrace replay` as a process: what it says of equal and of different rows, and how it ends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import requests

from up_process import UpProcess, up, write_app

GRAPH = """\
title: Shop
slug: shop
functions:
  - {webhook: orders, id: webhook1}
  - {node_file: prices.py, id: prices01}
  - {node_file: sums.sql, id: sumssql1, outputs: {output_table: sums}}
stores:
  - {table: orders, id: storeord}
  - {table: prices, id: storepri}
  - {table: sums, id: storesum}
"""
PRICES = """\
from patterns import Table
prices = Table("prices", "w")
prices.init(unique_on="item")
for order in Table("orders").as_stream():
    record = order["record"]
    print("priced", record["item"])
    prices.upsert({"item": record["item"], "price": 3 * record["n"]})
"""
SUMS = 'select count(*) as orders from {{ Table("orders") }} as t\n'

pytestmark = pytest.mark.timeout(240)


def newest(process: UpProcess, node: str) -> str:
    run: str = process.json("runs", "--node", node, "--last", "1")[0]["run"]
    return run


def test_a_run_is_run_again(tmp_path: Path) -> None:
    """Equal with its own code, different with other; what cannot be done is told, and ends with 2."""
    app = write_app(tmp_path / "shop", GRAPH, prices__py=PRICES, sums__sql=SUMS)
    changed = tmp_path / "changed.py"
    changed.write_text(PRICES.replace("3 *", "4 *"))
    with up(tmp_path / "data", app) as process:
        orders = [{"item": "pen", "n": 1}, {"item": "ink", "n": 2}]
        requests.post(process.webhooks["orders"], json=orders, timeout=30).raise_for_status()
        process.until(lambda: process.rows("prices"), wanted=lambda rows: len(rows) == 2)
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 2}])
        run = newest(process, "prices")
        assert run in process.cli("runs").stdout

        same = process.cli("replay", run, "--yes")
        assert same.returncode == 0, same.stderr
        assert "prices: 0 added, 0 removed, 0 changed, 2 the same, by item" in same.stdout
        assert same.stdout.endswith("equal\n") and "priced pen" in same.stderr

        other = process.cli("replay", run, "--yes", "--code", str(changed))
        assert other.returncode == 1, other.stderr
        assert re.search(r'~ item: "ink", price: 6 -> 8', other.stdout), other.stdout
        assert "\x1b" not in other.stdout
        few = process.cli("replay", run, "--yes", "--code", str(changed), "--limit", "1")
        assert "1 row more" in few.stdout
        result = process.cli("replay", run, "-y", "--code", str(changed), "--json", "--ignore", "price")
        assert (result.returncode, '"equal":true' in result.stdout) == (0, True)

        sql = process.cli("replay", newest(process, "sums"))
        assert (sql.returncode, "1 the same" in sql.stdout) == (0, True), sql.stderr
        assert [(row["item"], row["price"]) for row in process.rows("prices")] == [("pen", 3), ("ink", 6)]

        asked = process.cli("replay", run)
        assert asked.returncode == 2 and "--yes" in asked.stderr and "outside" in asked.stderr
        for arguments, told in (
            (("shop/nobody#1", "--yes"), "no run 'shop/nobody#1'"),
            (("nowhere/nobody#1", "--yes"), "no app 'nowhere'"),
            ((run, "--yes", "--code", str(tmp_path / "missing.py")), "missing.py cannot be read"),
        ):
            refused = process.cli("replay", *arguments)
            assert refused.returncode == 2 and told in refused.stderr, refused.stderr
