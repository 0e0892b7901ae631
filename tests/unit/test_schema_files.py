"""Schema files of the Common Model, and quick schemas."""

from __future__ import annotations

import pytest

from tailrace.tables.schema import INTEGER, Schema, SchemaFileError, parse_schema, schema_from_mapping

INVOICE = """
name: Invoice
description: One bill sent to a customer
unique_on: invoice_no
immutable: false
version: 3
field_roles:
  created_ordering: issued_at
  strictly_monotonic_ordering: seq
fields:
  seq: Integer NotNull
  invoice_no: Text(20) NotNull
  total: {type: "Decimal(12, 2)", description: Amount with tax}
  issued_at: DateTime
  lines: Json
  paid: {type: Boolean, validators: [NotNull]}
  note: Text some words
"""


def test_a_file_is_read() -> None:
    """The example of the interfaces, with keys of older drafts."""
    schema = parse_schema(INVOICE, "invoice.yml")
    assert schema.name == "Invoice"
    assert schema.field_names() == ["seq", "invoice_no", "total", "issued_at", "lines", "paid", "note"]
    assert [str(field) for field in schema.fields] == [
        "Integer NotNull",
        "Text(length=20) NotNull",
        "Decimal(precision=12, scale=2)",
        "DateTime",
        "Json",
        "Boolean NotNull",
        "Text",
    ]
    assert schema.get_field("total").description == "Amount with tax"
    assert schema.get_field("total").nullable
    assert schema.unique_on == ("invoice_no",)
    assert schema.field_roles.created_ordering == ("issued_at",)
    assert schema.field_roles.strictly_monotonic_ordering == ("seq",)
    assert not schema.immutable
    assert schema.metadata == {"version": 3}
    assert schema.types["seq"] == INTEGER
    with pytest.raises(NameError, match="no field 'nope'"):
        schema.get_field("nope")


def test_a_schema_travels_as_json() -> None:
    """Log messages carry it whole."""
    schema = parse_schema(INVOICE, "invoice.yml")
    again = Schema.from_json(schema.to_json())
    assert again == schema
    assert again.metadata == schema.metadata


def test_fields_may_be_a_list_and_nest() -> None:
    """JSON is YAML; a Json field may say what its documents look like."""
    text = (
        """{"name": "A", "fields": [{"name": "x", "type": "Json", "schema": {"name": "B", "fields": {"y": "Text"}}}]}"""
    )
    nested = parse_schema(text, "a.json").get_field("x").schema
    assert nested is not None
    assert nested.field_names() == ["y"]
    assert Schema.from_json(parse_schema(text, "a.json").to_json()) == parse_schema(text, "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: A\nfields: {x: Text}\ncolour: red", "s.yml: colour: unknown key"),
        ("name: A\nfields: {x: {type: Text, size: 3}}", "s.yml: fields.x.size: unknown key"),
        ("name: A\nfields: {x: text}", "s.yml: fields.x: no field type is called 'text'"),
        ("name: A\nfields: {x: Unknown}", "s.yml: fields.x: no field type is called 'Unknown'"),
        ("name: A\nfields: {x: Integer(3)}", "s.yml: fields.x: 'Integer\\(3\\)' has 1 arguments"),
        ("name: A\nfields: {x: ''}", "s.yml: fields.x: '' is no type"),
        ("name: A\nfields: {x: {}}", "s.yml: fields.x.type: must be a type"),
        ("name: A\nfields: [{type: Text}]", "s.yml: fields\\[0\\]: must be a mapping with name"),
        ("name: A\nfields: [{name: x, type: Text}, {name: x, type: Text}]", "second field called 'x'"),
        ("name: A", "s.yml: fields: must map"),
        ("fields: {x: Text}", "s.yml: name: must be a text"),
        ("name: A\nfields: {x: Text}\nunique_on: y", "s.yml: unique_on: 'y' is no field"),
        ("name: A\nfields: {x: Text}\nfield_roles: {leader: x}", "s.yml: field_roles.leader: unknown role"),
        ("name: A\nfields: {x: Text}\nimmutable: maybe", "s.yml: immutable: must be true or false"),
        ("[1]", "s.yml: must be a mapping"),
        ("name: [", "s.yml:1: no YAML"),
    ],
)
def test_a_mistake_is_told_with_file_and_key(text: str, message: str) -> None:
    """As a compiler would."""
    with pytest.raises(SchemaFileError, match=message):
        parse_schema(text, "s.yml")


def test_a_quick_schema_from_a_mapping() -> None:
    """What `init(schema={...})` takes."""
    schema = schema_from_mapping({"a": "Decimal(12, 2) NotNull", "b": INTEGER})
    assert [str(field) for field in schema.fields] == ["Decimal(precision=12, scale=2) NotNull", "Integer"]
    with pytest.raises(SchemaFileError, match=r"fields\.a"):
        schema_from_mapping({"a": "int"})
