"""What a node's code declares: its `Table` and `Parameter` calls, gathered alike from Python and from SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal, TypeVar, cast, get_args

from tailrace.graph.model import DynamicName, Mode, ParameterPort, ParameterType, Severity, TablePort
from tailrace.graph.problems import Problem
from tailrace.graph.texts import whole

__all__ = [
    "COMPUTED",
    "PARAMETER_ARGUMENTS",
    "SOURCE_BYTES_MAX",
    "TABLE_ARGUMENTS",
    "Argument",
    "Calls",
    "Interface",
    "TypeName",
    "bind",
]

SOURCE_BYTES_MAX = 1 << 20
"""Largest code file that is read: a syntax tree takes some hundred times the memory of its source."""

TABLE_ARGUMENTS = ("name", "mode", "description", "schema", "required")
PARAMETER_ARGUMENTS = ("name", "description", "type", "default")

_TYPES = frozenset(get_args(ParameterType)) - {"connection"}


class _Computed(Enum):
    COMPUTED = "computed"


COMPUTED: Final = _Computed.COMPUTED
"""An argument that only running the code can tell."""


@dataclass(frozen=True, slots=True)
class TypeName:
    """An argument that names a type: `int`, `Connection("gmail")`."""

    name: str
    connection: str | None = None


Argument = object
"""A literal's value, a TypeName, or COMPUTED."""

_Expression = TypeVar("_Expression")


@dataclass(frozen=True, slots=True)
class Interface:
    """What one code file declares."""

    tables: tuple[TablePort, ...] = ()
    parameters: tuple[ParameterPort, ...] = ()
    dynamic: tuple[DynamicName, ...] = ()
    problems: tuple[Problem, ...] = ()
    readable: bool = True
    """False when the file could not be parsed, so that nothing is known."""


def bind(
    names: Sequence[str], positional: Sequence[_Expression], keywords: Mapping[str, _Expression]
) -> dict[str, _Expression] | str:
    """Arguments by name as a call would bind them, or what is wrong with the call."""
    if len(positional) > len(names):
        return f"takes {len(names)} arguments, not {len(positional)}"
    bound = dict(zip(names, positional, strict=False))
    for name, value in keywords.items():
        if name not in names:
            return f'has no argument "{name}"'
        if name in bound:
            return f'got two values for "{name}"'
        bound[name] = value
    return bound


class Calls:
    """Gathers the calls of one file; `interface()` gives them, each port once."""

    def __init__(self) -> None:
        self._tables: dict[tuple[str, Mode], TablePort] = {}
        self._parameters: dict[str, ParameterPort] = {}
        self._dynamic: list[DynamicName] = []
        self._problems: list[Problem] = []

    def problem(self, line: int, message: str, severity: Severity = "error", hint: str = "") -> None:
        self._problems.append(Problem(line, message, severity, hint))

    def dynamic(self, call: Literal["Table", "Parameter"], line: int) -> None:
        self._dynamic.append(DynamicName(call, line))
        hint = "the graph shows no edge for it; a literal name would" if call == "Table" else "settings cannot show it"
        self.problem(line, f"{call} with a name or mode that is computed at run time", "warning", hint)

    def table(self, arguments: Mapping[str, Argument], line: int) -> None:
        name, mode = arguments.get("name"), arguments.get("mode", "r")
        if name is COMPUTED or mode is COMPUTED:
            self.dynamic("Table", line)
            return
        if not isinstance(name, str) or not name:
            self.problem(line, "Table needs a name: a text", hint='write Table("name")')
            return
        name = whole(name)
        if not isinstance(mode, str) or mode not in ("r", "w"):
            self.problem(line, f'Table "{name}" has mode {mode!r}', hint='the modes are "r" and "w"')
            return
        port = TablePort(
            name=name,
            mode=cast(Mode, mode),
            line=line,
            description=_text(arguments.get("description")),
            schema=_text(arguments.get("schema")),
            required=arguments.get("required", True) is not False,
        )
        first = self._tables.setdefault((port.name, port.mode), port)
        self._tables[port.name, port.mode] = replace(
            first,
            description=first.description or port.description,
            schema=first.schema or port.schema,
            required=first.required or port.required,
        )

    def parameter(self, arguments: Mapping[str, Argument], line: int) -> None:
        name = arguments.get("name")
        if name is COMPUTED:
            self.dynamic("Parameter", line)
            return
        if not isinstance(name, str):
            self.problem(line, "Parameter needs a name: a text", hint='write Parameter("name")')
            return
        name = whole(name)
        declared = arguments.get("type")
        type_, connection = self._type(name, declared, line)
        default = arguments.get("default")
        literal = not (default is COMPUTED or isinstance(default, TypeName))
        port = ParameterPort(
            name=name,
            line=line,
            type=type_,
            connection=connection,
            description=_text(arguments.get("description")),
            has_default="default" in arguments,
            default=(whole(default) if isinstance(default, str) else default) if literal else None,
            default_computed=not literal,
        )
        first = self._parameters.setdefault(name, port)
        if first is not port and not port.has_default:  # one of the calls would fail without a value
            self._parameters[name] = replace(first, has_default=False, default=None, default_computed=False)

    def interface(self) -> Interface:
        return Interface(
            tuple(self._tables.values()),
            tuple(self._parameters.values()),
            tuple(self._dynamic),
            tuple(self._problems),
        )

    def _type(self, name: str, declared: Argument, line: int) -> tuple[ParameterType, str | None]:
        if declared is None:
            return "str", None
        if isinstance(declared, str):  # Parameter("x", type="int")
            declared = TypeName(declared)
        if isinstance(declared, TypeName):
            if declared.name == "Connection":
                return "connection", declared.connection
            if declared.name in _TYPES:
                return cast(ParameterType, declared.name), None
        shown = declared.name if isinstance(declared, TypeName) else "that is computed"
        hint = f"the types are {', '.join(sorted(_TYPES))} and Connection"
        self.problem(line, f'Parameter "{name}" has a type {shown}: taken for str', "warning", hint)
        return "str", None


def _text(value: Argument) -> str | None:
    return whole(value) if isinstance(value, str) else None
