"""What flows where: the edges that a drawing of the graph shows."""

from __future__ import annotations

from dataclasses import dataclass

from tailrace.graph.model import App

__all__ = ["Edge", "lineage"]


@dataclass(frozen=True, slots=True)
class Edge:
    """From a store to a node that reads it, or from a node to a store that it writes."""

    source: str
    """Key of a store or node."""
    target: str
    """Key of a node or store."""
    port: str
    """What the node's code calls the table."""


def lineage(app: App) -> tuple[Edge, ...]:
    """All edges between stores and nodes, each once, in order of the nodes."""
    edges = [
        Edge(port.store, node.key, port.name) if port.mode == "r" else Edge(node.key, port.store, port.name)
        for node in app.nodes
        for port in node.ports
        if port.store is not None
    ]
    return tuple(dict.fromkeys(edges))
