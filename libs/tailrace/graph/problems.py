"""Where errors are collected while a graph is read."""

from __future__ import annotations

from dataclasses import dataclass

from tailrace.graph.model import GraphError, Severity

__all__ = ["ERRORS_MAX", "Problem", "Problems"]

ERRORS_MAX = 1_000
"""Most errors kept for one app. More help nobody, and hostile files could fill the memory with them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in one file, before it is known which node the file belongs to."""

    line: int
    message: str
    severity: Severity = "error"
    hint: str = ""


class Problems:
    """The errors of one app, each once."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str | None, str, int, str], GraphError] = {}

    def add(
        self,
        file: str,
        line: int,
        message: str,
        *,
        node_id: str | None = None,
        severity: Severity = "error",
        hint: str = "",
    ) -> None:
        key = (node_id, file, line, message)
        if len(self._errors) < ERRORS_MAX and key not in self._errors:
            self._errors[key] = GraphError(node_id, message, file, max(line, 1), severity, hint)
        elif len(self._errors) == ERRORS_MAX:
            message = f"More than {ERRORS_MAX} errors: the rest is not shown"
            self._errors[None, file, 0, message] = GraphError(None, message, file, max(line, 1))

    def extend(self, file: str, problems: tuple[Problem, ...], node_id: str | None = None) -> None:
        for problem in problems:
            self.add(file, problem.line, problem.message, node_id=node_id, severity=problem.severity, hint=problem.hint)

    def sorted(self) -> tuple[GraphError, ...]:
        return tuple(sorted(self._errors.values(), key=lambda error: (error.file, error.line, error.message)))
