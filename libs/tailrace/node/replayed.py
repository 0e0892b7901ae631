"""Orders to compare what two runs wrote: one that ran, and the same one when it was run again.

The host shows both as tables of their own, with the messages of that run alone after a first offset. Each message is of
the result: one JSON object for each table, and a line break.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from tailrace.node.comparing import compare_rows
from tailrace.node.link import HostMessages
from tailrace.node.sqlnode import json_rows
from tailrace.tables import BadIdError, VersionReader, parse_id
from tailrace.tables.messages import decode_rows

if TYPE_CHECKING:
    from tailrace.node.session import Session

__all__ = ["run_compare"]

_CHUNK_ROWS = 5_000
_DELETED_SHOWN_MAX = 20
_MARKS = ("truncate", "reset", "activate")


class _Side:
    """What one of the two wrote to a table: what lies at or after its first offset."""

    def __init__(self, session: Session, key: str, first: int) -> None:
        ref = next(ref for ref in session.refs if ref.key == key)
        store = session.store(ref)
        self.view, self.cut = store.base()
        self._first = first
        self._source = HostMessages(session.link, key)
        self._reader = None
        if self.view is not None:
            self._reader = VersionReader(self.view, store.ids, self._source, session.files)
        self.marks: list[str] = []
        self.deleted: set[str] = set()
        self.wrote = False
        self._look()

    def _look(self) -> None:
        for batch in self._source.scan(self._first, self.cut):
            for head in decode_rows(batch):
                self.wrote = True
                kind = head.get("kind")
                if kind == "delete":
                    self.deleted |= {text for text in head["ids"] if self._is_older(text)}
                elif kind in _MARKS:
                    self.marks.append(kind if kind != "activate" else f"activate {head.get('name')}")

    def _is_older(self, row_id: str) -> bool:
        """Whether it is of a row that was there before: ids of own rows are not the same in both runs."""
        try:
            return parse_id(row_id).offset < self._first
        except BadIdError:
            return False

    @property
    def unique_on(self) -> tuple[str, ...]:
        return self.view.settings.unique_on if self.view else ()

    @property
    def types(self) -> dict[str, str]:
        """Of its fields, where it wrote any rows."""
        return {name: str(kind) for name, kind in self.view.fields.items()} if self.view and self.wrote else {}

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Its rows in the active version, as JSON has them, without their ids."""
        if self._reader is not None:
            for part in self._reader.tables(_CHUNK_ROWS, start=(self._first, 0)):
                yield from json_rows(part, self._reader.fields)


def run_compare(session: Session) -> None:
    """Answer how tables differ: `tables`, each {table, was, was_from, now, now_from} with two keys of stores and the
    first offsets that count; `ignore`, fields whose values do not; `rows_max`, most rows to show of each table."""
    arguments = session.order.arguments
    for each in arguments["tables"]:
        was = _Side(session, each["was"], each["was_from"])
        now = _Side(session, each["now"], each["now_from"])
        key = now.unique_on if was.unique_on == now.unique_on or not was.wrote else ()
        if not now.wrote:
            key = was.unique_on
        found = compare_rows(
            was.rows, now.rows, key=key, ignore=arguments["ignore"], shown_max=int(arguments["rows_max"])
        )
        result = {
            "table": each["table"],
            "key": list(key),
            "same": found.same,
            "added": found.added,
            "removed": found.removed,
            "changed": found.changed,
            "rows": [asdict(row) for row in found.rows],
            **_other_changes(was, now),
        }
        session.link.tell({"op": "result"}, orjson.dumps(result) + b"\n")


def _other_changes(was: _Side, now: _Side) -> dict[str, Any]:
    """What differs of what a run does to a table besides writing rows; nothing where it is the same."""
    found: dict[str, Any] = {}
    if was.deleted != now.deleted:
        spared, gone = sorted(was.deleted - now.deleted), sorted(now.deleted - was.deleted)
        found["deleted"] = {
            "same": len(was.deleted & now.deleted),
            "no_more": len(spared),
            "new": len(gone),
            "no_more_ids": spared[:_DELETED_SHOWN_MAX],
            "new_ids": gone[:_DELETED_SHOWN_MAX],
        }
    if was.marks != now.marks:
        found["marks"] = {"was": was.marks, "now": now.marks}
    types = {
        name: [was.types.get(name), now.types.get(name)]
        for name in dict.fromkeys([*was.types, *now.types])
        if was.types and now.types and was.types.get(name) != now.types.get(name)
    }
    if types:
        found["types"] = types
    return found
