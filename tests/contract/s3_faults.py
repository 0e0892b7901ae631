"""A proxy before an S3 server that fails at chosen requests: an error, a dropped connection, or one that hangs, before the
server has heard of the request or after it has done what was asked."""

from __future__ import annotations

import http.client
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["FAULTS", "S3Faults"]

FAULTS = (
    "500 before",
    "500 after",
    "503 before",
    "503 after",
    "drop before",
    "drop after",
    "hang before",
    "hang after",
)
_HANG_S = 3.0
"""Longer than the clients wait for an answer, as the tests tell them."""


class S3Faults:
    """Fails `fault` at the writing requests (PUT, POST, DELETE) whose number, from 0, is in `at`."""

    def __init__(self, port: int) -> None:
        self.fault, self.at = "", frozenset[int]()
        self.seen = 0
        """Writing requests so far."""
        self.struck = 0
        self._chance, self._share = random.Random(), 0.0
        self._lock = threading.Lock()
        self.over = threading.Event()
        faults, handler = self, _Handler
        self._server = _Server(("127.0.0.1", 0), type("Handler", (handler,), {"faults": faults, "to": port}))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def plan(self, fault: str, at: set[int]) -> None:
        """From now on: `fault` at these writing requests, counted anew."""
        with self._lock:
            self.fault, self.at, self.seen = fault, frozenset(at), 0

    def plan_at_random(self, share: float, seed: int) -> None:
        """From now on: any fault at such a share of the writing requests."""
        with self._lock:
            self._chance, self._share = random.Random(seed), share

    def next_fault(self) -> str:
        """What happens to the writing request that has just come."""
        with self._lock:
            planned = self.seen in self.at
            strikes = planned or self._chance.random() < self._share
            self.seen += 1
            self.struck += strikes
            if not strikes:
                return ""
            return self.fault if planned else self._chance.choice(FAULTS)

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits until the client has acknowledged its headers: 40 ms
    faults: S3Faults
    to: int

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.next_fault() if self.command in ("PUT", "POST", "DELETE") else ""
        what, _, when = fault.partition(" ")
        if when == "before":
            self._fail(what)
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.to, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if when == "after":
            self._fail(what)
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _fail(self, what: str) -> None:
        if what == "hang":
            self.faults.over.wait(_HANG_S)
        if what in ("hang", "drop"):
            self.close_connection = True
            return
        self.send_response(int(what))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass
