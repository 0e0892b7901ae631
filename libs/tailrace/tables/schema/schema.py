"""Schemas: the Common Model files that authors write, and what a Table says about its fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tailrace.tables.schema.errors import SchemaFileError
from tailrace.tables.schema.types import TYPE_NAMES, FieldType, parse_type

__all__ = ["Field", "FieldRoles", "Schema", "parse_schema", "schema_from_mapping"]

# Keys of older drafts of the format: they say nothing that we act on, and are kept.
_METADATA_KEYS = (
    "namespace",
    "version",
    "relations",
    "implementations",
    "raw_definition",
    "commonmodel",
    "documentation",
)
_SCHEMA_KEYS = frozenset({"name", "description", "fields", "unique_on", "field_roles", "immutable", *_METADATA_KEYS})
_FIELD_KEYS = frozenset({"name", "type", "field_type", "nullable", "description", "schema", "validators"})
_SHORTHAND = re.compile(r"\s*(\w+(?:\s*\([^)]*\))?)\s*(.*)\Z", re.DOTALL)
_LIST_ROLES = ("measures", "dimensions", "created_ordering", "updated_ordering", "strictly_monotonic_ordering")


@dataclass(frozen=True, slots=True)
class FieldRoles:
    """What some fields are there for; the orderings are what a stream goes by when it is told nothing."""

    primary_identifier: str | None = None
    measures: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    created_ordering: tuple[str, ...] = ()
    updated_ordering: tuple[str, ...] = ()
    strictly_monotonic_ordering: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The roles that are filled."""
        roles: dict[str, Any] = {role: list(getattr(self, role)) for role in _LIST_ROLES if getattr(self, role)}
        if self.primary_identifier is not None:
            roles["primary_identifier"] = self.primary_identifier
        return roles


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a schema."""

    name: str
    field_type: FieldType
    nullable: bool = True
    description: str | None = None
    schema: Schema | None = None
    """Shape of the documents in a Json field, where its author gave one."""

    def __str__(self) -> str:
        return f"{self.field_type}{'' if self.nullable else ' NotNull'}"


@dataclass(frozen=True, slots=True)
class Schema:
    """The named fields of a Table, in column order, and what is known about them."""

    name: str
    fields: tuple[Field, ...]
    description: str | None = None
    unique_on: tuple[str, ...] = ()
    field_roles: FieldRoles = FieldRoles()
    immutable: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)
    """Keys that we carry without acting on them, such as `version` or `documentation`."""

    def field_names(self) -> list[str]:
        """The names of the fields in order."""
        return [each.name for each in self.fields]

    def get_field(self, name: str) -> Field:
        """The field called `name`.

        Raises:
            NameError: there is none.
        """
        for each in self.fields:
            if each.name == name:
                return each
        raise NameError(f"schema {self.name} has no field {name!r}: it has {', '.join(self.field_names())}")

    @property
    def types(self) -> dict[str, FieldType]:
        """Types by field name, in order: what casting, encoding and decoding take."""
        return {each.name: each.field_type for each in self.fields}

    def to_json(self) -> dict[str, Any]:
        """The schema as a document that `from_json` and `parse_schema` read; what has its default is left out."""
        document: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            document["description"] = self.description
        document["fields"] = {each.name: _field_json(each) for each in self.fields}
        if self.unique_on:
            document["unique_on"] = list(self.unique_on)
        if self.field_roles != FieldRoles():
            document["field_roles"] = self.field_roles.to_json()
        if self.immutable:
            document["immutable"] = True
        return {**document, **self.metadata}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """The inverse of `to_json`."""
        return _schema(document, "schema", "")


def _field_json(each: Field) -> object:
    if each.description is None and each.schema is None:
        return str(each)
    document: dict[str, Any] = {"type": str(each)}
    if each.description is not None:
        document["description"] = each.description
    if each.schema is not None:
        document["schema"] = each.schema.to_json()
    return document


def parse_schema(text: str, path: str) -> Schema:
    """The schema that a YAML or JSON file holds.

    `path` is for messages. Keys of older drafts of the format are taken: `namespace`, `version`, `relations` and
    `implementations` are carried as metadata, `validators: [NotNull]` makes a field not nullable.

    Raises:
        SchemaFileError: rejected; names the file and the key.
    """
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else path
        raise SchemaFileError(where, "", f"no YAML: {getattr(error, 'problem', None) or error}") from error
    return _schema(document, path, "")


def schema_from_mapping(fields: Mapping[str, str | FieldType], name: str = "") -> Schema:
    """A quick schema from `{field: type}`; types are `FieldType`s or texts such as `Decimal(12, 2) NotNull`.

    Raises:
        SchemaFileError: rejected; a type is unknown or malformed.
    """
    made = []
    for key, given in fields.items():
        if isinstance(given, FieldType):
            made.append(Field(str(key), given))
        else:
            made.append(_field(str(key), given, "schema", f"fields.{key}"))
    return Schema(name or "_QuickSchema", tuple(made))


def _schema(document: object, path: str, at: str) -> Schema:
    prefix = f"{at}." if at else ""
    if not isinstance(document, Mapping):
        raise SchemaFileError(path, at, f"must be a mapping with name and fields, not {type(document).__name__}")
    for key in document:
        if key not in _SCHEMA_KEYS:
            raise SchemaFileError(path, f"{prefix}{key}", f"unknown key: use {', '.join(sorted(_SCHEMA_KEYS))}")
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise SchemaFileError(path, f"{prefix}name", f"must be a text, not {name!r}")
    fields = _fields(document.get("fields"), path, f"{prefix}fields")
    known = {each.name for each in fields}
    unique_on = _names(document.get("unique_on"), path, f"{prefix}unique_on")
    for each in unique_on:
        if each not in known:
            raise SchemaFileError(path, f"{prefix}unique_on", f"{each!r} is no field: use one of {', '.join(known)}")
    return Schema(
        name,
        fields,
        description=_text(document.get("description"), path, f"{prefix}description"),
        unique_on=unique_on,
        field_roles=_roles(document.get("field_roles"), path, f"{prefix}field_roles"),
        immutable=_flag(document.get("immutable"), False, path, f"{prefix}immutable"),
        metadata={key: document[key] for key in _METADATA_KEYS if document.get(key) is not None},
    )


def _fields(given: object, path: str, at: str) -> tuple[Field, ...]:
    if isinstance(given, Mapping):
        return tuple(_field(str(name), each, path, f"{at}.{name}") for name, each in given.items())
    if not isinstance(given, list):
        raise SchemaFileError(path, at, f"must map names to types, or list them, not {type(given).__name__}")
    made: list[Field] = []
    for index, each in enumerate(given):
        where = f"{at}[{index}]"
        if not isinstance(each, Mapping) or not isinstance(each.get("name"), str):
            raise SchemaFileError(path, where, "must be a mapping with name and type")
        if each["name"] in {other.name for other in made}:
            raise SchemaFileError(path, where, f"the second field called {each['name']!r}")
        made.append(_field(each["name"], each, path, where))
    return tuple(made)


def _field(name: str, given: object, path: str, at: str) -> Field:
    if isinstance(given, str):
        field_type, nullable = _type(given, path, at)
        return Field(name, field_type, nullable)
    if not isinstance(given, Mapping):
        raise SchemaFileError(path, at, f"must be a type or a mapping with type, not {type(given).__name__}")
    for key in given:
        if key not in _FIELD_KEYS:
            raise SchemaFileError(path, f"{at}.{key}", f"unknown key: use {', '.join(sorted(_FIELD_KEYS))}")
    if given.get("name", name) != name:
        raise SchemaFileError(path, f"{at}.name", f"is {given['name']!r}, yet the field is called {name!r}")
    written = given.get("type", given.get("field_type"))
    if not isinstance(written, str):
        raise SchemaFileError(path, f"{at}.type", f"must be a type such as Text, not {written!r}")
    field_type, nullable = _type(written, path, f"{at}.type")
    validators = given.get("validators") or []
    if not isinstance(validators, list):
        raise SchemaFileError(path, f"{at}.validators", "must be a list such as [NotNull]")
    if any(str(each).lower() == "notnull" for each in validators):
        nullable = False
    nested = given.get("schema")
    return Field(
        name,
        field_type,
        nullable and _flag(given.get("nullable"), True, path, f"{at}.nullable"),
        _text(given.get("description"), path, f"{at}.description"),
        None if nested is None else _schema(nested, path, f"{at}.schema"),
    )


def _type(written: str, path: str, at: str) -> tuple[FieldType, bool]:
    """Type and nullability of the shorthand `"<Type>[ NotNull]"`; other words after the type are ignored."""
    match = _SHORTHAND.match(written)
    head, rest = match.groups() if match else (written, "")
    try:
        field_type = parse_type(head)
    except (KeyError, ValueError) as error:
        raise SchemaFileError(path, at, str(error.args[0])) from error
    if field_type.name not in TYPE_NAMES:
        raise SchemaFileError(path, at, f"no field type is called {field_type.name!r}")
    return field_type, "notnull" not in rest.lower().split()


def _names(given: object, path: str, at: str) -> tuple[str, ...]:
    if given is None:
        return ()
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise SchemaFileError(path, at, f"must be a field's name or a list of names, not {given!r}")
    return tuple(names)


def _roles(given: object, path: str, at: str) -> FieldRoles:
    if given is None:
        return FieldRoles()
    if not isinstance(given, Mapping):
        raise SchemaFileError(path, at, f"must map roles to fields, not {type(given).__name__}")
    for role in given:
        if role != "primary_identifier" and role not in _LIST_ROLES:
            raise SchemaFileError(
                path, f"{at}.{role}", f"unknown role: use primary_identifier, {', '.join(_LIST_ROLES)}"
            )
    lists = {role: _names(given.get(role), path, f"{at}.{role}") for role in _LIST_ROLES}
    return FieldRoles(_text(given.get("primary_identifier"), path, f"{at}.primary_identifier"), **lists)


def _text(given: object, path: str, at: str) -> str | None:
    if given is None or isinstance(given, str):
        return given
    raise SchemaFileError(path, at, f"must be a text, not {given!r}")


def _flag(given: object, default: bool, path: str, at: str) -> bool:
    if given is None:
        return default
    if isinstance(given, bool):
        return given
    raise SchemaFileError(path, at, f"must be true or false, not {given!r}")
