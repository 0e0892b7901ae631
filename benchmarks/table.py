"""Results as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

__all__ = ["show"]


def show(results: Sequence[Result]) -> None:
    """Print them."""
    console = Console()
    table = Table(title="Tailrace benchmarks", title_justify="left", show_lines=True)
    for title in ("benchmark", "result", "baseline", "ratio", "wanted", ""):
        table.add_column(title, justify="right" if title in ("result", "baseline", "ratio") else "left")
    for result in results:
        table.add_row(
            f"[bold]{result.name}[/bold]\n[dim]{result.what}[/dim]",
            f"{_number(result.value)} {result.unit}",
            f"{_number(result.baseline)} {result.unit}\n[dim]{result.against}[/dim]",
            f"{result.ratio:.2f}",
            result.wanted,
            "[green]met[/green]" if result.met else "[red]not met[/red]",
        )
    console.print(table)
    for result in results:
        if result.extra:
            told = ", ".join(f"{name} {value}" for name, value in result.extra.items())
            console.print(f"[bold]{result.name}[/bold]: [dim]{told}[/dim]")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"
