"""JSON messages of rows to Arrow at once, by Arrow's own parser: for those that hold nothing but what their types say.

It refuses whatever it would read otherwise than `columns_to_arrow` does, or is not asked; then that is who reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailrace.tables.schema.arrow import arrow_schema, arrow_type
from tailrace.tables.schema.columns import text_to_array
from tailrace.tables.schema.types import FieldType

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["lines_to_arrow"]

_AS_THEY_ARE = frozenset({"Boolean", "Integer", "Float", "Text", "LongText"})
_AS_TEXT = frozenset({"Date", "DateTime", "Decimal", "Time"})
_BLOCK_BYTES = 256 << 10


def lines_to_arrow(lines: Sequence[bytes], fields: Mapping[str, FieldType]) -> tuple[pa.Table, Sequence[int]] | None:
    """The rows of JSON objects `{"rows": [{...}, ...]}`, and how many each has; None where that is not for Arrow."""
    if not fields or any(kind.name not in _AS_THEY_ARE and kind.name not in _AS_TEXT for kind in fields.values()):
        return None
    import pyarrow as pa
    import pyarrow.json as pj

    joined = b"\n".join(lines)
    if not _is_text(joined):
        return None
    read_as = {name: arrow_type(kind) if kind.name in _AS_THEY_ARE else pa.string() for name, kind in fields.items()}
    row: Any = pa.struct(list(read_as.items()))
    try:
        parsed = pj.read_json(
            pa.BufferReader(joined),  # type: ignore[arg-type]  # which it takes
            read_options=pj.ReadOptions(block_size=max(_BLOCK_BYTES, max(map(len, lines)) + 1)),
            parse_options=pj.ParseOptions(
                explicit_schema=pa.schema([("rows", pa.list_(row))]), unexpected_field_behavior="error"
            ),
        )
        found: Any = parsed.column("rows").combine_chunks()
        rows = found.flatten()
        if len(found) != len(lines) or found.null_count or rows.null_count:
            return None
        arrays = []
        for column, kind in zip(rows.flatten(), fields.values(), strict=True):
            made = column if kind.name in _AS_THEY_ARE else text_to_array(column, kind)
            if made is None:
                return None
            arrays.append(made)
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    return pa.Table.from_arrays(arrays, schema=arrow_schema(fields)), found.value_lengths().to_pylist()


def _is_text(joined: bytes) -> bool:
    if joined.isascii():
        return True
    try:
        joined.decode()
    except UnicodeDecodeError:
        return False
    return True
