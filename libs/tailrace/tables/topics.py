"""Names of topics that several services share."""

from __future__ import annotations

__all__ = ["index_topic"]


def index_topic(graph: str) -> str:
    """Name of an app's topic of indexes (folds of its tables and snapshots, *as of* a position) and of staged folders."""
    return f"{graph}._index"
