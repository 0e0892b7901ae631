"""Rows to JSON and back, many a millisecond: what a worker does with each record that it takes in and gives out.

Both directions look at a row's *shape*, the tuple of its keys and its values' classes, and keep for each shape they
have met the few steps that it needs. A row of plain values needs none, and costs a lookup. Shapes are few in real
tables; `_SHAPES_MAX` bounds those who invent new keys with each row.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

import orjson

from tailrace.tables.schema.cast import caster
from tailrace.tables.schema.errors import ValueCastError
from tailrace.tables.schema.infer import infer_decimal, infer_type
from tailrace.tables.schema.plain import INTEGER_MAX, INTEGER_MIN, clean_text, interval_text, json_bytes, json_text
from tailrace.tables.schema.types import JSON, FieldType, is_json
from tailrace.tables.schema.widen import join

__all__ = ["RowEncoder", "compile_decoder", "encode_rows"]

_SHAPES_MAX = 4096
_NONE: type = type(None)

# Classes whose values are canonical as they come out of JSON, by type. Everything else is cast.
_CANONICAL: dict[str, frozenset[type]] = {
    "Boolean": frozenset({bool, _NONE}),
    "Integer": frozenset({int, _NONE}),  # in the range of 64 bits, which is looked at apart
    "Float": frozenset({float, _NONE}),
    "Text": frozenset({str, _NONE}),
    "LongText": frozenset({str, _NONE}),
}
_ONLY_NONE: frozenset[type] = frozenset({_NONE})
_DOCUMENT: frozenset[type] = frozenset({dict, list, _NONE})
_DICTS: set[type] = {dict}

_Caster: TypeAlias = Callable[[object], object]
_Steps: TypeAlias = tuple[tuple[str, ...] | None, tuple[str, ...], tuple[str, ...], tuple[tuple[str, _Caster], ...]]
"""What a row of one shape needs: its keys anew (None: as they are), integers and floats to look at, values to cast."""


def _canonical(field_type: FieldType, as_objects: bool) -> frozenset[type]:
    if is_json(field_type):
        return _DOCUMENT if as_objects else _ONLY_NONE
    return _CANONICAL.get(field_type.name, _ONLY_NONE)


def compile_decoder(fields: Mapping[str, FieldType], for_stream: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from a parsed JSON row to the row that a reader gets.

    It has every field of `fields` (None where missing) in their order, cast to canonical values, and keys that
    `fields` does not know at its end, as they came. Json is an object for streams, JSON text for reads; an Array of
    numbers is a list in both. The function owns the dict it is given and may change and return it.

    Its errors:
        ValueCastError: rejected; a value is none of its field's type. It names the field.
    """
    plans: dict[str, tuple[frozenset[type], _Caster, bool]] = {}
    for name, field_type in fields.items():
        cast = caster(field_type)
        if is_json(field_type):
            cast = _document if for_stream else _as_json_text
        plans[name] = (_canonical(field_type, for_stream), cast, field_type.name == "Integer")
    order = tuple(plans)
    shapes: dict[tuple[object, ...], _Steps] = {}

    def learn(shape: tuple[object, ...], row: dict[str, Any]) -> _Steps:
        keys = (*order, *(key for key in row if key not in plans))
        integers: list[str] = []
        casts: list[tuple[str, _Caster]] = []
        for name, (canonical, cast, is_integer) in plans.items():
            cls = type(row.get(name))
            if cls not in canonical:
                casts.append((name, cast))
            elif is_integer and cls is int:
                integers.append(name)
        steps: _Steps = (None if keys == tuple(row) else keys, tuple(integers), (), tuple(casts))
        if len(shapes) >= _SHAPES_MAX:
            shapes.clear()
        shapes[shape] = steps
        return steps

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        shape = (*row, *map(type, row.values()))
        keys, integers, _, casts = shapes.get(shape) or learn(shape, row)
        if keys is not None:
            row = {key: row.get(key) for key in keys}
        for name in integers:
            if not INTEGER_MIN <= row[name] <= INTEGER_MAX:
                raise ValueCastError(row[name], "Integer", field=name, reason="over 64 bits")
        for name, cast in casts:
            try:
                row[name] = cast(row[name])
            except ValueCastError as error:
                raise error.at(name) from error
        return row

    return decode


