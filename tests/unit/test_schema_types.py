"""Field types: how they are written, and what is refused."""

from __future__ import annotations

import pytest

from tailrace.tables.schema import (
    DATETIME_TZ,
    TEXT,
    UNKNOWN,
    fields_from_json,
    fields_to_json,
    join,
    make_type,
    parse_type,
    shown_type,
)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Text", "Text"),
        ("Text(20)", "Text(length=20)"),
        ("Decimal(12, 2)", "Decimal(precision=12, scale=2)"),
        ("Decimal(scale=2)", "Decimal(scale=2)"),
        ("Decimal(16, 6)", "Decimal"),
        ("Decimal()", "Decimal"),
        (" DateTime( timezone = True ) ", "DateTime(timezone=True)"),
        ("DateTime(timezone=False)", "DateTime"),
        ("Decimal(abc)", "Decimal"),
        ("Decimal(12, x)", "Decimal(precision=12)"),
        ("Text(True)", "Text"),
        ("Text(words=3)", "Text"),
        ("Array(items=Integer)", "Array(items=Integer)"),
    ],
)
def test_a_type_is_read_and_its_defaults_are_not_printed(written: str, shown: str) -> None:
    """Arguments that cannot be read are ignored, as the interfaces say."""
    assert str(parse_type(written)) == shown
    assert parse_type(shown) == parse_type(written)


@pytest.mark.parametrize("name", ["text", "Datetime", "String", "Unknwon"])
def test_an_unknown_name_is_a_key_error(name: str) -> None:
    """Names are case-sensitive; the message says what to write."""
    with pytest.raises(KeyError, match="case-sensitive"):
        parse_type(name)


@pytest.mark.parametrize("text", ["Integer(1)", "Decimal(1, 2, 3)", "Text(1, 2)", "", "Decimal(12, 2", "(3)"])
def test_too_many_arguments_or_no_type_is_a_value_error(text: str) -> None:
    """An author who writes `Integer(8)` means something that would not happen."""
    with pytest.raises(ValueError, match=r"argument|is no type"):
        parse_type(text)


def test_parameters_have_their_defaults() -> None:
    """Node code reads `field_type.name` and `field_type.parameters`."""
    assert parse_type("Decimal(scale=2)").parameters == {"precision": 16, "scale": 2}
    assert parse_type("DateTime").parameters == {"timezone": False}
    assert parse_type("Text").parameters == {}
    assert make_type("Text", length=5).parameters == {"length": 5}


def test_fields_travel_as_text() -> None:
    """The compact form in log messages."""
    fields = {"id": parse_type("Integer"), "at": DATETIME_TZ}
    assert fields_to_json(fields) == {"id": "Integer", "at": "DateTime(timezone=True)"}
    assert fields_from_json(fields_to_json(fields)) == fields


def test_unknown_is_shown_as_text() -> None:
    """A field that holds nothing yet is Text to its users, and anything to the lattice."""
    assert shown_type(UNKNOWN) == TEXT
    assert shown_type(DATETIME_TZ) == DATETIME_TZ


@pytest.mark.parametrize(
    ("a", "b", "joined"),
    [
        ("Boolean", "Integer", "Integer"),
        ("Integer", "Float", "Float"),
        ("Integer", "Text", "Text"),
        ("Date", "DateTime", "DateTime"),
        ("Date", "DateTime(timezone=True)", "DateTime(timezone=True)"),
        ("DateTime", "DateTime(timezone=True)", "DateTime(timezone=True)"),
        ("Date", "Integer", "Text"),
        ("Decimal", "Float", "Float"),
        ("Decimal(12, 2)", "Decimal(6, 4)", "Decimal(14, 4)"),
        ("Integer", "Decimal(12, 2)", "Decimal(21, 2)"),
        ("Boolean", "Decimal(2, 2)", "Decimal(3, 2)"),
        ("Decimal(38, 0)", "Decimal(38, 38)", "Float"),
        ("Json", "Text", "Text"),
        ("Json", "Integer", "Text"),
        ("Json", "Array(items=Float)", "Json"),
        ("Array(items=Integer)", "Array(items=Float)", "Array(items=Float)"),
        ("Array", "Array(items=Float)", "Array"),
        ("Struct", "Array", "Json"),
        ("Time", "Interval", "Text"),
        ("Text(5)", "Text(9)", "Text(9)"),
        ("Text(5)", "Integer", "Text"),
        ("Text", "LongText", "LongText"),
        ("Binary(5)", "LongBinary", "LongBinary"),
        ("Binary", "Text", "Text"),
    ],
)
def test_join(a: str, b: str, joined: str) -> None:
    """The ranks of the interfaces, made a lattice: never a type that cannot hold both."""
    assert join(parse_type(a), parse_type(b)) == parse_type(joined)
