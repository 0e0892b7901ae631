"""Comments leave SQL; what only looks like one stays, and no line moves."""

from __future__ import annotations

import pytest

from tailrace.sqltext import strip_sql_comments


@pytest.mark.parametrize(
    ("sql", "stripped"),
    [
        ("-- '{{ like this }}'\nselect 1", "\nselect 1"),
        ("select 1 -- one\n, 2", "select 1 \n, 2"),
        ("select 1 -- the end", "select 1 "),
        ("a/* b\n * c\n */d", "a \n\nd"),
        ("a/* b /* c */ d */e", "a e"),
        ("a/*/ b */c", "a c"),
        ("a /* never closed\n b", "a  \n"),
        ("a -- b\r\nc", "a \r\nc"),
        ("1 - -2 / 3", "1 - -2 / 3"),
    ],
)
def test_comments_go(sql: str, stripped: str) -> None:
    """Block comments nest, as in PostgreSQL, and leave a space, so that words stay apart."""
    assert strip_sql_comments(sql) == stripped


@pytest.mark.parametrize(
    "sql",
    [
        "select '-- text', 'it''s /* text */'",
        'select "a--b", "c ""/* d */"""',
        "select E'it\\'s -- text', e'\\\\'",
        "select $$ -- text /* $$, $a$ -- $$ /* $a$",
        "select '-- never closed",
        "{{ Table('a--b') }} {# don't -- #} {% set x = 'it\\'s /*' %}",
        "select '{{ Parameter('a--b') }}'",
    ],
)
def test_what_only_looks_like_a_comment_stays(sql: str) -> None:
    """Literals, quoted identifiers, dollar quoting and template tags are the author's text."""
    assert strip_sql_comments(sql) == sql


@pytest.mark.parametrize(
    ("sql", "stripped"),
    [
        ("select 'a' -- it's\n, 'b'", "select 'a' \n, 'b'"),
        ("select name'x' -- y\n", "select name'x' \n"),  # ends in e, but is no E'…'
        ("select a$b$c -- d\n, e$b$f", "select a$b$c \n, e$b$f"),  # a $ within a name opens nothing
        ("select E'a\\\\' -- b", "select E'a\\\\' "),
        ("{{ x -- y\n", "{{ x \n"),  # a tag that is never closed is no tag
        ("{# don't #} 1 -- it's", "{# don't #} 1 "),
        ("select '\\' -- a backslash is plain in '…'", "select '\\' "),
    ],
)
def test_literals_end_where_postgresql_ends_them(sql: str, stripped: str) -> None:
    assert strip_sql_comments(sql) == stripped


def test_text_full_of_open_tags_takes_no_quadratic_time() -> None:
    """Each `{{` looks ahead for its end, but not for ever."""
    assert strip_sql_comments("{{ " * 200_000) == "{{ " * 200_000
