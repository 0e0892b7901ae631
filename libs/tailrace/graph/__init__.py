"""From an app's files to a typed graph, or to errors with file and line. Nothing of an app's code is run.

`build_app` is pure: files in, an `App` out, whatever the files. `load_app` reads a folder and calls it.
"""

from __future__ import annotations

from tailrace.graph.build import build_app
from tailrace.graph.calls import Interface
from tailrace.graph.expand import COMPONENTS_FOLDER, ResolveComponent
from tailrace.graph.ids import fallback_id, is_id, slug_from, topic_name
from tailrace.graph.lineage import Edge, lineage
from tailrace.graph.load import load_app
from tailrace.graph.model import (
    App,
    ConnectionRef,
    Dashboard,
    DashboardItem,
    DynamicName,
    GraphError,
    Mode,
    Node,
    NodeKind,
    ParameterPort,
    ParameterType,
    SchemaFile,
    Scope,
    SecretRef,
    Severity,
    Storage,
    Store,
    Subgraph,
    TablePort,
)
from tailrace.graph.pycode import read_python
from tailrace.graph.report import format_error, format_errors
from tailrace.graph.section import parameter_value
from tailrace.graph.sqlcode import OUTPUT_PORT, read_sql
from tailrace.graph.versions import node_version

__all__ = [
    "COMPONENTS_FOLDER",
    "OUTPUT_PORT",
    "App",
    "ConnectionRef",
    "Dashboard",
    "DashboardItem",
    "DynamicName",
    "Edge",
    "GraphError",
    "Interface",
    "Mode",
    "Node",
    "NodeKind",
    "ParameterPort",
    "ParameterType",
    "ResolveComponent",
    "SchemaFile",
    "Scope",
    "SecretRef",
    "Severity",
    "Storage",
    "Store",
    "Subgraph",
    "TablePort",
    "build_app",
    "fallback_id",
    "format_error",
    "format_errors",
    "is_id",
    "lineage",
    "load_app",
    "node_version",
    "parameter_value",
    "read_python",
    "read_sql",
    "slug_from",
    "topic_name",
]
