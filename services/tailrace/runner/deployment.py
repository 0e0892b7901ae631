"""One app, deployed: its slots, tables and webhooks, and what each run of a node is told.

Its files lie in a folder of their own (`tailrace.control.place_files`), so that an edit shows in a run only after the next
deploy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.engine import Cron, Manual, NodeSpec, Reactive, Trigger, check_schedule
from tailrace.errors import RejectedError
from tailrace.graph import App, ConnectionRef, Node, SecretRef, Store, node_version, topic_name
from tailrace.log import Log, Partition, TopicSpec
from tailrace.node.protocol import StoreRef
from tailrace.process import connection_variable, secret_variable
from tailrace.runner.environments import Environment, environment_of
from tailrace.runner.journal import journal_topic
from tailrace.runner.requests import triggers_topic
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.slots import SlotState, restore, state_topic, states_before
from tailrace.runner.weight import wants_libraries
from tailrace.tables import dead_letters_topic, index_topic, lane_of, lanes_of, topic_of
from tailrace.tables.schema import SchemaFileError, parse_schema

__all__ = [
    "DeployedNode",
    "DeployedTable",
    "Deployment",
    "ParallelismError",
    "check_parallelism",
    "check_slots",
    "deploy",
    "slot_name",
]


def slot_name(graph: str, node_key: str, number: int = 0) -> str:
    """A slot of a node: unique over all apps, the same over redeploys."""
    return f"{graph}/{node_key}~{number}" if number else f"{graph}/{node_key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedTable:
    """A store of the app with its topic. The topic's name is the table's key everywhere in the runner."""

    topic: str
    graph: str
    store: Store
    schema: Mapping[str, Any] | None = None

    @property
    def dead_letters(self) -> str:
        """Topic of the table's dead letters."""
        return dead_letters_topic(self.topic)

    @property
    def lanes(self) -> list[str]:
        """The keys of its partitions."""
        return lanes_of(self.topic, self.store.partitions)

    def streamed_by(self, number: int, slots: int) -> list[int]:
        """The partitions that are streamed by slot `number` of a node's `slots`."""
        return [partition for partition in range(self.store.partitions) if partition % slots == number]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedNode:
    """A node that runs, in one of its slots."""

    slot: str
    number: int = 0
    """Which of its slots: it streams the partitions p of its tables with p % slots == number."""
    slots: int = 1
    graph: str
    node: Node
    spec: NodeSpec
    app_dir: Path
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    environment: Environment | None = None
    """What its Python code runs in; None: in ours."""
    libraries: bool = True
    """Whether its worker should have the large libraries ready."""
    stores: tuple[DeployedTable, ...] = ()
    schemas: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One graph version of an app, ready to run."""

    app: App
    app_dir: Path
    nodes: Mapping[str, DeployedNode]
    tables: Mapping[str, DeployedTable]
    """By topic."""
    webhooks: Mapping[str, tuple[Node, DeployedTable]]
    """By the id in their URL."""
    version: int = 0
    """Counts the deployments of the app; 0 where it came from no control log."""

    @property
    def graph(self) -> str:
        """The app's slug."""
        return self.app.slug

    @property
    def triggers_topic(self) -> str:
        """Where requests for runs are written."""
        return triggers_topic(self.graph)

    @property
    def journal_topic(self) -> str:
        """Where runs and their output are written."""
        return journal_topic(self.graph)

    @property
    def index_topic(self) -> str:
        """Where folds of tables are kept, a cache *as of* a position."""
        return index_topic(self.graph)

    def topics(self) -> list[TopicSpec]:
        """All topics that must exist before anything runs."""
        own = [
            TopicSpec(state_topic(self.graph), compacted=True),
            TopicSpec(self.index_topic, compacted=True),
            TopicSpec(self.triggers_topic),
            TopicSpec(self.journal_topic),
        ]
        return [*own, *(TopicSpec(topic, table.store.partitions) for topic, table in self.tables.items())]

    def slots_of(self, node_key: str) -> list[str]:
        """The slots of a node, the first one first; none where it does not run."""
        return [slot for slot, node in self.nodes.items() if node.node.key == node_key]


