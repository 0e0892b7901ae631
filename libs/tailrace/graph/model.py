"""What an app is once its files were read: nodes, ports, stores and what is wrong with them. Only values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "App",
    "ConnectionRef",
    "Dashboard",
    "DashboardItem",
    "DynamicName",
    "GraphError",
    "Mode",
    "Node",
    "NodeKind",
    "OnError",
    "ParameterPort",
    "ParameterType",
    "SchemaFile",
    "Scope",
    "SecretRef",
    "Severity",
    "Storage",
    "Store",
    "Subgraph",
    "TablePort",
]

Mode = Literal["r", "w"]
NodeKind = Literal["python", "sql", "webhook", "chart", "markdown", "component"]
OnError = Literal["dead-letter", "stop"]
ParameterType = Literal["str", "int", "float", "bool", "datetime", "date", "list", "connection"]
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class GraphError:
    """One thing that is wrong with an app. Collected, never raised: the rest of the graph stays usable."""

    node_id: str | None
    """Own id of the node or store it is about; None when it is about a file."""
    message: str
    file: str
    """Below the app's folder, POSIX."""
    line: int
    """From 1."""
    severity: Severity = "error"
    hint: str = ""
    """What to do next; apart from the message, because clients compare messages."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """`${{ name }}`: the value of an organization's secret, resolved when a run starts."""

    name: str


@dataclass(frozen=True, slots=True)
class ConnectionRef:
    """`${{ connection.name }}`: an organization's connection, resolved when a run starts."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePort:
    """One table that a node's code names. A name declared in both modes makes two ports."""

    name: str
    mode: Mode
    line: int
    """Where the code declares it, from 1."""
    description: str | None = None
    schema: str | None = None
    """Name of a schema of the graph."""
    required: bool = True
    """False: leaving it unconnected is no error."""
    implicit: bool = False
    """True for the `output_table` of a SQL node that names no table to write."""
    store: str | None = None
    """Key of the store behind it; None while unconnected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterPort:
    """One parameter that a node's code asks for."""

    name: str
    line: int
    type: ParameterType = "str"
    connection: str | None = None
    """Kind of connection (`"gmail"`) when the type is `connection` and the code names one."""
    description: str | None = None
    has_default: bool = False
    default: object = None
    """Its literal value; None too when there is none, or when only running the code can tell."""
    default_computed: bool = False
    """The default is an expression: show no value, the code knows it."""


