"""Snapshotters that are killed while the object store fails, too: every row is in the lake once."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest
from lake_siege import LakeSiege
from s3_faults import S3Faults
from s3_server import BUCKET, S3Server

SEED = int(os.environ.get("TAILRACE_SEED", "1"))

pytestmark = pytest.mark.timeout(900)  # the server may have to be built first


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.chaos)])
def test_kills_at_random_while_an_object_store_fails(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    """It answers with errors, hangs up, or hangs, before or after it has done what was asked."""
    faults = S3Faults(s3.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{faults.port}")
    monkeypatch.setenv("AWS_TIMEOUT", "1s")
    lake = f"s3://{BUCKET}/{secrets.token_hex(4)}"
    siege = LakeSiege(tmp_path, f"sqlite:///{tmp_path / 'siege.db'}", SEED, lake)
    try:
        faults.plan_at_random(0.2, SEED)
        siege.kill_under_load(kills, pause_s=(1.5, 3.0))
        assert siege.check() > 30
        assert faults.struck >= kills // 2
    finally:
        siege.close()
        faults.close()