def deploy(app: App, app_dir: Path, settings: RunnerSettings, version: int = 0) -> Deployment:
    """What `app` means to the runner. Pure, given the files' folder.

    Raises:
        BadScheduleError: rejected; a node's schedule cannot be used.
    """
    schemas = _schemas(app)
    by_key = {
        store.key: DeployedTable(
            topic=topic_name(app.slug, store), graph=app.slug, store=store, schema=schemas.get(store.schema or "")
        )
        for store in app.stores
        if store.storage is None
    }
    environment = environment_of(app)
    libraries = _libraries(app)
    nodes = [
        _node(
            app,
            node,
            by_key,
            schemas,
            app_dir,
            settings,
            number,
            environment if node.kind == "python" else None,
            node.node_file in libraries,
        )
        for node in app.nodes
        if node.kind in ("python", "sql") and node.node_file in app.files
        for number in range(node.parallelism)
    ]
    webhooks: dict[str, tuple[Node, DeployedTable]] = {}
    for node in app.webhooks:
        table = next((by_key[key] for key in node.writes if key in by_key), None)
        if table is not None:
            webhooks[node.key] = (node, table)
    return Deployment(
        app=app,
        app_dir=app_dir,
        nodes={node.slot: node for node in nodes},
        tables={table.topic: table for table in by_key.values()},
        webhooks=webhooks,
        version=version,
    )


def _schemas(app: App) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in app.schemas:
        try:
            schema = parse_schema(file.text, file.path)
        except SchemaFileError:  # `check` reports it; the graph stays usable
            continue
        found[schema.name] = schema.to_json()
    return found


def _libraries(app: App) -> set[str]:
    """The files of nodes whose workers should have the large libraries ready: all but Python that asks for none."""
    files = {node.node_file for node in app.nodes if node.node_file is not None}
    python = {path: data for path, data in app.files.items() if path.endswith(".py")}
    return (files - python.keys()) | wants_libraries(files & python.keys(), python)


def _node(
    app: App,
    node: Node,
    tables: Mapping[str, DeployedTable],
    schemas: Mapping[str, Any],
    app_dir: Path,
    settings: RunnerSettings,
    number: int,
    environment: Environment | None,
    libraries: bool,
) -> DeployedNode:
    reads = frozenset(
        lane for key in node.reads if key in tables for lane in _concerns(tables[key], number, node.parallelism)
    )
    writes = frozenset(lane for key in node.writes if key in tables for lane in tables[key].lanes)
    trigger: Trigger = Reactive()
    if node.is_manual:
        trigger = Manual()
    elif node.cron:
        check_schedule(node.cron)
        trigger = Cron(node.cron)
    slot = slot_name(app.slug, node.key, number)
    others = {
        lane
        for each in app.nodes
        if each is not node
        for key in each.writes
        if key in tables
        for lane in tables[key].lanes
    }
    limit_s = node.timeout_s if node.timeout_s is not None else settings.time_limit.total_seconds()
    spec = NodeSpec(
        key=slot,
        trigger=trigger,
        reads=reads,
        writes=writes,
        is_root=isinstance(trigger, Reactive) and reads <= writes - others,
        retries=node.retries,
        pauses_ms=tuple(max(1, int(pause_s * 1000)) for pause_s in node.backoff_s),
        stops=node.on_error == "stop",
        timeout_ms=int(limit_s * 1000),
        version=node_version(app, node),
    )
    wired: dict[str, dict[str, str]] = {"r": {}, "w": {}}
    for port in node.ports:
        if port.store is not None and port.store in tables:
            wired[port.mode][port.name] = tables[port.store].topic
    for mode, names in (("r", node.inputs), ("w", node.outputs)):
        for name in names:  # mapped, though the code does not name it where we can see it
            key = app.store_for(node, name, "r" if mode == "r" else "w")
            if key is not None and key in tables:
                wired[mode].setdefault(name, tables[key].topic)
    near = [table for table in tables.values() if table.store.path[:-1] == node.path[:-1]]
    reachable = {table.topic: table for table in near}
    by_topic = {table.topic: table for table in tables.values()}
    for topic in (*wired["r"].values(), *wired["w"].values()):
        reachable.setdefault(topic, by_topic[topic])
    return DeployedNode(
        slot=slot,
        number=number,
        slots=node.parallelism,
        graph=app.slug,
        node=node,
        spec=spec,
        app_dir=app_dir,
        inputs=wired["r"],
        outputs=wired["w"],
        environment=environment,
        libraries=libraries,
        stores=tuple(reachable.values()),
        schemas=schemas,
    )


