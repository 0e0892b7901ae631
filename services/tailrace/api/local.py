"""Routes below `/api/local`, for the command line of the same machine and user.

Every request carries the token that `up` wrote into a file that only its user can read: a web page that the user
happens to visit can reach the port, but not the file.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import orjson
from aiohttp import web

from tailrace.errors import RejectedError, RetriableError, TailraceError

__all__ = ["LakeView", "LocalApi", "RunnerView", "VersionGoneError", "WebhookView"]


class VersionGoneError(RejectedError):
    """A version's rows were let go of."""

    def __init__(self, table: str, version: str) -> None:
        self.table, self.version = table, version
        super().__init__(
            f"the rows of {version} of table {table!r} are gone: it was superseded for longer than the retention"
        )


class RunnerView(Protocol):
    """What the routes need of the runner behind them."""

    def status(self) -> dict[str, Any]:
        """Apps with their nodes, tables and webhooks."""
        ...

    def node(self, name: str, app: str | None) -> dict[str, str]:
        """App and key of the one node that runs under a name."""
        ...

    async def trigger(self, node: str, app: str | None, execution_type: str) -> str:
        """Ask for a run; returns the request's id."""
        ...

    def runs(self, *, node: str | None, kind: str | None, last: int) -> Sequence[Any]:
        """Newest runs, oldest first; dataclasses."""
        ...

    async def run(self, run: str) -> dict[str, Any]:
        """One run, with the runs whose rows it read and those that read its rows."""
        ...

    def lines(self, *, node: str | None, run: str | None, last: int) -> Sequence[Any]:
        """Newest lines of output, oldest first; dataclasses."""
        ...

    def follow(self) -> AsyncIterator[Any]:
        """Runs and lines as they come; dataclasses."""
        ...

    async def nodes(self, app: str | None) -> list[dict[str, Any]]:
        """How each node that runs stands."""
        ...

    async def tables(self, app: str | None) -> list[dict[str, Any]]: ...

    async def versions(self, table: str, app: str | None) -> list[dict[str, Any]]: ...

    async def restore(self, table: str, app: str | None, version: str) -> dict[str, Any]:
        """Make an earlier version the active one again."""
        ...

    def read(
        self, table: str, app: str | None, arguments: Mapping[str, Any], *, at_ms: int | None, run: str | None
    ) -> AsyncIterator[bytes]:
        """A table's rows in the wanted format, as they are, were at a moment, or were for a run."""
        ...

    def charts(self, app: str | None) -> list[dict[str, Any]]:
        """Each chart with the table that it draws."""
        ...

    def chart(self, name: str, app: str | None, *, at_ms: int | None) -> AsyncIterator[bytes]:
        """A chart's spec with its table's rows in it."""
        ...

    def query(self, sql: str, app: str | None, *, at_ms: int | None, run: str | None) -> AsyncIterator[bytes]:
        """The answer of a query, as one JSON document."""
        ...

    async def letters(
        self, table: str, app: str | None, wanted: Mapping[str, Any], *, limit: int
    ) -> list[dict[str, Any]]:
        """The newest dead letters of a table."""
        ...

    async def edit_letter(self, table: str, app: str | None, letter: str, record: object) -> dict[str, Any]:
        """Put another record in the place of a dead letter's."""
        ...

    async def drop_letters(self, table: str, app: str | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Delete dead letters."""
        ...

    def replay_letters(
        self, table: str, app: str | None, wanted: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Give dead letters back to their nodes; what becomes of each."""
        ...

    def replay(
        self, run: str, *, code: str | None, ignore: Sequence[str], rows_max: int
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Run an earlier run again; what happens, and in the end how the rows differ."""
        ...


class LakeView(Protocol):
    """What the routes need of the lake."""

    async def status(self, app: str | None) -> dict[str, Any]:
        """Each table: how far it is in the lake, and what is wrong."""
        ...

    async def versions(self, topic: str) -> dict[str, dict[str, Any]]:
        """What of a table's versions lies in the lake, by their names; "" tells where the log begins."""
        ...

    async def collect(self, app: str | None, *, dry_run: bool) -> list[dict[str, Any]]:
        """Let go of what is old, or only say what would go."""
        ...

    async def rebuild(self, app: str | None) -> list[dict[str, Any]]:
        """Make the indexes of the tables again."""
        ...


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebhookView(Protocol):
    """What the routes need of the gateway."""

    def webhooks(self) -> list[dict[str, Any]]:
        """Each webhook: how it is checked, what it took, and what it refused last."""
        ...

    def refusals(self, webhook: str | None, last: int) -> list[dict[str, Any]]:
        """The newest refused requests, oldest first."""
        ...

    def posts(self, webhook: str, last: int, *, follow: bool) -> AsyncIterator[bytes]:
        """The newest posts, oldest first, a JSON object each, and then those that come."""
        ...


class LocalApi:
    """The routes, over a runner."""

    def __init__(self, runner: RunnerView, lake: LakeView, webhooks: WebhookView, *, token: str) -> None:
        self._runner = runner
        self._lake = lake
        self._webhooks = webhooks
        self._token = token

    def add_to(self, app: web.Application) -> None:
        """Add the routes to `app`."""
        router = app.router
        router.add_get("/api/local/status", self._guarded(self._status))
        router.add_get("/api/local/node", self._guarded(self._node))
        router.add_post("/api/local/trigger", self._guarded(self._trigger))
        router.add_get("/api/local/runs", self._guarded(self._runs))
        router.add_get("/api/local/run", self._guarded(self._run))
        router.add_get("/api/local/logs", self._guarded(self._logs))
        router.add_get("/api/local/nodes", self._guarded(self._nodes))
        router.add_get("/api/local/tables", self._guarded(self._tables))
        router.add_get("/api/local/tables/{table}/versions", self._guarded(self._versions))
        router.add_get("/api/local/tables/{table}/rows", self._guarded(self._rows))
        router.add_post("/api/local/tables/{table}/restore", self._guarded(self._restore))
        router.add_get("/api/local/tables/{table}/dead-letters", self._guarded(self._letters))
        router.add_post("/api/local/tables/{table}/dead-letters/edit", self._guarded(self._letters_edit))
        router.add_post("/api/local/tables/{table}/dead-letters/drop", self._guarded(self._letters_drop))
        router.add_post("/api/local/tables/{table}/dead-letters/replay", self._guarded(self._letters_replay))
        router.add_get("/api/local/charts", self._guarded(self._charts))
        router.add_get("/api/local/charts/{chart}", self._guarded(self._chart))
        router.add_post("/api/local/sql", self._guarded(self._sql))
        router.add_post("/api/local/replay", self._guarded(self._replay))
        router.add_get("/api/local/webhooks", self._guarded(self._webhook_list))
        router.add_get("/api/local/webhooks/{webhook}/posts", self._guarded(self._posts))
        router.add_get("/api/local/refusals", self._guarded(self._refusals))
        router.add_get("/api/local/lake", self._guarded(self._lake_status))
        router.add_post("/api/local/lake/gc", self._guarded(self._lake_gc))
        router.add_post("/api/local/lake/rebuild", self._guarded(self._lake_rebuild))

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return _problem(401, "this interface is for the `tailrace` command of the user who started `up`")
            try:
                return await handler(request)
            except RejectedError as error:
                return _problem(400, str(error))
            except RetriableError as error:
                return _problem(503, str(error))
            except TailraceError as error:
                return _problem(500, str(error))
            except ConnectionResetError:  # who followed has gone (Ctrl-C, or it has what it waited for)
                return web.Response()  # to nobody

        return guarded

    async def _webhook_list(self, _: web.Request) -> web.Response:
        return _json(self._webhooks.webhooks())

    async def _refusals(self, request: web.Request) -> web.Response:
        query = request.query
        return _json(self._webhooks.refusals(query.get("webhook"), int(query.get("last", 20))))

    async def _posts(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        posts = self._webhooks.posts(
            request.match_info["webhook"], int(query.get("last", 10)), follow="follow" in query
        )
        return await _streamed(request, (post + b"\n" async for post in posts))

    async def _status(self, _: web.Request) -> web.Response:
        return _json(self._runner.status())

    async def _node(self, request: web.Request) -> web.Response:
        return _json(self._runner.node(request.query.get("name", ""), request.query.get("app")))

    async def _trigger(self, request: web.Request) -> web.Response:
        body = await request.json()
        uid = await self._runner.trigger(body["node"], body.get("app"), body.get("type", "manual"))
        return _json({"uid": uid})

    async def _runs(self, request: web.Request) -> web.Response:
        query = request.query
        runs = self._runner.runs(node=query.get("node"), kind=query.get("status"), last=int(query.get("last", 50)))
        return _json([asdict(run) for run in runs])

    async def _run(self, request: web.Request) -> web.Response:
        return _json(await self._runner.run(request.query.get("run", "")))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        node, run = query.get("node"), query.get("run")
        lines = self._runner.lines(node=node, run=run, last=int(query.get("last", 200)))
        if "follow" not in query:
            return _json([asdict(line) for line in lines])
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for line in lines:
            await response.write(orjson.dumps(asdict(line)) + b"\n")
        async for entry in self._runner.follow():
            if node is None or node in (entry.node, entry.title):
                await response.write(orjson.dumps(asdict(entry)) + b"\n")
        return response

    async def _nodes(self, request: web.Request) -> web.Response:
        return _json(await self._runner.nodes(request.query.get("app")))

    async def _tables(self, request: web.Request) -> web.Response:
        return _json(await self._runner.tables(request.query.get("app")))

    async def _versions(self, request: web.Request) -> web.Response:
        return _json(await self._all_versions(request.match_info["table"], request.query.get("app")))

    async def _all_versions(self, table: str, app: str | None) -> list[dict[str, Any]]:
        """The versions with where they lie."""
        versions = await self._runner.versions(table, app)
        if versions:
            in_lake = await self._lake.versions(versions[0]["topic"])
            starts = in_lake.pop("")["log_start"]
            for each in versions:
                stored = in_lake.get(each["version"])
                each["lake"] = stored
                each["in_log"] = all(first >= starts[lane] for lane, first in each["first_offsets"].items())
                if each["rows"] is None and stored is not None and stored["complete"]:
                    each["rows"] = stored["rows"]
        return versions

    async def _restore(self, request: web.Request) -> web.Response:
        body = await request.json()
        table, app, version = request.match_info["table"], body.get("app"), body["version"]
        for each in await self._all_versions(table, app):
            if each["version"] == version and each["lake"] is None and not each["in_log"]:
                raise VersionGoneError(table, version)
        return _json(await self._runner.restore(table, app, version))

    async def _rows(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        arguments: dict[str, Any] = {"format": query.get("format", "json")}
        for name in ("limit", "offset"):
            if name in query:
                arguments[name] = int(query[name])
        if "version" in query:
            arguments["version"] = query["version"]
        table, app = request.match_info["table"], query.get("app")
        rows = self._runner.read(table, app, arguments, at_ms=_at_ms(request), run=query.get("run"))
        return await _streamed(request, rows)

    async def _charts(self, request: web.Request) -> web.Response:
        return _json(self._runner.charts(request.query.get("app")))

    async def _chart(self, request: web.Request) -> web.StreamResponse:
        chart, app = request.match_info["chart"], request.query.get("app")
        return await _streamed(request, self._runner.chart(chart, app, at_ms=_at_ms(request)))

    async def _letters(self, request: web.Request) -> web.Response:
        query, table = request.query, request.match_info["table"]
        wanted: dict[str, Any] = {"ids": query.getall("id", []), "node": query.get("node")}
        if "since_ms" in query:
            wanted["since_ms"] = int(query["since_ms"])
        return _json(await self._runner.letters(table, query.get("app"), wanted, limit=int(query.get("limit", 20))))

    async def _letters_edit(self, request: web.Request) -> web.Response:
        body, table = await request.json(), request.match_info["table"]
        return _json(await self._runner.edit_letter(table, body.get("app"), body["id"], body["record"]))

    async def _letters_drop(self, request: web.Request) -> web.Response:
        body, table = await request.json(), request.match_info["table"]
        return _json(await self._runner.drop_letters(table, body.get("app"), body))

    async def _letters_replay(self, request: web.Request) -> web.StreamResponse:
        body, table = await request.json(), request.match_info["table"]
        events = self._runner.replay_letters(table, body.get("app"), body)
        async with contextlib.aclosing(events):
            return await _streamed(request, _lines_of(events))

    async def _sql(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await _streamed(
            request, self._runner.query(body["sql"], body.get("app"), at_ms=body.get("at_ms"), run=body.get("run"))
        )

    async def _replay(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        events = self._runner.replay(
            body["run"], code=body.get("code"), ignore=body.get("ignore", ()), rows_max=int(body.get("rows_max", 100))
        )
        async with contextlib.aclosing(events):
            return await _streamed(request, _lines_of(events))

    async def _lake_status(self, request: web.Request) -> web.Response:
        return _json(await self._lake.status(request.query.get("app")))

    async def _lake_gc(self, request: web.Request) -> web.Response:
        body = await request.json()
        return _json(await self._lake.collect(body.get("app"), dry_run=bool(body.get("dry_run"))))

    async def _lake_rebuild(self, request: web.Request) -> web.Response:
        body = await request.json()
        return _json(await self._lake.rebuild(body.get("app")))


async def _streamed(request: web.Request, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """The pieces as one body. The first is awaited before the status goes out, so that an error has its own."""
    first = await anext(pieces, b"")
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    await response.write(first)
    async for piece in pieces:
        await response.write(piece)
    return response


async def _lines_of(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Events as NDJSON. An error after the first is an event, too: the status has gone out by then."""
    begun = False
    try:
        async for event in events:
            yield orjson.dumps(event, default=str) + b"\n"
            begun = True
    except TailraceError as error:
        if not begun:
            raise
        yield orjson.dumps({"type": "error", "detail": str(error)}) + b"\n"


def _at_ms(request: web.Request) -> int | None:
    """The moment that is asked for, if one is."""
    return int(request.query["at_ms"]) if "at_ms" in request.query else None


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value, default=str), content_type="application/json")


def _problem(status: int, reason: str) -> web.Response:
    return web.json_response({"detail": reason}, status=status)
