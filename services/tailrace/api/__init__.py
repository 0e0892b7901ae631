"""The HTTP interface that our own command line speaks to a running `tailrace up`."""

from __future__ import annotations

from tailrace.api.local import LakeView, LocalApi, RunnerView, VersionGoneError

__all__ = ["LakeView", "LocalApi", "RunnerView", "VersionGoneError"]
