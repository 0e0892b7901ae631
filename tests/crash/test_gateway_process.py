"""The gateway as processes: it starts, says how it is, follows its webhooks, and stops without losing anything."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_process import GatewayProcess, wait_until

from tailrace.gateway import WebhookRoute, write_routes
from tailrace.log import Log, Partition, TopicSpec, open_log

POSTS = Partition("shop.posts")
ROUTES = {"posts": WebhookRoute(webhook="posts", topic=POSTS.topic)}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture
def log(url: str) -> Iterator[Log]:
    log = open_log(url)
    log.create_topics([TopicSpec(POSTS.topic)])
    yield log
    log.close()


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def records(log: Log) -> int:
    return len(log.read(POSTS, log.starts([POSTS])[POSTS]).records)


def test_it_serves_and_tells_how_it_is(tmp_path: Path, url: str, log: Log) -> None:
    """Probes on both addresses, metrics on the operator's alone; samples name topics, never the ids of URLs."""
    ops_port = free_port()
    with GatewayProcess(tmp_path / "gateway", url, ROUTES, "--ops-port", str(ops_port)) as gateway:
        port = gateway.wait_until_listening()
        assert ask(port, "POST", "/webhooks/posts", b'{"a": 1}') == (200, b"")
        assert ask(port, "POST", "/webhooks/posts", b"[1, 2, 3]") == (200, b"")
        assert ask(port, "POST", "/webhooks/posts", b"{")[0] == 400
        assert ask(port, "POST", "/webhooks/other", b"{}")[0] == 404
        for each in (port, ops_port):
            assert ask(each, "GET", "/healthz") == (200, b"ok\n")
            assert ask(each, "GET", "/readyz") == (200, b"ok\n")
        assert ask(port, "GET", "/metrics")[0] == 404
        metrics = ask(ops_port, "GET", "/metrics")[1].decode()
        assert 'tailrace_webhook_accepted_total{webhook="shop.posts"} 2.0' in metrics
        assert 'tailrace_webhook_rows_total{webhook="shop.posts"} 4.0' in metrics
        assert 'tailrace_webhook_refused_total{reason="body",webhook="shop.posts"} 1.0' in metrics
        assert 'tailrace_webhook_refused_total{reason="unknown",webhook="unknown"} 1.0' in metrics
        assert "tailrace_gateway_commit_seconds_count 2.0" in metrics
        assert '"posts"' not in metrics
        assert gateway.stop() == 0
    assert '"webhook":"shop.posts","status":200' in gateway.stderr()


def test_it_follows_its_webhooks(tmp_path: Path, url: str, log: Log) -> None:
    """A deployment writes the file anew; a file that cannot be read leaves them as they were."""
    with GatewayProcess(tmp_path / "gateway", url, ROUTES) as gateway:
        port = gateway.wait_until_listening()
        write_routes(gateway.routes, {**ROUTES, "more": WebhookRoute(webhook="more", topic=POSTS.topic)})
        wait_until(lambda: ask(port, "POST", "/webhooks/more", b"{}")[0] == 200, "the new webhook is there")
        gateway.routes.write_text("no JSON")
        wait_until(lambda: "stay what they were" in gateway.stderr(), "it is told")
        assert ask(port, "POST", "/webhooks/more", b"{}")[0] == 200


def test_a_stop_answers_what_it_accepted(tmp_path: Path, url: str, log: Log) -> None:
    """`/readyz` turns first; posts are taken all the while, and each that was taken has its answer and its row."""
    with GatewayProcess(tmp_path / "gateway", url, ROUTES, "--drain", "0.5") as gateway:
        port = gateway.wait_until_listening()
        statuses: list[int] = []
        refused = threading.Event()

        def post() -> None:
            while not refused.is_set():
                try:
                    statuses.append(ask(port, "POST", "/webhooks/posts", b"{}")[0])
                except ConnectionRefusedError:
                    refused.set()
                except (ConnectionError, http.client.HTTPException):
                    continue  # it was not taken, and so it was not answered

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(statuses) > 20, "posts go through")
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: ask(port, "GET", "/readyz")[0] == 503, "it says that it stops")
        before = len(statuses)
        assert gateway.process.wait(20) == 0
        for thread in threads:
            thread.join(20)
    assert set(statuses) == {200}
    assert len(statuses) > before
    assert records(log) >= len(statuses)


def test_workers_share_a_port_and_are_started_again(tmp_path: Path, url: str, log: Log) -> None:
    """One that is killed is replaced, and the other one goes on meanwhile."""
    with GatewayProcess(tmp_path / "gateway", url, ROUTES, "--workers", "2") as gateway:
        port = gateway.wait_until_listening(2)
        workers = children(gateway.process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        gateway.wait_until_listening(3)
        assert set(children(gateway.process.pid)) != set(workers)
        for _ in range(20):
            assert ask(port, "POST", "/webhooks/posts", b"{}")[0] == 200
        assert gateway.stop() == 0
    assert records(log) == 20


def test_a_taken_port_is_told(tmp_path: Path, url: str, log: Log) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with GatewayProcess(tmp_path / "gateway", url, ROUTES, port=sock.getsockname()[1]) as gateway:
            assert gateway.process.wait(20) == 1
            assert "cannot be listened on" in gateway.stderr()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
