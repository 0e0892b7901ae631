"""Options of a webhook in graph.yml: what each becomes, and what is told of those that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tailrace.gateway import WebhookRoute, webhook_problems, webhook_route
from tailrace.gateway.custom import BadProviderError, provider_of
from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.guard import sender_address
from tailrace.gateway.limits import RateLimit
from tailrace.gateway.route import Rule, SuccessAnswer
from tailrace.gateway.routes import RoutesFile, write_routes
from tailrace.gateway.schemes import Jwt, Signature, Source, Token
from tailrace.gateway.verify import verify
from tailrace.graph import App, build_app

GRAPH = """
title: Shop
functions:
  - webhook: orders
    id: wh000001
{options}
stores:
  - {{table: orders, id: st000001, partitions: 4}}
  - {{table: late, id: st000002}}
"""


def app_with(options: str) -> App:
    indented = "\n".join(f"    {line}" for line in dedent(options).strip().splitlines())
    return build_app({"graph.yml": GRAPH.format(options=indented).encode()}, folder_name="shop")


def route_of(options: str) -> WebhookRoute:
    app = app_with(options)
    route, problems = webhook_route(app, app.webhooks[0])
    assert route is not None
    assert problems == () and route.broken is None
    return route


def test_without_options_a_webhook_takes_what_comes() -> None:
    route = route_of("")
    assert route == WebhookRoute(webhook="wh000001", topic="shop.st000001", partitions=4)


def test_each_option_becomes_a_field() -> None:
    route = route_of(
        """
        provider: github
        secret: ["${{ new }}", "${{old}}"]
        verify_token: ${{ agreed }}
        url: https://hooks.example.com/webhooks/wh000001
        allow_ips: [192.0.2.1, 2001:db8::/32]
        rate_limit: 50/10s
        dedupe: {id: /event/id, window: 48h}
        flatten: true
        headers: [X-GitHub-Event, x-github-event]
        partition_key: /repository/id
        filter:
          - where: {/action: [opened, closed], header:X-GitHub-Event: issues}
            to: late
          - where: {/zen: null}
            drop: true
        answer: {status: 202, json: {ok: true}}
        something_else: 5
        """
    )
    assert route == WebhookRoute(
        webhook="wh000001",
        topic="shop.st000001",
        provider="github",
        secret_names=("new", "old"),
        verify_token_name="agreed",
        url="https://hooks.example.com/webhooks/wh000001",
        allow_ips=("192.0.2.1/32", "2001:db8::/32"),
        rate_limit=RateLimit(50, 10.0),
        dedupe_id="/event/id",
        dedupe_window_s=172_800.0,
        flatten=True,
        headers=("x-github-event",),
        partition_key="/repository/id",
        partitions=4,
        rules=(
            Rule(where={"/action": ("opened", "closed"), "header:X-GitHub-Event": ("issues",)}, topic="shop.st000002"),
            Rule(where={"/zen": (None,)}),
        ),
        answer=SuccessAnswer(status=202, body='{"ok":true}', content_type="application/json"),
    )


def test_routes_survive_the_file_that_gateways_read(tmp_path: Path) -> None:
    """Gateway processes of their own get all of it, and no secret's value."""
    routes = {
        "a": route_of("provider: {name: hmac, header: X-S, tolerance: 5}\nsecret: ${{ a }}\nanswer: fine"),
        "b": route_of("filter: {where: {/a: [1, true, 1.5, x, null]}, drop: true}\nrate_limit: 3/m"),
    }
    write_routes(tmp_path / "gateway.json", routes)
    assert RoutesFile(tmp_path / "gateway.json").news() == routes
    assert "${{" not in (tmp_path / "gateway.json").read_text()


def test_discord_is_known_by_its_parameter() -> None:
    """As apps of the original have it; the key is public, so it may stand in the file."""
    route = route_of(f"parameter_values: {{APPLICATION_PUBLIC_KEY: {'ab' * 32}}}")
    assert (route.provider, route.public_keys) == ("discord", ("ab" * 32,))
    route = route_of("parameter_values: {APPLICATION_PUBLIC_KEY: '${{ discord_key }}'}")
    assert (route.provider, route.secret_names) == ("discord", ("discord_key",))


def test_public_keys_may_stand_in_the_file() -> None:
    route = route_of("provider: sns\nsecret: arn:aws:sns:eu-west-1:1:orders")
    assert route.public_keys == ("arn:aws:sns:eu-west-1:1:orders",)