class ParallelismError(RejectedError):
    """graph.yml gives a node another number of slots than it has streamed with."""

    def __init__(self, node: str, slots: int, wanted: int) -> None:
        self.node, self.slots, self.wanted = node, slots, wanted
        super().__init__(
            f"node {node!r} has streamed with parallelism {slots}, and graph.yml asks for {wanted}: each of its slots has State "
            f"and places of its own, which cannot be dealt out anew. Write `parallelism: {slots}` again; or give the node a "
            "new `id`: it then streams its tables from the beginning"
        )


def check_parallelism(log: Log, app: App) -> None:
    """Raises `ParallelismError` (rejected) where a node of `app` would lose places of its slots, as the log has them."""
    partition = Partition(state_topic(app.slug))
    if all(store.partitions == 1 for store in app.stores) or partition.topic not in log.topics(partition.topic):
        return
    deployment = deploy(app, Path(), RunnerSettings())
    states = states_before(log, partition, log.ends([partition])[partition])
    known = {_node_of(slot) for slot in states}
    if any(_partitioned(node) and _node_of(slot) not in known for slot, node in deployment.nodes.items()):
        # Its first State may be what a run commits just now, or what a host that died has left open: only time tells.
        states = restore(log, [app.slug], 0, 1)
    check_slots(deployment, states)


def check_slots(deployment: Deployment, states: Mapping[str, SlotState]) -> None:
    """Raises `ParallelismError` (rejected) where a node would lose places of its slots, given the States of all slots."""
    for slot, state in states.items():
        node = deployment.nodes.get(_node_of(slot))
        if node is not None and node.slots != state.slots:
            partitioned = _partitioned(node)
            if any(topic_of(lane) in partitioned for lane in state.places):
                raise ParallelismError(node.node.key, state.slots, node.slots)


def _node_of(slot: str) -> str:
    """The node's name, which is that of its first slot."""
    return slot.partition("~")[0]


def _partitioned(node: DeployedNode) -> set[str]:
    return {table.topic for table in node.stores if table.store.partitions > 1}


def _concerns(table: DeployedTable, number: int, slots: int) -> list[str]:
    """The lanes whose news concern a slot: those that it streams, and a table of one partition, which may be read whole."""
    if table.store.partitions == 1:
        return table.lanes
    return [lane_of(table.topic, partition) for partition in table.streamed_by(number, slots)]


def store_ref(table: DeployedTable, born_ms: int, number: int = 0, slots: int = 1) -> StoreRef:
    """The table as a worker needs to know it that runs slot `number` of a node's `slots`."""
    return StoreRef(
        partitions=table.store.partitions,
        partition_key=table.store.partition_key,
        streams=table.streamed_by(number, slots),
        key=table.topic,
        name=table.store.name,
        store_id=table.store.id,
        topic=table.topic,
        born_ms=born_ms,
        schema=table.schema,
    )


def dead_letters_ref(table: DeployedTable, born_ms: int) -> StoreRef:
    """The table's dead letters as a worker needs to know them."""
    name = f"{table.store.name}_dead_letters"
    return StoreRef(
        key=table.dead_letters, name=name, store_id=table.store.id, topic=table.dead_letters, born_ms=born_ms
    )


def unset_parameters(values: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, str]:
    """The parameters that `resolve_parameters` leaves out: name -> the variable that would set it."""
    secrets = {name: secret_variable(value.name) for name, value in values.items() if isinstance(value, SecretRef)}
    connections = {
        name: connection_variable(value.name) for name, value in values.items() if isinstance(value, ConnectionRef)
    }
    return {name: variable for name, variable in (secrets | connections).items() if variable not in environment}


def resolve_parameters(values: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, Any]:
    """Parameter values with their references resolved: `${{ name }}` from TAILRACE_SECRET_NAME, a connection from
    TAILRACE_CONNECTION_NAME (a JSON object). One that is not set is left out, so that the default counts."""
    import orjson

    resolved: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, SecretRef):
            secret = environment.get(secret_variable(value.name))
            if secret is not None:
                resolved[name] = secret
        elif isinstance(value, ConnectionRef):
            text = environment.get(connection_variable(value.name))
            if text is not None:
                try:
                    resolved[name] = orjson.loads(text)
                except orjson.JSONDecodeError:
                    resolved[name] = {"api_key": text, "token": text, "access_token": text}
        else:
            resolved[name] = value
    return resolved
