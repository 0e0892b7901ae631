"""`webhooks` and `webhook ...`: what posts came and were refused; posting as a provider would; posting again."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import quote

import typer

from tailrace.cli.errors import EXIT_FAILED, UsageError
from tailrace.cli.options import App, Data, Json
from tailrace.cli.output import moment, print_json, print_json_line, print_table, say, short
from tailrace.process import secret_variable

if TYPE_CHECKING:
    from tailrace.cli.client import Client

__all__ = ["webhook", "webhooks"]

_BODY_CHARACTERS_MAX = 120
"""Longest body in a printed line; --json prints all of it."""
_POST_TIMEOUT_S = 60.0

Name = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Its title, table or id.")]

webhook = typer.Typer(
    no_args_is_help=True,
    help="""One webhook: what came, what was refused, posting to it.

    \b
    tailrace webhook tail orders -f
    tailrace webhook refused orders
    tailrace webhook send orders '{"id": 1}'
    tailrace webhook replay orders -n 5
    """,
)


class _Webhook(NamedTuple):
    app: str
    webhook: str
    table: str
    url: str
    about: dict[str, Any]
    """As the gateway tells it."""

    @property
    def id(self) -> str:
        return str(self.about["id"])


def _all(client: Client, app: str | None) -> list[_Webhook]:
    about = {each["id"]: each for each in client.get("webhooks")}
    found = []
    for each in client.get("status")["apps"]:
        for hook in each["webhooks"] if app in (None, each["app"]) else ():
            own = about.get(hook["url"].rpartition("/")[2])
            if own is not None:  # else it is of a deployment that has just come
                found.append(_Webhook(each["app"], hook["webhook"], hook["table"], hook["url"], own))
    return found


def _find(client: Client, name: str, app: str | None) -> _Webhook:
    hooks = _all(client, app)
    found = [hook for hook in hooks if name in (hook.webhook, hook.table, hook.id)]
    if not found:
        titles = ", ".join(hook.webhook for hook in hooks) or "none"
        raise UsageError(f"there is no webhook {name!r}", f"there are: {titles}")
    if len(found) > 1:
        raise UsageError(f"several apps have a webhook {name!r}", "name the app with --app, or give the webhook's id")
    return found[0]


def webhooks(app: App = None, data: Data = None, as_json: Json = False) -> None:
    """Each webhook: the URL that takes its posts, how many came, and what was refused last.

    \b
    tailrace webhooks
    curl --json '{"hello": 1}' "$(tailrace webhooks --json | jq -r '.[0].url')"
    """
    from tailrace.cli.client import Client

    hooks = _all(Client(data), app)
    if as_json:
        keys = ("app", "webhook", "table", "url")
        print_json([{**dict(zip(keys, hook[:4], strict=True)), **hook.about} for hook in hooks])
        return
    if not hooks:
        say("no webhooks; a graph has one for each `- webhook: TABLE` under `functions:`")
        return
    rows = []
    for hook in hooks:
        about = hook.about
        refusal = about["last_refusal"]
        rows.append(
            (
                hook.app,
                hook.webhook,
                hook.table,
                hook.url,
                about["provider"],
                f"{about['accepted']:,}",
                f"{about['accepted_last_minute']:,}",
                moment(about["last_accepted_ms"]) if about["last_accepted_ms"] else None,
                f"{moment(refusal['at_ms'])} {refusal['status']} {short(refusal['reason'], 60)}" if refusal else None,
            )
        )
    heads = ("app", "webhook", "table", "url", "provider", "accepted", "last minute", "last", "last refusal")
    print_table(heads, rows, right=("accepted", "last minute"))
    for hook in hooks:
        if hook.about["shut"]:
            say(f"{hook.webhook} takes nothing: {hook.about['shut']}", style="yellow")


@webhook.command("tail")
def tail(
    name: Name,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="How many, the newest.")] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as posts come.")] = False,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The newest posts, oldest first; with -f also those that come. Ctrl-C stops it.

    \b
    tailrace webhook tail orders -f
    tailrace webhook tail orders -n 100 --json | jq -r .body
    """
    from tailrace.cli.client import Client

    client = Client(data)
    hook = _find(client, name, app)
    for post in client.lines(f"webhooks/{quote(hook.id, safe='')}/posts", last=last, follow="1" if follow else None):
        if as_json:
            print_json_line(post)
        else:
            body = short(" ".join(post["body"].split()), _BODY_CHARACTERS_MAX)
            print(f"{moment(post['at_ms'])}  {post['id'] or '-'}  {body}", flush=True)


