"""A fold of a topic decides which rows a Table shows: versions, activation, schemas, who wrote last."""

from __future__ import annotations

import orjson
import pytest
from tables_model import BORN_MS, MemoryTopic

from tailrace.tables import REPEAT_MS, TableFold, message, split_head, webhook_message
from tailrace.tables.fold import OLDER_MAX, REPEAT_IDS_MAX, VERSIONS_MAX

N = {"n": "Integer"}


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic()


def values(topic: MemoryTopic) -> list[int]:
    return [row["n"] for row in topic.read()]


def test_a_topic_without_messages_has_no_version(topic: MemoryTopic) -> None:
    """Connected and never written: `exists` is False."""
    assert topic.fold().view() is None


def test_an_append_begins_a_version_where_none_is_active(topic: MemoryTopic) -> None:
    """Whoever writes first needs no marker, so two first writers at once cannot supersede each other."""
    topic.rows({"n": 1}, fields=N)
    topic.rows({"n": 2}, fields=N)
    assert values(topic) == [1, 2]
    assert len(topic.fold().versions) == 1


def test_a_version_marker_supersedes_what_was_before(topic: MemoryTopic) -> None:
    """`replace` and SQL runs: readers after the marker see only the new rows."""
    topic.rows({"n": 1}, fields=N)
    topic.marker("version", fields=N)
    topic.rows({"n": 2}, fields=N)
    assert values(topic) == [2]


def test_a_new_version_may_be_empty_and_still_has_its_fields(topic: MemoryTopic) -> None:
    """A SELECT without rows makes an empty table, not a missing one."""
    topic.rows({"n": 1}, fields=N)
    topic.marker("version", fields=N)
    assert topic.reader().table().schema.names == ["n"]
    assert values(topic) == []


def test_version_names_grow_with_time_also_within_a_millisecond(topic: MemoryTopic) -> None:
    """A loop of `replace` makes versions faster than the clock ticks."""
    for n in range(20):
        topic.marker("version", fields=N, ts=1_700_000_000_000)
        topic.rows({"n": n}, fields=N)
    names = list(topic.fold().versions)
    assert names == sorted(names)
    assert len(set(names)) == 20
    assert all(name.startswith("orders_") for name in names)


def test_reset_hides_all_and_the_next_append_begins_anew(topic: MemoryTopic) -> None:
    """`reset()`: active version none, nothing deleted, the next write creates a version."""
    topic.rows({"n": 1}, fields=N)
    topic.marker("reset")
    assert topic.fold().view() is None
    topic.rows({"n": 2}, fields=N)
    assert values(topic) == [2]
    assert len(topic.fold().versions) == 2


def test_truncate_empties_the_version_and_keeps_it(topic: MemoryTopic) -> None:
    """`truncate()`: version and schema stay."""
    topic.rows({"n": 1}, fields=N)
    name = topic.fold().view().name  # type: ignore[union-attr]
    topic.marker("truncate")
    topic.rows({"n": 2}, fields=N)
    assert values(topic) == [2]
    assert topic.fold().view().name == name  # type: ignore[union-attr]


def test_an_older_version_can_be_made_active_again(topic: MemoryTopic) -> None:
    """`set_active_version`: its rows are back, and what is appended then belongs to it."""
    topic.rows({"n": 1}, fields=N)
    first = topic.fold().view().name  # type: ignore[union-attr]
    topic.marker("version", fields=N)
    topic.rows({"n": 2}, fields=N)
    topic.marker("activate", name=first)
    topic.rows({"n": 3}, fields=N)
    assert values(topic) == [1, 3]


def test_fields_join_and_rows_keep_the_schema_of_their_place(topic: MemoryTopic) -> None:
    """Widening converts values, never raw text: "007" that became 7 stays "7"."""
    topic.rows({"code": "007"}, fields={"code": "Integer"})
    topic.rows({"code": "x1", "extra": 2.5}, fields={"code": "Text", "extra": "Float"})
    assert topic.read() == [{"code": "7", "extra": None}, {"code": "x1", "extra": 2.5}]


def test_the_last_row_of_a_key_counts(topic: MemoryTopic) -> None:
    """A unique key makes a Table of the last row of each; rows come in the order of the log."""
    topic.rows({"id": 1, "n": 1}, {"id": 2, "n": 2}, fields={"id": "Integer", **N}, settings={"key": ["id"]})
    topic.rows({"id": "1", "n": 3}, fields={"id": "Integer", **N})
    assert topic.read() == [{"id": 2, "n": 2}, {"id": 1, "n": 3}]


def test_rows_without_a_key_value_are_never_equal(topic: MemoryTopic) -> None:
    """As NULLs in a unique index."""
    topic.rows({"id": None, "n": 1}, {"id": None, "n": 2}, fields={"id": "Integer", **N}, key=["id"])
    assert values(topic) == [1, 2]


