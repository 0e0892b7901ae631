"""Templates: what renders to which SQL, what is refused, and where errors point."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from tailrace.sql import SqlError, SqlTemplateError, render, render_adhoc, sql_literal


def table(name: str, mode: str = "r", description: str | None = None, schema: Any = None, required: bool = True) -> str:
    return f"{name}_01k3x9v2qd"


def parameters(**values: object) -> Any:
    def parameter(name: str, description: str | None = None, type: Any = None, default: object = None) -> object:
        return values.get(name, default)

    return parameter


def rendered(source: str, **values: object) -> str:
    return render(source, table=table, parameter=parameters(**values), path="node.sql")


def test_a_table_is_its_quoted_physical_name() -> None:
    assert rendered('select * from {{ Table("leads") }} as t') == 'select * from "leads_01k3x9v2qd" as t'
    assert rendered("insert into {{ Table('Some\"Name', mode='w') }}") == 'insert into "Some""Name_01k3x9v2qd"'


def test_comments_go_before_the_template_is_read() -> None:
    """Real files begin with comments that hold a literal `'{{'`."""
    source = "-- Use '{{' and Table(\"x\") here\n/* {% nonsense */ select 1 -- {{\nfrom {{ Table('a') }}"
    assert rendered(source).split() == ["select", "1", "from", '"a_01k3x9v2qd"']


def test_comment_signs_in_literals_stay() -> None:
    assert rendered("select '--x', \"/*y\" , '{{ Table(\"a\") }}'") == "select '--x', \"/*y\" , '\"a_01k3x9v2qd\"'"


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (5, "5"),
        (-5, "(-5)"),
        (0.7, "0.7"),
        (-1.5e300, "(-1.5e+300)"),
        (float("nan"), "CAST('nan' AS double precision)"),
        (Decimal("1E+3"), "1000"),
        ("it's", "'it''s'"),
        ("'; drop table x; --", "'''; drop table x; --'"),
        ("back\\slash", "'back\\slash'"),
        (date(2020, 2, 29), "'2020-02-29'"),
        (datetime(2020, 2, 29, 1, 2, 3), "'2020-02-29 01:02:03'"),
        ([1, "a"], "(1, 'a')"),
        ([], "(NULL)"),
        ({"a": [1]}, "'{\"a\": [1]}'"),
    ],
)
def test_a_parameter_is_a_safe_literal(value: object, literal: str) -> None:
    assert sql_literal(value) == literal
    assert rendered('select {{ Parameter("p") }}', p=value) == f"select {literal}"


def test_a_value_without_a_literal_is_refused() -> None:
    with pytest.raises(SqlError, match="type object has no SQL literal"):
        sql_literal(object())
    with pytest.raises(SqlError, match="NUL"):
        sql_literal("a\0b")


def test_types_and_defaults_are_passed_on() -> None:
    seen: list[tuple[Any, ...]] = []

    def parameter(*args: Any, **options: Any) -> object:
        seen.append((args, options))
        return 7

    source = "{{ Parameter('n', type=int, default=3) }}{{ Parameter('c', type=Connection('openai')) }}"
    render(source, table=table, parameter=parameter, path="x.sql")
    assert [str(options["type"]) for _, options in seen] == ["int", "openai"]
    assert seen[0][1]["default"] == 3


def test_parameters_can_be_tested_and_compared() -> None:
    source = "{% if Parameter('on') %}a{% else %}b{% endif %}{% if Parameter('kind') == 'x' %}c{% endif %}"
    assert rendered(source, on=True, kind="x") == "ac"
    assert rendered(source, on=0, kind="y") == "b"


def test_parameters_are_used_as_their_values() -> None:
    """What a template makes of a value is printed as safely as the value."""
    assert rendered("{{ Parameter('n') + 1 }} {{ 2 * Parameter('n') }} {{ -Parameter('n') }}", n=5) == "6 10 (-5)"
    assert rendered("{{ Parameter('n') / Parameter('m') }}", n=5, m=2) == "2.5"
    assert rendered("{% if Parameter('n') > 3 and Parameter('n') <= 5 %}a{% endif %}", n=5) == "a"
    assert rendered("{% for i in range(Parameter('n')) %}{{ i }}{% endfor %}", n=3) == "012"
    names = ["a", "it's"]
    assert rendered("{% for x in Parameter('l') %}{{ x }};{% endfor %}", l=names) == "'a';'it''s';"
    assert rendered("in ({{ Parameter('l') | join(', ') }})", l=names) == "in ('a', 'it''s')"
    assert rendered("{% if 'a' in Parameter('l') %}{{ Parameter('l') | length }}{% endif %}", l=names) == "2"
    assert rendered("{{ Parameter('l')[0] }} {{ Parameter('l') | first }}", l=names) == "'a' 'a'"
    assert rendered("{{ Parameter('s') }} {{ Parameter('s') | length }}", s="abc") == "'abc' 3"
    for source in ("{{ Parameter('n') ** 100 }}", "{{ Parameter('s') * 10**9 }}", "{{ Parameter('s') + 1 }}"):
        with pytest.raises(SqlTemplateError):
            rendered(source, n=10, s="abc")


def test_loops_and_set_work() -> None:
    source = "select {% for n in range(3) %}{{ n }}{% if not loop.last %}, {% endif %}{% endfor %}"
    assert rendered(source) == "select 0, 1, 2"
    assert rendered("{% set t = Table('a') %}select * from {{ t }}") == 'select * from "a_01k3x9v2qd"'


REFUSED = [
    "{{ nothing }}",
    "{{ Table.__class__ }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ Table('a').__class__ }}",
    "{{ Table.__globals__ }}",
    "{{ Table('a')|attr('__class__') }}",
    "{{ int('5') }}",
    "{{ self }}{{ self._TemplateReference__context }}",
    "{% import 'x' as y %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% macro f() %}{% endmacro %}",
    "{{ lipsum() }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ range(10**9) }}",
    "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{{ '' }}{% endfor %}{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ 'x'.format(1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ [1, 2].append(3) }}",
    "{{ 1 / 0 }}",
    "{{ Table('a' }}",
    "{% if %}",
]


@pytest.mark.parametrize("source", REFUSED)
def test_refused_with_the_file(source: str) -> None:
    with pytest.raises(SqlTemplateError) as caught:
        rendered("select 1\n" + source)
    assert caught.value.path == "node.sql"
    assert "Error parsing file node.sql" in str(caught.value)


def test_errors_tell_the_line() -> None:
    with pytest.raises(SqlTemplateError) as caught:
        rendered("select 1\n-- a comment\nfrom {{ Tabel('a') }}")
    assert caught.value.line == 3
    with pytest.raises(SqlTemplateError) as caught:
        rendered("select 1\nfrom {{ Table('a' }}")
    assert (caught.value.line, str(caught.value)[:31]) == (2, "Error parsing file node.sql:2: ")


def test_errors_of_ours_pass_through() -> None:
    def refuse(name: str) -> str:
        raise SqlError(f"table {name} has no active version")

    with pytest.raises(SqlError, match="no active version"):
        render("{{ Table('a') }}", table=refuse, parameter=parameters(), path="x.sql")


def test_adhoc_names_the_ports() -> None:
    names = {"my_table": "leads_01k3x9v2qd"}
    assert render_adhoc("select * from {{ my_table }} t", names) == 'select * from "leads_01k3x9v2qd" t'
    assert render_adhoc("select 100 % 7 -- x", names) == "select 100 % 7 -- x"
    with pytest.raises(SqlTemplateError, match="'other' is undefined"):
        render_adhoc("select * from {{ other }}", names)