@dataclass(frozen=True, slots=True)
class DynamicName:
    """A `Table` or `Parameter` call whose arguments are known at run time only."""

    call: Literal["Table", "Parameter"]
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One executable or presentational node, at its place in the graph."""

    path: tuple[str, ...]
    """Ids of the subgraphs around it, outermost first, then its own: the node's identity across graph versions."""
    kind: NodeKind
    title: str
    file: str
    """The graph file that declares it."""
    line: int
    node_file: str | None = None
    """Its code, chart spec or markdown in `App.files`; None for webhooks and components."""
    package: str = ""
    """Folder that its code is imported from: "" for the app's own, else that of the component."""
    uses: str | None = None
    """`org/component@version` of a component whose files are not at hand."""
    ports: tuple[TablePort, ...] = ()
    parameters: tuple[ParameterPort, ...] = ()
    parameter_values: Mapping[str, object] = field(default_factory=dict)
    """Values set in graph files, parents' included; null ones left out. May hold names the code never asks for."""
    dynamic: tuple[DynamicName, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    trigger: str | None = None
    """None: fires on news. `manual`: only when triggered. Else five cron fields, UTC."""
    text: str | None = None
    """A chart's JSON or a document's markdown."""
    description_file: str | None = None
    """Path as written; the file may be absent."""
    icon_url: str | None = None
    display: Mapping[str, object] = field(default_factory=dict)
    timeout_s: float | None = None
    memory_bytes: int | None = None
    cpu_s: float | None = None
    """Most CPU time of one run."""
    network: bool = True
    """False: its code must not reach other machines."""
    executor: str | None = None
    """What its worker runs in, where it asks for more than the runner gives: `process`, `bubblewrap`, `container`."""
    retries: int | None = None
    """None: the failure rules without `retries`."""
    backoff_s: tuple[float, ...] = ()
    """Pauses before the tries, the last one repeating; empty: the usual ones."""
    parallelism: int = 1
    """Slots that share the partitions of what it streams."""
    respond: bool = False
    """Webhook: hold the request open until some node answers it."""
    on_error: OnError | None = None
    """What becomes of a record that is given up; None: `dead-letter`."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Keys of the entry that the graph does not know; those of a webhook mean something to the gateway."""
    extra_lines: Mapping[str, int] = field(default_factory=dict)
    """Where each of them stands in `file`."""

    @property
    def id(self) -> str:
        return self.path[-1]

    @property
    def key(self) -> str:
        """Unique among all nodes and stores of the app."""
        return ".".join(self.path)

    @property
    def cron(self) -> str | None:
        return None if self.trigger == "manual" else self.trigger

    @property
    def is_manual(self) -> bool:
        return self.trigger == "manual"

    @property
    def reads(self) -> tuple[str, ...]:
        """Keys of the stores that it reads, each once, in order of declaration."""
        return _stores_of(self.ports, "r")

    @property
    def writes(self) -> tuple[str, ...]:
        """Keys of the stores that it writes, each once, in order of declaration."""
        return _stores_of(self.ports, "w")


def _stores_of(ports: tuple[TablePort, ...], mode: Mode) -> tuple[str, ...]:
    return tuple(dict.fromkeys(port.store for port in ports if port.mode == mode and port.store is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """One Table node."""

    path: tuple[str, ...]
    name: str
    """Unique in its graph file."""
    file: str
    line: int
    storage: str | None = None
    """Database of `App.storages` that it lives on; None for the platform's own."""
    schema: str | None = None
    partitions: int = 1
    partition_key: str | None = None
    freshness_s: float | None = None
    """How old the lake's copy of it may be."""
    retention_s: float | None = None
    """How long its superseded versions stay; None: as the app says."""
    display: Mapping[str, object] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.path[-1]

    @property
    def key(self) -> str:
        """Unique among all nodes and stores of the app."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgraph:
    """One use of a graph inside another; its nodes and stores have this path before their own id."""

    path: tuple[str, ...]
    title: str
    file: str
    line: int
    graph_file: str
    """The graph file it stands for."""
    uses: str | None = None
    """`org/component@version` where it is a component."""
    display: Mapping[str, object] = field(default_factory=dict)
    description_file: str | None = None
    icon_url: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.path[-1]

    @property
    def key(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """An external database that stores may live on."""

    database: str
    file: str
    line: int
    definition: object = None
    """As written; what it means is the business of whoever connects."""
    engines: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    read_only: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaFile:
    """A Common Model file: its text and plain values, not yet checked."""

    path: str
    text: str
    data: object
    name: str | None
    """What ports and stores call it."""
    line: int
    """Where the graph file lists it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardItem:
    """One tile: a node or store of the dashboard's graph."""

    id: str
    node: str
    """Key of the chart or store; the id as written where there is no such."""
    type: str
    x: int = 0
    y: int = 0
    width: int = 1
    height: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A page of tiles."""

    path: tuple[str, ...]
    title: str
    file: str
    line: int
    items: tuple[DashboardItem, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What names mean inside one use of a graph file."""

    stores: Mapping[str, str]
    """Name to key, for the stores that the graph file declares."""
    exposes: Mapping[str, frozenset[str]] | None = None
    """`inputs`, `outputs` and `parameters` it shows to its parent; None: all that it does not satisfy itself."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """How the parent maps them: exposed name to the parent's store."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)
    """Parameter values that the parent sets."""
    parent: Scope | None = None
    _found: dict[tuple[str, Mode], str | None] = field(default_factory=dict, repr=False, compare=False)

    def shows(self, side: Literal["inputs", "outputs", "parameters"], name: str) -> bool:
        """Whether the parent may wire or set `name`."""
        return self.exposes is None or name in self.exposes[side]

    def store_for(self, name: str, mode: Mode) -> str | None:
        """Key of the store that `name` means here; None where there is none.

        A store of the graph itself wins, unless the graph exposes that very name and the parent has a store for
        it: then the parent's takes its place, for readers and writers alike.
        """
        if (name, mode) not in self._found:
            self._found[name, mode] = self._look_up(name, mode)
        return self._found[name, mode]

    def value_for(self, name: str, own: object) -> object:
        """The value of a parameter: the outermost exposing parent's, else `own`; null counts as not set."""
        value, scope = own, self
        while scope.parent is not None and scope.shows("parameters", name):
            outer = scope.values.get(name)
            value = value if outer is None else outer
            scope = scope.parent
        return value

    def _look_up(self, name: str, mode: Mode) -> str | None:
        own = self.stores.get(name)
        if own is None:
            return self._outside(name, mode) if self.shows(_SIDE[mode], name) else None
        other: Mode = "w" if mode == "r" else "r"
        if self.exposes is not None:
            for way in (mode, other):
                if self.shows(_SIDE[way], name) and (outside := self._outside(name, way)) is not None:
                    return outside
        return own

    def _outside(self, name: str, mode: Mode) -> str | None:
        if self.parent is None:
            return None
        names = self.inputs if mode == "r" else self.outputs
        return self.parent.store_for(names.get(name, name), mode)


_SIDE: Mapping[Mode, Literal["inputs", "outputs"]] = {"r": "inputs", "w": "outputs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """One graph version: everything that an app's files say."""

    slug: str
    """Names the graph in topics and URLs: `[a-z0-9-]+`."""
    title: str
    root_file: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """All files by path; those of components lie below `.components/<org>/<name>@<version>/`."""
    nodes: tuple[Node, ...] = ()
    """Executable, chart and markdown nodes through any depth; a component stands here only while it is unresolved."""
    subgraphs: tuple[Subgraph, ...] = ()
    stores: tuple[Store, ...] = ()
    dashboards: tuple[Dashboard, ...] = ()
    storages: tuple[Storage, ...] = ()
    schemas: tuple[SchemaFile, ...] = ()
    exposes: Mapping[str, tuple[str, ...]] | None = None
    description_file: str | None = None
    requirements_file: str | None = None
    """In `files`."""
    tags: tuple[str, ...] = ()
    version: str | None = None
    icon_url: str | None = None
    retention_s: float | None = None
    """How long superseded versions of its Tables stay; None: as the deployment says."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Top-level keys that we do not know."""
    errors: tuple[GraphError, ...] = ()
    """Sorted by file and line."""
    scopes: Mapping[tuple[str, ...], Scope] = field(default_factory=dict, repr=False)
    """By path of the subgraph; `()` is the app itself."""

    @property
    def ok(self) -> bool:
        """No errors; warnings do not count."""
        return all(error.severity != "error" for error in self.errors)

    @property
    def charts(self) -> tuple[Node, ...]:
        return self._of_kind("chart")

    @property
    def docs(self) -> tuple[Node, ...]:
        return self._of_kind("markdown")

    @property
    def webhooks(self) -> tuple[Node, ...]:
        return self._of_kind("webhook")

    def node(self, key: str) -> Node | None:
        """The node with this key."""
        return next((node for node in self.nodes if node.key == key), None)

    def store(self, key: str) -> Store | None:
        """The store with this key."""
        return next((store for store in self.stores if store.key == key), None)

    def store_for(self, node: Node, port: str, mode: Mode) -> str | None:
        """Key of the store behind a port of `node`, also for names that its code computes while it runs."""
        scope = self.scopes.get(node.path[:-1])
        names = node.inputs if mode == "r" else node.outputs
        return None if scope is None else scope.store_for(names.get(port, port), mode)

    def _of_kind(self, kind: NodeKind) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.kind == kind)
