"""What a snapshot has to do to go from the position of a Delta table to the position of the fold: a pure decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from tailrace.tables import Snapshot
from tailrace.tables.schema import FieldType, is_json, stored_schema, widener

if TYPE_CHECKING:
    from tailrace.lake.delta import TableMeta

__all__ = ["Kind", "Step", "next_step"]

Kind: TypeAlias = Literal["nothing", "note", "append", "merge", "rewrite"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one version.

    `nothing`: no message of the version lies between the two positions, the Delta table may stay behind.
    `note`: no rows, but a position, or that it is active or is not any more.
    `append`: the tail's rows become new files.
    `merge`: so do they, and files that hold rows which the tail supersedes or deletes are written again without those.
    `rewrite`: all rows become new files, in one overwriting commit.
    """

    kind: Kind
    why: str
    from_snapshot: bool = True
    """Of a rewrite: whether it goes on from the files that are there. Else it reads the log alone."""


def next_step(now: TableMeta, before: TableMeta | None, snapshot: Snapshot | None) -> Step:
    """The step from `before`, of which `snapshot` is the state, to `now`."""
    view = now.view
    if before is None or snapshot is None or before.position == 0:
        return Step("rewrite", "first snapshot", from_snapshot=False)
    if now.position <= before.position:
        return Step("nothing", "no news")
    if view.segments and all(start >= before.position for start, _ in view.segments):
        return Step("rewrite", "truncated", from_snapshot=False)
    if any(first >= before.position for first, _ in view.keys):
        return Step("rewrite", "another key")
    widened = [
        name
        for name, kind in snapshot.fields.items()
        if name in view.fields and not _same_column(kind, view.fields[name])
    ]
    if any(
        now.view.fields.get(name) != kind for name, kind in snapshot.fields.items() if name in view.settings.unique_on
    ):
        return Step("rewrite", "a key of another type")
    if widened:
        return Step("rewrite", f"wider: {', '.join(widened)}")
    deleted = any(at >= before.position for at in view.deletes)
    if deleted or any(stop > before.position for _, stop in view.segments):
        if deleted or view.settings.unique_on:
            return Step("merge", "deleted rows" if deleted else "a key")
        return Step("append", "new rows")
    return still(now, before)


def still(now: TableMeta, before: TableMeta) -> Step:
    """The step where the tail turned out to hold no rows.

    The active version goes along (the last one where none is active), so that the log may be trimmed behind it, and so does
    one that was active in between: else it would seem to have lost what it never had. The others stay where they are.
    """
    if now.active != before.active:
        return Step("note", "activated" if now.active else "not active any more")
    was_active = any(stop > before.position for _, stop in now.view.segments)
    return Step("note" if now.is_foremost or was_active else "nothing", "no rows")


def _same_column(old: FieldType, new: FieldType) -> bool:
    """Whether values of `old`, as they lie in the files, are those of `new` too."""
    if old == new:
        return True
    if _stored(old) != _stored(new):
        return False
    return widener(old, new) is None or (is_json(old) and new.name in ("Text", "LongText"))


def _stored(kind: FieldType) -> object:
    fields: Mapping[str, FieldType] = {"x": kind}
    return stored_schema(fields).field("x").type
