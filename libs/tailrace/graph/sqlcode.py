"""The interface of a SQL node, from the syntax tree of its template: nothing of it is rendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import SandboxedEnvironment

from tailrace.graph.calls import (
    COMPUTED,
    PARAMETER_ARGUMENTS,
    SOURCE_BYTES_MAX,
    TABLE_ARGUMENTS,
    Argument,
    Calls,
    Interface,
    TypeName,
    bind,
)
from tailrace.graph.model import TablePort
from tailrace.graph.problems import Problem
from tailrace.graph.texts import decode, whole
from tailrace.sqltext import strip_sql_comments

__all__ = ["OUTPUT_PORT", "read_sql"]

OUTPUT_PORT = "output_table"
"""Where the rows of a SELECT go when the template names no table to write."""

_ENVIRONMENT = SandboxedEnvironment()


def read_sql(source: bytes, path: str) -> Interface:
    """What the template of a SQL node declares. Lines are those of the file, comments and all.

    Args:
        path: only to be named in messages.
    """
    if len(source) > SOURCE_BYTES_MAX:
        return _unreadable(path, 1, f"{len(source)} bytes are over the limit of {SOURCE_BYTES_MAX}")
    text = decode(source)
    if isinstance(text, Problem):
        return replace(_NOTHING, problems=(text,))
    try:
        template = _ENVIRONMENT.parse(strip_sql_comments(text))
        calls = Calls()
        for call in template.find_all(nodes.Call):
            _take(calls, call)
        for line, cause in _unknown(template):
            calls.problem(line, f"Error parsing file {path}: {cause}")
    except TemplateSyntaxError as error:
        return _unreadable(path, error.lineno, error.message or "syntax error")
    except (TemplateError, ValueError, OverflowError) as error:
        return _unreadable(path, 1, str(error))
    except RecursionError:
        return _unreadable(path, 1, "nested too deeply")
    interface = calls.interface()
    if any(port.mode == "w" for port in interface.tables):
        return interface
    return replace(interface, tables=(*interface.tables, _OUTPUT))


_TYPES = ("str", "int", "float", "bool", "datetime", "date", "list", "Connection")
_KNOWN = frozenset({"Table", "Parameter", *_TYPES, *_ENVIRONMENT.globals, "loop", "caller", "varargs", "kwargs"})


def _unknown(template: nodes.Template) -> Iterator[tuple[int, str]]:
    """Line and cause of each name, filter and test that rendering would not find."""
    names = list(template.find_all(nodes.Name))
    declared = _KNOWN | {name.name for name in names if name.ctx != "load"}
    declared |= {macro.name for macro in template.find_all(nodes.Macro)}
    for name in names:
        if name.name not in declared:
            yield name.lineno, f'"{name.name}" is undefined'
    for filter_ in template.find_all(nodes.Filter):
        if filter_.name not in _ENVIRONMENT.filters:
            yield filter_.lineno, f'no filter named "{filter_.name}"'
    for test in template.find_all(nodes.Test):
        if test.name not in _ENVIRONMENT.tests:
            yield test.lineno, f'no test named "{test.name}"'
    for other in template.find_all((nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)):
        yield other.lineno, "a SQL node cannot include or import other templates"


_OUTPUT = TablePort(name=OUTPUT_PORT, mode="w", line=1, implicit=True)
_NOTHING = Interface(readable=False)


def _unreadable(path: str, line: int, cause: str) -> Interface:
    return replace(_NOTHING, problems=(Problem(line, f"Error parsing file {path}: {whole(cause)}"),))


def _take(calls: Calls, call: nodes.Call) -> None:
    called = call.node.name if isinstance(call.node, nodes.Name) else None
    if called not in ("Table", "Parameter"):
        return
    is_table = called == "Table"
    if call.dyn_args is not None or call.dyn_kwargs is not None:
        calls.dynamic("Table" if is_table else "Parameter", call.lineno)
        return
    names = TABLE_ARGUMENTS if is_table else PARAMETER_ARGUMENTS
    keywords: Mapping[str, nodes.Expr] = {keyword.key: keyword.value for keyword in call.kwargs}
    bound = bind(names, call.args, keywords)
    if isinstance(bound, str):
        calls.problem(call.lineno, f"{called} {bound}")
        return
    arguments = {key: _type(value) if key == "type" else _literal(value) for key, value in bound.items()}
    (calls.table if is_table else calls.parameter)(arguments, call.lineno)


def _literal(node: nodes.Expr) -> Argument:
    # Not `as_const`: it would compute what stands there, and "a" * 10**10 is a few characters long.
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.TemplateData):
        return node.data
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const) and isinstance(node.node.value, int | float):
        return -node.node.value
    if isinstance(node, nodes.List | nodes.Tuple):
        items = [_literal(item) for item in node.items]
        return COMPUTED if any(item is COMPUTED for item in items) else items
    return COMPUTED


def _type(node: nodes.Expr) -> Argument:
    if isinstance(node, nodes.Name):
        return TypeName(node.name)
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "Connection":
        values = [*node.args, *(keyword.value for keyword in node.kwargs)]
        kind = _literal(values[0]) if values else None
        return TypeName("Connection", whole(kind) if isinstance(kind, str) else None)
    return _literal(node)
