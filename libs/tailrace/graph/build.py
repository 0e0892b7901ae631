"""From files to an `App`: the one function that knows the order of the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, cast

from tailrace.graph.entries import DocEntry, FunctionEntry, GraphFile, StoreEntry
from tailrace.graph.expand import COMPONENTS_FOLDER, Place, Placed, ResolveComponent, expand
from tailrace.graph.ids import slug_from
from tailrace.graph.model import (
    App,
    Dashboard,
    DashboardItem,
    Node,
    NodeKind,
    SchemaFile,
    Severity,
    Storage,
    Store,
    Subgraph,
    TablePort,
)
from tailrace.graph.problems import Problem, Problems
from tailrace.graph.texts import decode, inside, whole
from tailrace.graph.wiring import check_parameters, check_shown, parameter_values, wire
from tailrace.graph.yamltree import parse_yaml, plain

__all__ = ["build_app"]


def build_app(
    files: Mapping[str, bytes],
    root_yaml: str = "graph.yml",
    folder_name: str = "app",
    resolve_component: ResolveComponent | None = None,
    problems: Problems | None = None,
) -> App:
    """The app that `files` make, with all that is wrong with it in `App.errors`. Raises nothing, whatever the files.

    Steps: read the graph files and unfold subgraphs; read code for ports and parameters; connect ports to stores
    and parameters to values; check.

    Args:
        files: content by path below the app's folder, POSIX.
        root_yaml: path of the graph file to begin with.
        folder_name: title and slug come from it where the file has none.
        resolve_component: gives the files of a component by `org/component@version`; without it every component
            is an error and stays in the graph as a node that does nothing.
        problems: what is already known to be wrong, to stand among the errors.
    """
    problems = problems or Problems()
    safe: dict[str, bytes] = {}
    for path, data in files.items():
        if inside("", path) == path and not path.startswith(f"{COMPONENTS_FOLDER}/"):
            safe[path] = data
        else:
            problems.add(whole(path), 1, "Path is not allowed: it must be relative, POSIX and below the app's folder")
    top = expand(safe, inside("", root_yaml) or whole(root_yaml), resolve_component, problems)
    check_shown(top, problems)
    return _Builder(safe, problems).app(top, whole(folder_name))


class _Builder:
    """Turns places into the values of an App."""

    def __init__(self, files: dict[str, bytes], problems: Problems) -> None:
        self._files = files
        self._problems = problems
        self._schemas: dict[str, SchemaFile] = {}
        self._storages: dict[tuple[str, ...], Mapping[str, Storage]] = {}
        """By place: those of the graph file and of the ones around it."""

    def app(self, top: Place, folder_name: str) -> App:
        graph = top.graph
        places = list(top.all())
        for place in places:
            self._read_schemas(place.graph)
            own = {storage.database: storage for storage in place.graph.storages}
            self._storages[place.path] = {**self._storages.get(place.path[:-1], {}), **own}
        stores = [
            store for place in places for entry, path in place.stores if (store := self._store(entry, path, place))
        ]
        by_key = {store.key: store for store in stores}
        nodes = [self._node(node, place, by_key) for place in places for node in place.nodes if _is_leaf(node)]
        nodes = _with_triggers(nodes, places)
        dashboards = self._dashboards(places, {node.key for node in nodes} | by_key.keys())
        requirements_file = self._requirements(graph)
        return App(
            slug=slug_from(graph.slug or folder_name),
            title=graph.title or folder_name,
            root_file=graph.path,
            files=self._files,
            nodes=tuple(nodes),
            subgraphs=tuple(_subgraph(node, place) for place in places for node in place.nodes if node.inner),
            stores=tuple(stores),
            dashboards=tuple(dashboards),
            storages=tuple(
                {(each.file, each.line): each for place in places for each in place.graph.storages}.values()
            ),
            schemas=tuple(self._schemas.values()),
            exposes=_exposes(graph),
            description_file=graph.description_file,
            requirements_file=requirements_file,
            tags=graph.tags,
            version=graph.version,
            icon_url=graph.icon_url,
            retention_s=graph.retention_s,
            extra=graph.extra,
            errors=self._problems.sorted(),
            scopes={place.path: place.scope for place in places},
        )

    def _store(self, entry: StoreEntry, path: tuple[str, ...], place: Place) -> Store | None:
        key = ".".join(path)
        if key not in (place.scope.store_for(entry.table, "r"), place.scope.store_for(entry.table, "w")):
            return None  # the parent's store takes its place
        self._check_schema(entry.schema, place.graph.path, entry.line, path[-1])
        if entry.storage is not None:
            declared = entry.storage in self._storages[place.path]
            message = f'Storage "{entry.storage}" is not declared'
            hint = "declare it under storages, or leave it out to use the platform's own"
            if declared:
                message = f'Table "{entry.table}" stays empty: it lies in an external database, "{entry.storage}"'
                hint = "those are not read yet; let a node import what is needed"
            severity: Literal["error", "warning"] = "warning" if declared else "error"
            self._problems.add(place.graph.path, entry.line, message, node_id=path[-1], hint=hint, severity=severity)
        return Store(
            path=path,
            name=entry.table,
            file=place.graph.path,
            line=entry.line,
            storage=entry.storage,
            schema=entry.schema,
            partitions=entry.partitions,
            partition_key=entry.partition_key,
            freshness_s=entry.freshness_s,
            retention_s=entry.retention_s,
            display=entry.display,
            extra=entry.extra,
        )

    def _node(self, node: Placed, place: Place, stores: Mapping[str, Store]) -> Node:
        entry, file = node.entry, place.graph.path
        if isinstance(entry, DocEntry):
            return Node(
                path=node.path,
                kind="markdown",
                title=entry.title,
                file=file,
                line=entry.line,
                node_file=entry.path,
                package=place.package,
                text=node.text,
                display=entry.display,
                extra=entry.extra,
            )
        assert isinstance(entry, FunctionEntry)
        ports = wire(node, place, self._problems)
        values = parameter_values(node, place.scope)
        check_parameters(node.interface.parameters, values, node, place, self._problems)
        for port in ports:
            self._check_port(port, node, place, stores)
        return Node(
            path=node.path,
            kind=cast(NodeKind, entry.kind),
            title=entry.title,
            file=file,
            line=entry.line,
            node_file=entry.path,
            package=place.package,
            uses=entry.target if entry.kind == "component" else None,
            ports=ports,
            parameters=node.interface.parameters,
            parameter_values=values,
            dynamic=node.interface.dynamic,
            inputs=entry.inputs,
            outputs=entry.outputs,
            trigger=entry.trigger if entry.kind in ("python", "sql", "component") else None,
            text=node.text,
            description_file=entry.description_file,
            icon_url=entry.icon_url,
            display=entry.display,
            timeout_s=entry.timeout_s,
            memory_bytes=entry.memory_bytes,
            cpu_s=entry.cpu_s,
            network=entry.network,
            executor=entry.executor,
            retries=entry.retries,
            backoff_s=entry.backoff_s,
            parallelism=self._parallelism(entry, ports, node, place, stores),
            respond=entry.respond,
            on_error=entry.on_error,
            extra=entry.extra,
            extra_lines=entry.extra_lines,
        )

    def _parallelism(
        self,
        entry: FunctionEntry,
        ports: tuple[TablePort, ...],
        node: Placed,
        place: Place,
        stores: Mapping[str, Store],
    ) -> int:
        """The number of the node's slots: one, where it asks for more and cannot have them."""
        wanted = entry.parallelism
        if wanted == 1:
            return 1

        def tell(message: str, hint: str, severity: Severity = "error") -> None:
            at = (place.graph.path, entry.parallelism_line)
            self._problems.add(*at, message, node_id=node.path[-1], severity=severity, hint=hint)

        read = {port.store for port in ports if port.mode == "r"} & stores.keys()
        written = {port.store for port in ports if port.mode == "w"}
        partitions = max((stores[key].partitions for key in read if key is not None), default=1)
        code = self._files.get(entry.path or "", b"")
        if entry.kind != "python":
            tell(f"parallelism does not apply to a {entry.kind}", "it is for Python nodes that stream")
        elif partitions == 1:
            tell(
                "parallelism shares partitions, and no table that it reads has several",
                "add `partitions:` to the store",
            )
        elif b"stream" not in code:
            tell("parallelism is for nodes that stream: this one would do everything in each slot", "use as_stream()")
        elif read & written:
            names = ", ".join(sorted(stores[key].name for key in read & written if key is not None))
            tell(
                f"parallelism: its slots would fire each other by {names}, which it reads and writes",
                "write another table",
            )
        else:
            if wanted > partitions:
                tell(f"parallelism {wanted} is more than the {partitions} partitions there are", "", "warning")
            if b"State(" in code:
                tell("each of its slots has a State of its own, for the rows of its partitions", "", "warning")
            return min(wanted, partitions)
        return 1

    def _check_port(self, port: TablePort, node: Placed, place: Place, stores: Mapping[str, Store]) -> None:
        entry = node.entry
        assert isinstance(entry, FunctionEntry)
        node_id = node.path[-1]
        if entry.path is not None:
            self._check_schema(port.schema, entry.path, port.line, node_id)
        store = stores.get(port.store) if port.store is not None else None
        if port.mode == "w" and store is not None and store.storage is not None:
            storage = self._storages[store.path[:-1]].get(store.storage)
            if storage is not None and storage.read_only:
                message = f'Table "{store.name}" cannot be written: storage "{storage.database}" is read-only'
                self._problems.add(place.graph.path, entry.line, message, node_id=node_id)

    def _check_schema(self, name: str | None, file: str, line: int, node_id: str) -> None:
        if name is not None and name not in {schema.name for schema in self._schemas.values()}:
            message = f'Schema "{name}" is not declared'
            hint = "list its file under schemas"
            self._problems.add(file, line, message, node_id=node_id, severity="warning", hint=hint)

    def _read_schemas(self, graph: GraphFile) -> None:
        for path, line in graph.schemas:
            if path in self._schemas:
                continue
            data = self._files.get(path)
            if data is None:
                self._problems.add(graph.path, line, f'File not found: "{path}"')
                continue
            text = decode(data)
            if isinstance(text, Problem):
                self._problems.extend(path, (text,))
                continue
            tree, found = parse_yaml(text)
            self._problems.extend(path, found)
            value = None if tree is None else plain(tree)
            name = value.get("name") if isinstance(value, dict) else None
            if not isinstance(name, str):
                if not found:
                    self._problems.add(path, 1, "A schema file must be a map with a name")
                name = None
            self._schemas[path] = SchemaFile(path=path, text=text, data=value, name=name, line=line)

    def _requirements(self, graph: GraphFile) -> str | None:
        if graph.requirements_file is None:
            return None
        path, line = graph.requirements_file
        if path not in self._files:
            self._problems.add(graph.path, line, f'File not found: "{path}"')
            return None
        return path

    def _dashboards(self, places: list[Place], keys: set[str]) -> Iterator[Dashboard]:
        for place in places:
            for entry, path in place.dashboards:
                items = []
                for id_, node, type_, (x, y, width, height), line in entry.items:
                    key = ".".join((*place.path, node))
                    if key not in keys:
                        message = f'Dashboard "{entry.title}" shows "{node}", which is no node or store'
                        self._problems.add(place.graph.path, line, message, node_id=path[-1], severity="warning")
                        key = node
                    items.append(DashboardItem(id=id_, node=key, type=type_, x=x, y=y, width=width, height=height))
                yield Dashboard(
                    path=path,
                    title=entry.title,
                    file=place.graph.path,
                    line=entry.line,
                    items=tuple(items),
                    extra=entry.extra,
                )


