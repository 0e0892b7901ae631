"""One graph file as it stands: its entries, typed and checked each for itself. Nothing is resolved yet."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import cast, get_args

from croniter import croniter
from croniter.croniter import CroniterError

from tailrace.graph.entries import DashboardEntry, DocEntry, EntryKind, Exposes, FunctionEntry, GraphFile, StoreEntry
from tailrace.graph.ids import ID_CHARACTERS_MAX, is_id, slug_from
from tailrace.graph.model import OnError, Storage
from tailrace.graph.problems import Problem, Problems
from tailrace.graph.section import Section, parameter_value
from tailrace.graph.texts import decode, inside
from tailrace.graph.yamltree import Tree, parse_yaml, plain

__all__ = ["read_graph_file"]

_KIND_OF_EXTENSION: Mapping[str, EntryKind] = {
    ".py": "python",
    ".sql": "sql",
    ".json": "chart",
    ".yml": "subgraph",
    ".yaml": "subgraph",
}
PARTITIONS_MAX = 256
"""A row's id has eight bits for its partition."""
_IDENTIFYING = ("node_file", "webhook", "uses")
_COMPONENT = re.compile(r"([\w-]+)/([\w-]+)@([\w.-]+)", re.ASCII)
_OF_RUNS = ("retries", "backoff", "on_error")
_NOT_FOR: Mapping[EntryKind, tuple[str, ...]] = {
    "webhook": ("trigger", "schedule", "inputs", "outputs", "chart_input", *_OF_RUNS),
    "chart": ("trigger", "schedule", "inputs", "outputs", "parameters", "parameter_values", *_OF_RUNS),
    "subgraph": ("trigger", "chart_input", *_OF_RUNS),
    "component": ("chart_input",),
    "python": ("chart_input",),
    "sql": ("chart_input",),
}
_CRON_WORDS = frozenset(
    (
        *("l", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
        *("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
    )
)


def read_graph_file(data: bytes, path: str, problems: Problems) -> GraphFile:
    """The entries of the graph file at `path`; what is wrong goes to `problems`, each with its line."""
    text = decode(data)
    if isinstance(text, Problem):
        problems.extend(path, (text,))
        return GraphFile(path=path, readable=False)
    tree, found = parse_yaml(text)
    problems.extend(path, found)
    if tree is None or tree.value is None:
        return GraphFile(path=path, readable=not found)
    if not isinstance(tree.value, dict):
        problems.add(path, tree.line, "A graph file must be a map of keys", hint="begin with `title:`")
        return GraphFile(path=path, readable=False)
    return _Reader(path, problems).read(Section(tree, path, problems))


class _Reader:
    """Reads the sections of one file; knows which ids and names are taken."""

    def __init__(self, path: str, problems: Problems) -> None:
        self._path = path
        self._folder = posixpath.dirname(path)
        self._problems = problems
        self._ids: dict[str, int] = {}
        self._titles: dict[str, int] = {}
        self._tables: dict[str, int] = {}

    def read(self, top: Section) -> GraphFile:
        functions = [self._function(self._section(tree)) for tree in top.entries("functions")]
        stores = [self._store(self._section(tree)) for tree in top.entries("stores")]
        return GraphFile(
            path=self._path,
            title=top.text("title"),
            slug=self._slug(top),
            functions=tuple(each for each in functions if each is not None),
            stores=tuple(each for each in stores if each is not None),
            docs=tuple(self._doc(self._section(tree)) for tree in top.entries("docs")),
            dashboards=tuple(self._dashboard(self._section(tree)) for tree in top.entries("dashboards")),
            storages=tuple(self._storage(self._section(tree)) for tree in top.entries("storages")),
            schemas=tuple(self._schemas(top)),
            exposes=self._exposes(top),
            description_file=top.text("description_file"),
            requirements_file=self._file(top, "requirements_file"),
            tags=tuple(text for text, _ in top.texts("tags")),
            version=top.raw("version"),
            icon_url=self._icon(top),
            retention_s=top.duration_s("retention"),
            extra=top.rest(),
        )

    def _section(self, tree: Tree) -> Section:
        return Section(tree, self._path, self._problems)

    def _slug(self, top: Section) -> str | None:
        slug = top.text("slug")
        if slug is not None and slug_from(slug) != slug:
            hint = "a slug is 1 to 64 of a-z, 0-9 and -"
            top.error(
                top.line_of("slug"), f'slug "{slug}" is taken as "{slug_from(slug)}"', hint=hint, severity="warning"
            )
        return slug

    def _icon(self, section: Section) -> str | None:
        url, older = section.text("icon_url"), section.text("icon")
        return url or older

    def _id(self, section: Section) -> str | None:
        id_ = section.raw("id")
        if not id_:
            return None
        section.node_id = id_
        line = section.line_of("id")
        if not is_id(id_):
            section.error(
                line,
                f'id "{id_}" must be 1 to {ID_CHARACTERS_MAX} letters and digits',
                hint="an id made from its name stands in",
            )
            return None
        if id_ in self._ids:
            hint = f"line {self._ids[id_]} has it too; leave one out and an id made from its name stands in"
            section.error(line, f'id "{id_}" is used twice', hint=hint)
            return None
        self._ids[id_] = line
        return id_

    def _file(self, section: Section, key: str) -> tuple[str, int] | None:
        """A path from the root of all files, and its line; None where it is absent or leaves the root."""
        path = section.text(key)
        if path is None:
            return None
        line = section.line_of(key)
        found = inside(self._folder, path)
        if found is None:
            section.error(line, f'{key} "{path}" leaves the app\'s folder', hint="paths are relative and POSIX")
            return None
        return found, line

    def _function(self, section: Section) -> FunctionEntry | None:
        id_ = self._id(section)
        given = [key for key in _IDENTIFYING if section.has(key)]
        if not given:
            message = "A function needs exactly one of node_file, webhook and uses; this one has none"
            section.error(section.line, message)
            return None
        if len(given) > 1:
            message = f"A function needs exactly one of node_file, webhook and uses; this one has {' and '.join(given)}"
            section.error(section.line, message, hint="make it two functions")
        key = "webhook" if "webhook" in given else given[0]
        written = section.text(key)
        if not written:
            if written == "":
                section.error(section.line_of(key), f"{key} is empty")
            return None
        kind = self._kind(section, key, written)
        if kind is None:
            return None
        for other in _NOT_FOR[kind]:
            if section.has(other):
                section.error(section.line_of(other), f"{other} does not apply to a {kind}", hint="remove it")
        path = self._file(section, "node_file") if key == "node_file" else None
        target, target_line = self._target(section, kind, key, written)
        inputs, input_lines = section.names("inputs")
        outputs, output_lines = section.names("outputs")
        values, value_lines = self._values(section)
        sides = (("inputs", input_lines), ("outputs", output_lines), ("parameters", value_lines))
        return FunctionEntry(
            id=id_,
            kind=kind,
            # A component stays itself under another version.
            name=_name_of(key, written.partition("@")[0] if key == "uses" else written),
            line=section.line,
            title=self._title(section, kind, written),
            path=path[0] if path else None,
            target=target,
            target_line=target_line,
            inputs=inputs,
            outputs=outputs,
            values=values,
            lines={(side, name): line for side, lines in sides for name, line in lines.items()},
            trigger=self._trigger(section),
            description_file=section.text("description_file"),
            icon_url=self._icon(section),
            display=section.plain_map("display"),
            timeout_s=section.duration_s("timeout"),
            memory_bytes=section.size_bytes("memory"),
            cpu_s=section.duration_s("cpu"),
            network=section.flag("network", default=True),
            executor=section.choice("executor", ("process", "bubblewrap", "container")),
            retries=section.integer("retries", 0, 1000),
            backoff_s=section.durations_s("backoff"),
            parallelism=section.integer("parallelism", 1, PARTITIONS_MAX) or 1,
            parallelism_line=section.line_of("parallelism"),
            respond=section.flag("respond"),
            on_error=self._on_error(section),
            extra=section.rest(),
            extra_lines=section.rest_lines(),
        )

    def _kind(self, section: Section, key: str, written: str) -> EntryKind | None:
        if key == "webhook":
            return "webhook"
        if key == "uses":
            if not _COMPONENT.fullmatch(written):
                message = f'uses "{written}" is no component'
                section.error(section.line_of(key), message, hint="write organization/component@version")
            return "component"
        extension = posixpath.splitext(written)[1]
        kind = _KIND_OF_EXTENSION.get(extension)
        if kind is None:
            message = f'Unsupported file extension "{extension}" of node_file "{written}"'
            hint = f"a node is one of {', '.join(sorted(_KIND_OF_EXTENSION))}; markdown goes under docs"
            section.error(section.line_of(key), message, hint=hint)
        return kind

    def _target(self, section: Section, kind: EntryKind, key: str, written: str) -> tuple[str, int]:
        if kind != "chart":
            section.tree("chart_input")
            return (written if key != "node_file" else ""), section.line_of(key)
        target = section.text("chart_input")
        if not target:
            hint = "add `chart_input:` with the name of the store to draw"
            section.error(section.line_of(key), f'Chart "{written}" has no chart_input', hint=hint)
        return target or "", section.line_of("chart_input" if target else key)

    def _title(self, section: Section, kind: EntryKind, written: str) -> str:
        title = section.text("title")
        if title:
            line = section.line_of("title")
            if title in self._titles:
                hint = f"line {self._titles[title]} has it too"
                section.error(line, f'title "{title}" is used twice', hint=hint, severity="warning")
            self._titles.setdefault(title, line)
            return title
        if kind == "subgraph":
            return posixpath.basename(posixpath.dirname(written)) or posixpath.splitext(written)[0]
        if kind == "component":
            match = _COMPONENT.fullmatch(written)
            return match[2] if match else written
        return written if kind == "webhook" else posixpath.splitext(posixpath.basename(written))[0]

    def _values(self, section: Section) -> tuple[dict[str, object], dict[str, int]]:
        """`parameters` is the older name of `parameter_values`; where both set a name, the newer one counts."""
        values: dict[str, object] = {}
        lines: dict[str, int] = {}
        for key in ("parameters", "parameter_values"):
            tree = section.map(key)
            if tree is not None and isinstance(tree.value, dict):
                values |= {name: parameter_value(plain(item)) for name, item in tree.value.items()}
                lines |= tree.key_lines
        return values, lines

    def _on_error(self, section: Section) -> OnError | None:
        written = section.text("on_error")
        for known in get_args(OnError):
            if written == known:
                return cast(OnError, known)
        if written is not None:
            hint = "dead-letter puts what is given up aside, stop stands still at it"
            message = f'on_error must be dead-letter or stop, not "{written}"'
            section.error(section.line_of("on_error"), message, hint=hint)
        return None

    def _trigger(self, section: Section) -> str | None:
        trigger = section.text("trigger")
        if trigger is None or trigger.strip() == "manual":
            return trigger and "manual"
        cause = _cron_problem(trigger)
        if cause is None:
            return " ".join(trigger.split())
        hint = 'write five cron fields in UTC such as "0 22 * * *", or manual'
        section.error(section.line_of("trigger"), f'trigger "{trigger}" {cause}', hint=hint)
        return "manual"  # rather than fire on news, which nobody asked for

    def _store(self, section: Section) -> StoreEntry | None:
        id_ = self._id(section)
        key = "table" if section.has("table") else "stream"
        table = section.text(key)
        if not table:
            section.error(section.line, "A store needs a name", hint="add `table:`")
            return None
        if table in self._tables:
            hint = f"line {self._tables[table]} has it too; one store can have many writers and readers"
            section.error(section.line_of(key), f'table "{table}" is declared twice', hint=hint)
            return None
        self._tables[table] = section.line_of(key)
        partitions = section.integer("partitions", 1, PARTITIONS_MAX) or 1
        if partitions > 1 and section.has("storage"):
            message = f'storage does not apply to a table with several partitions ("{table}")'
            section.error(section.line_of("storage"), message, hint="remove it, or `partitions`")
        return StoreEntry(
            id=id_,
            name=_name_of("table", table),
            line=section.line,
            table=table,
            storage=section.text("storage"),
            schema=section.text("schema"),
            partitions=partitions,
            partition_key=self._partition_key(section),
            freshness_s=section.duration_s("freshness"),
            retention_s=section.duration_s("retention"),
            display=section.plain_map("display"),
            extra=section.rest(),
        )

    def _partition_key(self, section: Section) -> str | None:
        """A column, or a JSON pointer into the row."""
        key = section.text("partition_key")
        if key is None:
            return None
        escapes = key.split("~")[1:] if key.startswith("/") else ()
        if not key.strip("/") or not all(part[:1] in ("0", "1") for part in escapes):
            message = f'partition_key "{key}" is no column, and no JSON pointer into the row such as /record/customer'
            section.error(section.line_of("partition_key"), message)
            return None
        if (section.integer("partitions", 1, PARTITIONS_MAX) or 1) == 1:
            message = "partition_key does nothing in a table of one partition"
            section.error(section.line_of("partition_key"), message, hint="add `partitions:`", severity="warning")
        return key

    def _doc(self, section: Section) -> DocEntry:
        id_ = self._id(section)
        path = self._file(section, "markdown_file")
        if not section.has("markdown_file"):
            section.error(section.line, "A document needs a markdown_file")
        name = path[0] if path else ""
        return DocEntry(
            id=id_,
            name=_name_of("markdown_file", section.text("markdown_file") or ""),
            line=section.line,
            path=path[0] if path else None,
            path_line=section.line_of("markdown_file"),
            title=section.text("title") or posixpath.splitext(posixpath.basename(name))[0],
            display=section.plain_map("display"),
            extra=section.rest(),
        )

    def _dashboard(self, section: Section) -> DashboardEntry:
        id_ = self._id(section)
        title = section.text("title") or ""
        items = []
        for tree in section.entries("items"):
            item = self._section(tree)
            item.node_id = id_
            node, type_ = item.raw("node"), item.text("type")
            place = item.section("position")
            numbers = [
                (place.integer(key, -(10**6), 10**6) if place else None) for key in ("x", "y", "width", "height")
            ]
            x, y, width, height = (
                number if number is not None else usual for number, usual in zip(numbers, (0, 0, 1, 1), strict=True)
            )
            if not node:
                item.error(item.line, "A dashboard item needs a node: the id of a chart or store")
                continue
            items.append((item.raw("id") or "", node, type_ or "data", (x, y, width, height), item.line))
        return DashboardEntry(
            id=id_,
            name=_name_of("dashboard", title),
            line=section.line,
            title=title,
            items=tuple(items),
            display=section.plain_map("display"),
            extra=section.rest(),
        )

    def _storage(self, section: Section) -> Storage:
        database = section.text("database")
        if not database:
            section.error(section.line, "A storage needs a database: the name that stores call it by")
        definition = section.tree("definition")
        return Storage(
            database=database or "",
            file=self._path,
            line=section.line,
            definition=None if definition is None else parameter_value(plain(definition)),
            engines=tuple(text for text, _ in section.texts("engines")),
            namespaces=tuple(text for text, _ in section.texts("namespace")),
            read_only=section.flag("read_only"),
            extra=section.rest(),
        )

    def _schemas(self, top: Section) -> list[tuple[str, int]]:
        found = []
        for tree in top.entries("schemas"):
            section = self._section(tree)
            file = self._file(section, "schema_file")
            if file is not None:
                found.append(file)
            elif not section.has("schema_file"):
                section.error(section.line, "An entry of schemas needs a schema_file")
        return found

    def _exposes(self, top: Section) -> Exposes | None:
        section = top.section("exposes")
        if section is None:
            return None
        return Exposes(
            *(
                dict(reversed(section.texts(key))) for key in ("inputs", "outputs", "parameters", "schemas")
            )  # first line
        )


def _name_of(key: str, written: str) -> str:
    return f"{key}:{posixpath.normpath(written)}" if key.endswith("_file") else f"{key}:{written}"


def _cron_problem(text: str) -> str | None:
    """What is wrong with a cron text; None when it fires some day."""
    fields = text.split()
    if len(fields) != 5 or len(text) > 200:
        return f"has {len(fields)} fields"
    words = re.findall(r"[^\W\d_]+", text)
    if any(word.lower() not in _CRON_WORDS for word in words):  # croniter takes R for a random time
        return "is no cron"
    try:
        croniter(text, 0.0).get_next(float)
    except CroniterError as error:
        return "never fires" if croniter.is_valid(text) else f"is no cron: {error}"
    return None
