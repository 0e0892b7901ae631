"""Every use of every graph file at its place: subgraphs and components unfolded, ids given, code read."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tailrace.graph.calls import Interface
from tailrace.graph.entries import DashboardEntry, DocEntry, Entry, FunctionEntry, GraphFile, StoreEntry
from tailrace.graph.graphfile import read_graph_file
from tailrace.graph.ids import fallback_id
from tailrace.graph.model import Scope
from tailrace.graph.problems import Problem, Problems
from tailrace.graph.pycode import read_python
from tailrace.graph.sqlcode import read_sql
from tailrace.graph.texts import decode, inside

__all__ = ["COMPONENTS_FOLDER", "Place", "Placed", "ResolveComponent", "expand"]

ResolveComponent = Callable[[str], Mapping[str, bytes] | None]
"""From `org/component@version` to the component's files, or None where it is not known."""

COMPONENTS_FOLDER = ".components"
"""Where the files of components lie among an app's; a name that the loader never reads from the app's own folder."""

DEPTH_MAX = 16
"""Deepest nesting of graphs. Real apps nest two."""
ENTRIES_MAX = 10_000
"""Most nodes and stores of one app, all uses of subgraphs counted: ten graphs that each use the next one ten times
would be ten thousand million."""
DOCUMENT_BYTES_MAX = 4 << 20
"""Largest chart or markdown file: it is sent to browsers whole."""


@dataclass(slots=True)
class Placed:
    """A function or document at one place of the graph, with what its file says."""

    entry: FunctionEntry | DocEntry
    path: tuple[str, ...]
    interface: Interface = field(default_factory=Interface)
    text: str | None = None
    inner: Place | None = None
    """What a subgraph or component stands for; None while that cannot be read."""


@dataclass(slots=True)
class Place:
    """One use of one graph file."""

    graph: GraphFile
    path: tuple[str, ...]
    package: str
    scope: Scope
    stores: list[tuple[StoreEntry, tuple[str, ...]]] = field(default_factory=list)
    nodes: list[Placed] = field(default_factory=list)
    dashboards: list[tuple[DashboardEntry, tuple[str, ...]]] = field(default_factory=list)

    def all(self) -> Iterable[Place]:
        """This place and those inside, parents first."""
        yield self
        for node in self.nodes:
            if node.inner is not None:
                yield from node.inner.all()


_E = TypeVar("_E", bound=Entry)


def expand(
    files: dict[str, bytes], root_file: str, resolve_component: ResolveComponent | None, problems: Problems
) -> Place:
    """The tree of places that begins at `root_file`. Files of components are added to `files`."""
    return _Expander(files, resolve_component, problems).root(root_file)


