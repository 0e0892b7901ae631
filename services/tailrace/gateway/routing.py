"""What graph.yml says of a webhook, made into its `WebhookRoute`: once, at a deployment. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import orjson

from tailrace.errors import RejectedError, SettingError
from tailrace.gateway.custom import BadProviderError, provider_of, source_of
from tailrace.gateway.limits import RateLimit
from tailrace.gateway.pointers import is_pointer
from tailrace.gateway.route import Rule, SuccessAnswer, WebhookRoute
from tailrace.gateway.schemes import Jwt, Provider, Signature, Sns
from tailrace.graph import App, GraphError, Node, SecretRef, parameter_value, topic_name
from tailrace.tables import REPEAT_MS

__all__ = ["OPTIONS", "DoubleWebhookError", "webhook_problems", "webhook_route", "webhook_routes"]

OPTIONS = (
    "provider",
    "secret",
    "verify_token",
    "url",
    "allow_ips",
    "rate_limit",
    "dedupe",
    "flatten",
    "headers",
    "partition_key",
    "filter",
    "answer",
)
"""Keys of a webhook in graph.yml that mean something here; others are carried along."""

DISCORD_KEY = "APPLICATION_PUBLIC_KEY"
"""A webhook with this parameter takes what Discord signs, as apps of the original expect."""

_RATE = re.compile(r"(\d{1,9})\s*/\s*(\d{0,6})\s*([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([smhd])")
_WINDOW_MAX_S = 30 * 86_400
_RULES_MAX = 100
_SECRET_HINT = "write ${{ name }} here, and put the value into the secret of that name"  # noqa: S105


class _Wrong(Exception):
    """An option that cannot be; its text is for the person who wrote it."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason, self.hint = reason, hint
        super().__init__(reason)


class DoubleWebhookError(RejectedError):
    """Two deployed webhooks have the same id, so they would have the same URL."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"two webhooks have the id {name!r}: give one of them another id in its graph.yml")


def webhook_routes(apps: Iterable[App]) -> dict[str, WebhookRoute]:
    """The routes of all webhooks of some apps, by the id in their URL.

    Raises:
        DoubleWebhookError: rejected; two have the same id.
    """
    routes: dict[str, WebhookRoute] = {}
    for app in apps:
        for node in app.webhooks:
            route, _ = webhook_route(app, node)
            if route is None:
                continue
            if node.key in routes:
                raise DoubleWebhookError(node.key)
            routes[node.key] = route
    return routes


def webhook_problems(app: App) -> tuple[GraphError, ...]:
    """What is wrong with the options of the app's webhooks."""
    return tuple(problem for node in app.webhooks for problem in webhook_route(app, node)[1])


def webhook_route(app: App, node: Node) -> tuple[WebhookRoute | None, tuple[GraphError, ...]]:
    """The route of a webhook of `app`, and what is wrong with its options; such a one is `broken`, and takes nothing.

    None where the webhook has no store to write.
    """
    stores = {store.key: store for store in app.stores if store.storage is None}
    store = next((stores[key] for key in node.writes if key in stores), None)
    if store is None:
        return None, ()
    problems: list[GraphError] = []
    route = WebhookRoute(
        webhook=node.key, topic=topic_name(app.slug, store), respond=node.respond, partitions=store.partitions
    )
    route = _discord(route, node)
    for key in OPTIONS:
        value = node.extra.get(key)
        if value is None:
            continue
        try:
            route = replace(route, **_option(key, value, app, node, route))
        except _Wrong as wrong:
            line = node.extra_lines.get(key, node.line)
            problems.append(GraphError(node.id, wrong.reason, node.file, line, hint=wrong.hint))
    if store.partition_key is not None and store.partitions > 1:
        own = _within_posts(store.partition_key, route.flatten)
        if own is None or route.partition_key not in (None, own):
            reason = f'store "{store.name}" has the partition_key {store.partition_key}, which is not this of the posts'
            hint = "let it begin with /record/, or name a column of flattened posts; the webhook needs none then"
            problems.append(
                GraphError(node.id, reason, node.file, node.extra_lines.get("partition_key", node.line), hint=hint)
            )
        route = replace(route, partition_key=own)
    for key, reason, hint in _together(route) if not problems else ():
        line = node.extra_lines.get(key, node.line)
        problems.append(GraphError(node.id, reason, node.file, line, hint=hint))
    if problems:
        route = replace(route, broken=problems[0].message)
    return route, tuple(problems)


