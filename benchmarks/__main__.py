"""`python -m benchmarks NAME [--json] [--quick]`, `python -m benchmarks all`."""

from __future__ import annotations

import argparse
import sys

import orjson

from benchmarks.registry import BENCHMARKS, run
from benchmarks.result import Result
from benchmarks.table import show


def main() -> int:
    """Run what was asked for; 1 where a number is not what it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure Tailrace, each time against a baseline in the same run."
    )
    parser.add_argument("name", choices=[*BENCHMARKS, "all"], help="what to measure")
    parser.add_argument("--json", action="store_true", help="one JSON line a benchmark instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer records: a look, not a result")
    arguments = parser.parse_args()
    names = list(BENCHMARKS) if arguments.name == "all" else [arguments.name]
    results: list[Result] = []
    for name in names:
        if not arguments.json:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
        result = run(name, quick=arguments.quick)
        results.append(result)
        if arguments.json:
            print(orjson.dumps(result.to_json()).decode(), flush=True)
    if not arguments.json:
        show(results)
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
