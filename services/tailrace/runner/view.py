"""The host as the local HTTP interface shows it: apps, tables, runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tailrace.errors import RejectedError
from tailrace.graph import Node
from tailrace.log import NewRecord
from tailrace.runner.catalog import UnknownTableError
from tailrace.runner.deployment import DeployedTable, Deployment
from tailrace.runner.host import Host, UnknownNodeError
from tailrace.runner.journal import LogLine, RunEntry
from tailrace.runner.letters import LetterFilter, Letters
from tailrace.runner.lineage import Lineage
from tailrace.runner.replay import ReplayWishes
from tailrace.runner.requests import RunRequest
from tailrace.tables import activation, message

__all__ = ["HostView", "NoSuchVersionError", "SeveralNodesError", "UnknownAppError", "UnknownChartError"]


class UnknownAppError(RejectedError):
    """No such app is deployed here, or it must be named."""

    def __init__(self, name: str | None, known: Sequence[str]) -> None:
        self.name, self.known = name, list(known)
        what = f"there is no app {name!r}" if name else "name the app (--app)"
        super().__init__(f"{what}; there are: {', '.join(sorted(known)) or 'none'}")


class SeveralNodesError(RejectedError):
    """Several nodes that run go by a name."""

    def __init__(self, name: str, found: Sequence[tuple[str, str]]) -> None:
        self.name, self.found = name, list(found)
        listed = ", ".join(f"{key} of {graph}" for graph, key in sorted(found))
        super().__init__(
            f"several nodes have the id, title or file {name!r}: {listed}; name one by id, its app with --app"
        )


class UnknownChartError(RejectedError):
    """The apps have no such chart, or several."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, list(known)
        there = ", ".join(map(repr, self.known)) or "none"
        super().__init__(f"{name!r} does not name one chart; there are: {there}. Name one by id, its app with --app")


class NoSuchVersionError(RejectedError):
    """A table has no version of that name, or none any more."""

    def __init__(self, table: str, version: str, known: Sequence[str]) -> None:
        self.table, self.version, self.known = table, version, list(known)
        newest = ", ".join(self.known[-5:]) or "none"
        super().__init__(f"table {table!r} has no version {version!r}; the newest: {newest}")


def run_json(entry: RunEntry, lineage: Lineage, names: Mapping[str, str], request: RunRequest | None) -> dict[str, Any]:
    """A run with all that is known of it but its State, for people.

    Args:
        names: of Tables, by topic.
        request: that it answered.
    """
    return {
        **asdict(replace(entry, began=None)),
        "asked": None if request is None else {"at_ms": request.at_ms, "type": request.kind},
        "up": lineage.up,
        "down": lineage.down,
        "partial": lineage.partial,
        "tables": {topic: names.get(topic, topic) for topic in {*entry.read, *entry.wrote}},
    }


def _called(name: str, nodes: Mapping[tuple[str, str], Node]) -> list[tuple[str, str]]:
    """Of nodes by their apps and keys, those with the key `name`, else those with that title or file."""
    found = [at for at in nodes if at[1] == name]
    return found or [at for at, node in nodes.items() if name in (node.title, node.node_file)]


