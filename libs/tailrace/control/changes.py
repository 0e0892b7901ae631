"""What a deployment changes: nodes and Tables that come, change and go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tailrace.graph import App, Node, Store, node_version

__all__ = ["Changes", "changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Nodes and Tables by their titles and names, in the order of the graph."""

    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    """They end the run that is under way, and go on with what is new."""
    removed: Sequence[str] = ()
    """Their State and places stay, in case they come back."""
    unchanged: int = 0
    tables_added: Sequence[str] = ()
    tables_removed: Sequence[str] = ()
    """Their rows stay, in case they come back."""

    @property
    def any(self) -> bool:
        """Whether a node or a Table is another than before."""
        return bool(self.added or self.changed or self.removed or self.tables_added or self.tables_removed)


def changes(before: App | None, after: App | None) -> Changes:
    """What is other in `after` than in `before`; None: no app."""
    old, new = _nodes(before), _nodes(after)
    old_tables, new_tables = _tables(before), _tables(after)
    return Changes(
        added=_titles(new[key][1] for key in new if key not in old),
        changed=_titles(new[key][1] for key in new if key in old and new[key][0] != old[key][0]),
        removed=_titles(old[key][1] for key in old if key not in new),
        unchanged=sum(key in old and new[key][0] == old[key][0] for key in new),
        tables_added=[new_tables[key].name for key in new_tables if key not in old_tables],
        tables_removed=[old_tables[key].name for key in old_tables if key not in new_tables],
    )


def _nodes(app: App | None) -> dict[str, tuple[Any, Node]]:
    """By key: what makes a node what it is (where it stands, in file and picture, does not), and the node."""
    if app is None:
        return {}
    return {
        node.key: ((node_version(app, node), replace(node, line=0, extra_lines={}, display={})), node)
        for node in app.nodes
    }


def _tables(app: App | None) -> dict[str, Store]:
    return {} if app is None else {store.key: store for store in app.stores if store.storage is None}


def _titles(nodes: Iterable[Node]) -> list[str]:
    return [node.title for node in nodes]
