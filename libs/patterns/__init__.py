"""What node code imports: `from patterns import Table, State, Parameter`. The classes are those of `tailrace.node`."""

from __future__ import annotations

from tailrace.node import (
    Connection,
    InputStream,
    InputTable,
    OutputStream,
    OutputTable,
    Parameter,
    State,
    Stream,
    Table,
    TableVersion,
    node,
    respond_to_request,
)

__version__ = "1.7.0"
"""The release of the original whose interface this is."""

__all__ = [
    "Connection",
    "InputStream",
    "InputTable",
    "OutputStream",
    "OutputTable",
    "Parameter",
    "State",
    "Stream",
    "Table",
    "TableVersion",
    "node",
    "respond_to_request",
]
