"""Ports to stores, parameters to values: what each node reads, writes and is given, through any depth of subgraphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tailrace.graph.entries import FunctionEntry
from tailrace.graph.expand import Place, Placed
from tailrace.graph.model import Mode, ParameterPort, Scope, TablePort
from tailrace.graph.problems import Problems

__all__ = ["Shown", "check_parameters", "check_shown", "parameter_values", "ports_of", "wire"]

Side = Literal["inputs", "outputs"]
_SIDE: Mapping[Mode, Side] = {"r": "inputs", "w": "outputs"}
_SINGULAR = {"inputs": "input", "outputs": "output", "parameters": "parameter"}


def ports_of(node: Placed) -> tuple[TablePort, ...]:
    """The ports of a node that is no subgraph, not yet connected."""
    entry = node.entry
    if not isinstance(entry, FunctionEntry):
        return ()
    if entry.kind == "webhook":
        return (TablePort(name=entry.target, mode="w", line=entry.target_line),)
    if entry.kind == "chart":
        return (TablePort(name=entry.target, mode="r", line=entry.target_line),) if entry.target else ()
    if entry.kind == "component":  # its code is not known: what the graph file wires is all there is
        sides: tuple[tuple[Mapping[str, str], Mode], ...] = ((entry.inputs, "r"), (entry.outputs, "w"))
        return tuple(
            TablePort(name=name, mode=mode, line=entry.line, required=False) for map_, mode in sides for name in map_
        )
    return node.interface.tables


def wire(node: Placed, place: Place, problems: Problems) -> tuple[TablePort, ...]:
    """The ports of a node, each with the key of its store; those that lack one are told, unless they may."""
    entry = node.entry
    if not isinstance(entry, FunctionEntry):
        return ()
    wired = []
    for port in ports_of(node):
        names = entry.inputs if port.mode == "r" else entry.outputs
        store = place.scope.store_for(names.get(port.name, port.name), port.mode)
        if store is None and port.required:
            _tell_unconnected(node, entry, port, place, problems)
        wired.append(replace(port, store=store))
    if entry.kind in ("python", "sql"):
        _tell_stale_names(node, entry, place, problems)
    return tuple(wired)


def _tell_unconnected(node: Placed, entry: FunctionEntry, port: TablePort, place: Place, problems: Problems) -> None:
    side = _SIDE[port.mode]
    names = entry.inputs if port.mode == "r" else entry.outputs
    name = names.get(port.name, port.name)
    mapped = port.name in names or entry.kind in ("webhook", "chart")
    scope, optional = place.scope, False
    while scope.parent is not None and scope.shows(side, name):
        outer = scope.inputs if port.mode == "r" else scope.outputs
        optional = optional or scope.exposes is not None
        mapped = name in outer
        name, scope = outer.get(name, name), scope.parent
    if scope.parent is None and scope.exposes is not None and name in scope.exposes[side]:
        mapped, optional = False, True  # the graph is a component: whoever uses it will wire this
    if optional and not mapped and port.mode == "w":
        return
    if mapped:
        message = f'Cannot find output named "{name}"'
    elif port.mode == "r" and scope.parent is None:
        message = f'Top level input is not connected: "{port.name}"'
    else:
        message = f"Could not resolve edge for port {port.name}"
    way = "map another name" if port.name in names else f"map the port under {side}"
    hint = f"declare `table: {name}` under stores" + ("" if entry.kind in ("webhook", "chart") else f", or {way}")
    file, line = place.graph.path, entry.lines.get((side, port.name))
    if entry.kind in ("webhook", "chart"):
        line = port.line
    elif line is None and entry.path is not None and not port.implicit:
        file, line = entry.path, port.line
    problems.add(file, line or entry.line, message, node_id=node.path[-1], hint=hint)


def _tell_stale_names(node: Placed, entry: FunctionEntry, place: Place, problems: Problems) -> None:
    """Names that the graph file wires or sets and the code never asks for: harmless, but often a slip of the pen."""
    if not node.interface.readable or node.interface.dynamic:
        return
    known: Mapping[str, set[str]] = {
        "inputs": {port.name for port in node.interface.tables if port.mode == "r"},
        "outputs": {port.name for port in node.interface.tables if port.mode == "w"},
        "parameters": {parameter.name for parameter in node.interface.parameters},
    }
    for (side, name), line in entry.lines.items():
        if name not in known[side]:
            message = f'No {_SINGULAR[side]} named "{name}" in the code of node "{entry.title}"'
            problems.add(place.graph.path, line, message, node_id=node.path[-1], severity="warning")


def parameter_values(node: Placed, scope: Scope) -> dict[str, object]:
    """What is set for a node's parameters, by itself or by parents that expose them; null counts as not set."""
    entry = node.entry
    if not isinstance(entry, FunctionEntry):
        return {}
    names = dict.fromkeys([*(parameter.name for parameter in node.interface.parameters), *entry.values])
    if entry.kind in ("webhook", "component") or node.interface.dynamic:  # the code may ask for anything
        around: Scope | None = scope
        while around is not None:
            names |= dict.fromkeys(around.values)
            around = around.parent
    values = {name: scope.value_for(name, entry.values.get(name)) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def check_parameters(
    parameters: Iterable[ParameterPort],
    values: Mapping[str, object],
    node: Placed,
    place: Place,
    problems: Problems,
) -> None:
    """Tell of parameters that have neither a value nor a default."""
    for parameter in parameters:
        if parameter.has_default or parameter.name in values:
            continue
        line = node.entry.line
        if isinstance(node.entry, FunctionEntry):
            line = node.entry.lines.get(("parameters", parameter.name), line)
        message = f'Parameter "{parameter.name}" has no default or value'
        hint = "set it under parameter_values, or give it a default in the code"
        problems.add(place.graph.path, line, message, node_id=node.path[-1], hint=hint)


@dataclass(slots=True)
class Shown:
    """Names of one use of a graph that its parent may wire or set."""

    inputs: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    complete: bool = True
    """False when some code inside is unknown, so that there may be more names."""

    def of(self, side: str) -> set[str]:
        return {"inputs": self.inputs, "outputs": self.outputs, "parameters": self.parameters}[side]


def check_shown(place: Place, problems: Problems) -> Shown:
    """What `place` shows its parent. Tells of exposed names that do not exist, here and inside, and of parents
    that wire or set what is not exposed."""
    graph = place.graph
    stores = {entry.table for entry, _ in place.stores}
    asked = Shown(complete=graph.readable)
    for node in place.nodes:
        entry = node.entry
        if not isinstance(entry, FunctionEntry):
            continue
        if node.inner is not None:
            inner = check_shown(node.inner, problems)
            _check_use(node, entry, inner, place, problems)
            asked.inputs |= {entry.inputs.get(name, name) for name in inner.inputs}
            asked.outputs |= {entry.outputs.get(name, name) for name in inner.outputs}
            asked.parameters |= inner.parameters
            asked.complete &= inner.complete
            continue
        for port in ports_of(node):
            names = entry.inputs if port.mode == "r" else entry.outputs
            asked.of(_SIDE[port.mode]).add(names.get(port.name, port.name))
        asked.parameters |= {parameter.name for parameter in node.interface.parameters} | set(entry.values)
        known = entry.kind in ("python", "sql", "webhook", "chart")
        asked.complete &= known and node.interface.readable and not node.interface.dynamic
    exposes = graph.exposes
    if exposes is None:
        asked.inputs -= stores
        asked.outputs -= stores
        return asked
    for side, exposed in (("inputs", exposes.inputs), ("outputs", exposes.outputs), ("parameters", exposes.parameters)):
        for name, line in exposed.items():
            if asked.complete and name not in asked.of(side) and not (side != "parameters" and name in stores):
                problems.add(graph.path, line, f'Exposed {_SINGULAR[side]} does not exist: "{name}"')
    return Shown(set(exposes.inputs), set(exposes.outputs), set(exposes.parameters))


def _check_use(node: Placed, entry: FunctionEntry, inner: Shown, place: Place, problems: Problems) -> None:
    for (side, name), line in entry.lines.items():
        if inner.complete and name not in inner.of(side):
            message = f'No exposed {_SINGULAR[side]} named "{name}" on node "{entry.title}"'
            hint = f"expose it in {node.inner.graph.path}" if node.inner is not None else ""
            problems.add(place.graph.path, line, message, node_id=node.path[-1], hint=hint)
