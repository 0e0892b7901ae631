"""Types: PostgreSQL's names, what DuckDB calls them, and how they leave in Arrow."""

from __future__ import annotations

import re

from sqlglot import exp

from tailrace.sql.dialect import line_of
from tailrace.sql.errors import SqlError

__all__ = [
    "NUMERIC_SCALE",
    "UNBOUNDED_NUMERIC",
    "duckdb_type",
    "element_type",
    "is_decimal",
    "is_float",
    "is_integer",
    "is_list",
    "is_number",
    "is_text",
    "is_time",
    "numeric_scale",
    "postgres_type_name",
]

NUMERIC_SCALE = 16
"""Decimals of a `numeric` without a scale of its own: PostgreSQL divides to at least 16 digits, and 22 are left in front."""

UNBOUNDED_NUMERIC = f"DECIMAL(38,{NUMERIC_SCALE})"

# sqlglot's name of a type: PostgreSQL's own name, and DuckDB's.
_TYPES = {
    "BOOLEAN": ("bool", "BOOLEAN"),
    "TINYINT": ("int2", "SMALLINT"),
    "SMALLINT": ("int2", "SMALLINT"),
    "INT": ("int4", "INTEGER"),
    "BIGINT": ("int8", "BIGINT"),
    "FLOAT": ("float4", "FLOAT"),
    "DOUBLE": ("float8", "DOUBLE"),
    "DECIMAL": ("numeric", UNBOUNDED_NUMERIC),
    "TEXT": ("text", "VARCHAR"),
    "VARCHAR": ("varchar", "VARCHAR"),
    "CHAR": ("bpchar", "VARCHAR"),
    "BPCHAR": ("bpchar", "VARCHAR"),
    "NAME": ("name", "VARCHAR"),
    "VARBINARY": ("bytea", "BLOB"),
    "DATE": ("date", "DATE"),
    "TIMESTAMP": ("timestamp", "TIMESTAMP"),
    "TIMESTAMPTZ": ("timestamptz", "TIMESTAMP WITH TIME ZONE"),
    "TIME": ("time", "TIME"),
    "INTERVAL": ("interval", "INTERVAL"),
    "JSON": ("json", "JSON"),
    "JSONB": ("jsonb", "JSON"),
    "UUID": ("uuid", "UUID"),
}

_INTEGERS = {
    "TINYINT": 3,
    "SMALLINT": 5,
    "INTEGER": 10,
    "BIGINT": 19,
    "UTINYINT": 3,
    "USMALLINT": 5,
    "UINTEGER": 10,
    "UBIGINT": 20,
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


def _entry(node: exp.DataType) -> tuple[str, str]:
    name = node.this.name if hasattr(node.this, "name") else str(node.this)
    try:
        return _TYPES[name]
    except KeyError:
        raise SqlError(f"type {node.sql('postgres').lower()} is not supported", line=line_of(node)) from None


def _parameters(node: exp.DataType) -> list[int]:
    found = [parameter.this for parameter in node.expressions if isinstance(parameter, exp.DataTypeParam)]
    return [int(number.name) for number in found if isinstance(number, exp.Literal)]


def postgres_type_name(node: exp.Expr) -> str:
    """PostgreSQL's own name of the type, as it names the column of `cast(1 as …)`."""
    if not isinstance(node, exp.DataType):
        return str(node).lower()
    if node.this == exp.DType.ARRAY and node.expressions:
        return postgres_type_name(node.expressions[0])
    if node.this == exp.DType.INTERVAL or isinstance(node.this, exp.Interval):
        return "interval"
    return _entry(node)[0]


def duckdb_type(node: exp.Expr) -> tuple[str, int | None]:
    """DuckDB's type for a cast's target, and the longest text it holds, None where there is no limit."""
    if not isinstance(node, exp.DataType):
        raise SqlError(f"type {node.sql('postgres').lower()} is not supported", line=line_of(node))
    if node.this == exp.DType.ARRAY and node.expressions:
        return duckdb_type(node.expressions[0])[0] + "[]", None
    if isinstance(node.this, exp.Interval):
        return "INTERVAL", None
    postgres, duck = _entry(node)
    parameters = _parameters(node)
    if postgres == "numeric" and parameters:
        precision, scale = parameters[0], parameters[1] if len(parameters) > 1 else 0
        if not 0 <= scale <= precision:
            raise SqlError(f"numeric({precision},{scale}) is not supported", line=line_of(node))
        return f"DECIMAL({min(precision, 38)},{min(scale, 38)})", None
    if postgres == "bpchar":
        return duck, parameters[0] if parameters else 1
    if postgres == "varchar" and parameters:
        return duck, parameters[0]
    return duck, None


def is_integer(name: str) -> bool:
    """Whether it is an integer of at most 64 bits."""
    return name in _INTEGERS


def is_decimal(name: str) -> bool:
    """Whether it is PostgreSQL's numeric: a decimal, or DuckDB's 128-bit integer, which sums give."""
    return name == "HUGEINT" or _DECIMAL.fullmatch(name) is not None


def is_float(name: str) -> bool:
    """Whether it is a binary floating point number."""
    return name in ("DOUBLE", "FLOAT")


def is_number(name: str) -> bool:
    """Whether it is any number."""
    return is_integer(name) or is_decimal(name) or is_float(name)


def is_text(name: str) -> bool:
    """Whether it is a text."""
    return name == "VARCHAR"


def is_time(name: str) -> bool:
    """Whether it is a date or a moment."""
    return name in ("DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE") or name.startswith("TIMESTAMP_")


def is_list(name: str) -> bool:
    """Whether it is a list."""
    return name.endswith("[]")


def element_type(name: str) -> str:
    """Type of what the list type `name` holds."""
    assert is_list(name), name
    return name[:-2]


def numeric_scale(name: str) -> tuple[int, int]:
    """Precision and scale of the decimal that holds any value of the number type `name` (no float)."""
    if found := _DECIMAL.fullmatch(name):
        return int(found[1]), int(found[2])
    return _INTEGERS.get(name, 38), 0
