"""Reading the lanes of a Table as one: by the order of their ids, which is (offset, row, partition)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailrace.tables.fold import VersionView
from tailrace.tables.reading import VersionReader
from tailrace.tables.schema import FieldType

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MergedReader"]

_CHUNK_ROWS = 65_536
_ID = "\x00merged"


class MergedReader(VersionReader):
    """Reads one version of a Table over its lanes. Each lane is in the order of its log; between lanes the order of ids
    says who comes first, which is about that of time where the lanes grow alike. Rows that are not in the log yet come
    last, lane by lane. Memory is bounded by a chunk for each lane."""

    def __init__(self, view: VersionView, lanes: Sequence[VersionReader]) -> None:
        """`lanes` show the same fields; `view` is theirs as a whole."""
        self.view = view
        self._lanes = list(lanes)

    @property
    def fields(self) -> Mapping[str, FieldType]:
        return self._lanes[0].fields if self._lanes else self.view.fields

    def tables(
        self,
        rows_max: int = _CHUNK_ROWS,
        *,
        id_column: str | None = None,
        start: tuple[int, int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        assert start is None, "places are a lane's"
        if len(self._lanes) == 1:
            yield from self._lanes[0].tables(rows_max, id_column=id_column, columns=columns)
            return
        for chunk in _merged([lane.tables(rows_max, id_column=_ID, columns=columns) for lane in self._lanes]):
            if id_column is None:
                yield chunk.drop_columns([_ID])
            else:
                yield chunk.rename_columns([*chunk.column_names[:-1], id_column])

    def count(self) -> int:
        exact = self.view.exact_count
        return exact if exact is not None else sum(lane.count() for lane in self._lanes)


def _merged(lanes: Sequence[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """The chunks of all lanes, by their ids."""
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its types know no column of any type
    heads: dict[int, Any] = {}
    unwritten: dict[int, list[Any]] = {number: [] for number in range(len(lanes))}

    def fill(number: int) -> None:
        """Have rows of this lane at hand, if it has any left whose ids are known."""
        for chunk in lanes[number]:
            written = chunk.num_rows - chunk.column(_ID).null_count
            if written < chunk.num_rows:
                unwritten[number].append(chunk.slice(written))
            if written:
                heads[number] = chunk.slice(0, written)
                return
        heads.pop(number, None)

    for number in range(len(lanes)):
        fill(number)
    while heads:
        # All lanes are known up to the least of the ids that their chunks end with.
        bound = min(chunk.column(_ID)[chunk.num_rows - 1].as_py() for chunk in heads.values())
        parts = []
        for number, chunk in list(heads.items()):
            ready = pc.sum(pc.less_equal(chunk.column(_ID), pa.scalar(bound))).as_py()
            parts.append(chunk.slice(0, ready))
            if ready == chunk.num_rows:
                fill(number)
            else:
                heads[number] = chunk.slice(ready)
        made = pa.concat_tables([part for part in parts if part.num_rows])
        yield made.take(pc.sort_indices(made, sort_keys=[(_ID, "ascending")])) if len(parts) > 1 else made
    for number in range(len(lanes)):
        yield from unwritten[number]