def test_a_webhook_message_is_a_row_a_value(topic: MemoryTopic) -> None:
    """timestamp and record, the record as the JSON text that was posted."""
    topic.put(webhook_message({"ts": 1_700_000_000_123}, b'{"a": 1}, [2]', 2))
    first, second = topic.read()
    assert (first["record"], second["record"]) == ('{"a": 1}', "[2]")
    assert first["timestamp"].isoformat() == "2023-11-14T22:13:20.123000"


def test_deleted_ids_are_gone(topic: MemoryTopic) -> None:
    """`DELETE` through `execute_sql` is a message that names ids."""
    topic.rows({"n": 1}, {"n": 2}, {"n": 3}, fields=N)
    ids = [row["patterns_id"] for row, _ in topic.stream()]
    topic.marker("delete", ids=[ids[1]])
    assert values(topic) == [1, 3]
    assert [row["n"] for row, _ in topic.stream()] == [1, 3]


def test_who_wrote_last_leaves_quiet_messages_out(topic: MemoryTopic) -> None:
    """Firing compares these with what a node has seen."""
    topic.rows({"n": 1}, fields=N, node="a")
    second = topic.rows({"n": 2}, fields=N, node="b")
    topic.rows({"n": 3}, fields=N, node="b", quiet=True)
    assert topic.fold().last_by_writer == {"a": 0, "b": second}


def test_what_no_json_is_is_passed_over(topic: MemoryTopic) -> None:
    """Any Kafka producer can write to a topic: its garbage must not stop a Table."""
    topic.rows({"n": 1}, fields=N)
    topic.put(b"not json, {")
    topic.put(b"[1, 2]")
    topic.put(b'{"kind": "rows", "rows": [{"n": 5}]}')
    assert values(topic) == [1, 5]


def test_a_head_is_read_without_its_rows() -> None:
    """Also when a field's name looks like the rows."""
    value = b'{"kind":"rows","n":1,"fields":{"a\\",\\"rows\\":[":"Text"},"rows":[{"n":1}]}'
    assert split_head(value) == {"kind": "rows", "n": 1, "fields": {'a","rows":[': "Text"}}


def test_a_fold_in_parts_equals_a_fold_at_once(topic: MemoryTopic) -> None:
    """An index is a cache *as of* a position: going on from it gives what folding everything gives."""
    topic.rows({"id": 1}, fields={"id": "Integer"}, node="a")
    topic.marker("version", fields=N, settings={"key": ["n"], "id": None})
    topic.rows({"n": 1}, fields=N)
    topic.marker("reset")
    topic.rows({"n": 1.5}, fields={"n": "Float"}, node="b")
    topic.marker("truncate")
    topic.rows({"n": 2}, fields=N)
    whole = topic.fold().to_json()
    for cut in range(len(topic.messages) + 1):
        fold = TableFold("orders")
        fold.advance(topic.messages[:cut], topic.messages[cut][0] if cut < len(topic.messages) else topic.end)
        resumed = TableFold.from_json(fold.to_json())
        resumed.advance(topic.messages, topic.end)
        assert resumed.to_json() == whole


def test_a_view_does_not_change_under_its_reader(topic: MemoryTopic) -> None:
    """A run reads one cut, whatever is written meanwhile."""
    topic.rows({"n": 1}, fields=N)
    reader = topic.reader()
    topic.rows({"n": 2}, fields=N)
    topic.marker("version", fields=N)
    assert reader.table().to_pylist() == [{"n": 1}]


def test_posts_fold_the_same_with_and_without_being_parsed() -> None:
    """Posts are told by their first bytes, which must change nothing but the time it takes."""
    posts = [
        webhook_message({"ts": 1_700_000_000_000}, b'{"a":1}', 1),
        webhook_message({"ts": 1_700_000_000_001}, b'{"a":2},{"a":3}', 2),
        webhook_message({"ts": 1_700_000_000_002, "request_key": "k"}, b'{"a":4}', 1),
        webhook_message({"ts": 1_700_000_000_003}, b'{"a":5}', 1),
        webhook_message({"ts": 1_700_000_000_004, "quiet": True}, b'{"a":6}', 1),
        webhook_message({"ts": 0}, b"[]", 1),
        b'{"kind":"webhook","ts":01,"n":1,"rows":[]}',
        webhook_message({"ts": 1_700_000_000_005}, b'{"a":7}', 1),
    ]
    spaced = [post.replace(b'{"kind":', b'{ "kind":', 1) for post in posts]
    folds = []
    for values in (posts, spaced):
        fold = TableFold("orders")
        fold.advance(((offset, 1_700_000_000_000, value) for offset, value in enumerate(values)), len(values))
        folds.append(fold.to_json())
    assert folds[0] == folds[1]
    view = TableFold.from_json(folds[0]).view()
    assert view is not None and view.appended == 8


