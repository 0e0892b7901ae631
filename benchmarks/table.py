"""Results as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

__all__ = ["show"]


def show(results: Sequence[Result]) -> None:
    """Print them."""
    console = Console()
    table = Table(title="Tailrace benchmarks", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("benchmark", no_wrap=True)
    for title in ("result", "baseline", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("wanted")
    table.add_column("")
    for result in results:
        table.add_row(
            result.name,
            f"{_number(result.value)} {result.unit}",
            _number(result.baseline),
            f"{result.ratio:.2f}",
            result.wanted,
            "[green]met[/green]" if result.met else "[red]not met[/red]",
        )
    console.print(table)
    for result in results:
        console.print(f"[bold]{result.name}[/bold]: {result.what}")
        console.print(f"  against {result.against}", style="dim")
        for name, value in result.extra.items():
            console.print(f"  {name} {value}", style="dim", highlight=False)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"
