"""Reading a version: chunks, streams from any place, and that both show the same rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables_model import MemoryTopic

from tailrace.tables import StagedFileMissingError, VersionView, arrow_message, file_message, webhook_message

N = {"n": "Integer"}


def test_a_stream_goes_on_after_every_place() -> None:
    """A place is a message's offset and a row inside it: nothing comes twice, nothing is left out."""
    topic = MemoryTopic()
    topic.rows({"n": 1}, {"n": 2}, {"n": 3}, fields=N)
    topic.rows({"n": 4}, fields=N)
    topic.marker("signal")
    topic.rows({"n": 5}, {"n": 6}, fields=N)
    whole = topic.stream()
    assert [row["n"] for row, _ in whole] == [1, 2, 3, 4, 5, 6]
    for at, (_, place) in enumerate(whole):
        assert [row["n"] for row, _ in topic.stream(place)] == [1, 2, 3, 4, 5, 6][at + 1 :]


def test_a_place_in_an_older_version_leads_to_the_first_row_of_the_new_one() -> None:
    """All rows of a replaced table are new to a stream."""
    topic = MemoryTopic()
    topic.rows({"n": 1}, fields=N)
    place = topic.stream()[-1][1]
    topic.marker("version", fields=N)
    topic.rows({"n": 1}, {"n": 2}, fields=N)
    assert [row["n"] for row, _ in topic.stream(place)] == [1, 2]


def test_streams_parse_json_and_reads_give_its_text() -> None:
    """Programs `json.loads` what they read, and index into what they stream."""
    topic = MemoryTopic()
    topic.rows({"j": {"a": [1]}}, fields={"j": "Json"})
    assert topic.stream()[0][0]["j"] == {"a": [1]}
    assert topic.read() == [{"j": '{"a":[1]}'}]


def test_a_streamed_webhook_row_falls_back_to_its_record() -> None:
    """`row["email"]` works on a posted {"email": ...}; forwarding the row does not flatten it."""
    topic = MemoryTopic()
    topic.put(webhook_message({"ts": 1_700_000_000_000}, b'{"email": "a@b.c"}', 1))
    row = topic.stream()[0][0]
    assert row["email"] == "a@b.c"
    assert row.get("email") == "a@b.c"
    assert row.get("nothing", 3) == 3
    assert "email" in row
    assert list(row) == ["timestamp", "record", "patterns_id"]
    assert row["timestamp"] == datetime(2023, 11, 14, 22, 13, 20)
    with pytest.raises(KeyError):
        row["nothing"]


def test_columnar_messages_read_and_stream_like_rows(tmp_path: Path) -> None:
    """Bulk kinds are an encoding only: same rows, same ids, same widening."""
    topic = MemoryTopic(folder=tmp_path)
    table = pa.table({"n": pa.array([1, 2], pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet")
    topic.put(arrow_message({"fields": N}, table))
    topic.put(file_message({"fields": N}, "a.parquet", 0, 2))
    topic.rows({"n": 2.5}, fields={"n": "Float"})
    assert [row["n"] for row in topic.read()] == [1.0, 2.0, 1.0, 2.0, 2.5]
    assert [row["n"] for row, _ in topic.stream()] == [1.0, 2.0, 1.0, 2.0, 2.5]
    ids = topic.reader().table(id_column="patterns_id")["patterns_id"].to_pylist()
    assert ids == [row["patterns_id"] for row, _ in topic.stream()]
    assert ids == sorted(set(ids))


def test_a_staged_file_outside_its_folder_is_refused(tmp_path: Path) -> None:
    """A message's path comes from outside."""
    (tmp_path / "staging").mkdir()
    pq.write_table(pa.table({"n": [1]}), tmp_path / "secret.parquet")
    topic = MemoryTopic(folder=tmp_path / "staging")
    topic.put(file_message({"fields": N}, "../secret.parquet", 0, 1))
    with pytest.raises(StagedFileMissingError):
        topic.read()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("rows"), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99)), max_size=5)),
            st.sampled_from([("version", None), ("reset", None), ("truncate", None), ("signal", None)]),
        ),
        max_size=12,
    ),
    st.booleans(),
    st.integers(1, 7),
)
@settings(max_examples=150)
def test_reads_and_streams_agree_with_a_plain_list(
    steps: list[tuple[str, list[tuple[int, int]] | None]], keyed: bool, rows_max: int
) -> None:
    """Whatever the history: a read, a chunked read and a stream give the rows that a plain fold keeps."""
    topic = MemoryTopic()
    expected: list[tuple[int, int]] | None = None
    options = {"settings": {"key": ["k"]}} if keyed else {}
    fields = {"k": "Integer", "n": "Integer"}
    for kind, rows in steps:
        if kind == "rows":
            assert rows is not None
            topic.rows(*({"k": k, "n": n} for k, n in rows), fields=fields, **options)
            expected = (expected or []) + rows
        else:
            topic.marker(kind, fields=fields, **options)
            if kind == "version" or (kind == "truncate" and expected is not None):
                expected = []
            elif kind == "reset":
                expected = None
    if expected is None:
        assert topic.fold().view() is None
        return
    if keyed:
        last = {k: at for at, (k, _) in enumerate(expected)}
        expected = [row for at, row in enumerate(expected) if last[row[0]] == at]
    reader = topic.reader()
    assert [(row["k"], row["n"]) for row in reader.table().to_pylist()] == expected
    chunks = list(reader.tables(rows_max))
    assert [(row["k"], row["n"]) for chunk in chunks for row in chunk.to_pylist()] == expected
    assert [(row["k"], row["n"]) for row, _ in topic.stream()] == expected
    assert reader.count() == len(expected)


@pytest.mark.parametrize("head", [{}, {"run": "totals-1"}])
def test_rows_are_counted_as_they_are_read(head: dict[str, str]) -> None:
    """Those of other programs too, of which some may fit no type: only theirs have to be read for it."""
    topic = MemoryTopic()
    topic.rows({"k": 1}, {"k": 2}, fields={"k": "Integer"}, **head)
    if not head:
        topic.rows({"k": 3}, {"k": "many"}, 7, fields={"k": "Integer"})
        topic.put(b'{"kind":"rows","rows":[{"k":4},{"k":[]}]}')
    reader = topic.reader()
    assert reader.count() == len(reader.table().to_pylist()) == (2 if head else 5)
    assert reader.view.exact_count == (2 if head else None)
    assert VersionView.from_json(reader.view.to_json()) == reader.view
    topic.marker("truncate")
    topic.rows({"k": 1}, fields={"k": "Integer"}, run="totals-2")
    assert topic.reader().view.exact_count == 1


@pytest.mark.parametrize("ts", [1, 999, 1_000, 1_700_000_000_123, 1_699_999_999_999, 1.5, -1])
def test_posts_stream_with_the_moment_that_reads_show(ts: float) -> None:
    """Streams make moments second by second, reads one by one: both must say the same."""
    topic = MemoryTopic()
    for at in (1_700_000_000_000, ts, 1_700_000_000_999, ts):
        topic.put(webhook_message({"ts": at}, b'{"a":1}', 1))
    moments = [row["timestamp"] for row, _ in topic.stream()]
    assert moments == [row["timestamp"] for row in topic.read()]
    assert moments[1] == moments[3] == datetime(1970, 1, 1) + timedelta(milliseconds=ts)
