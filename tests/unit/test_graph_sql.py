"""The interface of SQL nodes: ports and parameters from templates that are never rendered."""

from __future__ import annotations

import pytest

from tailrace.graph import Interface, ParameterPort, TablePort, read_sql

OUTPUT = TablePort(name="output_table", mode="w", line=1, implicit=True)


def read(source: str) -> Interface:
    return read_sql(source.encode(), "node.sql")


def test_a_select_writes_the_output_table() -> None:
    """Lines are the file's own, though the comment above went before the template was parsed."""
    found = read("/* '{{ Table(\"no\") }}'\n -- */\nselect * from {{ Table('a') }}\njoin {{ Table(\"b\", 'r') }} as b")
    assert found == Interface(
        tables=(TablePort(name="a", mode="r", line=3), TablePort(name="b", mode="r", line=4), OUTPUT)
    )


def test_a_table_to_write_takes_the_place_of_the_output_table() -> None:
    found = read("insert into {{ Table('x', mode='w') }} select * from {{ Table('a', required=false) }}")
    assert [(port.name, port.mode, port.required) for port in found.tables] == [("x", "w", True), ("a", "r", False)]


def test_parameters() -> None:
    found = read("""\
        select {{ Parameter("n", "How many", int, -5) }}, {{ Parameter('d', type=date) }}
        {% if Parameter("c", type=Connection("gmail"), default=None) %} {{ Parameter("s", default=now) }} {% endif %}
        {% set now = 1 %}
    """)
    assert found.parameters == (
        ParameterPort(name="n", line=1, type="int", description="How many", has_default=True, default=-5),
        ParameterPort(name="d", line=1, type="date"),
        ParameterPort(name="c", line=2, type="connection", connection="gmail", has_default=True),
        ParameterPort(name="s", line=2, has_default=True, default_computed=True),
    )
    assert found.problems == ()


def test_names_computed_at_run_time() -> None:
    found = read("{% for t in ['a', 'b'] %}\n{{ Table(t) }}{% endfor %} {{ Table(*['a']) }}")
    assert [(each.call, each.line) for each in found.dynamic] == [("Table", 2), ("Table", 2)]
    assert {each.severity for each in found.problems} == {"warning"}
    assert found.tables == (OUTPUT,)


@pytest.mark.parametrize(
    ("source", "line", "cause"),
    [
        ("select 1\nfrom {{ Table('a' }}", 2, "unexpected '}', expected ')'"),
        ("select {{ Tabel('a') }}", 1, '"Tabel" is undefined'),
        ("select {{ State() }}", 1, '"State" is undefined'),
        ("select\n{{ 1 | nope }}", 2, 'no filter named "nope"'),
        ("select {{ 1 is nope }}", 1, 'no test named "nope"'),
        ("{% include 'x' %}", 1, "a SQL node cannot include or import other templates"),
        ("{{" + "(" * 3000 + ")" * 3000 + "}}", 1, "nested too deeply"),
    ],
)
def test_a_template_error_names_file_line_and_cause(source: str, line: int, cause: str) -> None:
    (problem,) = read(source).problems
    assert (problem.line, problem.message) == (line, f"Error parsing file node.sql: {cause}")


def test_names_that_the_template_makes_itself_are_known() -> None:
    assert (
        read(
            "{% macro m(x) %}{{ x }}{{ caller() }}{% endmacro %}{% set y = range(3) %}"
            "{% for i in y %}{{ loop.index }}{{ i }}{% endfor %}{{ m(1) }}"
        ).problems
        == ()
    )


def test_expressions_are_not_computed() -> None:
    """`"a" * 10**10` is a few characters long and would be ten gigabytes; it is merely not a literal."""
    found = read("{{ Table('a' * 10**10) }}")
    assert [each.line for each in found.dynamic] == [1]


def test_bytes_that_are_not_utf8() -> None:
    (problem,) = read_sql(b"select 1\n-- \xfc", "node.sql").problems
    assert (problem.line, problem.message) == (2, "Not UTF-8: byte 0xfc at position 12")
