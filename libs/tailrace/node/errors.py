"""Errors that node code can meet; each says what to do next."""

from __future__ import annotations

from tailrace.errors import FatalError, RejectedError

__all__ = [
    "HostRefusedError",
    "LogTrimmedError",
    "MissingParameterError",
    "MissingValueError",
    "NoRunError",
    "NoVersionError",
    "OrderingError",
    "ParameterValueError",
    "RecordsError",
    "RunOverError",
    "StateValueError",
]


class NoRunError(RejectedError):
    """The node API was used while no run is going on."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} works only while a node runs: start its app with `tailrace up`, "
            "or run the file in a test with `tailrace.testing.run_node`"
        )


class RunOverError(RejectedError):
    """An object of an earlier run was used: what it wrote would belong to no run."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__(f"run {run} is over: make Table(), State() and streams anew in each run")


class HostRefusedError(RejectedError):
    """The host could not do what the run asked for."""

    def __init__(self, op: str, reason: str) -> None:
        self.op, self.reason = op, reason
        super().__init__(f"{op}: {reason}")


class LogTrimmedError(HostRefusedError):
    """Records that were asked for are not in the log any more; what they said is in a snapshot."""

    def __init__(self, reason: str, start: int) -> None:
        self.start = start
        super().__init__("scan", reason)


class HostConfusedError(FatalError):
    """Host and worker do not understand each other: the worker must not go on."""


class MissingParameterError(RejectedError):
    """A required parameter has neither a value nor a default."""

    def __init__(self, name: str, variable: str = "") -> None:
        """`variable`: graph.yml refers to a secret that this environment variable would hold."""
        self.name, self.variable = name, variable
        to_do = (
            f"set {variable} in the environment of the runner"
            if variable
            else ("set it under `parameter_values` of the node in graph.yml")
        )
        super().__init__(f"Parameter {name!r} has no default or value: {to_do}, or give it a default in the code")


class ParameterValueError(RejectedError):
    """A parameter's value is none of its type."""

    def __init__(self, name: str, value: object, type_name: str) -> None:
        self.name, self.value, self.type_name = name, value, type_name
        super().__init__(f"Parameter {name!r} is {value!r}, which is no {type_name}: correct it in graph.yml")


class StateValueError(RejectedError, TypeError):
    """A value cannot be kept in State."""

    def __init__(self, key: str, value: object) -> None:
        self.key, self.value = key, value
        super().__init__(
            f"State cannot keep {type(value).__name__} under {key!r}: use text, numbers, booleans, None, dates and "
            "times, Decimal, bytes, and lists, tuples, sets and dicts of them"
        )


class RecordsError(RejectedError, TypeError):
    """Something that is neither a record, nor a list of them, nor a DataFrame was written."""

    def __init__(self, table: str, value: object) -> None:
        self.table, self.value = table, value
        super().__init__(
            f"table {table!r} takes a dict, a list of dicts, a DataFrame or an Arrow table, not {type(value).__name__}"
        )


class MissingValueError(RejectedError):
    """A record lacks a field that its schema declares NOT NULL."""

    def __init__(self, table: str, field: str) -> None:
        self.table, self.field = table, field
        super().__init__(
            f"table {table!r}: a record has no value for {field!r}, which its schema declares NotNull: "
            "give it one, or make the field nullable"
        )


class OrderingError(RejectedError):
    """A stream has nothing to go by: no such field (None: none was named), and no ids."""

    def __init__(self, table: str, field: str | None, fields: list[str]) -> None:
        self.table, self.field, self.fields = table, field, fields
        known = ", ".join(fields) or "none"
        super().__init__(
            f"table {table!r} has no field {field!r} to order by: it has {known}"
            if field is not None
            else f"table {table!r} has no ids, and no role orders it: say as_stream(order_by=...), with one of {known}"
        )


class NoVersionError(RejectedError):
    """SQL names a table that has nothing in it yet."""

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(
            f"table {table!r} has no active version yet: nothing was written to it since it was made or reset (a node can "
            "ask `table.exists` before the query)"
        )