@pytest.mark.parametrize(
    ("options", "line", "told"),
    [
        ("provider: githup\nsecret: ${{ a }}", 6, 'no provider "githup"'),
        ("provider: [github]\nsecret: ${{ a }}", 6, "provider must be a name"),
        ("provider: {name: github, algoritm: x}\nsecret: ${{ a }}", 6, 'no setting "algoritm"'),
        ("provider: {name: hmac, algorithm: md5}\nsecret: ${{ a }}", 6, 'algorithm of a provider is "md5"'),
        ("provider: {name: hmac, signed: '{bodi}'}\nsecret: ${{ a }}", 6, 'no part "{bodi}"'),
        ("provider: {name: hmac, signed: '{timestamp}{body}'}\nsecret: ${{ a }}", 6, "no header is named"),
        ("provider: {name: jwt, algorithms: 'HS256,RS256'}\nsecret: ${{ a }}", 6, "algorithms"),
        ("provider: {name: hmac, tolerance: 0}\nsecret: ${{ a }}", 6, "tolerance"),
        ("provider: github", 6, "needs a secret"),
        ("secret: ${{ a }}", 6, "no provider says"),
        ("provider: github\nsecret: hunter2", 7, "secret must be the name of a secret"),
        ("provider: github\nsecret: []", 7, "secret is empty"),
        ("verify_token: plain", 6, "verify_token must be a secret"),
        ("url: hooks.example.com", 6, "url must be"),
        ("allow_ips: [localhost]", 6, '"localhost" is no address'),
        ("rate_limit: many", 6, "rate_limit must be"),
        ("rate_limit: 0/s", 6, "rate_limit must be"),
        ("dedupe: {id: /a, window: 90d}", 6, "dedupe cannot have window"),
        ("dedupe: 'no header'", 6, "dedupe cannot have id"),
        ("flatten: maybe", 6, "flatten must be"),
        ("headers: [a b]", 6, "no name of a header"),
        ("partition_key: id", 6, "partition_key must be"),
        ("filter: {where: {/a: 1}, to: nowhere}", 6, 'leads to "nowhere"'),
        ("filter: {where: {/a: 1}, to: orders}", 6, "several partitions"),
        ("filter: {where: {/a: 1}}", 6, "either `to: TABLE` or"),
        ("filter: {where: {a: 1}, drop: true}", 6, 'cannot ask for "a"'),
        ("filter: {drop: true}", 6, "needs a map `where:`"),
        ("answer: {status: 500}", 6, "answer may have"),
        ("answer: {text: a, json: {}}", 6, "both text and json"),
        ("respond: true\nflatten: true", 7, "flatten and respond"),
    ],
)
def test_what_cannot_be_is_told_with_its_line_and_shuts_the_webhook(options: str, line: int, told: str) -> None:
    """A webhook whose options are wrong takes nothing, rather than everything."""
    app = app_with(options)
    (problem,) = webhook_problems(app)
    assert told in problem.message
    assert (problem.file, problem.line, problem.node_id) == ("graph.yml", line, "wh000001")
    assert "hunter2" not in problem.message
    route, _ = webhook_route(app, app.webhooks[0])
    assert route is not None and route.broken == problem.message


def test_a_generic_row_takes_settings() -> None:
    settings = {
        "header": "X-Acme",
        "prefix": "v=",
        "separator": ",",
        "timestamp": "X-Acme",
        "timestamp_prefix": "at=",
        "signed": "{timestamp}|{header:X-Event}|{body}",
        "algorithm": "hmac-sha512",
        "encoding": "base64",
        "unit": "ms",
        "tolerance": 30,
        "delivery_id": "/id",
    }
    row = provider_of("hmac", settings)
    assert row.delivery_id == Source(pointer="/id")
    assert row.scheme == Signature(
        signature=Source(header="X-Acme", prefix="v=", separator=","),
        timestamp=Source(header="X-Acme", prefix="at=", separator=","),
        signed="{timestamp}|{header:X-Event}|{body}",
        algorithm="hmac-sha512",
        encoding="base64",
        unit="ms",
        tolerance_s=30,
    )
    assert isinstance(verify(row.scheme, ["s"], Delivery(), 0), tuple)
    assert provider_of("token", {"header": "X-T"}).scheme == Token(token=Source(header="X-T"))
    jwt = provider_of("jwt", {"algorithms": "RS256, ES256", "body_claim": "h"}).scheme
    assert isinstance(jwt, Jwt) and jwt.algorithms == ("RS256", "ES256")
    with pytest.raises(BadProviderError):
        provider_of("basic", {"header": "X"})


@pytest.mark.parametrize(
    ("peer", "forwarded", "sender"),
    [
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        ("198.51.100.9", "10.0.0.5", "198.51.100.9"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", " , ", "10.0.0.1"),
    ],
)
def test_only_trusted_proxies_say_who_sent(peer: str, forwarded: str | None, sender: str) -> None:
    assert sender_address(peer, forwarded, ("10.0.0.0/8",)) == sender


def test_check_tells_of_options(tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    """`tailrace check` names file and line, as for anything else in graph.yml."""
    from tailrace.cli.check import check_apps

    (tmp_path / "graph.yml").write_text(GRAPH.format(options="    provider: githup"))
    assert check_apps([tmp_path], as_json=True) == 1
    (app,) = json.loads(capsys.readouterr().out)
    assert [(each["file"], each["line"]) for each in app["problems"]] == [("graph.yml", 6)]