class HostView:
    """Names from outside looked up, and the host asked."""

    def __init__(self, host: Host, base_url: str, about: Mapping[str, Any]) -> None:
        self._host = host
        self.base_url = base_url
        self._about = dict(about)

    def status(self) -> dict[str, Any]:
        """Apps with their nodes, tables and webhooks."""
        return {**self._about, "url": self.base_url, "apps": [self._app(d) for d in self._host.deployments.values()]}

    def _app(self, deployment: Deployment) -> dict[str, Any]:
        app = deployment.app
        return {
            "app": app.slug,
            "title": app.title,
            "version": deployment.version,
            "nodes": [
                {"node": node.key, "title": node.title, "kind": node.kind, "trigger": node.trigger or "reactive"}
                for node in app.nodes
            ],
            "tables": [{"table": table.store.name, "topic": topic} for topic, table in deployment.tables.items()],
            "webhooks": [
                {"webhook": node.title, "table": table.store.name, "url": f"{self.base_url}/webhooks/{name}"}
                for name, (node, table) in deployment.webhooks.items()
            ],
            "problems": [
                {"severity": e.severity, "file": e.file, "line": e.line, "node": e.node_id, "message": e.message}
                for e in app.errors
            ],
        }

    def _deployments(self, app: str | None) -> list[Deployment]:
        deployments = self._host.deployments
        if app is None:
            return list(deployments.values())
        if app not in deployments:
            raise UnknownAppError(app, list(deployments))
        return [deployments[app]]

    def node(self, name: str, app: str | None) -> dict[str, str]:
        """Slug of the app and key of the one node that runs and has this key, else this title or file.

        Raises:
            UnknownAppError, UnknownNodeError, SeveralNodesError: rejected.
        """
        running = {
            (deployment.graph, each.node.key): each.node
            for deployment in self._deployments(app)
            for each in deployment.nodes.values()
        }
        found = _called(name, running)
        if not found:
            raise UnknownNodeError(name, [node.title for node in running.values()])
        if len(found) > 1:
            raise SeveralNodesError(name, found)
        return {"app": found[0][0], "node": found[0][1]}

    async def trigger(self, node: str, app: str | None, execution_type: str) -> str:
        """Ask for a run of the node with this key, title or file; returns the request's id."""
        found = self.node(node, app)
        return await self._host.trigger(found["app"], found["node"], execution_type)

    def runs(self, *, node: str | None, kind: str | None, last: int) -> Sequence[RunEntry]:
        """Newest runs, oldest first."""
        return self._host.journal.runs(node=node, kind=kind, last=last)

    async def run(self, run: str) -> dict[str, Any]:
        """One run with all that is known of it but its State, and the runs next to it, with their titles.

        Raises:
            UnknownAppError, UnknownRunError: rejected; there is no such run.
        """
        graph = self._graph_of(run)
        entry, lineage, request = await self._host.run(graph, run)
        tables = {table.topic: table.store.name for table in self._host.deployments[graph].tables.values()}
        return run_json(entry, lineage, tables, request)

    def _graph_of(self, run: str) -> str:
        graph = next((graph for graph in self._host.deployments if run.startswith(f"{graph}/")), None)
        if graph is None:
            raise UnknownAppError(run.partition("/")[0], list(self._host.deployments))
        return graph

    def lines(self, *, node: str | None, run: str | None, last: int) -> Sequence[LogLine]:
        """Newest lines of output, oldest first."""
        return self._host.journal.lines(node=node, run=run, last=last)

    def follow(self) -> AsyncIterator[RunEntry | LogLine]:
        """Runs and lines as they come."""
        return self._host.journal.follow()

    async def nodes(self, app: str | None) -> list[dict[str, Any]]:
        """Each node that runs: how it stands, what its last run met, and how far it is behind."""
        found = []
        for deployment in self._deployments(app):
            standings = await self._host.standings(deployment.graph)
            for deployed in deployment.nodes.values():
                node = deployed.node
                if deployed.number > 0:  # told with its first slot
                    continue
                standing, behind = standings[node.key]
                found.append(
                    {
                        "app": deployment.graph,
                        "node": node.key,
                        "title": node.title,
                        "state": standing.kind,
                        "next_ms": standing.at_ms,
                        "last_run_ms": standing.run or None,
                        "error": standing.error or None,
                        "tries": standing.tries,
                        "failures": standing.failures,
                        "behind": behind,
                    }
                )
        return found

    async def tables(self, app: str | None) -> list[dict[str, Any]]:
        """Each table with its active version; `rows` is None where only a read can count them."""
        found = []
        for deployment in self._deployments(app):
            for table in deployment.tables.values():
                view = (await self._host.look(table.topic)).view
                found.append(
                    {
                        "app": deployment.graph,
                        "table": table.store.name,
                        "version": view.name if view else None,
                        "rows": view.exact_count if view else 0,
                        "fields": {name: str(kind) for name, kind in view.fields.items()} if view else {},
                        "topic": table.topic,
                    }
                )
        return found

    async def versions(self, table: str, app: str | None) -> list[dict[str, Any]]:
        """The table's versions, oldest first."""
        _, found = self._table(table, app)
        pin, views = await self._host.look(found), await self._host.versions(found)
        offsets = await self._host.first_offsets(found)
        return [
            {
                "version": view.name,
                "active": pin.view is not None and view.name == pin.view.name,
                "begun_ms": view.begun_ms,
                "rows": view.exact_count,
                "fields": {name: str(kind) for name, kind in view.fields.items()},
                "topic": found,
                "first_offsets": offsets[view.name],
            }
            for view in views
        ]

    async def restore(self, table: str, app: str | None, version: str) -> dict[str, Any]:
        """Make an earlier version the active one again, as `Table.set_active_version` does, in the name of no node.

        Raises:
            NoSuchVersionError: rejected; the table has no such version.
        """
        _, topic = self._table(table, app)
        known = {view.name: view for view in await self._host.versions(topic)}
        if version not in known:
            raise NoSuchVersionError(table, version, list(known))
        await self._host.mark(topic, NewRecord(message({"kind": "activate", **activation(known[version])})))
        names = [view.name for view in await self._host.versions(topic)]
        if version not in names:  # retention was faster
            raise NoSuchVersionError(table, version, names)
        return {"table": table, "version": version}

    async def read(
        self,
        table: str,
        app: str | None,
        arguments: Mapping[str, Any],
        *,
        at_ms: int | None = None,
        run: str | None = None,
    ) -> AsyncIterator[bytes]:
        """A table's rows in the wanted format, in pieces: as they are now, were at a moment, or were for a run."""
        deployment, topic = self._table(table, app)
        at = await self._cuts(deployment.graph, at_ms, run)
        async for piece in self._host.ask(deployment.graph, "read", {**arguments, "table": topic}, at=at):
            yield piece

    def charts(self, app: str | None) -> list[dict[str, Any]]:
        """Each chart with the table that it draws."""
        return [
            {"app": deployment.graph, "chart": node.key, "title": node.title, "table": table.store.name}
            for deployment, node, table in self._charts(app)
        ]

    async def chart(self, name: str, app: str | None, *, at_ms: int | None = None) -> AsyncIterator[bytes]:
        """A chart's Vega-Lite spec with the rows of its table as inline data, in pieces: as they are now, or were at a
        moment. `name`: its key, title or file.

        Raises:
            UnknownAppError, UnknownChartError: rejected.
        """
        known = {(deployment.graph, node.key): (node, table) for deployment, node, table in self._charts(app)}
        found = _called(name, {at: node for at, (node, _) in known.items()})
        if len(found) != 1:
            raise UnknownChartError(name, [node.title for node, _ in known.values()])
        node, table = known[found[0]]
        spec = json.loads(node.text or "{}", parse_constant=lambda _: None)  # JSON knows no NaN
        spec.pop("data", None)
        before = json.dumps(spec).encode()[:-1] + (b", " if spec else b"") + b'"data": {"values": '
        async for piece in self.read(table.topic, found[0][0], {"format": "chart"}, at_ms=at_ms):
            yield before + piece  # not before there are rows: else an error would come in the middle
            before = b""
        yield b"}}"

    def _charts(self, app: str | None) -> list[tuple[Deployment, Node, DeployedTable]]:
        return [
            (deployment, node, table)
            for deployment in self._deployments(app)
            for node in deployment.app.charts
            for table in deployment.tables.values()
            if table.store.key in [port.store for port in node.ports]
        ]

    async def query(
        self, sql: str, app: str | None, *, at_ms: int | None = None, run: str | None = None
    ) -> AsyncIterator[bytes]:
        """The answer of a query over an app's tables, as one JSON document in pieces; all of them as of one moment."""
        deployments = self._deployments(app)
        if len(deployments) != 1:
            raise UnknownAppError(app, list(self._host.deployments))
        at = await self._cuts(deployments[0].graph, at_ms, run)
        async for piece in self._host.ask(deployments[0].graph, "query", {"sql": sql}, at=at):
            yield piece

    async def letters(
        self, table: str, app: str | None, wanted: Mapping[str, Any], *, limit: int
    ) -> list[dict[str, Any]]:
        """The newest dead letters of a Table, oldest first. `wanted` may have `ids`, `node` and `since_ms`."""
        letters, which = self._letters(table, app, wanted)
        return await letters.newest(which, limit)

    async def edit_letter(self, table: str, app: str | None, letter: str, record: object) -> dict[str, Any]:
        """Put another record in the place of a dead letter's; returns the letter, which has a new id.

        Raises:
            UnknownLetterError, BadLetterError: rejected.
        """
        return await self._letters(table, app, {})[0].edit(letter, record)

    async def drop_letters(self, table: str, app: str | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Delete dead letters."""
        letters, which = self._letters(table, app, wanted)
        return {"dropped": await letters.drop(which)}

    async def replay_letters(
        self, table: str, app: str | None, wanted: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Give dead letters back to the nodes that failed at them; what becomes of each."""
        letters, which = self._letters(table, app, wanted)
        async with contextlib.aclosing(letters.replay(which)) as events:
            async for event in events:
                yield event

    def _letters(self, table: str, app: str | None, wanted: Mapping[str, Any]) -> tuple[Letters, LetterFilter]:
        deployment, topic = self._table(table, app)
        known = deployment.tables[topic.removesuffix("-dead")]
        node = wanted.get("node")
        slots = [
            slot
            for slot, deployed in deployment.nodes.items()
            if node in (deployed.node.key, deployed.node.title, deployed.node.node_file)
        ]
        which = LetterFilter(
            ids=wanted.get("ids") or (),
            slots=None if node is None else slots or [node],
            since_ms=wanted.get("since_ms"),
        )
        return Letters(self._host, deployment, known), which

    async def replay(
        self, run: str, *, code: str | None = None, ignore: Sequence[str] = (), rows_max: int = 100
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run an earlier run again; what happens, and in the end how the rows differ."""
        graph = self._graph_of(run)
        wishes = ReplayWishes(code=code, ignore=ignore, rows_max=rows_max)
        async with contextlib.aclosing(self._host.replay(graph, run, wishes)) as events:
            async for event in events:
                yield event

    async def _cuts(self, graph: str, at_ms: int | None, run: str | None) -> dict[str, int]:
        if run is not None:
            return await self._host.cuts_of_run(graph, run)
        return await self._host.cuts_at(graph, at_ms) if at_ms is not None else {}

    def _table(self, name: str, app: str | None) -> tuple[Deployment, str]:
        """A table by its name, `<name>_dead_letters`, or its topic."""
        known: list[DeployedTable] = []
        for deployment in self._deployments(app):
            for table in deployment.tables.values():
                known.append(table)
                if name in (table.store.name, table.topic):
                    return deployment, table.topic
                if name in (f"{table.store.name}_dead_letters", table.dead_letters):
                    return deployment, table.dead_letters
        raise UnknownTableError(name, [table.store.name for table in known])
