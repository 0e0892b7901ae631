"""`POST /webhooks/<id>`: one JSON value or an array of them, in the log before the 200 goes out.

Steps of a post, and what a crash after each leaves:

 1. `webhook-parsed`   nothing is written; the sender sees a broken connection and sends again.
 2. the append         the point of no return: the rows are in the log, the sender may not know.
 3. `webhook-durable`  the same; a sender that sends again makes a second row.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from tailrace.errors import AbortableError, RejectedError, RetriableError
from tailrace.gateway.route import WebhookRoute
from tailrace.gateway.settings import GatewaySettings
from tailrace.log import Appender, Log, NewRecord, Partition
from tailrace.runtime import Runtime
from tailrace.tables import webhook_message

__all__ = ["Gateway"]


class BadBodyError(RejectedError):
    """A body that cannot be taken, with the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(reason)


class Gateway:
    """Takes posts into the log. `routes` may be changed while it runs."""

    def __init__(self, log: Log, *, runtime: Runtime, settings: GatewaySettings | None = None) -> None:
        self._log = log
        self._runtime = runtime
        self._settings = settings or GatewaySettings()
        self._routes: Mapping[str, WebhookRoute] = {}
        self._appender: Appender | None = None
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self.accepted = 0
        """Posts that got their 200."""

    def set_routes(self, routes: Mapping[str, WebhookRoute]) -> None:
        """These are the webhooks from now on, by the id in their URL."""
        self._routes = dict(routes)

    def add_to(self, app: web.Application) -> None:
        """Add the gateway's routes to `app`, which must allow bodies of `body_bytes_max`."""
        app.router.add_post("/webhooks/{webhook}", self._post)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)

    def respond(self, key: str, payload: Any) -> None:
        """A node's answer to the request with this key; the first one counts, and one that nobody waits for is dropped."""
        future = self._answers.get(key)
        if future is not None and not future.done():
            future.set_result(payload)

    async def _start(self, _: web.Application) -> None:
        self._appender = self._log.appender()

    async def _stop(self, _: web.Application) -> None:
        if self._appender is not None:
            await self._appender.close()

    async def _post(self, request: web.Request) -> web.Response:
        route = self._routes.get(request.match_info["webhook"])
        if route is None:
            return _problem(404, "there is no webhook of this id; `tailrace webhooks` lists them")
        try:
            body = await self._body(request)
            values, rows = self._values(body)
        except BadBodyError as error:
            return _problem(error.status, error.reason)
        self._runtime.probe.reached("webhook-parsed")
        head: dict[str, Any] = {"ts": self._runtime.clock.now_ms()}
        if route.respond:
            return await self._post_and_wait(route, head, values, rows)
        return await self._append(route, head, values, rows)

    async def _append(self, route: WebhookRoute, head: dict[str, Any], values: bytes, rows: int) -> web.Response:
        if rows == 0:
            return web.Response()
        assert self._appender is not None
        record = NewRecord(webhook_message(head, values, rows))
        try:
            await self._appender.append(Partition(route.topic), record)
        except (RetriableError, AbortableError) as error:
            return self._later(str(error))
        except RejectedError as error:
            return _problem(413, str(error))
        self._runtime.probe.reached("webhook-durable")
        self.accepted += 1
        return web.Response()

    async def _post_and_wait(self, route: WebhookRoute, head: dict[str, Any], values: bytes, rows: int) -> web.Response:
        if len(self._answers) >= self._settings.responses_waiting_max:
            return self._later("too many requests wait for an answer already")
        key = head["request_key"] = secrets.token_urlsafe(18)
        future = self._answers[key] = asyncio.get_running_loop().create_future()
        try:
            response = await self._append(route, head, values, rows)
            if response.status != 200 or rows == 0:
                return response
            timeout_s = self._settings.respond_timeout.total_seconds()
            try:
                payload = await asyncio.wait_for(future, timeout_s)
            except TimeoutError:
                return _problem(504, f"the record was stored, but no node answered within {timeout_s:g} s")
            return web.Response(body=orjson.dumps(payload, default=str), content_type="application/json")
        finally:
            self._answers.pop(key, None)

    async def _body(self, request: web.Request) -> bytes:
        kind = request.content_type if "Content-Type" in request.headers else "application/json"
        if kind not in ("application/json", "text/json") and not kind.endswith("+json"):
            raise BadBodyError(415, f"the body is {kind}: post JSON, with Content-Type: application/json")
        limit = self._settings.body_bytes_max
        if (request.content_length or 0) > limit:
            raise BadBodyError(413, f"the body is over {limit} bytes")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise BadBodyError(413, f"the body is over {limit} bytes") from None
        if len(body) > limit:
            raise BadBodyError(413, f"the body is over {limit} bytes")
        return body

    def _values(self, body: bytes) -> tuple[bytes, int]:
        """The posted values as they came, without the brackets of an array, and how many there are."""
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadBodyError(400, f"the body is no JSON: {error}") from None
        limit = self._settings.depth_max
        if body.count(b"[") + body.count(b"{") > limit and _depth(value, limit) > limit:
            raise BadBodyError(400, f"the body is nested deeper than {limit} levels")
        if not isinstance(value, list):
            return body, 1
        if len(value) > self._settings.rows_max:
            raise BadBodyError(413, f"the array has more than {self._settings.rows_max} elements")
        return body.strip()[1:-1], len(value)

    def _later(self, reason: str) -> web.Response:
        response = _problem(503, reason)
        response.headers["Retry-After"] = str(max(1, round(self._settings.retry_after.total_seconds())))
        return response


def _depth(value: Any, limit: int) -> int:
    """Levels of nesting of `value`, or more than `limit`; level by level, as recursion could run out of stack."""
    level, depth = [value], 0
    while level and depth <= limit:
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        depth += 1
    return depth


def _problem(status: int, reason: str) -> web.Response:
    return web.json_response({"detail": reason}, status=status)
