"""The interface of a Python node, from its syntax tree: nothing of it is run."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

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
from tailrace.graph.problems import Problem
from tailrace.graph.texts import decode, whole

__all__ = ["read_python"]

_NAMES = ("Table", "Parameter", "Connection", "node", "InputTable", "OutputTable", "InputStream", "OutputStream")
_LEGACY_MODES = {"InputTable": "r", "InputStream": "r", "OutputTable": "w", "OutputStream": "w"}
_CODING_COOKIE = re.compile(rb"\A(?:[^\n]*\n)?[ \t\f]*#[^\n]*coding[:=]")


def read_python(source: bytes, path: str) -> Interface:
    """What the code of a Python node declares, wherever in it the calls stand.

    Known are names imported from `patterns`, under any alias, and `import patterns`; a `Table` from elsewhere is
    somebody else's. Arguments count when they are literals.

    Args:
        path: only to be named in messages.
    """
    if len(source) > SOURCE_BYTES_MAX:
        return _unreadable(path, 1, f"{len(source)} bytes are over the limit of {SOURCE_BYTES_MAX}")
    if not _CODING_COOKIE.match(source) and isinstance(problem := decode(source), Problem):
        return Interface(problems=(problem,), readable=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\d": they are the author's and no matter here
            tree = ast.parse(source, path)
        return _Reader(tree).interface()
    except SyntaxError as error:
        return _unreadable(path, error.lineno or 1, error.msg)
    except (ValueError, LookupError) as error:  # a NUL byte, an unknown encoding
        return _unreadable(path, 1, str(error))
    except (RecursionError, MemoryError):
        return _unreadable(path, 1, "nested too deeply")


def _unreadable(path: str, line: int, cause: str) -> Interface:
    return Interface(problems=(Problem(line, f"Error parsing file {path}: {whole(cause)}"),), readable=False)


class _Reader:
    """One walk over a module for its imports, one for its calls."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._calls = Calls()
        self._aliases: dict[str, str] = {}
        """Local name to the name in `patterns`."""
        self._modules: set[str] = set()
        """Local names of the module `patterns` itself."""
        self._types: dict[str, str] = {}
        """Local name to `datetime` or `date`, for imports under an alias."""
        self._done: set[ast.Call] = set()

    def interface(self) -> Interface:
        nodes = list(ast.walk(self._tree))
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                self._import_from(node)
            elif isinstance(node, ast.Import):
                self._import(node)
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and self._is_legacy(node):
                self._legacy(node)
        calls = [node for node in nodes if isinstance(node, ast.Call) and node not in self._done]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            self._call(call)
        return self._calls.interface()

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = "" if node.level else node.module or ""
        if module == "datetime.datetime":
            self._no_such_module(node.lineno, [alias.name for alias in node.names])
        for alias in node.names:
            local = alias.asname or alias.name
            if module == "patterns" or module.startswith("patterns."):
                if alias.name == "*":
                    self._aliases.update({name: name for name in _NAMES})
                elif alias.name in _NAMES:
                    self._aliases[local] = alias.name
            elif module == "datetime" and alias.name in ("datetime", "date"):
                self._types[local] = alias.name

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name == "patterns" or (alias.name.startswith("patterns.") and alias.asname is None):
                self._modules.add(alias.asname or "patterns")
            elif alias.name == "datetime.datetime":
                self._no_such_module(node.lineno, [])

    def _no_such_module(self, line: int, names: list[str]) -> None:
        wanted = names[0] if names and names[0] != "*" else "now"
        imported = f"from datetime.datetime import {', '.join(names)}" if names else "import datetime.datetime"
        self._calls.problem(
            line,
            f"`{imported}` fails when it runs: datetime.datetime is a class, not a module",
            "warning",
            f"write `from datetime import datetime` and call `datetime.{wanted}()`",
        )

    def _name(self, node: ast.expr) -> str | None:
        """The name in `patterns` that an expression stands for."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._modules:
            return node.attr if node.attr in _NAMES else None
        return None

    def _call(self, call: ast.Call, name: str | None = None) -> None:
        """Take in a Table or Parameter call; `name` when the place of the call gives the parameter its name."""
        called = self._name(call.func)
        if called not in ("Table", "Parameter"):
            return
        is_table = called == "Table"
        starred = any(isinstance(arg, ast.Starred) for arg in call.args) or any(k.arg is None for k in call.keywords)
        if starred:
            self._calls.dynamic("Table" if is_table else "Parameter", call.lineno)
            return
        names = TABLE_ARGUMENTS if is_table else PARAMETER_ARGUMENTS
        keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
        bound = bind(names, call.args, keywords)
        if isinstance(bound, str):
            self._calls.problem(call.lineno, f"{called} {bound}")
            return
        arguments: dict[str, Argument] = {
            key: self._type(value) if key == "type" else self._literal(value) for key, value in bound.items()
        }
        if name is not None:
            arguments.setdefault("name", name)
        (self._calls.table if is_table else self._calls.parameter)(arguments, call.lineno)

    def _literal(self, node: ast.expr) -> Argument:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return COMPUTED

    def _type(self, node: ast.expr) -> Argument:
        if isinstance(node, ast.Call) and self._name(node.func) == "Connection":
            values = [*node.args, *(keyword.value for keyword in node.keywords)]
            kind = self._literal(values[0]) if values else None
            return TypeName("Connection", whole(kind) if isinstance(kind, str) else None)
        if self._name(node) == "Connection":
            return TypeName("Connection")
        if isinstance(node, ast.Name):
            return TypeName("list" if node.id == "List" else self._types.get(node.id, node.id))
        if isinstance(node, ast.Attribute):  # datetime.date, dt.datetime, typing.List
            return TypeName("list" if node.attr == "List" else node.attr)
        if isinstance(node, ast.Subscript):  # list[str]
            return self._type(node.value)
        return self._literal(node)

    def _is_legacy(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        decorators = (each.func if isinstance(each, ast.Call) else each for each in function.decorator_list)
        return any(self._name(decorator) == "node" for decorator in decorators)

    def _legacy(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """`@node def f(x=InputTable, y=OutputTable, p=Parameter(type=str), s=State)`: names are the arguments'."""
        for argument, default in _defaults(function.args):
            marker = default.func if isinstance(default, ast.Call) else default
            name = self._name(marker)
            if name in _LEGACY_MODES:
                given: dict[str, Argument] = {"name": argument.arg, "mode": _LEGACY_MODES[name]}
                keywords = default.keywords if isinstance(default, ast.Call) else []
                for keyword in keywords:
                    if keyword.arg in ("description", "schema", "required"):
                        given[keyword.arg] = self._literal(keyword.value)
                self._calls.table(given, argument.lineno)
            elif name == "Parameter" and isinstance(default, ast.Call):
                self._done.add(default)
                self._call(default, argument.arg)
            elif name == "Parameter":
                self._calls.parameter({"name": argument.arg}, argument.lineno)


def _defaults(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    with_default = positional[len(positional) - len(arguments.defaults) :]
    yield from zip(with_default, arguments.defaults, strict=True)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield argument, default