def _document(value: object) -> object:
    """A posted value as Json shows it: a text that holds an object or a list is that, another scalar is itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(value)
    return value


def _as_json_text(value: object) -> object:
    try:
        return None if value is None else json_text(_document(value))
    except ValueError as error:
        raise ValueCastError(value, "Json", reason=str(error)) from error


def to_json_value(value: object) -> object:
    """A canonical value as JSON carries it, so that casting it to its type gives the value again."""
    if value is None or isinstance(value, (bool, int, str, dict)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else _infinity(value)
    if isinstance(value, list):
        return [_infinity(item) if isinstance(item, float) and item - item != 0 else item for item in value]
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return interval_text(value)
    assert isinstance(value, bytes), f"{type(value).__name__} is not canonical"
    return base64.b64encode(value).decode()


def _infinity(value: float) -> str:
    return "Infinity" if value > 0 else "-Infinity"


def _shortened(step: _Caster, field_type: FieldType | None, cls: type) -> _Caster:
    """`step` with a shorter way for the odd values that are common in rows: times, and integers among floats."""
    if field_type is None:
        return step
    if cls is datetime and field_type.name == "DateTime":
        zone = UTC if field_type.get("timezone") else None
        return lambda value: value.isoformat() if value.tzinfo is zone else step(value)  # type: ignore[attr-defined]
    if cls is date and field_type.name == "Date":
        return lambda value: value.isoformat()  # type: ignore[attr-defined]
    if cls is int and field_type.name == "Float":
        return lambda value: float(value) if INTEGER_MIN <= value <= INTEGER_MAX else step(value)  # type: ignore
    return step


class RowEncoder:
    """Rows of one table to JSON, and the table's fields as they grow with the rows.

    A field that is not `fixed` takes the join of its type and each value's inferred type, so values come back as what
    they were. A `fixed` one (declared, or hinted) casts its values, and widens only for a value that the cast
    refuses. Keys that are no field yet become fields. With `grows=False` nothing changes: what does not fit is an
    error, and unknown keys are written as they are. With `scalars=True` so are Json's scalars, which queries make; else
    they are cast.
    """

    def __init__(
        self,
        fields: Mapping[str, FieldType],
        *,
        fixed: Collection[str] = (),
        grows: bool = True,
        scalars: bool = False,
    ) -> None:
        self._fields = dict(fields)
        self._fixed = frozenset(fixed)
        self._grows = grows
        self._scalars = scalars
        self._grown = False
        self._shapes: dict[tuple[object, ...], _Steps] = {}
        self._columns: dict[tuple[str, ...], list[frozenset[type]]] = {}
        self.keys: tuple[str, ...] | None = None
        """The keys that all rows encoded last had; None where they were not looked at as a whole."""

    @property
    def fields(self) -> dict[str, FieldType]:
        """The fields as of the last rows encoded; a new dict whenever they grew."""
        return self._fields

    def encode(self, rows: Iterable[Mapping[str, object]]) -> bytes:
        """One JSON array of the rows.

        Decoding it with `fields` gives the values cast to their types. When it raises, `fields` are as before.

        Raises:
            ValueCastError: rejected; a value is none of its field's type and the field may not grow.
        """
        ready = self._prepare(rows)
        try:
            return json_bytes(ready)
        except ValueError as error:
            raise self._misfit(ready) from error

    def encode_each(self, rows: Iterable[Mapping[str, object]]) -> list[bytes]:
        """One JSON object for each row; slower than `encode` for many, but they can be packed by size."""
        ready = self._prepare(rows)
        try:
            return [json_bytes(row) for row in ready]
        except ValueError as error:
            raise self._misfit(ready) from error

    def _misfit(self, rows: Iterable[Mapping[str, object]]) -> ValueCastError:
        """The error for the document that JSON refuses, which is among these."""
        for row in rows:
            for name, value in row.items():
                try:
                    json_bytes(value)
                except ValueError as error:
                    return ValueCastError(value, str(self._fields.get(name, JSON)), field=name, reason=str(error))
        raise AssertionError("each value can be written, and yet the rows cannot")

    def _prepare(self, rows: Iterable[Mapping[str, object]]) -> list[Mapping[str, object]]:
        rows = rows if isinstance(rows, list) else list(rows)
        before = self._fields
        try:
            while True:
                self._grown = False
                ready = rows if self._fits(rows) else self._pass(rows)
                if not self._grown:
                    return ready
        except BaseException:
            self._fields = before
            self._forget()
            raise

    def _fits(self, rows: list[Mapping[str, object]]) -> bool:
        """Whether JSON can carry the rows as they are, found by column: most lots, and less than half the work of a pass.

        False also for what it does not look into: rows of different keys, numbers with NULLs among them.
        """
        self.keys = None
        if set(map(type, rows)) != _DICTS:
            return False
        shapes = set(map(tuple, rows))
        if len(shapes) != 1:
            return False
        (keys,) = shapes
        columns = self._columns.get(keys)
        if columns is None:
            columns = self._columns[keys] = self._columns_of(keys)
        for canonical, column in zip(columns, zip(*[row.values() for row in rows], strict=True), strict=False):
            classes = set(map(type, column))
            if not canonical.issuperset(classes):
                return False
            if int in classes:
                if len(classes) > 1 or min(column) < INTEGER_MIN or max(column) > INTEGER_MAX:
                    return False
            elif float in classes and (len(classes) > 1 or not all(map(isfinite, column))):
                return False
        if len(columns) != len(keys):
            return False
        self.keys = keys
        return True

    def _columns_of(self, keys: tuple[str, ...]) -> list[frozenset[type]]:
        """The classes that need no step, by column; empty where a key needs one."""
        if len(self._columns) >= _SHAPES_MAX:
            self._columns.clear()
        if not all(type(key) is str and key in self._fields for key in keys):
            return []
        return [_canonical(self._fields[key], as_objects=True) for key in keys]

    def _pass(self, rows: list[Mapping[str, object]]) -> list[Mapping[str, object]]:
        ready: list[Mapping[str, object]] = []
        shapes = self._shapes
        for row in rows:
            shape = (*row, *map(type, row.values()))
            keys, integers, floats, casts = shapes.get(shape) or self._learn(shape, row)
            if keys is not None:
                row = dict(zip(keys, row.values(), strict=True))  # noqa: PLW2901
            odd: list[tuple[str, _Caster]] | None = None
            for name in integers:
                if not INTEGER_MIN <= row[name] <= INTEGER_MAX:  # type: ignore[operator]
                    odd = [*(odd or ()), (name, self._step(name))]
            for name in floats:
                value: Any = row[name]
                if value - value != 0:
                    odd = [*(odd or ()), (name, self._step(name))]
            if casts or odd or type(row) is not dict:
                changed = dict(row)
                for name, cast in (*casts, *(odd or ())):
                    changed[name] = cast(changed[name])
                ready.append(changed)
            else:
                ready.append(row)
        return ready

    def _learn(self, shape: tuple[object, ...], row: Mapping[str, object]) -> _Steps:
        keys = tuple(clean_text(str(key)) for key in row)
        integers, floats, casts = [], [], []
        for name, cls in zip(keys, map(type, row.values()), strict=True):
            field_type = self._fields.get(name)
            if field_type is None or cls not in _canonical(field_type, as_objects=True):
                casts.append((name, _shortened(self._step(name), field_type, cls)))
            elif cls is int:
                integers.append(name)
            elif cls is float:
                floats.append(name)
        same = all(type(key) is str for key in row) and keys == tuple(row)
        steps: _Steps = (None if same else keys, tuple(integers), tuple(floats), tuple(casts))
        if len(self._shapes) >= _SHAPES_MAX:
            self._shapes.clear()
        self._shapes[shape] = steps
        return steps

    def _step(self, name: str) -> _Caster:
        """What turns a value of a field into what JSON carries, and lets the field grow where it must."""

        def step(value: object) -> object:
            field_type = self._fields.get(name)
            if field_type is None:
                if self._grows:
                    return self._grow(name, infer_type(value), value)
                return to_json_value(caster(infer_type(value))(value))
            if self._scalars and is_json(field_type) and isinstance(value, str | bool | int | float):
                return value
            if self._grows and name not in self._fixed:
                wider = join(field_type, _inferred(field_type, value))
                if wider != field_type:
                    return self._grow(name, wider, value)
            try:
                return to_json_value(caster(field_type)(value))
            except ValueCastError as error:
                wider = join(field_type, _inferred(field_type, value))
                if not self._grows or wider == field_type:
                    raise error.at(name) from error
                return self._grow(name, wider, value)

        return step

    def _grow(self, name: str, field_type: FieldType, value: object) -> object:
        """Take note of the new type; the rows are gone through again, so `value` may stay as it is."""
        self._fields = {**self._fields, name: field_type}
        self._forget()
        self._grown = True
        return value

    def _forget(self) -> None:
        self._shapes.clear()
        self._columns.clear()


def _inferred(field_type: FieldType, value: object) -> FieldType:
    """The type of a value for a field that has one already: a Decimal that fits there does not make it wider."""
    if isinstance(value, Decimal) and field_type.name == "Decimal":
        return infer_decimal(value, roomy=False)
    return infer_type(value)


def encode_rows(rows: Iterable[Mapping[str, object]], fields: Mapping[str, FieldType]) -> bytes:
    """One JSON array of `rows`, whose values all fit `fields`; keys that are no field are written as they are.

    Raises:
        ValueCastError: rejected; a value is none of its field's type.

    Who encodes often for the same fields keeps a `RowEncoder(fields, grows=False)`, which this makes anew.
    """
    return RowEncoder(fields, grows=False).encode(rows)
