"""Gateway and snapshotter as processes that stand alone: all they are told is where the log and the lake are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import requests
from gateway_process import GatewayProcess, wait_until

from tailrace.control import ControlLog
from tailrace.graph import build_app
from tailrace.log import open_log
from tailrace.snapshotter import GROUP, behind, table_lanes

GRAPH = """\
title: Shop
functions:
  - {{webhook: {name}, id: {webhook}}}
stores:
  - {{table: {name}, id: storeord, freshness: 1s}}
"""


def test_they_follow_what_is_deployed(tmp_path: Path) -> None:
    """A deployment, a change, a rollback and an end, without a restart; and what was posted is in the lake."""
    url = f"sqlite:///{tmp_path / 'log.db'}"

    environment = {**os.environ, "TAILRACE_LOG": url, "TAILRACE_LAKE": str(tmp_path / "lake")}
    with (
        contextlib.closing(open_log(url)) as log,
        GatewayProcess(tmp_path / "gateway", url, None) as gateway,
        (tmp_path / "snapshotter.out").open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "tailrace.snapshotter", "--data", str(tmp_path / "data")],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        ) as snapshotter,
    ):
        control = ControlLog(log)

        def deploy(webhook: str) -> None:
            graph = GRAPH.format(name="orders", webhook=webhook).encode()
            control.deploy(build_app({"graph.yml": graph}, "graph.yml", "shop"), "somebody")

        try:
            port = gateway.wait_until_listening()

            def answers(webhook: str) -> int:
                return requests.post(
                    f"http://127.0.0.1:{port}/webhooks/{webhook}", json={"n": 1}, timeout=30
                ).status_code

            assert answers("webhook1") == 404
            deploy("webhook1")
            wait_until(lambda: answers("webhook1") == 200, "the webhook is there")
            deploy("webhook2")
            wait_until(lambda: answers("webhook2") == 200, "the newer one is there")
            assert answers("webhook1") == 404
            control.roll_back("shop", None, "somebody")
            wait_until(lambda: answers("webhook1") == 200, "the older one is there again")
            control.undeploy("shop", "somebody")
            wait_until(lambda: answers("webhook1") == 404, "nothing is there")
            control.roll_back("shop", None, "somebody")
            partitions = [lane.partition for lane in table_lanes(log, ["shop"]).values()]
            wait_until(
                lambda: not behind(log, partitions) and bool(list((tmp_path / "lake").rglob("*.parquet"))),
                f"all is in the lake, says {GROUP}",
            )
        finally:
            snapshotter.terminate()
        assert snapshotter.wait(30) == 0
