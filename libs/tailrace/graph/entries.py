"""The entries of one graph file as values: typed, not yet resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tailrace.graph.model import OnError, Storage

__all__ = ["DashboardEntry", "DocEntry", "Entry", "EntryKind", "Exposes", "FunctionEntry", "GraphFile", "StoreEntry"]

EntryKind = Literal["python", "sql", "chart", "subgraph", "webhook", "component"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What entries of all kinds have."""

    id: str | None
    """None where none is written, or one that cannot be used."""
    name: str
    """What a fallback id is made of."""
    line: int
    display: Mapping[str, object] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionEntry(Entry):
    """One of `functions`."""

    kind: EntryKind
    title: str
    path: str | None = None
    """`node_file` from the root; None for other kinds, and where it leaves the root."""
    target: str = ""
    """Store of a webhook or chart; the name of a component."""
    target_line: int = 1
    """Where the identifying key or `chart_input` stands."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)
    lines: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of each (`inputs` | `outputs` | `parameters`, name)."""
    trigger: str | None = None
    description_file: str | None = None
    icon_url: str | None = None
    timeout_s: float | None = None
    memory_bytes: int | None = None
    cpu_s: float | None = None
    network: bool = True
    executor: str | None = None
    retries: int | None = None
    backoff_s: tuple[float, ...] = ()
    parallelism: int = 1
    parallelism_line: int = 1
    respond: bool = False
    on_error: OnError | None = None
    extra_lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEntry(Entry):
    """One of `stores`; `name` is the table's prefixed, `table` as written."""

    table: str
    storage: str | None = None
    schema: str | None = None
    partitions: int = 1
    partition_key: str | None = None
    freshness_s: float | None = None
    retention_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocEntry(Entry):
    """One of `docs`."""

    path: str | None
    title: str
    path_line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardEntry(Entry):
    """One of `dashboards`; its items are read when ids are known."""

    title: str
    items: tuple[tuple[str, str, str, tuple[int, int, int, int], int], ...] = ()
    """Of each item: id, node id, type, (x, y, width, height), line."""


@dataclass(frozen=True, slots=True)
class Exposes:
    """Names shown to the parent, each with its line."""

    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    parameters: Mapping[str, int]
    schemas: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFile:
    """All that one graph file says."""

    path: str
    title: str | None = None
    slug: str | None = None
    functions: tuple[FunctionEntry, ...] = ()
    stores: tuple[StoreEntry, ...] = ()
    docs: tuple[DocEntry, ...] = ()
    dashboards: tuple[DashboardEntry, ...] = ()
    storages: tuple[Storage, ...] = ()
    schemas: tuple[tuple[str, int], ...] = ()
    """Path from the root and line of each schema file."""
    exposes: Exposes | None = None
    description_file: str | None = None
    requirements_file: tuple[str, int] | None = None
    tags: tuple[str, ...] = ()
    version: str | None = None
    icon_url: str | None = None
    retention_s: float | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    readable: bool = True
    """False when nothing could be read, so that nothing is known of what it holds."""