def test_of_many_versions_the_newest_are_known_and_one_an_hour() -> None:
    """A SQL node that fires each minute for ten days; what the fold says does not grow without end."""
    fold, begun_ms = TableFold("orders"), 1_700_000_000_000
    minutes = 10 * 24 * 60
    for number in range(minutes):
        value = message({"kind": "version", "ts": begun_ms + number * 60_000})
        fold.advance([(number, 0, value)], number + 1)
    begun = [version.begun_ms for version in fold.versions.values()]
    hours = [each // 3_600_000 for each in begun[: -VERSIONS_MAX - 1]]
    assert begun[-VERSIONS_MAX - 1 :] == [begun_ms + at * 60_000 for at in range(minutes - VERSIONS_MAX - 1, minutes)]
    assert len(hours) == OLDER_MAX and hours == list(range(hours[0], hours[0] + OLDER_MAX))
    assert fold.forgotten_until > 0 and fold.active is not None
    again = TableFold.from_json(fold.to_json())
    again.advance([(minutes, 0, message({"kind": "version"}))], minutes + 1)
    fold.advance([(minutes, 0, message({"kind": "version"}))], minutes + 1)
    assert again.to_json() == fold.to_json()


def test_dropped_versions_cannot_be_restored(topic: MemoryTopic) -> None:
    """Whoever comes first in the log is right; the active version is never dropped."""
    for _ in range(3):
        topic.marker("version", fields=N)
        topic.rows({"n": 1}, fields=N)
    names = list(topic.fold().versions)
    topic.marker("activate", name=names[0])
    topic.marker("drop", names=names[:2], quiet=True)
    topic.marker("activate", name=names[1])
    topic.marker("drop", names=5)
    topic.marker("drop", names=["nobody"])
    fold = topic.fold()
    assert list(fold.versions) == [names[0], names[2]] and fold.active is not None
    assert fold.active.name == names[0] and fold.forgotten_until > 0


def post(number: int, ts: int, key: str | None = None, **head: object) -> bytes:
    """A post, with the id that its sender gave it."""
    own = {} if key is None else {"id": key}
    return webhook_message({"ts": BORN_MS + ts, **own, **head}, b'{"n":%d}' % number, 1)


def numbers(topic: MemoryTopic) -> list[int]:
    """What a read gives; a stream, a count and a place in the middle give the same."""
    read = [orjson.loads(row["record"])["n"] for row in topic.read()]
    streamed = topic.stream()
    assert [row["record"]["n"] for row, _ in streamed] == read
    for at, (_, place) in enumerate(streamed):
        assert [row["record"]["n"] for row, _ in topic.stream(place)] == read[at + 1 :]
    assert topic.reader().count() == len(read)
    return read


def test_of_posts_with_one_id_the_first_counts(topic: MemoryTopic) -> None:
    """Two gateways may take a repeat within the half second that they do not know of each other."""
    for number, (ts, key) in enumerate(
        [(0, "a"), (1, None), (2, "b"), (3, "a"), (4, None), (5, "b"), (6, "a"), (7, "c")]
    ):
        topic.put(post(number, ts, key))
    assert numbers(topic) == [0, 1, 2, 4, 7]
    fold = topic.fold()
    assert fold.last_by_writer[""] == topic.messages[-1][0]
    for cut in range(topic.end + 1):  # a run pins any of them
        seen = [entry for entry in topic.messages if entry[0] < cut]
        then = TableFold("orders")
        then.advance(seen, cut)
        whole = fold.view()
        assert whole is not None
        view = then.view()
        assert (None if view is None else view.repeats) == (None if view is None else whole.before(cut).repeats)
        resumed = TableFold.from_json(orjson.loads(orjson.dumps(then.to_json())))
        resumed.advance(topic.messages, topic.end)
        assert resumed.to_json() == fold.to_json()


def test_an_id_may_come_again_after_a_minute(topic: MemoryTopic) -> None:
    """What a gateway takes on purpose, after its window, is shown: no window is shorter."""
    for number, ts in enumerate([0, REPEAT_MS - 1, REPEAT_MS, REPEAT_MS + 1]):
        topic.put(post(number, ts, "a"))
    assert numbers(topic) == [0, 2]


def test_a_repeat_is_none_of_another_version(topic: MemoryTopic) -> None:
    """It adds no row, begins no version and fires nobody."""
    topic.put(post(0, 0, "a"))
    topic.marker("reset")
    last = dict(topic.fold().last_by_writer)
    topic.put(post(1, 1, "a"))
    assert topic.fold().view() is None and topic.fold().last_by_writer == last
    topic.put(post(2, 2, "b"))
    assert numbers(topic) == [2]
    topic.marker("truncate")
    topic.put(post(3, 3, "b"))
    assert numbers(topic) == []


def test_what_a_fold_knows_of_ids_is_bounded(topic: MemoryTopic) -> None:
    """It is in each index and each commit of the lake."""
    for number in range(REPEAT_IDS_MAX + 100):
        topic.put(post(number, number // 1000, str(number)))
    for number in (0, REPEAT_IDS_MAX + 99):
        topic.put(post(number, 9, str(number)))
    view = topic.fold().view()
    assert view is not None and view.appended == REPEAT_IDS_MAX + 101 and len(view.repeats) == 1
    assert len(orjson.dumps(topic.fold().to_json())) < 250_000
