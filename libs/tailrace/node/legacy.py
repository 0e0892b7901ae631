"""Nodes in the style of early releases: `@node def f(x=InputTable, y=OutputTable): ...`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tailrace.node import parameter
from tailrace.node.session import current_session
from tailrace.node.state import State
from tailrace.node.table import Table

__all__ = ["InputStream", "InputTable", "OutputStream", "OutputTable", "call_legacy_nodes", "node"]


class _Port:
    """Default of a parameter that is to be a port: used bare, or called with the arguments of `Table`."""

    def __init__(self, kind: str, mode: str, stream: bool, **options: Any) -> None:
        self.kind, self.mode, self.stream, self.options = kind, mode, stream, options

    def __call__(self, *args: Any, **options: Any) -> _Port:
        known = {key: options[key] for key in ("description", "schema", "required") if key in options}
        return _Port(self.kind, self.mode, self.stream, **known)

    def __repr__(self) -> str:
        return self.kind


InputTable = _Port("InputTable", "r", False)
"""A table to read."""
OutputTable = _Port("OutputTable", "w", False)
"""A table to write."""
InputStream = _Port("InputStream", "r", True)
"""A table to stream."""
OutputStream = _Port("OutputStream", "w", False)
"""A table to append to."""


def node(function: Callable[..., Any] | None = None, **_options: Any) -> Any:
    """Mark a function as the node's body: it is called when the script is through. Its parameters' defaults say what
    it gets: `InputTable`, `OutputTable`, `InputStream`, `OutputStream`, `State`, `Parameter(...)` without a name, or
    any value. A function without such ports is left alone."""
    if function is None:
        return node
    defaults = [each.default for each in inspect.signature(function).parameters.values()]
    if any(isinstance(default, _Port | parameter.UnnamedParameter) for default in defaults):
        current_session("@node").legacy_nodes.append(function)
    return function


def call_legacy_nodes(functions: list[Callable[..., Any]]) -> None:
    """Call what `node` has marked."""
    for function in functions:
        arguments: dict[str, Any] = {}
        for name, each in inspect.signature(function).parameters.items():
            default = each.default
            if isinstance(default, _Port):
                table = Table(name, default.mode, **default.options)
                arguments[name] = table.as_stream() if default.stream else table
            elif isinstance(default, parameter.UnnamedParameter):
                arguments[name] = default.value(name)
            elif default is State:
                arguments[name] = State()
            elif default is inspect.Parameter.empty:
                arguments[name] = parameter.Parameter(name)
        function(**arguments)
