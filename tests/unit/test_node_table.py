"""Tables in nodes: what is written, what is read back, and when others see it."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_apps import Nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path, "t", "other")


def kinds(nodes: Nodes, table: str = "t") -> list[str]:
    import orjson

    return [orjson.loads(value)["kind"] for _, _, value in nodes.app.table(table).records]


def test_what_a_run_wrote_is_seen_by_itself_at_once_and_by_others_at_its_end(nodes: Nodes) -> None:
    nodes.ok("""
        t = Table("t", "w")
        assert not t.exists and t.record_count is None and t.schema is None and t.read() == []
        t.append({"a": 1, "b": "x"})
        t.append([{"a": 2}, {"c": 2.5}])
        assert t.exists and t.record_count == 3 and t.has_active_version()
        assert t.schema.field_names() == ["a", "b", "c"]
        assert [(f.name, f.field_type.name) for f in t.schema.fields][0] == ("a", "Integer")
        assert t.read()[2] == {"a": None, "b": None, "c": 2.5, "patterns_id": None}
        assert t.read_sql(f"select sum(a) from {t}") == [{"sum": 3}]
    """)
    assert nodes.rows("t") == [
        {"a": 1, "b": "x", "c": None},
        {"a": 2, "b": None, "c": None},
        {"a": None, "b": None, "c": 2.5},
    ]


def test_a_table_is_read_as_it_was(nodes: Nodes) -> None:
    """At a moment, without what the run writes; what is no moment is refused."""
    nodes.ok('Table("t", "w").append({"a": 1})')
    nodes.ok("""
        from datetime import date, datetime, timedelta
        t = Table("t", "w")
        t.append({"a": 2})
        assert len(t.read()) == 2 and [row["a"] for row in t.read(at=datetime.now() + timedelta(days=2))] == [1]
        assert t.read(at="2020-01-01 00:00") == [] == t.read(at=date(2020, 1, 1)) and t.read_dataframe(at="2020-01-01").empty
        for wrong in ("soon", 5):
            try:
                t.read(at=wrong)
            except ValueError as error:
                assert "give a datetime" in str(error)
            else:
                raise AssertionError(wrong)
    """)


def test_records_are_taken_as_they_are_when_they_are_written(nodes: Nodes) -> None:
    """What the code does to a dict or a list afterwards is its own affair."""
    nodes.ok("""
        t, tags = Table("t", "w"), ["x"]
        row = {"n": 1, "tags": tags, "deep": {"a": [1]}}
        t.append(row)
        row["n"] = 2
        tags.append("y")
        row["deep"]["a"].append(2)
        t.append(row)
    """)
    rows = nodes.rows("t")
    assert rows[0] == {"n": 1, "tags": '["x"]', "deep": '{"a":[1]}'}
    assert rows[1] == {"n": 2, "tags": '["x","y"]', "deep": '{"a":[1,2]}'}


@pytest.mark.parametrize("empty", ["[]", "pd.DataFrame()", "pd.DataFrame(columns=['a'])", "()"])
def test_empty_input_does_nothing(nodes: Nodes, empty: str) -> None:
    nodes.ok(f"import pandas as pd\n    t = Table('t', 'w'); t.append({empty}); t.write({empty})".replace("    ", ""))
    assert kinds(nodes) == []


def test_what_holds_no_records_is_refused(nodes: Nodes) -> None:
    for value in ("'text'", "5", "[1, 2]", "None"):
        assert "takes a dict" in str(nodes.run(f"Table('t', 'w').append({value})").error)


def test_ids_are_issued_anew_for_what_is_forwarded(nodes: Nodes) -> None:
    nodes.app.append("other", [{"n": 1}, {"n": 2}])
    nodes.ok("Table('t', 'w').append(list(Table('other').as_stream()))")
    nodes.ok(
        """
        rows = Table("t").read()
        assert list(rows[0]) == ["n", "patterns_id"]
        ids = {r["patterns_id"] for r in rows} | {r["patterns_id"] for r in Table("other").read()}
        assert len(ids) == 4 and all(len(i) == 26 for i in ids)
    """,
        name="check.py",
    )


def test_init_names_the_id_or_leaves_it_out_and_stamps_rows(nodes: Nodes) -> None:
    nodes.app.table("noid")
    nodes.ok("""
        t = Table("t", "w")
        t.init(add_monotonic_id="id", add_created="made_at", auto_indexes=True)
        t.append({"n": 1, "id": "mine", "patterns_id": "other"})
        n = Table("noid", "w")
        n.init(add_monotonic_id=None)
        n.append({"n": 1})
    """)
    nodes.ok(
        """
        from datetime import datetime
        (row,) = Table("t").read()
        assert list(row) == ["n", "made_at", "id"] and len(row["id"]) == 26 and isinstance(row["made_at"], datetime)
        assert [r["id"] for r in Table("t").as_stream()] == [row["id"]]
        assert Table("t").as_stream().order_by_field == "id"
        assert Table("t").schema.field_roles.created_ordering == ("made_at",)
        assert Table("noid").read() == [{"n": 1}] and list(Table("noid").as_stream(order_by="n")) == [{"n": 1}]
    """,
        name="check.py",
    )


def test_hints_and_schemas_come_before_inference(nodes: Nodes) -> None:
    nodes.app.table("s", {"id": "Text NotNull", "amount": "Decimal(12, 2)", "note": "Text"})
    nodes.ok("""
        from decimal import Decimal
        t = Table("t", "w")
        t.init(schema_hints={"id": "Text", "doc": "Text"})
        t.append([{"id": 12345678901234567890, "doc": {"a": 1}, "n": "5"}])
        assert t.read() == [{"id": "12345678901234567890", "doc": '{"a":1}', "n": 5, "patterns_id": None}]
        s = Table("s", "w")
        assert s.get_active_version().schema.field_names() == ["id", "amount", "note"]
        assert not s.get_active_version().exists and s.get_active_version().record_count is None
        s.append([{"id": 7, "amount": "1,234.5", "extra": True}])
        assert s.read() == [{"id": "7", "amount": Decimal("1234.50"), "note": None, "extra": True, "patterns_id": None}]
    """)
    run = nodes.run("Table('s', 'w').append({'amount': 1})")
    assert run.error is not None and "'id'" in run.error and "NotNull" in run.error
    run = nodes.ok("Table('s', 'w').append({'id': 'x', 'amount': 'many'})")
    assert "amount" in run.logs[0] and "does not fit" in run.logs[0]
    assert [row["amount"] for row in nodes.rows("s")] == ["1234.50", "many"]


# -- keys


def test_upsert_takes_the_place_of_the_row_with_its_key(nodes: Nodes) -> None:
    assert "AssertionError" in str(nodes.run("Table('t', 'w').upsert({'k': 1})").error)
    code = """
        t = Table("t", "w")
        t.init(unique_on="k")
        t.upsert([{"k": 1, "v": "a"}, {"k": 2, "v": "b"}])
        t.upsert({"k": 1, "v": "c"})
        assert t.record_count == 2
        assert sorted((r["k"], r["v"]) for r in t.read()) == [(1, "c"), (2, "b")]
    """
    nodes.ok(code)
    nodes.ok("Table('t', 'w').upsert({'k': 2, 'v': 'd'})", name="later.py")  # the key is known from the version
    assert nodes.rows("t") == [{"k": 1, "v": "c"}, {"k": 2, "v": "d"}]


# -- versions


def test_replace_makes_a_version_each_time_and_the_last_one_counts(nodes: Nodes) -> None:
    nodes.app.append("t", {"n": 0})
    nodes.ok("""
        t = Table("t", "w")
        before = t.get_active_version()
        for n in range(3):
            t.replace({"n": n})
        t.append({"n": 10})
        assert [r["n"] for r in t.read()] == [2, 10]
        assert t.get_active_version() != before and t.get_active_version().name > before.name
        assert str(t) == f'"{t.get_active_version().name}"' == t.sql_name
    """)
    assert nodes.rows("t") == [{"n": 2}, {"n": 10}]
    assert kinds(nodes) == ["rows", "version", "rows", "version", "rows", "version", "rows", "rows"]


def test_reset_and_append_swap_at_the_end_of_a_run_that_succeeds(nodes: Nodes) -> None:
    nodes.app.append("t", {"n": 0})
    code = """
        t, other = Table("t", "w"), Table("other", "w")
        t.reset()
        assert not t.exists and t.read() == [] and t.schema is None
        t.append({"m": 1})
        other.append({"x": 1})
        t.flush()
        assert t.read() == [{"m": 1, "patterns_id": None}]
        if State().get_value("fail"): raise RuntimeError
    """
    nodes.app.memory("node.py").state["fail"] = True
    run = nodes.run(code)
    assert run.outcome.kind == "failed"
    assert nodes.rows("t") == [{"n": 0}] and nodes.rows("other") == [{"x": 1}]
    nodes.app.memory("node.py").state.clear()
    nodes.ok(code)
    assert nodes.rows("t") == [{"m": 1}]


def test_a_replaced_table_stays_replaced_when_the_run_fails_later(nodes: Nodes) -> None:
    nodes.app.append("t", {"n": 0})
    nodes.run("Table('t', 'w').replace([{'n': 1}])\nraise ValueError")
    assert nodes.rows("t") == [{"n": 1}]


def test_a_run_that_only_resets_leaves_no_version(nodes: Nodes) -> None:
    nodes.app.append("t", {"n": 0})
    nodes.ok("Table('t').reset()")
    assert kinds(nodes) == ["rows", "reset"]
    nodes.ok("t = Table('t'); assert not t.exists and t.read() == [] and t.sql_name is None", name="check.py")


def test_truncate_keeps_version_and_schema(nodes: Nodes) -> None:
    nodes.app.append("t", {"n": 0, "s": "x"})
    nodes.ok("""
        t = Table("t", "w")
        name = t.get_active_version().name
        t.truncate()
        assert t.exists and t.record_count == 0 and t.read() == [] and t.schema.field_names() == ["n", "s"]
        assert list(t.read_dataframe().columns) == ["n", "s", "patterns_id"]
        t.append({"n": 1})
        assert t.get_active_version().name == name
    """)
    assert nodes.rows("t") == [{"n": 1, "s": None}]


def test_versions_by_hand(nodes: Nodes) -> None:
    nodes.app.append("t", {"n": 0})
    nodes.ok("""
        t = Table("t", "w")
        old = t.get_active_version()
        new = t.create_new_version()
        t.append({"n": 1})
        assert t.read()[0]["n"] == 1 and new.exists and new.record_count == 1 and new.schema.field_names() == ["n"]
        t.set_active_version(new)
        State().set_value("old", old.name)
    """)
    assert nodes.rows("t") == [{"n": 1}]
    nodes.ok("""
        t = Table("t", "w")
        version = t.get_active_version()
        class Named: name = State().get_value("old")
        t.set_active_version(Named)
        assert t.read()[0]["n"] == 0
    """)
    assert nodes.rows("t") == [{"n": 0}]


def test_a_version_by_hand_after_rows_of_the_same_millisecond(nodes: Nodes) -> None:
    """Its name tells when it began, after the version that the rows began: `set_active_version` finds it by that."""
    for number in range(20):  # most of these are quick enough
        nodes.app.table(f"v{number}")
    nodes.ok("""
        for number in range(20):
            t = Table(f"v{number}", "w")
            t.append({"n": 1})
            new = t.create_new_version()
            t.append({"n": 2})
            t.set_active_version(new)
    """)
    assert [nodes.rows(f"v{number}") for number in range(20)] == [[{"n": 2}]] * 20


def test_flush_commits_unless_a_record_is_in_hand(nodes: Nodes) -> None:
    nodes.app.append("other", [{"n": 1}, {"n": 2}])
    nodes.ok("""
        t = Table("t", "w")
        t.append({"n": 0})
        t.flush()
        assert t.read()[0]["patterns_id"] is not None
        for row in Table("other").as_stream():
            t.append(row)
            t.flush()
            assert t.read()[-1]["patterns_id"] is None
        t.flush()
        assert t.read()[-1]["patterns_id"] is not None
    """)
    assert nodes.rows("t") == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_signals_and_quiet_runs_reach_the_log(nodes: Nodes) -> None:
    import orjson

    run = nodes.ok("""
        t = Table("t", "w")
        t.append({"n": 1})
        t.signal_update()
        State().request_new_run(trigger_downstream=False, wait_atleast_seconds=1.5)
    """)
    assert run.outcome.requested == (1500, False) and run.outcome.progress.quiet
    heads = [orjson.loads(value) for _, _, value in nodes.app.table("t").records]
    assert [head["kind"] for head in heads] == ["rows", "signal"] and all(head["quiet"] for head in heads)


# -- bulk


@pytest.mark.parametrize("rows", [2, 500])
def test_a_frame_that_was_read_is_written_back_as_it_was(nodes: Nodes, rows: int) -> None:
    """Its texts are texts, although they look like numbers, whichever way they go."""
    nodes.ok(f"""
        t, other = Table("t", "w"), Table("other", "w")
        t.init(schema_hints={{"zip": "Text"}})
        t.append([{{"zip": "01234", "n": 1, "f": 2.0, "none": None}}] * {rows})
        frame = t.read_dataframe()
        for write in (other.append, other.replace):
            write(frame)
            assert other.read()[-1] == {{"zip": "01234", "n": 1, "f": 2.0, "none": None, "patterns_id": None}}
            assert [str(f.field_type) for f in other.schema.fields] == ["Text", "Integer", "Float", "Text"]
    """)


def test_frames_keep_their_types(nodes: Nodes) -> None:
    for rows in (3, 500, 100_000):
        nodes.ok(f"""
            import pandas as pd, numpy as np
            n = {rows}
            t = Table("t", "w")
            frame = pd.DataFrame({{
                "i": np.arange(n), "f": np.linspace(0, 1, n), "s": [f"text {{k}}" for k in range(n)],
                "d": pd.date_range("2020-01-01", periods=n, freq="min"), "b": np.arange(n) % 2 == 0,
                "j": [{{"k": k}} for k in range(n)], "patterns_id": "x",
            }})
            frame.loc[1, "s"] = None
            t.replace(frame)
            assert t.record_count == n
            back = t.read_dataframe()
            assert list(back.columns) == ["i", "f", "s", "d", "b", "j", "patterns_id"], back.columns
            assert back["i"].tolist() == frame["i"].tolist() and back["d"].tolist() == frame["d"].tolist()
            assert back["f"].tolist() == frame["f"].tolist() and back["s"].isna().sum() == 1
            assert str(back["b"].dtype) == "boolean" and back["j"][1] == '{{"k":1}}'
        """)
        table = nodes.app.table("t")
        assert len(table.read()) == rows
    assert {"rows", "arrow", "file"} <= set(kinds(nodes))


def test_a_streamed_bulk_write_comes_row_by_row(nodes: Nodes) -> None:
    nodes.ok("""
        import pandas as pd
        Table("t", "w").append(pd.DataFrame({"n": range(70_000), "doc": [{"a": 1}] * 70_000}))
    """)
    assert kinds(nodes) == ["file", "file"]
    nodes.ok(
        """
        rows = list(Table("t").as_stream())
        assert [r["n"] for r in rows] == list(range(70_000)) and rows[5]["doc"] == {"a": 1}
        assert len({r["patterns_id"] for r in rows}) == 70_000
        assert sorted(r["patterns_id"] for r in rows) == [r["patterns_id"] for r in rows]
        count = 0
        for chunk in Table("t").read(chunksize=30_000):
            count += len(chunk)
            assert len(chunk) in (30_000, 10_000)
        assert count == 70_000
    """,
        name="reader.py",
    )


def test_large_lists_rows_and_many_small_appends_are_staged(nodes: Nodes) -> None:
    nodes.ok("""
        t = Table("t", "w")
        t.append([{"n": n, "text": "x" * 500} for n in range(3000)])
        t.append({"n": -1, "text": "y" * 600_000})
        for n in range(40_000):
            t.append({"n": n, "text": "z" * 500})
        assert t.record_count == 43_001
        assert t.read()[3000]["n"] == -1
    """)
    found = kinds(nodes)
    assert found.count("file") >= 3
    rows = nodes.rows("t")
    assert [row["n"] for row in rows] == [*range(3000), -1, *range(40_000)]


def test_columns_that_come_later_or_grow_wider(nodes: Nodes) -> None:
    nodes.ok("""
        import pandas as pd
        t = Table("t", "w")
        t.append([{"a": 1}] * 200)
        t.append(pd.DataFrame({"a": [1.5] * 200, "b": ["x"] * 200}))
        t.append({"a": "word", "c": None})
        rows = t.read()
        assert rows[0] == {"a": "1.0", "b": None, "c": None, "patterns_id": None} or rows[0]["a"] == "1", rows[0]
        assert rows[200]["a"] == "1.5" and rows[400]["a"] == "word"
    """)


def test_an_arrow_table_is_taken_and_its_nulls_checked(nodes: Nodes) -> None:
    nodes.app.table("s", {"id": "Integer NotNull"})
    nodes.ok("""
        import pyarrow as pa
        Table("t", "w").append(pa.table({"x": [1, None, 3], "y": [[1], [], None]}))
        assert [r["x"] for r in Table("t").read()] == [1, None, 3]
    """)
    run = nodes.run("""
        import pyarrow as pa
        Table("s", "w").append(pa.table({"id": [None] * 300}, schema=pa.schema([("id", pa.int64())])))
    """)
    assert "NotNull" in str(run.error)


# -- unconnected


def test_an_unconnected_port_does_nothing_and_says_so_once(nodes: Nodes) -> None:
    run = nodes.ok("""
        t = Table("nowhere")
        Table("nowhere", "w").append({"a": 1})
        assert not t.is_connected and not t.exists and t.read() == [] and len(t.read_dataframe()) == 0
        assert t.record_count is None and t.schema is None and str(t) == ""
        stream = t.as_stream()
        assert not stream and list(stream) == [] and list(stream.consume_records()) == []
        with stream.consume_with_rollback() as rows:
            for row in rows: 1 / 0
        stream.checkpoint(); stream.rollback()
        assert not t.get_active_version()
        t.init(unique_on="x"); t.upsert({"x": 1}); t.replace([{}]); t.reset(); t.flush(); t.execute_sql("delete")
        assert t.read_sql("select 1") == []
        Table("optional", required=False)
        name = "t"
        assert Table(name).is_connected
    """)
    assert len([line for line in run.logs if "nowhere" in line]) == 2  # once to read, once to write
    assert not any("optional" in line for line in run.logs)


def test_wiring_goes_by_the_map_and_then_by_name(nodes: Nodes) -> None:
    nodes.app.append("other", {"n": 1})
    nodes.ok(
        """
        assert Table("in").read()[0]["n"] == 1 and Table("in").port_name == "in"
        Table("res", "w").append({"m": 2})
        assert not Table("res").is_connected
        assert Table("other").read()[0]["n"] == 1
    """,
        inputs={"in": "other"},
        outputs={"res": "t"},
    )
    assert nodes.rows("t") == [{"m": 2}]
