"""The interface of Python nodes: ports and parameters from source that is never run."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tailrace.graph import Interface, ParameterPort, TablePort, read_python


def read(source: str) -> Interface:
    return read_python(dedent(source).encode(), "node.py")


def names(interface: Interface) -> list[tuple[str, str]]:
    return [(port.name, port.mode) for port in interface.tables]


def test_a_whole_node() -> None:
    """Positional and keyword arguments, defaults, types and lines, as real nodes write them."""
    found = read("""\
        from patterns import Connection, Parameter, State, Table
        orders = Table("orders")
        big = Table("big_orders", "w", "Large ones", schema="Order", required=False)
        limit = Parameter("limit", type=float, default=100)
        mail = Parameter("mailer", "Where to", Connection("gmail"))
        word = Parameter("word")
    """)
    assert found.tables == (
        TablePort(name="orders", mode="r", line=2),
        TablePort(name="big_orders", mode="w", line=3, description="Large ones", schema="Order", required=False),
    )
    assert found.parameters == (
        ParameterPort(name="limit", line=4, type="float", has_default=True, default=100),
        ParameterPort(name="mailer", line=5, type="connection", connection="gmail", description="Where to"),
        ParameterPort(name="word", line=6),
    )
    assert found.problems == () and found.dynamic == ()


@pytest.mark.parametrize(
    "source",
    [
        "from patterns import Table\nTable('a', 'w')",
        "from patterns import Table as T\nT('a', mode='w')",
        "from patterns import *\nTable('a', 'w')",
        "import patterns\npatterns.Table('a', 'w')",
        "import patterns as p\np.Table('a', 'w')",
        "from patterns.node.node import Table\nTable(name='a', mode='w')",
        "def f():\n    with x:\n        return [Table('a', 'w') for _ in y]\nfrom patterns import Table",
        "from patterns import Table\nTable('a' 'b'[1:] if 0 else 'a', 'w') if 0 else Table('a', 'w')",
    ],
)
def test_every_way_to_import_and_call(source: str) -> None:
    """Calls count wherever they stand, also above the import."""
    assert names(read(source)) == [("a", "w")]


@pytest.mark.parametrize(
    "source",
    [
        "from rich.table import Table\nTable('a')",
        "from .patterns import Table\nTable('a')",
        "import rich\nrich.Table('a')",
        "class Table: ...\nTable('a')",
        "# Table('a')\n'Table(\"a\")'",
    ],
)
def test_a_table_from_elsewhere_is_no_port(source: str) -> None:
    assert read(source) == Interface()


def test_one_table_in_both_modes_makes_two_ports_and_repeats_make_none() -> None:
    """The first line is kept; what any of the calls tells counts."""
    found = read("""\
        from patterns import Table
        Table("a", required=False)
        Table("a", "w")
        Table("a", schema="S")
    """)
    assert found.tables == (
        TablePort(name="a", mode="r", line=2, schema="S"),
        TablePort(name="a", mode="w", line=3),
    )


@pytest.mark.parametrize("call", ["Table(name)", "Table('a', mode)", "Table(*x)", "Table(**x)", "Table(f'a{x}')"])
def test_a_name_computed_at_run_time_is_a_warning(call: str) -> None:
    """The host finds its store while it runs; the graph cannot show it."""
    found = read(f"from patterns import Table\n\n{call}")
    assert found.tables == ()
    assert [(each.call, each.line) for each in found.dynamic] == [("Table", 3)]
    assert [(each.line, each.severity) for each in found.problems] == [(3, "warning")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("Table()", "Table needs a name: a text"),
        ("Table(3)", "Table needs a name: a text"),
        ("Table('a', 'x')", "Table \"a\" has mode 'x'"),
        ("Table('a', 'r', None, None, True, 1)", "Table takes 5 arguments, not 6"),
        ("Table('a', name='b')", 'Table got two values for "name"'),
        ("Table('a', moed='w')", 'Table has no argument "moed"'),
        ("Parameter()", "Parameter needs a name: a text"),
    ],
)
def test_a_call_that_cannot_work_is_an_error(call: str, message: str) -> None:
    found = read(f"from patterns import *\n{call}")
    assert [(each.line, each.severity, each.message) for each in found.problems] == [(2, "error", message)]


@pytest.mark.parametrize(
    ("type_", "wanted"),
    [
        ("int", "int"),
        ("datetime", "datetime"),
        ("dt", "datetime"),
        ("datetime.date", "date"),
        ("list[str]", "list"),
        ("typing.List[int]", "list"),
        ("'bool'", "bool"),
        ("None", "str"),
        ("Connection", "connection"),
        ("Connection(kind='x')", "connection"),
    ],
)
def test_parameter_types(type_: str, wanted: str) -> None:
    found = read(f"from patterns import *\nfrom datetime import datetime as dt\nParameter('p', type={type_})")
    assert [parameter.type for parameter in found.parameters] == [wanted]
    assert found.problems == ()


def test_an_unknown_type_is_told_and_taken_for_text() -> None:
    found = read("from patterns import Parameter\nParameter('p', type=dict)")
    assert found.parameters[0].type == "str"
    assert [each.severity for each in found.problems] == ["warning"]


def test_defaults() -> None:
    """`None` and "" are defaults; an expression is one too, which only the code knows."""
    found = read("""\
        from patterns import Parameter
        Parameter("none", default=None)
        Parameter("empty", default="")
        Parameter("minus", None, int, -1)
        Parameter("today", default=today())
        Parameter("twice", default=1)
        Parameter("twice")
    """)
    assert [(each.has_default, each.default, each.default_computed) for each in found.parameters] == [
        (True, None, False),
        (True, "", False),
        (True, -1, False),
        (True, None, True),
        (False, None, False),
    ]


def test_the_legacy_decorator() -> None:
    """`@node def f(x=InputTable, …)`: the arguments' names are those of the ports."""
    found = read("""\
        from patterns import *
        from patterns import node, InputTable, OutputTable
        @node
        def f(x=InputTable, y=OutputTable, p=Parameter(type=int, default=3), s=State, *, q=Parameter): ...
    """)
    assert names(found) == [("x", "r"), ("y", "w")]
    assert [(each.name, each.type, each.default) for each in found.parameters] == [("p", "int", 3), ("q", "str", None)]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("source", "line"),
    [(b"x = 1\ndef f(:\n", 2), (b"a\0b", 1), (b"# coding: nonsense\n", 1), (b"(" * 3000 + b")" * 3000, 1)],
)
def test_a_syntax_error_names_file_line_and_cause(source: bytes, line: int) -> None:
    found = read_python(source, "a/node.py")
    assert not found.readable
    assert [each.line for each in found.problems] == [line]
    assert found.problems[0].message.startswith("Error parsing file a/node.py: ")


def test_bytes_that_are_not_utf8() -> None:
    """Unless the file says how it is encoded."""
    found = read_python(b"x = 1\ny = '\xff'", "node.py")
    assert [(each.line, each.message) for each in found.problems] == [(2, "Not UTF-8: byte 0xff at position 11")]
    assert read_python(b"# coding: latin-1\ny = '\xff'", "node.py").problems == ()


def test_warnings_of_the_parser_are_nobodys_business() -> None:
    """Warnings are errors in this suite, so a "\\d" in a node would raise here."""
    assert read('from patterns import Table\nTable("a")\nx = "\\d"').problems == ()


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("from datetime.datetime import now", "datetime.now()"),
        ("import datetime.datetime", "datetime.now()"),
        ("from datetime.datetime import utcnow", "datetime.utcnow()"),
    ],
)
def test_the_import_that_cannot_be(source: str, call: str) -> None:
    """Sample code on the product's page has it: valid syntax that fails when it runs. Say what to write."""
    (problem,) = read(source).problems
    assert problem.severity == "warning" and source in problem.message
    assert "`from datetime import datetime`" in problem.hint and f"`{call}`" in problem.hint
