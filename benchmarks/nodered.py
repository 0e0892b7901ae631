"""Node-RED's `http in` node as a peer of the gateway: it parses a post's JSON and answers, and stores nothing.

It is installed by npm once, below the user's cache folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NoNodeRedError", "node_red"]

VERSION = "4.1.1"
START_TIMEOUT_S = 60.0

_SETTINGS = """\
module.exports = {
    uiHost: "127.0.0.1", httpAdminRoot: false, disableEditor: true, flowFile: "flows.json",
    logging: { console: { level: "off" } }, telemetry: { enabled: false, updateNotification: false },
    externalModules: { palette: { allowInstall: false } },
};
"""
_FLOWS = [
    {"id": "tab", "type": "tab", "label": "bench"},
    {
        "id": "in",
        "type": "http in",
        "z": "tab",
        "url": "/webhooks/bench",
        "method": "post",
        "upload": False,
        "wires": [["out"]],
    },
    {"id": "out", "type": "http response", "z": "tab", "statusCode": "200", "headers": {}, "wires": []},
]


class NoNodeRedError(Exception):
    """Node-RED cannot run here."""


def _installed() -> Path:
    """The folder with Node-RED in it, which is made at the first call."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise NoNodeRedError("node and npm are not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "tailrace" / f"bench-node-red-{VERSION}"
    if not (folder / ".ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), f"node-red@{VERSION}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise NoNodeRedError(f"npm did not install it: {made.stderr.strip()[-300:]}")
        (folder / ".ready").touch()
    return folder


@contextlib.contextmanager
def node_red() -> Iterator[tuple[int, int]]:
    """Node-RED with one flow, `http in` to `http response`; its port and process id.

    Raises:
        NoNodeRedError: it is not there and cannot be had, or does not start.
    """
    folder = _installed()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        user = Path(name)
        (user / "settings.js").write_text(_SETTINGS)
        (user / "flows.json").write_text(json.dumps(_FLOWS))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        red = folder / "node_modules" / "node-red" / "red.js"
        command = ["node", str(red), "--userDir", name, "--settings", str(user / "settings.js"), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(port, process)
            yield port, process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + START_TIMEOUT_S
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/webhooks/bench", b"{}", {"Content-Type": "application/json"}
    )
    while process.poll() is None and time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(request, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise NoNodeRedError("it does not answer")
