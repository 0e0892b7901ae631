"""The first way through: rows in, a node over them, rows out."""

from __future__ import annotations

from pathlib import Path

from tailrace.testing.app import TestApp


def test_stream_to_table(tmp_path: Path) -> None:
    """A stream node sees each row once, over two runs."""
    (tmp_path / "n.py").write_text(
        "from patterns import *\n"
        "out = Table('out', 'w')\n"
        "s = State()\n"
        "for row in Table('a').as_stream():\n"
        "    row['y'] = row['x'] * 2\n"
        "    out.append(row)\n"
        "s.set_value('n', s.get_value('n', 0) + 1)\n"
    )
    with TestApp(tmp_path, stores=["a", "out"]) as app:
        app.append("a", [{"x": 1}, {"x": 2}])
        run = app.run("n.py")
        assert run.ok, run.outcome.traceback
        app.append("a", {"x": 3})
        run = app.run("n.py")
        assert run.ok, run.outcome.traceback
        assert app.read("out") == [{"x": 1, "y": 2}, {"x": 2, "y": 4}, {"x": 3, "y": 6}]
        assert app.memory("n.py").state == {"n": 2}


def test_read_own_rows(tmp_path: Path) -> None:
    """A run sees what it has written."""
    (tmp_path / "n.py").write_text(
        "from patterns import *\n"
        "out = Table('out', 'w')\n"
        "out.append({'a': 1})\n"
        "assert out.exists and out.read() == [{'a': 1, 'patterns_id': None}], out.read()\n"
        "out.flush()\n"
        "assert len(out.read()[0]['patterns_id']) == 26, out.read()\n"
        "out.replace([{'b': 'x'}, {'b': 'y'}])\n"
        "assert [r['b'] for r in out.read()] == ['x', 'y'], out.read()\n"
        "assert not Table('nowhere').is_connected\n"
        "Table('nowhere').as_stream().consume_records()\n"
        "assert Parameter('p', type=int) == 20\n"
    )
    with TestApp(tmp_path, stores=["out"]) as app:
        run = app.run("n.py", parameters={"p": "20"})
        assert run.ok, run.outcome.traceback
        assert app.read("out") == [{"b": "x"}, {"b": "y"}]
