"""What node code touches: tables, streams, state, parameters. `patterns` re-exports it.

Outside of a run every one of them raises an error that says how to run a node.
"""

from __future__ import annotations

from tailrace.node.legacy import InputStream, InputTable, OutputStream, OutputTable, node
from tailrace.node.parameter import Connection, Parameter
from tailrace.node.respond import respond_to_request
from tailrace.node.state import State
from tailrace.node.stream import Stream
from tailrace.node.table import Table, TableVersion

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
