"""The snapshotter: folds the topics of Tables into Delta tables, keeps those in shape, and lets go of what is old."""

from __future__ import annotations

__all__: list[str] = []