@webhook.command("refused")
def refused(
    name: Annotated[str | None, typer.Argument(metavar="WEBHOOK", help="Its title, table or id; else all.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many, the newest.")] = 20,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The last requests that were not taken, oldest first, with the reason their senders were told.

    \b
    tailrace webhook refused orders
    tailrace webhook refused --json | jq '.[-1]'
    """
    from tailrace.cli.client import Client

    client = Client(data)
    found = client.get("refusals", webhook=None if name is None else _find(client, name, app).id, last=last)
    if as_json:
        print_json(found)
        return
    if not found:
        say("nothing was refused since `up` began")
        return
    titles = {hook.id: hook.webhook for hook in _all(client, None)}
    rows = [
        (
            moment(each["at_ms"]),
            titles.get(each["webhook"]),
            each["address"],
            str(each["status"]),
            each["code"],
            f"{each['body_bytes']:,}",
            each["reason"],
        )
        for each in found
    ]
    print_table(("when", "webhook", "from", "status", "why", "bytes", "reason"), rows, right=("bytes",))


@webhook.command("send")
def send(
    name: Name,
    body: Annotated[str, typer.Argument(metavar="BODY", help="The body, @FILE, or - for standard input.")],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME:VALUE", help="A header; may stand several times."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="Private key in PEM, for providers that sign with one.")
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="As a stranger would send it.")] = False,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Post to a webhook, signed as its provider would sign, with the secret from TAILRACE_SECRET_NAME.

    \b
    tailrace webhook send orders '{"id": 1}'
    tailrace webhook send hub @push.json -H X-GitHub-Event:push
    """
    from tailrace.cli.client import Client

    hook = _find(Client(data), name, app)
    headers = {"Content-Type": "application/json"}
    for text in header or []:
        label, colon, value = text.partition(":")
        if not colon or not label.strip():
            raise UsageError(f"--header {text!r} is no header", "such as X-GitHub-Event:push")
        headers = {each: had for each, had in headers.items() if each.lower() != label.strip().lower()}
        headers[label.strip()] = value.strip()
    status, answer = _post(hook, hook.url, _body(body), headers, key=key, unsigned=unsigned)
    _tell([{"status": status, "answer": answer}], as_json=as_json)


@webhook.command("replay")
def replay(
    name: Name,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many, the newest.")] = 1,
    offset: Annotated[
        int | None, typer.Option("--offset", min=0, help="Only the post at this place, as `tail --json` shows it.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="WEBHOOK|URL", help="Post them there instead: a webhook, or any URL.")
    ] = None,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Post again what was posted before: to the webhook itself, to another one, or to another machine.

    Each has a key of its own, so that it counts as a new post where repeats are dropped.

    \b
    tailrace webhook replay orders -n 5
    tailrace webhook replay orders --to http://127.0.0.1:8800/webhooks/wh1
    """
    from tailrace.cli.client import Client

    client = Client(data)
    hook = _find(client, name, app)
    elsewhere = to is not None and to.startswith(("http://", "https://"))
    target = None if elsewhere else hook if to is None else _find(client, to, None)
    url = to if target is None else target.url
    assert url is not None, "it is a URL where it is no webhook"
    count = 10_000 if offset is not None else last
    posts = list(client.lines(f"webhooks/{quote(hook.id, safe='')}/posts", last=count))
    if offset is not None:
        posts = [post for post in posts if post["offset"] == offset]
    if not posts:
        raise UsageError("there is no such post", "`tailrace webhook tail` shows what there is")
    done = []
    for post in posts:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f"tailrace-replay:{hook.id}:{post['offset']}:{secrets.token_hex(6)}",
        }
        status, answer = _post(target, url, post["body"].encode(), headers)
        done.append({"offset": post["offset"], "status": status, "answer": answer})
    _tell(done, as_json=as_json)


def _tell(done: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        for each in done:
            place = f"{each['offset']}  " if "offset" in each else ""
            print(f"{place}{each['status']}  {short(each['answer'], _BODY_CHARACTERS_MAX)}".rstrip(), flush=True)
    if not all(200 <= each["status"] < 300 for each in done):
        raise typer.Exit(EXIT_FAILED)


def _body(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"{text[1:]} cannot be read: {error.strerror}") from None


def _post(
    hook: _Webhook | None,
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    key: Path | None = None,
    unsigned: bool = False,
) -> tuple[int, str]:
    """Status and text of the answer; signed where the webhook has a provider."""
    import requests

    from tailrace.gateway.custom import provider_of
    from tailrace.gateway.deliveries import Delivery
    from tailrace.gateway.sign import sign

    query = ""
    if hook is not None and hook.about["provider"] and not unsigned:
        provider = provider_of(hook.about["provider"], hook.about["provider_settings"])
        known = hook.about["sender_url"] or url
        signed = sign(
            provider,
            _secret(hook, key),
            Delivery(url=known, headers=headers, body=body),
            now_ms=time.time_ns() // 1_000_000,
            delivery_id=secrets.token_hex(16),
        )
        headers = dict(signed.headers)
        query = signed.url[len(known) :]
    try:
        response = requests.post(url + query, data=body, headers=headers, timeout=_POST_TIMEOUT_S)
    except requests.RequestException as error:
        raise UsageError(f"{url} does not answer: {type(error).__name__}") from None
    return response.status_code, response.text


def _secret(hook: _Webhook, key: Path | None) -> str:
    if key is not None:
        return _body(f"@{key}").decode("utf-8", "replace")
    names = [secret_variable(name) for name in hook.about["secrets"]]
    for name in names:
        if os.environ.get(name):
            return os.environ[name]
    hint = f"set {' or '.join(names)}" if names else "give the private key with --key"
    raise UsageError(f"{hook.webhook} takes posts signed by {hook.about['provider']} alone", f"{hint}, or --unsigned")
