"""`POST /webhooks/<id>`: JSON values, in the log before the 200 goes out.

Steps of a post, and what a crash after each leaves:

 1. `webhook-parsed`   nothing is written; the sender sees a broken connection and sends again.
 2. the append         the point of no return: the rows are in the log, the sender may not know.
 3. `webhook-durable`  the same; a sender that sends again makes a second row.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Mapping
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tailrace.errors import AbortableError, RejectedError, RetriableError, TailraceError
from tailrace.gateway.access import AccessLog
from tailrace.gateway.answers import Answers, answer_response
from tailrace.gateway.bodies import decode, inflate
from tailrace.gateway.dedupe import Repeats, delivery_id
from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.empty import EmptyAnswer
from tailrace.gateway.guard import Guard, SecretOf, environment_secret, guard_of, sender_address
from tailrace.gateway.handshakes import Reply, slack_challenge
from tailrace.gateway.keys import KeyStore
from tailrace.gateway.limits import Bucket, Room
from tailrace.gateway.metrics import Metrics, WebhookCounts
from tailrace.gateway.recent import Refusals
from tailrace.gateway.refusals import RefusedError
from tailrace.gateway.route import WebhookRoute
from tailrace.gateway.schemes import Provider, Source
from tailrace.gateway.server import Handler
from tailrace.gateway.settings import GatewaySettings
from tailrace.gateway.shape import Shaped, message_of, shape
from tailrace.log import Appender, Log, NewRecord
from tailrace.runtime import Runtime
from tailrace.tables import Answer

__all__ = ["Gateway"]

_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.{0,200})?").fullmatch
"""W3C Trace Context, `traceparent`."""

_LOGGER = logging.getLogger("tailrace.gateway")

_PATH = "/webhooks/"

_HEADERS_MAX = 100
_HEADER_BYTES_MAX = 8190


class Gateway:
    """Takes posts into the log. `routes` may be changed while it runs."""

    def __init__(
        self,
        log: Log,
        *,
        runtime: Runtime,
        settings: GatewaySettings | None = None,
        access: AccessLog | None = None,
        secret_of: SecretOf = environment_secret,
    ) -> None:
        self._log = log
        self._runtime = runtime
        self._settings = settings or GatewaySettings()
        self._access = access
        self._routes: Mapping[str, WebhookRoute] = {}
        self._buckets: dict[str, Bucket] = {}
        self._guards: dict[str, Guard] = {}
        self._secret_of = secret_of
        self._keys = KeyStore(runtime.clock)
        self.refusals = Refusals(self._settings.refusals_max, self._settings.refused_body_bytes)
        """The newest refused requests."""
        self._repeats = Repeats(log, runtime.clock, ids_max=self._settings.ids_max)
        self._appender: Appender | None = None
        self._answers = Answers(log)
        self._room = Room(self._settings.bodies_bytes_max)
        self._appends = 0
        self.draining = False
        """It stops soon: `/readyz` says so, and connections end with their next answer."""
        self.metrics = Metrics(
            {
                "appends_waiting": (lambda: self._appends, "Posts that wait for the log."),
                "answers_waiting": (lambda: len(self._answers), "Requests that wait for a node's answer."),
                "bodies_bytes": (lambda: self._room.taken, "Bytes of bodies in memory."),
            }
        )

    @property
    def settings(self) -> GatewaySettings:
        return self._settings

    @property
    def routes(self) -> Mapping[str, WebhookRoute]:
        """The webhooks, by the id in their URL."""
        return self._routes

    def shut(self, webhook: str) -> str | None:
        """Why a webhook takes nothing at all, for its owner; None where it takes posts."""
        guard = self._guards.get(webhook)
        return None if guard is None else guard.shut

    @property
    def accepted(self) -> int:
        """Posts that got their 200."""
        return sum(counts.accepted for counts in self.metrics.webhooks.values())

    def set_routes(self, routes: Mapping[str, WebhookRoute]) -> None:
        """These are the webhooks from now on, by the id in their URL. A limit that stays the same goes on counting."""
        now_s = self._runtime.clock.monotonic_s()
        buckets: dict[str, Bucket] = {}
        for name, route in routes.items():
            if route.rate_limit is not None:
                old = self._buckets.get(name)
                same = old is not None and old.limit == route.rate_limit
                buckets[name] = old if old is not None and same else Bucket(route.rate_limit, now_s)
        self._routes, self._buckets = dict(routes), buckets
        self._guards = {
            name: guard
            for name, route in routes.items()
            if (guard := guard_of(route, self._secret_of, self._keys, retry_after_s=self._retry_after_s())) is not None
        }
        for name, guard in self._guards.items():
            if guard.shut is not None:
                _LOGGER.warning("the webhook of %s takes nothing: %s", routes[name].topic, guard.shut)
        if self._appender is not None:
            self._learn_ids()

    def new_app(self) -> web.Application:
        """An application with the gateway's routes, made for bodies as the settings allow them.

        It hands compressed bodies on as they came: signatures are over these bytes, and inflating is ours to bound.
        """
        app = web.Application(
            client_max_size=self._settings.body_bytes_max,
            handler_args={
                "auto_decompress": False,
                "keepalive_timeout": self._settings.idle_timeout.total_seconds(),
                "lingering_time": 2.0,
                "max_line_size": _HEADER_BYTES_MAX,
                "max_field_size": _HEADER_BYTES_MAX,
                "max_headers": _HEADERS_MAX,
                "logger": _http_logger(),
            },
        )
        self.add_to(app)
        return app

    def add_to(self, app: web.Application) -> None:
        """Add the gateway's routes to an application that must not inflate bodies, as that of `new_app`."""
        app.router.add_post(_PATH + "{webhook}", self._post)
        app.router.add_get(_PATH + "{webhook}", self._get)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)

    def respond(self, answer: Answer) -> bool:
        """A node's answer, from a host in this process; whether its request waits here. The first one counts."""
        return self._answers.give(answer)

    async def _start(self, _: web.Application) -> None:
        self._appender = self._log.appender(self._repeats.wrote)
        self._learn_ids()

    def _learn_ids(self) -> None:
        """Read back the ids of posts that will have some, before the first comes."""
        for name, route in self._routes.items():
            guard = self._guards.get(name)
            provider = None if guard is None else guard.provider
            if route.dedupe and (route.dedupe_id or (provider is not None and provider.delivery_id is not None)):
                self._repeats.follow(route.topic, route.dedupe_window_s)

    async def _stop(self, _: web.Application) -> None:
        if self._appender is not None:
            await self._appender.close()
        await self._answers.close()
        await self._keys.close()
        await self._repeats.close()

    def ahead_of(self, otherwise: Handler) -> Handler:
        """A handler that takes posts to known webhooks itself and leaves all else to the application's own.

        What aiohttp's application does to find a handler takes a tenth of the time of such a post.
        """
        start = len(_PATH)

        def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
            path = request.raw_path
            if request.method == "POST" and path[start:] in self._routes and path.startswith(_PATH):
                return self._take_post(request, path[start:])
            return otherwise(request)

        return handle

    async def _post(self, request: web.Request) -> web.Response:
        return await self._take_post(request, request.match_info["webhook"])

    async def _take_post(self, request: web.BaseRequest, name: str) -> web.Response:
        """Take one post, count it, and tell the sender what became of it."""
        route = self._routes.get(name)
        counts = self.metrics.unknown if route is None else self.metrics.of(name, route.topic)
        held, raw = 0, b""
        try:
            if route is None:
                raise RefusedError(404, "unknown", "there is no webhook of this id; `tailrace webhooks` lists them")
            guard = self._guards.get(name)
            if guard is not None:
                guard.check_address(lambda: self._sender(request))
            if route.rate_limit is not None:
                self._check_rate(name)
            raw = self._body_at_hand(request) or await self._body(request)
            held = len(raw)
            reply = None if guard is None else await self._admit(guard, request, raw)
            response = await self._take(request, route, guard, raw, counts) if reply is None else _replied(reply)
        except RefusedError as refused:
            self._note_refused(counts, route, request, refused, raw)
            response = web.json_response({"detail": refused.reason}, status=refused.status, headers=refused.headers)
            if refused.status in (408, 413):
                response.force_close()  # the rest of the body is not waited for
        finally:
            self._room.give_back(held)
        if self.draining:
            response.force_close()
        if self._access is not None:
            self._access.note(route.topic if route is not None else None, request, response, held)
        return response

    async def _get(self, request: web.Request) -> web.Response:
        """Handshakes of providers that ask by GET, and a word to people who open the URL."""
        name = request.match_info["webhook"]
        route = self._routes.get(name)
        counts = self.metrics.unknown if route is None else self.metrics.of(name, route.topic)
        try:
            if route is None:
                raise RefusedError(404, "unknown", "there is no webhook of this id; `tailrace webhooks` lists them")
            guard = self._guards.get(name)
            if guard is not None:
                guard.check_address(lambda: self._sender(request))
            if request.method == "HEAD":  # so some providers see whether the URL is there
                return web.Response()
            reply = None if guard is None else await self._admit(guard, request, b"")
            if reply is None:
                raise RefusedError(405, "method", "post to this webhook", {"Allow": "POST"})
        except RefusedError as refused:
            self._note_refused(counts, route, request, refused, b"")
            return web.json_response({"detail": refused.reason}, status=refused.status, headers=refused.headers)
        return _replied(reply)

    async def _admit(self, guard: Guard, request: web.BaseRequest, raw: bytes) -> Reply | None:
        """What answers a handshake; None where it is a genuine post. Raises RefusedError."""
        url = guard.url
        if url is None:
            url = f"{request.scheme}://{request.host}{request.raw_path}"
        elif "?" not in url and "?" in request.raw_path:
            url += "?" + request.raw_path.partition("?")[2]
        delivery = Delivery(method=request.method, url=url, headers=request.headers, body=raw)
        return await guard.admit(delivery, self._runtime.clock.now_ms())

    def _note_refused(
        self,
        counts: WebhookCounts,
        route: WebhookRoute | None,
        request: web.BaseRequest,
        refused: RefusedError,
        body: bytes,
    ) -> None:
        counts.refused[refused.code] += 1
        name = None if route is None else route.webhook
        self.refusals.note(self._runtime.clock.now_ms(), name, self._sender(request), request, refused, body)

    def _sender(self, request: web.BaseRequest) -> str:
        trusted = self._settings.trusted_proxies
        peer = request.remote or ""
        return sender_address(peer, request.headers.get("X-Forwarded-For"), trusted) if trusted else peer

    async def _take(
        self, request: web.BaseRequest, route: WebhookRoute, guard: Guard | None, raw: bytes, counts: WebhookCounts
    ) -> web.Response:
        """From a body to its answer. Raises RefusedError."""
        headers = request.headers
        coding = headers.get("Content-Encoding")
        body = raw if coding is None else inflate(raw, coding, self._settings)
        provider = None if guard is None else guard.provider
        posted = decode(*_unwrapped(provider, body, headers), self._settings)
        if provider is None and not route.respond and (challenge := slack_challenge(posted.rows)) is not None:
            return _replied(challenge)
        runtime = self._runtime
        runtime.probe.reached("webhook-parsed")
        now_ms = runtime.clock.now_ms()
        head: dict[str, Any] = {"ts": now_ms}
        trace = headers.get("traceparent")
        if trace is not None and _TRACE_PARENT(trace):
            head["trace"] = trace
        response = self._accepted(route)
        shaped = shape(route, headers, posted) if posted.rows else None
        if shaped is not None:
            key = delivery_id(route.dedupe_id, provider, headers, posted.rows) if route.dedupe else None
            if key is not None:
                response = await self._store_once(route, head, headers, shaped, key)
            elif route.respond:
                response = await self._store_and_wait(route, head, headers, shaped)
            else:
                await self._store(route, head, headers, shaped)
        counts.accepted += 1
        if shaped is not None and "Idempotent-Replayed" not in response.headers:
            counts.rows += len(shaped.posted.rows)
        counts.bytes += len(raw)
        counts.last_accepted_ms = now_ms
        return response

    def _accepted(self, route: WebhookRoute) -> web.Response:
        """The answer to a post whose rows are durable."""
        answer = route.answer
        if answer is not None:
            return web.Response(status=answer.status, text=answer.body, content_type=answer.content_type)
        guard = self._guards.get(route.webhook)
        if guard is not None and guard.provider is not None and guard.provider.accepted is not None:
            return web.Response(body=orjson.dumps(guard.provider.accepted), content_type="application/json")
        return EmptyAnswer()

    async def _store_once(
        self, route: WebhookRoute, head: dict[str, Any], headers: Mapping[str, str], shaped: Shaped, key: str
    ) -> web.Response:
        """The answer to a post with an id: of those that repeat it, the first adds rows. Raises RefusedError."""
        try:
            first = await self._repeats.first(shaped.partition.topic, key, route.dedupe_window_s)
        except TailraceError as error:
            raise self._later("log", str(error)) from error
        if not first:
            if route.respond:
                raise RefusedError(409, "repeat", "a post of this id was taken before; its answer is not kept")
            response = self._accepted(route)
            response.headers["Idempotent-Replayed"] = "true"
            return response
        head["id"] = key
        durable = False
        try:
            if not route.respond:
                await self._store(route, head, headers, shaped)
                durable = True
                return self._accepted(route)
            response = await self._store_and_wait(route, head, headers, shaped)
            durable = True
            return response
        except RefusedError as refused:
            durable = refused.status == 504
            raise
        finally:
            self._repeats.settle(shaped.partition.topic, key, durable=durable)

    async def _store(
        self, route: WebhookRoute, head: dict[str, Any], headers: Mapping[str, str], shaped: Shaped
    ) -> None:
        """Returns once the rows are durable."""
        assert self._appender is not None
        record = NewRecord(message_of(route, head, headers, shaped.posted))
        clock = self._runtime.clock
        began_s = clock.monotonic_s()
        self._appends += 1
        try:
            await self._appender.append(shaped.partition, record)
        except (RetriableError, AbortableError) as error:
            raise self._later("log", str(error)) from error
        except RejectedError as error:
            raise RefusedError(413, "too_large", str(error)) from error
        finally:
            self._appends -= 1
        self.metrics.committed(clock.monotonic_s() - began_s)
        self._runtime.probe.reached("webhook-durable")

    async def _store_and_wait(
        self, route: WebhookRoute, head: dict[str, Any], headers: Mapping[str, str], shaped: Shaped
    ) -> web.Response:
        """The answer that a node gave."""
        if len(self._answers) >= self._settings.responses_waiting_max:
            raise self._later("busy", "too many requests wait for an answer already")
        try:
            await self._answers.follow(route.topic)
        except TailraceError as error:
            raise self._later("log", str(error)) from error
        key = head["request_key"] = secrets.token_urlsafe(18)
        future = self._answers.expect(key)
        try:
            await self._store(route, head, headers, shaped)
            timeout_s = self._settings.respond_timeout.total_seconds()
            try:
                return answer_response(await asyncio.wait_for(future, timeout_s))
            except TimeoutError:
                reason = f"the record was stored, but no node answered within {timeout_s:g} s"
                raise RefusedError(504, "no_answer", reason) from None
        finally:
            self._answers.forget(key)

    def _body_at_hand(self, request: web.BaseRequest) -> bytes:
        """The body, where it came with the head, as nearly always; else nothing. Its size is held in `_room`."""
        limit = self._settings.body_bytes_max
        length = request.content_length
        if length is not None and length > limit:
            raise RefusedError(413, "too_large", f"the body is over {limit} bytes: send it in parts")
        content = request.content
        if not content.is_eof():
            return b""
        try:
            body = content.read_nowait()
        except web.RequestPayloadError as error:
            raise RefusedError(400, "body", f"the body is broken: {error}") from None
        if len(body) > limit:
            raise RefusedError(413, "too_large", f"the body is over {limit} bytes: send it in parts")
        if not self._room.take(len(body)):
            raise self._later("busy", "too many bodies are in memory already")
        return body

    async def _body(self, request: web.BaseRequest) -> bytes:
        """What is still to come of the body, or all of it. Its size is held in `_room`."""
        limit = self._settings.body_bytes_max
        body = bytearray()
        timeout_s = self._settings.body_timeout.total_seconds()
        whole = False
        try:
            async with asyncio.timeout(timeout_s):
                while chunk := await request.content.readany():
                    if len(body) + len(chunk) > limit:
                        raise RefusedError(413, "too_large", f"the body is over {limit} bytes: send it in parts")
                    if not self._room.take(len(chunk)):
                        raise self._later("busy", "too many bodies are in memory already")
                    body += chunk
            whole = True
        except TimeoutError:
            raise RefusedError(408, "slow", f"the body did not come within {timeout_s:g} s") from None
        except ConnectionError:
            raise RefusedError(400, "gone", "the connection was lost before the body's end") from None
        except web.RequestPayloadError as error:
            raise RefusedError(400, "body", f"the body is broken: {error}") from None
        finally:
            if not whole:
                self._room.give_back(len(body))
        return bytes(body)

    def _check_rate(self, name: str) -> None:
        bucket = self._buckets[name]
        if not bucket.take(self._runtime.clock.monotonic_s()):
            limit = bucket.limit
            reason = f"this webhook takes {limit.posts} posts in {limit.window_s:g} s: send again after Retry-After"
            headers = {"Retry-After": str(max(1, round(bucket.wait_s + 0.5))), **bucket.headers()}
            raise RefusedError(429, "rate", reason, headers)

    def _later(self, code: str, reason: str) -> RefusedError:
        return RefusedError(503, code, reason, {"Retry-After": str(self._retry_after_s())})

    def _retry_after_s(self) -> int:
        return max(1, round(self._settings.retry_after.total_seconds()))


def _unwrapped(provider: Provider | None, body: bytes, headers: Mapping[str, str]) -> tuple[bytes, str | None]:
    """Body and content type, for providers that put their JSON into a form or call it text."""
    content_type = headers.get("Content-Type")
    if provider is None or not (provider.json_field or provider.json_as_text) or content_type is None:
        return body, content_type
    if provider.json_as_text and content_type.startswith("text/plain"):
        return body, None
    if provider.json_field and "form" in content_type.lower():  # of both kinds
        values = Delivery(headers=headers, body=body).read(Source(field=provider.json_field))
        if values:
            return values[0].encode("utf-8", "surrogatepass"), None
    return body, content_type


def _replied(reply: Reply) -> web.Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return web.Response(body=reply.body, content_type=reply.content_type, headers=headers)


def _http_logger() -> logging.Logger:
    """Where aiohttp tells of trouble. What a sender got wrong is the sender's: it has its 400, and no traceback here."""
    logger = logging.getLogger("tailrace.gateway.http")
    if not logger.filters:
        logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
