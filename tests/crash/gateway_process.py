"""A gateway as a process of its own, for tests that stop and kill it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tailrace.gateway import WebhookRoute, write_routes

__all__ = ["GatewayProcess", "wait_until"]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Until the condition holds; an AssertionError names `what` when it does not within `timeout_s`."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.01)


class GatewayProcess:
    """`python -m tailrace.gateway`, or another program that takes its arguments; killed at the end of the `with`."""

    def __init__(
        self,
        folder: Path,
        log_url: str,
        routes: Mapping[str, WebhookRoute] | None,
        *options: str,
        port: int = 0,
        program: tuple[str, ...] = ("-m", "tailrace.gateway"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.routes = folder / "gateway.json"
        if routes is not None:  # else it follows what is deployed
            write_routes(self.routes, routes)
            options = ("--routes", str(self.routes), *options)
        self._stderr = (folder / "stderr").open("ab")
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, *program, "--log", log_url, "--port", str(port), *options],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **(environment or {})},
        )
        self.port = port
        self.said: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def wait_until_listening(self, times: int = 1, timeout_s: float = 120) -> int:
        """The port, when it has been said so often."""
        wait_until(lambda: len(self.said) >= times or self.process.poll() is not None, "the gateway listens", timeout_s)
        assert len(self.said) >= times, f"it ended with {self.process.returncode}: {self.stderr()}"
        return self.port

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()
        self._listener.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.close()

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.match(rb"listening on [^ ]+:(\d+)", line):
                self.port = int(found[1])
                self.said.append(line.decode().strip())
