"""The comment stripper over generated SQL: pieces that are known to be comments go, all others stay."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.sqltext import strip_sql_comments

QUICK = settings(max_examples=300)

TEXT = st.text("ab-/*'\"${}\\\n %#E", max_size=8)
WORDS = st.sampled_from(["select", "a", "1", ",", "(", ")", "-", "/", "*", "e", "$1", "{", "}", "%", "\n", "\r\n"])
SINGLE = TEXT.filter(lambda text: not text.endswith("{")).map(
    lambda text: "'" + text.replace("'", "''").replace("{", "") + "'"
)
DOUBLE = TEXT.map(lambda text: '"' + text.replace('"', '""').replace("{", "") + '"')
ESCAPED = TEXT.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("{", "") + "'")
DOLLAR = TEXT.map(lambda text: "$tag$" + text + "$tag$")
TAG = st.text('ab-/*" \n', max_size=8).map(lambda text: "{{ x('" + text.replace('"', '\\"') + "') }}")
LINE = st.text("ab-/*'\"${} ", max_size=8).map(lambda text: f"--{text}\n")
BLOCK = st.recursive(
    st.text("ab-'\"${}\n ", max_size=8).map(lambda text: f"/*{text}*/"),
    lambda inner: inner.map(lambda text: f"/* a {text} b */"),
    max_leaves=3,
)


@given(st.lists(st.tuples(st.booleans(), WORDS | SINGLE | DOUBLE | ESCAPED | DOLLAR | TAG, LINE | BLOCK), max_size=12))
@QUICK
def test_comments_go_and_the_rest_stays(parts: list[tuple[bool, str, str]]) -> None:
    sql = wanted = ""
    for with_comment, code, comment in parts:
        sql += f"{code} "
        wanted += f"{code} "
        if with_comment:
            sql += comment
            wanted += "\n" if comment.startswith("--") else " " + "\n" * comment.count("\n")
    assert strip_sql_comments(sql) == wanted


@given(st.lists(st.sampled_from([*"-/*'\"$aE{}%#\\\n\r ", "--", "/*", "*/", "{{", "}}", "$a$", "é"]), max_size=40))
@QUICK
def test_any_text(parts: list[str]) -> None:
    """Lines stay lines, nothing is added but spaces, and text without a comment's beginning is left alone."""
    sql = "".join(parts)
    stripped = strip_sql_comments(sql)
    assert [char for char in stripped if char in "\r\n"] == [char for char in sql if char in "\r\n"]
    assert len(stripped) <= len(sql)
    if "--" not in sql and "/*" not in sql:
        assert stripped == sql
