"""Types, inference, casting, widening, and the JSON and Arrow forms of a Table's rows.

The one door to it. Imports nothing heavy: pandas and pyarrow are loaded by the functions that need them.
"""

from __future__ import annotations

from tailrace.tables.schema.arrow import (
    arrow_schema,
    arrow_to_records,
    arrow_type,
    cast_arrow,
    conform_arrow,
    fields_of_arrow,
    infer_arrow,
    null_column,
    rows_to_arrow,
    widen_column,
)
from tailrace.tables.schema.cast import cast_value, caster
from tailrace.tables.schema.columns import columns_to_arrow, rows_to_columns
from tailrace.tables.schema.errors import DuplicateColumnError, SchemaFileError, ValueCastError
from tailrace.tables.schema.frames import arrow_to_dataframe, frame_to_arrow, infer_frame
from tailrace.tables.schema.infer import infer_fields, infer_type, infer_values
from tailrace.tables.schema.lines import lines_to_arrow
from tailrace.tables.schema.plain import json_bytes, json_document, json_text, plain
from tailrace.tables.schema.rows import RowEncoder, compile_decoder, encode_rows
from tailrace.tables.schema.schema import Field, FieldRoles, Schema, parse_schema, schema_from_mapping
from tailrace.tables.schema.stored import from_stored, stored_names, stored_schema, to_stored
from tailrace.tables.schema.types import (
    ARRAY_FLOAT,
    ARRAY_INTEGER,
    BINARY,
    BOOLEAN,
    DATE,
    DATETIME,
    DATETIME_TZ,
    DECIMAL,
    FLOAT,
    INTEGER,
    INTERVAL,
    JSON,
    LONG_TEXT,
    TEXT,
    TIME,
    TYPE_NAMES,
    UNKNOWN,
    FieldType,
    decimal_digits,
    fields_from_json,
    fields_to_json,
    is_json,
    make_type,
    parse_type,
    shown_type,
)
from tailrace.tables.schema.widen import join, join_schemas, widen_value, widener

__all__ = [
    "ARRAY_FLOAT",
    "ARRAY_INTEGER",
    "BINARY",
    "BOOLEAN",
    "DATE",
    "DATETIME",
    "DATETIME_TZ",
    "DECIMAL",
    "FLOAT",
    "INTEGER",
    "INTERVAL",
    "JSON",
    "LONG_TEXT",
    "TEXT",
    "TIME",
    "TYPE_NAMES",
    "UNKNOWN",
    "DuplicateColumnError",
    "Field",
    "FieldRoles",
    "FieldType",
    "RowEncoder",
    "Schema",
    "SchemaFileError",
    "ValueCastError",
    "arrow_schema",
    "arrow_to_dataframe",
    "arrow_to_records",
    "arrow_type",
    "cast_arrow",
    "cast_value",
    "caster",
    "columns_to_arrow",
    "compile_decoder",
    "conform_arrow",
    "decimal_digits",
    "encode_rows",
    "fields_from_json",
    "fields_of_arrow",
    "fields_to_json",
    "frame_to_arrow",
    "from_stored",
    "infer_arrow",
    "infer_fields",
    "infer_frame",
    "infer_type",
    "infer_values",
    "is_json",
    "join",
    "join_schemas",
    "json_bytes",
    "json_document",
    "json_text",
    "lines_to_arrow",
    "make_type",
    "null_column",
    "parse_schema",
    "parse_type",
    "plain",
    "rows_to_arrow",
    "rows_to_columns",
    "schema_from_mapping",
    "shown_type",
    "stored_names",
    "stored_schema",
    "to_stored",
    "widen_column",
    "widen_value",
    "widener",
]
