"""Quix Streams, exactly once, over the same records.

It runs in a virtual environment of its own, kept below the user's cache folder, because it pins an older client.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks.readers import TopicReader, fill
from tailrace.log import Log

__all__ = ["VERSION", "quix_rate"]

VERSION = "3.28.*"


def _python() -> Path:
    """The Python of Quix's environment, which is made at the first call."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "tailrace" / "bench-quix"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run(
            [uv, "pip", "install", "--quiet", "--python", str(python), f"quixstreams=={VERSION}"], check=True
        )
        (folder / ".ready").touch()
    return python


def quix_rate(
    log: Log, servers: str, source: str, target: str, count: int, interval_s: float
) -> tuple[float, list[bytes]]:
    """Records a second from its first record to its last output's being visible, and the outputs."""
    fill(log, target, [])
    reader = TopicReader(log, target, count_values=True)
    app = Path(__file__).with_name("quix_app.py")
    process = subprocess.Popen(
        [str(_python()), "-W", "ignore", str(app), servers, source, target, str(count), str(interval_s)],
        stdout=subprocess.PIPE,
    )
    stdout = process.stdout
    assert stdout is not None
    began: list[int] = []

    def listen() -> None:
        began.extend(int(line.split()[1]) for line in stdout if line.startswith(b"began"))

    thread = threading.Thread(target=listen, name="quix", daemon=True)
    thread.start()
    try:
        asyncio.run(reader.until(count, 120))
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        thread.join()
        stdout.close()
        reader.close()
    return count / ((reader.seen_ns[-1] - began[0]) / 1e9), reader.values
