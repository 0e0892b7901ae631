"""`gateway-embedded` and `gateway-kafka`: posts over HTTP until they are durable and answered.

The gateway is a process of its own, as `python -m tailrace.gateway` starts it; the load is another. Rounds of gateway and
baseline take turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import hmac
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.houses import cpu_s
from benchmarks.nodered import NoNodeRedError, node_red
from benchmarks.result import Result, percentile
from tailrace.gateway import WebhookRoute, write_routes
from tailrace.log import Partition, TopicSpec, open_log

__all__ = ["embedded", "kafka"]

ROUNDS = 5
SECONDS = 3.0
RATIO_WANTED = 0.60
SIGNED_RATIO_WANTED = 0.45
P99_MS_WANTED = 30.0
CALM_P99_MS_WANTED = 15.0
SECRET = "a secret of the benchmarks"

PAYLOADS = Path(__file__).parent.parent / "examples" / "github" / "payloads.json.gz"

_BARE = """
import asyncio, sys, uvloop
from aiohttp import web
async def post(request):
    await request.read()
    return web.Response()
async def main():
    app = web.Application()
    app.router.add_post("/webhooks/{webhook}", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("listening on 127.0.0.1:%d" % runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one round of load found."""

    posts_per_s: float
    latencies_ms: list[float]
    server_cpu_us: float
    """CPU time of the server for a post."""

    @property
    def p99_ms(self) -> float:
        return percentile(self.latencies_ms, 0.99)


@contextlib.contextmanager
def server(arguments: list[str], environment: Mapping[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """A process that says where it listens; its port and process id."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        if not line.startswith("listening on"):
            raise RuntimeError(f"it did not start (status {process.wait()})")
        yield int(line.rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def load(
    target: tuple[int, int], requests: Path, *, connections: int, seconds: float = SECONDS, pause_s: float = 0.0
) -> Loaded:
    """Post for some seconds. Every answer must be 200."""
    port, pid = target
    warm_up_s = 0.5
    plan = {
        "port": port,
        "requests": str(requests),
        "connections": connections,
        "seconds": seconds,
        "warm_up_s": warm_up_s,
        "pause_s": pause_s,
    }
    before_s = cpu_s(pid)
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.gateway_load", orjson.dumps(plan).decode()],
        stdout=subprocess.PIPE,
        check=True,
    )
    found = orjson.loads(out.stdout)
    if set(found["statuses"]) != {"200"} or found["lost"]:
        raise RuntimeError(f"not every post was accepted: {found['statuses']}, {found['lost']} connections lost")
    posts = found["posts_per_s"] * (seconds + warm_up_s)
    return Loaded(found["posts_per_s"], found["latencies_ms"], (cpu_s(pid) - before_s) * 1e6 / posts)


def request(body: bytes, webhook: str = "bench", headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request."""
    lines = [f"POST /webhooks/{webhook} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def post_of(number: int) -> bytes:
    """A post of 280 bytes."""
    body = orjson.dumps({"id": f"order-{number:08d}", "price": 12.5, "quantity": number % 7, "note": ""})
    return body[:-2] + b"x" * (280 - len(body)) + b'"}'


def write_requests(path: Path, bodies: list[bytes]) -> Path:
    path.write_bytes(orjson.dumps([request(body).hex() for body in bodies]))
    return path


def write_signed_requests(path: Path, bodies: list[bytes]) -> Path:
    """As GitHub sends them, a delivery id apart: the same requests are sent again and again, and all are to count."""
    signed = []
    for body in bodies:
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        signed.append(request(body, "signed", {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}))
    path.write_bytes(orjson.dumps([each.hex() for each in signed]))
    return path


def embedded(*, quick: bool) -> Result:
    """On SQLite."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        return _measure("gateway-embedded", f"sqlite:///{name}/tailrace.db", Path(name), quick=quick)


def kafka(*, quick: bool) -> Result:
    """On a real broker."""
    from tailrace.testing.kafka import LocalKafka

    with tempfile.TemporaryDirectory(prefix="bench-") as name, LocalKafka(short_lived=False) as broker:
        return _measure("gateway-kafka", broker.url, Path(name), quick=quick)


def _measure(name: str, url: str, folder: Path, *, quick: bool) -> Result:
    topic = Partition("bench.posts")
    log = open_log(url)
    log.create_topics([TopicSpec(topic.topic), TopicSpec("bench.signed")])
    routes = folder / "gateway.json"
    write_routes(
        routes,
        {
            "bench": WebhookRoute(webhook="bench", topic=topic.topic),
            "signed": WebhookRoute(
                webhook="signed", topic="bench.signed", provider="github", secret_names=("gateway_bench",)
            ),
        },
    )
    secret = {"TAILRACE_SECRET_GATEWAY_BENCH": SECRET}
    posts = [post_of(number) for number in range(1_000)]
    small, signed = write_requests(folder / "small", posts), write_signed_requests(folder / "signed", posts)
    payloads = [orjson.dumps(each["payload"]) for each in orjson.loads(gzip.decompress(PAYLOADS.read_bytes()))]
    large = write_requests(folder / "large", sorted(payloads, key=lambda each: abs(len(each) - 10_000))[:50])
    arrays = write_requests(folder / "arrays", [_array(number) for number in range(20)])
    rounds = 2 if quick else ROUNDS
    gateway = ["-m", "tailrace.gateway", "--log", url, "--routes", str(routes), "--port", "0"]
    try:
        with server(["-c", _BARE]) as bare, server(gateway, secret) as ours:
            rows = [
                [
                    load(bare, small, connections=64),
                    load(ours, small, connections=64),
                    load(ours, signed, connections=64),
                ]
                for _ in range(rounds)
            ]
            calm = load(ours, small, connections=1, seconds=3 if quick else 20, pause_s=0.1)
            shapes = {
                f"connections_{connections}": load(ours, small, connections=connections) for connections in (1, 8, 256)
            }
            big, big_bare = load(ours, large, connections=64), load(bare, large, connections=64)
            hundred, hundred_bare = load(ours, arrays, connections=64), load(bare, arrays, connections=64)
        with server([*gateway, "--workers", "2"], secret) as two:
            workers = load(two, small, connections=64)
        peer = _peer(small)
    finally:
        log.close()
    ratio = statistics.median(mine.posts_per_s / theirs.posts_per_s for theirs, mine, _ in rows)
    signed_ratio = statistics.median(checked.posts_per_s / theirs.posts_per_s for theirs, _, checked in rows)
    baseline = statistics.median(theirs.posts_per_s for theirs, _, _ in rows)
    p99_ms = statistics.median(mine.p99_ms for _, mine, _ in rows)
    return Result(
        name=name,
        value=ratio * baseline,
        unit="posts/s",
        baseline=baseline,
        what="posts of 280 bytes over 64 connections, durable and answered",
        against="a bare aiohttp handler that reads the body and answers",
        wanted=(
            f"{RATIO_WANTED:.2f} of it, {SIGNED_RATIO_WANTED:.2f} with signatures; p99 {P99_MS_WANTED:g} ms, "
            f"calm {CALM_P99_MS_WANTED:g} ms"
        ),
        met=(
            ratio >= RATIO_WANTED
            and signed_ratio >= SIGNED_RATIO_WANTED
            and p99_ms <= P99_MS_WANTED
            and calm.p99_ms <= CALM_P99_MS_WANTED
        ),
        extra={
            "signed_ratio": round(signed_ratio, 2),
            "p50_ms": round(statistics.median(percentile(mine.latencies_ms, 0.5) for _, mine, _ in rows), 1),
            "p99_ms": round(p99_ms, 1),
            "bare_p99_ms": round(statistics.median(theirs.p99_ms for theirs, _, _ in rows), 1),
            "cpu_us": round(statistics.median(mine.server_cpu_us for _, mine, _ in rows), 1),
            "signed_cpu_us": round(statistics.median(checked.server_cpu_us for _, _, checked in rows), 1),
            "bare_cpu_us": round(statistics.median(theirs.server_cpu_us for theirs, _, _ in rows), 1),
            "calm_p50_ms": round(percentile(calm.latencies_ms, 0.5), 1),
            "calm_p99_ms": round(calm.p99_ms, 1),
            **{name: round(shape.posts_per_s) for name, shape in shapes.items()},
            "connections_256_p99_ms": round(shapes["connections_256"].p99_ms, 1),
            "bodies_of_10_kb": round(big.posts_per_s),
            "bodies_of_10_kb_ratio": round(big.posts_per_s / big_bare.posts_per_s, 2),
            "arrays_of_100_records_per_s": round(hundred.posts_per_s * 100),
            "arrays_of_100_ratio": round(hundred.posts_per_s / hundred_bare.posts_per_s, 2),
            "workers_2": round(workers.posts_per_s),
            "node_red": peer,
        },
    )


def _peer(requests: Path) -> str:
    """Node-RED, which parses the posts and answers; or why it was not measured."""
    try:
        with node_red() as red:
            found = load(red, requests, connections=64)
    except NoNodeRedError as error:
        return f"not measured: {error}"
    return f"{found.posts_per_s:.0f} posts/s, p99 {found.p99_ms:.1f} ms"


def _array(number: int) -> bytes:
    return b"[" + b",".join(post_of(number * 100 + each) for each in range(100)) + b"]"
