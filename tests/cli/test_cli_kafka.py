"""`tailrace kafka`: a broker that is ready when it says so, and gone when it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import orjson
import pytest

from up_process import COMMAND, PATIENCE_S, environment


@pytest.mark.kafka
def test_it_runs_until_it_is_stopped(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "kafka", "--port", "0", "--json"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        ready = orjson.loads(process.stdout.readline())
        host, port = ready["url"].removeprefix("kafka://").split(":")
        socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=PATIENCE_S).close()
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
