"""Errors of schemas and of casting values to them; all of the family that rejects its input."""

from __future__ import annotations

from tailrace.errors import RejectedError

__all__ = ["DuplicateColumnError", "SchemaFileError", "ValueCastError"]

_SHOWN_CHARS_MAX = 80


def shorten(value: object) -> str:
    """`repr(value)`, cut to a length that fits a message."""
    try:
        text = repr(value)
    except Exception as error:  # a stranger's __repr__ may raise anything
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= _SHOWN_CHARS_MAX else text[: _SHOWN_CHARS_MAX - 1] + "…"


class SchemaFileError(RejectedError):
    """A schema file or mapping is not a valid Common Model schema."""

    def __init__(self, path: str, key: str, rule: str) -> None:
        self.path, self.key, self.rule = path, key, rule
        super().__init__(f"{path}: {key}: {rule}" if key else f"{path}: {rule}")


class ValueCastError(RejectedError):
    """A value cannot be held by the type of its field."""

    def __init__(self, value: object, type_text: str, *, field: str | None = None, reason: str = "") -> None:
        self.value, self.type_text, self.field, self.reason = value, type_text, field, reason
        where = f"field {field!r}: " if field is not None else ""
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"{where}{shorten(value)} is no {type_text}{why}: "
            "change the value, or declare the field as a type that holds it, such as Text"
        )

    def at(self, field: str) -> ValueCastError:
        """The same error, naming the field."""
        return ValueCastError(self.value, self.type_text, field=field, reason=self.reason)


class DuplicateColumnError(RejectedError):
    """A DataFrame or Arrow table has two columns of one name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"two columns are called {name!r}: rename one, a row holds one value for each name")
