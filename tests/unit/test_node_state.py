"""State, parameters, connections, and the names that node code imports."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from node_apps import Nodes

import patterns
from tailrace.node.errors import NoRunError, ParameterValueError, StateValueError
from tailrace.node.parameter import coerce
from tailrace.node.values import decode_value, encode_value
from tailrace.runtime import ManualClock
from tailrace.testing.app import TestApp, run_node


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path, "t")


VALUES: list[Any] = [
    None,
    True,
    5,
    2**70,
    1.5,
    float("inf"),
    "text",
    [1, [2]],
    {"a": {"b": [None]}},
    {"$": "datetime", "v": 1},
    {1: "a", (1, 2): "b"},
    (1, "x"),
    {1, 2},
    datetime(2020, 1, 2, 3, 4, 5, 6),
    datetime(2020, 1, 2, tzinfo=UTC),
    date(2020, 1, 2),
    time(1, 2, 3),
    timedelta(days=-1, microseconds=5),
    Decimal("1.50"),
    b"\x00\xff",
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_state_values_come_back_as_what_they_were(value: Any) -> None:
    back = decode_value(orjson.loads(orjson.dumps(encode_value(value))))
    assert back == value and type(back) is type(value)


def test_what_state_cannot_keep_is_refused_with_its_key() -> None:
    with pytest.raises(StateValueError, match="'k'"):
        encode_value(object(), "k")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(StateValueError):
        encode_value(loop)


def test_state_over_runs(nodes: Nodes) -> None:
    nodes.ok("""
        from datetime import datetime, timezone
        s = State()
        s.set({"a": 1, "b": [1], "none": None})
        s.get_value("b").append(2)
        assert s.get_value("b") == [1] and s.get_value("none", 5) is None and s.get_value("x", 5) == 5
        s.set_value("naive", datetime(2020, 1, 1)); s.set_value("aware", datetime(2020, 1, 1, tzinfo=timezone.utc))
        s.set_value("text", "2020-01-01T00:00:00Z")
    """)
    nodes.ok("""
        from datetime import datetime
        s = State()
        assert s.get()["a"] == 1
        assert s.get_datetime("naive") == datetime(2020, 1, 1) and s.get_datetime("aware").tzinfo is not None
        assert s.get_datetime("text").tzinfo is not None and s.get_datetime("x") is None
        assert s.get_datetime("x", "2020-01-01") == datetime(2020, 1, 1), "a default is converted too"
        s.reset()
        assert s.get() == {}
    """)


def test_should_continue_ends_at_the_later_of_its_bounds(tmp_path: Path) -> None:
    (tmp_path / "n.py").write_text(
        "from patterns import State\n"
        "import tailrace.node.session as inner\n"
        "clock, s = inner._current.clock, State()\n"
        "clock.advance_ms(479_000); assert s.should_continue()\n"
        "clock.advance_ms(1_000); assert not s.should_continue()\n"
        "assert s.should_continue(pct_of_limit=0.9) and s.should_continue(seconds_till_limit=60)\n"
        "assert not s.should_continue(pct_of_limit=0.5) and s.should_continue(0.5, 10)\n"
    )
    with TestApp(tmp_path, clock=ManualClock()) as app:
        run = app.run("n.py")
        assert run.ok, run.outcome.traceback


# -- parameters


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        ("20", int, 20),
        (20.0, int, 20),
        ("1,000", int, 1000),
        ("0.7", float, 0.7),
        (5, float, 5.0),
        (5, str, "5"),
        (True, str, "true"),
        (date(2020, 1, 1), str, "2020-01-01"),
        ("yes", bool, True),
        ("false", bool, False),
        (0, bool, False),
        ("2000-01-01", datetime, datetime(2000, 1, 1)),
        ("2000-01-01T10:00:00Z", datetime, datetime(2000, 1, 1, 10, tzinfo=UTC)),
        ("Jan 5 2020", date, date(2020, 1, 5)),
        (datetime(2020, 1, 1, 5), date, date(2020, 1, 1)),
        ("a, b", list, ["a", "b"]),
        ("[1, 2]", list, [1, 2]),
        ([1], list, [1]),
        ("x", list, ["x"]),
        (None, int, None),
    ],
)
def test_parameters_are_coerced_to_their_type(value: Any, kind: Any, wanted: Any) -> None:
    assert coerce("p", value, kind) == wanted


@pytest.mark.parametrize(("value", "kind"), [("many", int), (1.5, int), ("maybe", bool), ("x", float), ("x", date)])
def test_a_parameter_that_is_none_of_its_type_is_named(value: Any, kind: Any) -> None:
    with pytest.raises(ParameterValueError, match=r"'2\. threshold'"):
        coerce("2. threshold", value, kind)


def test_parameters_of_a_run(nodes: Nodes) -> None:
    code = """
        assert Parameter("2. threshold", type=float, default=1) == 0.5
        assert Parameter("null one", default="d") == "d" and Parameter("none", default=None) is None
        assert Parameter("empty", default="") == ""
        conn = Parameter("key", type=Connection("openai"))
        assert isinstance(conn, Connection) and conn["api_key"] == "s3cret" and "s3cret" not in repr(conn)
        missing = Parameter("other", type=Connection("slackbot"))
        assert not missing and missing.get("token") is None and missing.kind == "slackbot"
        assert Parameter("other", type=Connection("slackbot"), default=None) is None
    """
    nodes.ok(code, parameters={"2. threshold": "0.5", "null one": None, "key": {"api_key": "s3cret"}})
    run = nodes.run("Parameter('limit', type=int)")
    assert run.error is not None and "'limit' has no default or value" in run.error


def test_what_is_not_set_in_the_environment_is_named_by_its_variable(nodes: Nodes) -> None:
    """graph.yml has a value, `${{ key }}`: to ask for one there would lead nowhere."""
    order = {"unset": {"key": "TAILRACE_SECRET_KEY", "mail": "TAILRACE_CONNECTION_GMAIL"}}
    run = nodes.run('assert not Parameter("mail", type=Connection("gmail")); Parameter("key")', **order)
    assert run.error is not None and "'key' has no default or value: set TAILRACE_SECRET_KEY in" in run.error
    assert [line for line in run.logs if "TAILRACE_CONNECTION_GMAIL is not set" in line]
    nodes.ok('assert Parameter("key", default="d") == "d"', **order)


# -- the module


def test_names_of_the_module() -> None:
    assert patterns.__version__ == "1.7.0"
    namespace: dict[str, Any] = {}
    exec("from patterns import *", namespace)
    for name in ("Table", "Parameter", "State", "Connection", "Stream", "TableVersion", "respond_to_request", "node"):
        assert name in namespace


@pytest.mark.parametrize("call", [lambda: patterns.Table("x"), patterns.State, lambda: patterns.Parameter("p")])
def test_outside_of_a_run_the_error_says_how_to_run_a_node(call: Any) -> None:
    with pytest.raises(NoRunError, match="tailrace up"):
        call()


def test_objects_of_an_earlier_run_can_do_nothing(nodes: Nodes) -> None:
    nodes.ok("""
        import decimal
        decimal.kept = (Table("t", "w"), State(), Table("t").as_stream())
    """)
    run = nodes.run("""
        import decimal
        table, state, stream = decimal.kept
        for use in (lambda: table.append({"a": 1}), lambda: state.set_value("a", 1), lambda: list(stream), table.read):
            try:
                use()
            except Exception as error:
                assert "is over" in str(error)
            else:
                assert False
    """)
    import decimal

    if hasattr(decimal, "kept"):
        del decimal.kept
    assert run.ok or "kept" in str(run.error)  # a host that puts modules back takes the leak away
    assert nodes.rows("t") == []


def test_answers_to_webhooks_go_out_at_once(nodes: Nodes) -> None:
    run = nodes.run("respond_to_request('r1', {'ok': True}); respond_to_request('r1', 2); 1 / 0")
    assert run.responses == {"r1": {"ok": True}}


def test_the_style_of_early_releases(nodes: Nodes) -> None:
    nodes.app.append("t", [{"n": 1}])
    nodes.app.table("out")
    nodes.ok("""
        @node
        def run(t=InputTable, out=OutputTable, state=State, p=Parameter("p", type=int, default=3)):
            for row in t.read():
                out.append({"n": row["n"] * p})
        @node
        def nothing(): 1 / 0
    """)
    assert nodes.rows("out") == [{"n": 3}]


def test_run_node_runs_one_file(tmp_path: Path) -> None:
    path = tmp_path / "double.py"
    path.write_text(
        "from patterns import Table, State\n"
        "for row in Table('numbers').as_stream():\n"
        "    Table('doubled', 'w').append({'n': row['n'] * State().get_value('factor', 2)})\n"
    )
    tables = run_node(path, {"numbers": [{"n": 1}, {"n": 4}]}, outputs=["doubled"], state={"factor": 3})
    assert tables["doubled"] == [{"n": 3}, {"n": 12}]
    path.write_text("1 / 0")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        run_node(path)
