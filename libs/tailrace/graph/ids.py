"""Names that last: ids for nodes that have none, an app's slug, the topic of a store."""

from __future__ import annotations

import base64
import hashlib
import re

from tailrace.graph.model import Store

__all__ = ["ID_CHARACTERS_MAX", "TOPIC_CHARACTERS_MAX", "fallback_id", "is_id", "slug_from", "topic_name"]

ID_CHARACTERS_MAX = 128
"""Longest id: it becomes a part of names of files, groups and topics. Real ones have seven to nine characters."""
TOPIC_CHARACTERS_MAX = 249
"""Kafka's limit: a longer name with its partition would not fit a file name."""

_ID = re.compile(r"[A-Za-z0-9]+")
_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")


def is_id(text: str) -> bool:
    """Whether `text` may be the id of a node or store."""
    return _ID.fullmatch(text) is not None and len(text) <= ID_CHARACTERS_MAX


def fallback_id(parent_id: str, name: str) -> str:
    """The id of a node that has none: eight characters of `a-z2-7`, the same for the same place in the graph.

    Args:
        parent_id: own id of the subgraph around it, "" at the top.
        name: what the entry is told by: its file, webhook, table or component.
    """
    return _hash(parent_id + name)


def slug_from(name: str) -> str:
    """A graph's slug from the name of its folder: `My app_2` gives `my-app-2`."""
    slug = re.sub(r"[^a-z0-9-]", "", re.sub(r"[_\s]+", "-", name.lower())).strip("-")[:64]
    return slug or "app"


def topic_name(graph: str, store: Store) -> str:
    """The topic that holds the rows of `store`: `<graph>.<path of store ids>`.

    What Kafka does not take in a name is replaced, what is too long is cut, and a hash of the whole keeps such
    names apart.
    """
    path = ".".join(store.path)
    safe = _UNSAFE.sub("-", graph)  # no dots either: they part the names of a path
    name = f"{safe}.{path}"
    if safe == graph and len(name) <= TOPIC_CHARACTERS_MAX:
        return name
    mark = "_" + _hash(f"{graph}\0{path}")
    return name[: TOPIC_CHARACTERS_MAX - len(mark)] + mark


def _hash(text: str) -> str:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).digest()
    return base64.b32encode(digest).decode("ascii").lower()
