"""Inference, row by row of the interfaces' table, and where we say more than it does."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tailrace.tables.schema import DuplicateColumnError, frame_to_arrow, infer_fields, infer_frame, infer_type


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        *(
            (value, "Unknown")
            for value in (None, math.nan, "", "None", "null", "NULL", "na", "NA", "N/A", "0000-00-00")
        ),
        *((value, "Unknown") for value in (pd.NaT, pd.NA, np.float64("nan"), Decimal("NaN"), np.datetime64("NaT"))),
        (True, "Boolean"),
        (np.bool_(True), "Boolean"),
        *((value, "Boolean") for value in ("true", "True", "false", "False")),
        *((value, "Text") for value in ("t", "yes", "TRUE", "no")),
        (1, "Integer"),
        (np.int32(1), "Integer"),
        *((value, "Integer") for value in ("1", "1,234", "1671053386", "20200101", "-5", "007", str(2**63 - 1))),
        (1.5, "Float"),
        (math.inf, "Float"),
        (np.float32(1.5), "Float"),
        *((value, "Float") for value in ("1.0", "1671053386.12", "-.5", "1,234.5", "1e-7", "1.5E3")),
        *((value, "Text") for value in ("1e5", "1.2.3", "1,23", "+4915112345", str(2**63), "nan", "inf", "-", "1_000")),
        (Decimal("1.5"), "Decimal"),
        (Decimal("12345678901234.5"), "Decimal(20, 6)"),
        (Decimal("0.12345678"), "Decimal(18, 8)"),
        (Decimal(10) ** 40, "Text"),
        (Decimal("Infinity"), "Float"),
        (2**63, "Decimal(38, 0)"),
        (10**38, "Text"),
        (date(2020, 1, 1), "Date"),
        (datetime(2020, 1, 1), "DateTime"),
        (datetime(2020, 1, 1, tzinfo=UTC), "DateTime(timezone=True)"),
        (pd.Timestamp("2020-01-01"), "DateTime"),
        (time(10), "Time"),
        (timedelta(1), "Interval"),
        ("2020-01-01", "Date"),
        *((value, "Text") for value in ("2020-13-01", "2020-1-1", "Jan 5 2020", "10:30", "word")),
        *((value, "DateTime") for value in ("2020-01-01 10:00", "2020-01-01T10:00:00.123456")),
        *((value, "DateTime(timezone=True)") for value in ("2020-01-01T10:00:00Z", "2020-01-01T10:00:00+02:00")),
        ("2020-01-01T10:00:00.123456Z", "Text"),  # 27 characters
        ("2020-01-01T25:00:00", "Text"),
        ({"a": 1}, "Json"),
        (MappingProxyType({"a": 1}), "Json"),
        *((value, "Json") for value in ([], ["a"], [1, None], [[1]], [True], [1, True], [{"a": 1}], (), [2**63])),
        *((value, "Array(items=Integer)") for value in ([1, 2], (1,), np.array([1, 2]), [np.int64(1)])),
        *((value, "Array(items=Float)") for value in ([1.5], [1, 2.5], np.array([1.5]), [np.float32(1)])),
        ("x" * 65_535, "Text"),
        ("x" * 65_536, "LongText"),
        (b"bytes", "Text"),
        (UUID(int=1), "Text"),
        (object(), "Text"),
    ],
)
def test_the_type_of_a_value(value: object, wanted: str) -> None:
    """First match: null-like, exact Python types, ISO text, then booleans, integers and floats in text."""
    from tailrace.tables.schema import parse_type

    assert infer_type(value) == parse_type(wanted)


def types_of(records: list[dict[str, object]], sample_max: int | None = 100) -> dict[str, str]:
    return {name: str(field_type) for name, field_type in infer_fields(records, sample_max).items()}


def test_fields_are_the_union_in_first_seen_order() -> None:
    """Records of one batch may have different keys."""
    assert types_of([{"b": 1}, {"a": None, "b": 1.5}, {"c": "x", "b": True}]) == {
        "b": "Float",
        "a": "Unknown",
        "c": "Text",
    }


def test_the_sample_counts_values_and_not_records() -> None:
    """A sparse field has as many chances as a dense one, and a name seen late is a field nevertheless."""
    column: list[object] = [*[None] * 500, *[1] * 100, "word"]
    sparse: list[dict[str, object]] = [*({"a": value} for value in column), {"late": 1}]
    assert types_of(sparse) == {"a": "Integer", "late": "Integer"}
    assert types_of(sparse, None) == {"a": "Text", "late": "Integer"}


def test_a_frame_is_inferred_by_dtype_first() -> None:
    """Objects are looked at, all else is known; Text that was read comes back as Text."""
    frame = pd.DataFrame(
        {
            "when": pd.to_datetime(pd.Series(["2020-01-01", None])),
            "zoned": pd.to_datetime(pd.Series(["2020-01-01", None]), utc=True),
            "int": [1, 2],
            "Int": pd.array([1, None], dtype="Int64"),
            "unsigned": np.array([1, 2], dtype="uint64"),
            "huge": np.array([1, 2**63], dtype="uint64"),
            "float": [1.0, None],
            "bool": [True, False],
            "boolean": pd.array([True, None], dtype="boolean"),
            "delta": pd.to_timedelta(["1s", None]),
            "string": pd.array(["007", None], dtype="string"),
            "object": ["007", None],
            "mixed": [1, "x"],
            "category": pd.Categorical(["a", "b"]),
            "vector": [[1.5], None],
            "nothing": [None, None],
            "arrow": pd.Series([1, None]).astype(pd.ArrowDtype(pa.int32())),
            "period": pd.period_range("2020-01", periods=2, freq="M"),
            7: [1, 2],
        }
    )
    assert {name: str(field_type) for name, field_type in infer_frame(frame).items()} == {
        "when": "DateTime",
        "zoned": "DateTime(timezone=True)",
        "int": "Integer",
        "Int": "Integer",
        "unsigned": "Integer",
        "huge": "Decimal(precision=38, scale=0)",
        "float": "Float",
        "bool": "Boolean",
        "boolean": "Boolean",
        "delta": "Interval",
        "string": "Text",
        "object": "Integer",
        "mixed": "Text",
        "category": "Text",
        "vector": "Array(items=Float)",
        "nothing": "Unknown",
        "arrow": "Integer",
        "period": "Text",
        "7": "Integer",
    }


def test_columns_that_arrow_holds_as_something_else_are_told_by_value() -> None:
    """Arrow stores a period as the number of months since 1970."""
    frame = pd.DataFrame({"month": pd.period_range("2020-01", periods=2, freq="M")})
    assert frame_to_arrow(frame, infer_frame(frame)).to_pylist() == [{"month": "2020-01"}, {"month": "2020-02"}]


def test_two_columns_of_one_name_are_refused() -> None:
    """One of them would be lost without a word."""
    with pytest.raises(DuplicateColumnError, match="'1'"):
        infer_frame(pd.DataFrame([[1, 2]], columns=[1, "1"]))
