"""Schemas as node code meets them: what a version really holds, with what was declared about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tailrace.node.errors import RecordsError
from tailrace.tables import Settings, VersionView
from tailrace.tables.schema import Field, FieldRoles, Schema, schema_from_mapping, shown_type

__all__ = ["as_schema", "schema_of_view"]


def schema_of_view(view: VersionView, declared: Schema | None) -> Schema:
    """The schema of a version: the fields that it has, in their order, with the declaration's words where it has any."""
    settings = view.settings
    known = {each.name: each for each in declared.fields} if declared else {}
    fields = []
    for name, field_type in view.fields.items():
        nullable = settings.nullable.get(name, True)
        if name in known:
            fields.append(replace(known[name], field_type=shown_type(field_type), nullable=nullable))
        else:
            fields.append(Field(name, shown_type(field_type), nullable))
    return Schema(
        settings.schema_name or f"_GeneratedSchema_{view.name.rpartition('_')[2]}",
        tuple(fields),
        description=declared.description if declared else None,
        unique_on=settings.unique_on,
        field_roles=_roles(settings),
    )


def _roles(settings: Settings) -> FieldRoles:
    known: dict[str, Any] = {}
    for role, names in settings.roles.items():
        if role == "primary_identifier":
            known[role] = names[0] if names else None
        elif role in FieldRoles.__slots__:
            known[role] = tuple(names)
    if settings.monotonic_id and "strictly_monotonic_ordering" not in known:
        known["strictly_monotonic_ordering"] = (settings.monotonic_id,)
    return FieldRoles(**known)


def as_schema(given: Any, schemas: Mapping[str, Any], table: str) -> Schema | None:
    """What `Table(schema=...)` and `init(schema=...)` take: a Schema, the name of one in the graph, or a mapping of
    fields to types (or a whole schema document)."""
    if given is None or isinstance(given, Schema):
        return given
    if isinstance(given, str):
        document = schemas.get(given)
        return Schema.from_json(document) if document is not None else None
    if isinstance(given, Mapping):
        return Schema.from_json(given) if "fields" in given and "name" in given else schema_from_mapping(given)
    raise RecordsError(table, given)