def _is_leaf(node: Placed) -> bool:
    """Not a subgraph or component that was unfolded, nor a subgraph that could not be."""
    return node.inner is None and not (isinstance(node.entry, FunctionEntry) and node.entry.kind == "subgraph")


def _subgraph(node: Placed, place: Place) -> Subgraph:
    entry = node.entry
    assert isinstance(entry, FunctionEntry) and node.inner is not None
    return Subgraph(
        path=node.path,
        title=entry.title,
        file=place.graph.path,
        line=entry.line,
        graph_file=node.inner.graph.path,
        uses=entry.target if entry.kind == "component" else None,
        display=entry.display,
        description_file=entry.description_file,
        icon_url=entry.icon_url,
        extra=entry.extra,
    )


def _exposes(graph: GraphFile) -> dict[str, tuple[str, ...]] | None:
    if graph.exposes is None:
        return None
    return {
        "inputs": tuple(graph.exposes.inputs),
        "outputs": tuple(graph.exposes.outputs),
        "parameters": tuple(graph.exposes.parameters),
        "schemas": tuple(graph.exposes.schemas),
    }


def _with_triggers(nodes: list[Node], places: list[Place]) -> list[Node]:
    """A component's trigger is for those of its nodes that nothing inside the component feeds."""
    uses = [
        (node.path, node.entry.trigger)
        for place in places
        for node in place.nodes
        if node.inner
        and isinstance(node.entry, FunctionEntry)
        and node.entry.kind == "component"
        and node.entry.trigger
    ]
    for path, trigger in reversed(uses):  # the innermost first: its nodes then have one
        inside_key = ".".join(path) + "."
        nodes = [
            replace(node, trigger=trigger)
            if node.kind in ("python", "sql")
            and node.trigger is None
            and node.path[: len(path)] == path
            and not any(store.startswith(inside_key) for store in node.reads)
            else node
            for node in nodes
        ]
    return nodes