class _Expander:
    """Reads each file once, however often it is used."""

    def __init__(self, files: dict[str, bytes], resolve: ResolveComponent | None, problems: Problems) -> None:
        self._files = files
        self._resolve = resolve
        self._problems = problems
        self._graphs: dict[str, GraphFile] = {}
        self._interfaces: dict[str, Interface] = {}
        self._components: dict[str, tuple[str, str | None] | None] = {}
        self._entries = 0
        self._full = False

    def root(self, file: str) -> Place:
        if file in self._files:
            return self._place(file, (), "", (file,))
        self._problems.add(file, 1, f'File not found: "{file}"', hint=self._near(file) or "an app needs a graph file")
        return Place(GraphFile(path=file, readable=False), (), "", Scope(stores={}))

    def _place(
        self,
        file: str,
        path: tuple[str, ...],
        package: str,
        around: tuple[str, ...],
        *,
        parent: Scope | None = None,
        use: FunctionEntry | None = None,
    ) -> Place:
        graph = self._graph(file)
        ids = _Ids(graph, path[-1] if path else "")
        stores = [(entry, (*path, ids.of(entry))) for entry in self._room(graph.stores, graph)]
        exposes = graph.exposes
        scope = Scope(
            stores={entry.table: ".".join(key) for entry, key in stores},
            exposes=None
            if exposes is None
            else {
                "inputs": frozenset(exposes.inputs),
                "outputs": frozenset(exposes.outputs),
                "parameters": frozenset(exposes.parameters),
            },
            inputs=use.inputs if use else {},
            outputs=use.outputs if use else {},
            values=use.values if use else {},
            parent=parent,
        )
        place = Place(graph, path, package, scope, stores)
        for entry in self._room(graph.functions, graph):
            place.nodes.append(self._function(entry, (*path, ids.of(entry)), place, around))
        for doc in self._room(graph.docs, graph):
            text = None
            if doc.path is not None:
                text = self._document(doc.path, graph.path, doc.path_line, ids.of(doc))
            place.nodes.append(Placed(doc, (*path, ids.of(doc)), text=text))
        place.dashboards = [(each, (*path, ids.of(each))) for each in self._room(graph.dashboards, graph)]
        return place

    def _room(self, entries: tuple[_E, ...], graph: GraphFile) -> tuple[_E, ...]:
        room = ENTRIES_MAX - self._entries
        if len(entries) > room and not self._full:
            self._full = True
            message = f"The app unfolds to more than {ENTRIES_MAX} nodes and stores"
            self._problems.add(graph.path, 1, message, hint="use fewer subgraphs inside subgraphs")
        self._entries += min(len(entries), room)
        return entries[:room]

    def _graph(self, file: str) -> GraphFile:
        if file not in self._graphs:
            self._graphs[file] = read_graph_file(self._files[file], file, self._problems)
        return self._graphs[file]

    def _function(self, entry: FunctionEntry, path: tuple[str, ...], place: Place, around: tuple[str, ...]) -> Placed:
        placed = Placed(entry, path)
        file, line, node_id = place.graph.path, entry.target_line, path[-1]
        if entry.kind == "component":
            self._component(placed, place, around)
        elif entry.kind == "webhook" or entry.path is None:
            pass
        elif entry.path not in self._files:
            hint = self._near(entry.path)
            self._problems.add(file, line, f'File not found: "{entry.path}"', node_id=node_id, hint=hint)
            placed.interface = Interface(readable=False)
        elif entry.kind == "subgraph":
            self._subgraph(placed, entry.path, place.package, place, around)
        elif entry.kind == "chart":
            placed.text = self._document(entry.path, file, line, node_id)
            if placed.text is not None:
                self._check_chart(placed.text, entry.path, node_id)
        else:
            placed.interface = self._interface(entry.path, entry.kind == "sql")
            self._problems.extend(entry.path, placed.interface.problems, node_id)
        return placed

    def _subgraph(self, placed: Placed, file: str, package: str, place: Place, around: tuple[str, ...]) -> None:
        entry = placed.entry
        assert isinstance(entry, FunctionEntry)
        if file in around:
            ring = " -> ".join((*around[around.index(file) :], file))
            message = f'Cycle of subgraphs: "{file}" includes itself ({ring})'
        elif len(around) >= DEPTH_MAX:
            message = f"Subgraphs are nested deeper than {DEPTH_MAX} levels"
        else:
            placed.inner = self._place(file, placed.path, package, (*around, file), parent=place.scope, use=entry)
            return
        hint = "remove this function, or let it use another graph"
        self._problems.add(place.graph.path, entry.target_line, message, node_id=placed.path[-1], hint=hint)

    def _component(self, placed: Placed, place: Place, around: tuple[str, ...]) -> None:
        entry = placed.entry
        assert isinstance(entry, FunctionEntry)
        name, line, node_id = entry.target, entry.target_line, placed.path[-1]
        if name not in self._components:
            self._components[name] = self._fetch(name)
        found = self._components[name]
        if found is None:
            hint = "no marketplace is asked: copy its files into the app and name its graph.yml as node_file; until then it does nothing"
            message = f'Component "{name}" could not be resolved'
            self._problems.add(place.graph.path, line, message, node_id=node_id, hint=hint)
            return
        folder, root = found
        if root is None:
            message = f'Component "{name}" has no graph.yml'
            self._problems.add(place.graph.path, line, message, node_id=node_id)
            return
        self._subgraph(placed, root, folder, place, around)

    def _fetch(self, name: str) -> tuple[str, str | None] | None:
        """Folder and graph file of a component, whose files are then at hand; None where it is not known."""
        folder = f"{COMPONENTS_FOLDER}/{name}"
        if self._resolve is None or inside("", folder) != folder or name.count("/") != 1:
            return None
        files = self._resolve(name)
        if files is None:
            return None
        safe = {path: data for written, data in files.items() if (path := inside("", written)) is not None}
        self._files.update({f"{folder}/{path}": data for path, data in safe.items()})
        roots = [path for path in safe if "/" not in path and path.endswith((".yml", ".yaml"))]
        root = "graph.yml" if "graph.yml" in roots else roots[0] if len(roots) == 1 else None
        return folder, root and f"{folder}/{root}"

    def _interface(self, path: str, is_sql: bool) -> Interface:
        if path not in self._interfaces:
            self._interfaces[path] = (read_sql if is_sql else read_python)(self._files[path], path)
        return self._interfaces[path]

    def _document(self, path: str, file: str, line: int, node_id: str) -> str | None:
        data = self._files.get(path)
        if data is None:
            self._problems.add(file, line, f'File not found: "{path}"', node_id=node_id, hint=self._near(path))
            return None
        if len(data) > DOCUMENT_BYTES_MAX:
            message = f"{len(data)} bytes are over the limit of {DOCUMENT_BYTES_MAX}"
            self._problems.add(path, 1, message, node_id=node_id)
            return None
        text = decode(data)
        if isinstance(text, Problem):
            self._problems.extend(path, (text,), node_id)
            return None
        return text

    def _check_chart(self, text: str, path: str, node_id: str) -> None:
        try:
            spec = json.loads(text)
        except json.JSONDecodeError as error:
            self._problems.add(path, error.lineno, f"Error parsing file {path}: {error.msg}", node_id=node_id)
        except (ValueError, RecursionError) as error:
            self._problems.add(path, 1, f"Error parsing file {path}: {error}", node_id=node_id)
        else:
            if not isinstance(spec, dict):
                message = f"Error parsing file {path}: a chart is a JSON object"
                self._problems.add(path, 1, message, node_id=node_id)

    def _near(self, path: str) -> str:
        """A hint that names the file somebody may have meant."""
        name = posixpath.basename(path).casefold()
        for other in self._files:
            if posixpath.basename(other).casefold() == name and not other.startswith(COMPONENTS_FOLDER):
                return f'there is "{other}"'
        return ""


class _Ids:
    """The id of each entry of one use of a graph file, unique in it."""

    def __init__(self, graph: GraphFile, parent_id: str) -> None:
        entries: list[Entry] = [*graph.functions, *graph.stores, *graph.docs, *graph.dashboards]
        self._given: dict[int, str] = {}
        taken = {entry.id for entry in entries if entry.id is not None}
        counts: Counter[str] = Counter()
        for entry in entries:
            id_ = entry.id
            while id_ is None or (entry.id is None and id_ in taken):
                counts[entry.name] += 1
                count = counts[entry.name]
                id_ = fallback_id(parent_id, entry.name if count == 1 else f"{entry.name}#{count}")
            taken.add(id_)
            self._given[id(entry)] = id_

    def of(self, entry: Entry) -> str:
        return self._given[id(entry)]