def _within_posts(key: str, flatten: bool) -> str | None:
    """A store's partition key as a pointer into what is posted; None where it points to something else."""
    pointer = key if key.startswith("/") else "/" + key.replace("~", "~0").replace("/", "~1")
    if flatten:
        return pointer
    return pointer.removeprefix("/record") if pointer.startswith("/record/") else None


def _discord(route: WebhookRoute, node: Node) -> WebhookRoute:
    key = node.parameter_values.get(DISCORD_KEY)
    if key is None or "provider" in node.extra:
        return route
    if isinstance(key, SecretRef):
        return replace(route, provider="discord", secret_names=(key.name,))
    return replace(route, provider="discord", public_keys=(str(key),))


def _option(key: str, value: Any, app: App, node: Node, route: WebhookRoute) -> dict[str, Any]:
    """The fields of the route that one option sets."""
    match key:
        case "provider":
            return _provider(value)
        case "secret":
            return _secrets(value, route)
        case "verify_token":
            reference = parameter_value(value)
            if not isinstance(reference, SecretRef):
                raise _Wrong("verify_token must be a secret", _SECRET_HINT)
            return {"verify_token_name": reference.name}
        case "url":
            if not isinstance(value, str) or not re.fullmatch(r"https?://\S{1,2000}", value):
                raise _Wrong("url must be the whole address that the sender knows, with https://")
            return {"url": value}
        case "allow_ips":
            return {"allow_ips": tuple(_networks(value))}
        case "rate_limit":
            return {"rate_limit": _rate(value)}
        case "dedupe":
            return _dedupe(value)
        case "flatten":
            if not isinstance(value, bool):
                raise _Wrong("flatten must be true or false")
            return {"flatten": value}
        case "headers":
            names = _texts(value, "headers", "names of headers")
            for name in names:
                source = source_of(name)
                if source is None or not source.header:
                    raise _Wrong(f'headers: "{name}" is no name of a header')
            return {"headers": tuple(dict.fromkeys(name.lower() for name in names))}
        case "partition_key":
            if not isinstance(value, str) or not is_pointer(value) or "*" in value.split("/"):
                raise _Wrong("partition_key must be a JSON pointer into the row, such as /customer/id")
            return {"partition_key": value}
        case "filter":
            return {"rules": tuple(_rules(value, app, node))}
    return {"answer": _answer(value)}


def _provider(value: Any) -> dict[str, Any]:
    settings: dict[str, Any] = dict(value) if isinstance(value, dict) else {"name": value}
    name = settings.pop("name", None)
    if not isinstance(name, str) or not all(type(item) in (str, int) for item in settings.values()):
        raise _Wrong("provider must be a name, or a map with `name:` and settings of that provider")
    try:
        provider_of(name, settings)
    except BadProviderError as error:
        raise _Wrong(error.reason, error.hint) from None
    return {"provider": name, "provider_settings": settings}


def _secrets(value: Any, route: WebhookRoute) -> dict[str, Any]:
    names, keys = [], []
    provider = None if route.provider is None else provider_of(route.provider, route.provider_settings)
    for item in value if isinstance(value, list) else [value]:
        reference = parameter_value(item)
        if isinstance(reference, SecretRef):
            names.append(reference.name)
        elif isinstance(reference, str) and provider is not None and _has_public_key(provider):
            keys.append(reference)
        else:
            raise _Wrong("secret must be the name of a secret, or a list of such", _SECRET_HINT)
    if not names and not keys:
        raise _Wrong("secret is empty", _SECRET_HINT)
    return {"secret_names": tuple(names), "public_keys": tuple(keys)}


def _has_public_key(provider: Provider) -> bool:
    """What it calls its secret may be known to all."""
    scheme = provider.scheme
    if isinstance(scheme, Signature):
        return not scheme.algorithm.startswith("hmac")
    return isinstance(scheme, Sns) or (isinstance(scheme, Jwt) and not scheme.algorithms[0].startswith("HS"))


def _together(route: WebhookRoute) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the options as a whole: where, what, and what to do."""
    if route.provider is not None and not route.secret_names and not route.public_keys:
        yield "provider", f'provider "{route.provider}" needs a secret', "add `secret: ${{ name }}`"
    if route.provider is None and route.secret_names:
        yield "secret", "a secret is given, but no provider says how it is used", "add `provider:`, such as hmac"
    if route.answer is not None and route.respond:
        yield "answer", "answer and respond cannot both be: with respond a node answers", "remove one"
    if route.flatten and route.respond:
        yield "flatten", "flatten and respond cannot both be: the answering node needs the request's key", "remove one"


def _networks(value: Any) -> Iterator[str]:
    for text in _texts(value, "allow_ips", "addresses and networks"):
        try:
            yield str(ip_network(text, strict=False))
        except ValueError:
            raise _Wrong(f'allow_ips: "{text}" is no address and no network', "such as 192.0.2.0/24") from None


def _rate(value: Any) -> RateLimit:
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    try:
        if match is not None:
            return RateLimit(int(match[1]), float(int(match[2] or 1) * _UNIT_S[match[3]]))
    except SettingError:
        pass
    raise _Wrong(f"rate_limit must be posts in a time, not {value!r}", "such as 100/s, 600/m or 50/10s")


def _dedupe(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"dedupe": value}
    settings = value if isinstance(value, dict) else {"id": value}
    fields: dict[str, Any] = {}
    for key, item in settings.items():
        if key == "id" and isinstance(item, str) and source_of(item) is not None:
            fields["dedupe_id"] = item
        elif key == "window" and REPEAT_MS / 1000 <= (seconds := _seconds(item)) <= _WINDOW_MAX_S:
            fields["dedupe_window_s"] = seconds
        else:
            hint = "a header, a pointer such as /event/id, or {id: ..., window: 48h} (1m to 30d)"
            raise _Wrong(f"dedupe cannot have {key} {item!r}", hint)
    return fields


def _seconds(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _UNIT_S[match[2]] if match else math.nan


def _rules(value: Any, app: App, node: Node) -> Iterator[Rule]:
    rules = value if isinstance(value, list) else [value]
    if len(rules) > _RULES_MAX:
        raise _Wrong(f"filter has more than {_RULES_MAX} rules")
    for rule in rules:
        if not isinstance(rule, dict) or not isinstance(rule.get("where"), dict) or not rule["where"]:
            raise _Wrong("each rule of filter needs a map `where:`", "such as where: {/action: [opened, closed]}")
        if rule.keys() == {"where", "to"}:
            topic: str | None = _topic(rule["to"], app, node)
        elif rule.keys() == {"where", "drop"} and rule["drop"] is True:
            topic = None
        else:
            raise _Wrong("a rule of filter has `where:`, and either `to: TABLE` or `drop: true`")
        where = {}
        for place, wanted in rule["where"].items():
            header = place.removeprefix("header:")
            good = is_pointer(place) or (header != place and (source := source_of(header)) and source.header)
            values = tuple(wanted) if isinstance(wanted, list) else (wanted,)
            if not good or not values or not all(isinstance(each, str | int | float | None) for each in values):
                hint = "a place is /a/pointer or header:Name, a value a text, number, true, false or null"
                raise _Wrong(f'filter cannot ask for "{place}"', hint)
            where[place] = values
        yield Rule(where=where, topic=topic)


def _topic(name: Any, app: App, node: Node) -> str:
    key = app.store_for(node, name, "w") if isinstance(name, str) else None
    store = app.store(key) if key is not None else None
    if store is None or store.storage is not None:
        raise _Wrong(f'filter leads to "{name}", which is no table here', "declare it under stores")
    if store.partitions != 1:
        raise _Wrong(f'filter leads to "{name}", which has several partitions; that works for the webhook\'s own alone')
    return topic_name(app.slug, store)


def _answer(value: Any) -> SuccessAnswer:
    settings: Mapping[str, Any] = value if isinstance(value, dict) else {"text": value}
    status = settings.get("status", 200)
    if not settings.keys() <= {"status", "text", "json"} or type(status) is not int or not 200 <= status <= 299:
        raise _Wrong("answer may have `status:` (200 to 299), and `text:` or `json:`")
    if "json" in settings:
        if "text" in settings:
            raise _Wrong("answer has both text and json", "remove one")
        try:
            body = orjson.dumps(settings["json"]).decode()
        except (TypeError, ValueError):
            raise _Wrong("answer: json cannot be written as JSON") from None
        return SuccessAnswer(status=status, body=body, content_type="application/json")
    text = settings.get("text", "")
    if not isinstance(text, str) or (status == 204 and text):
        raise _Wrong("answer must be a text, or a map with status, text or json; 204 has none")
    return SuccessAnswer(status=status, body=text)


def _texts(value: Any, key: str, what: str) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or len(texts) > 1000 or not all(isinstance(text, str) and text for text in texts):
        raise _Wrong(f"{key} must be a list of {what}")
    return texts
