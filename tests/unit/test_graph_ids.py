"""Ids that last, slugs and topics."""

from __future__ import annotations

import re

import pytest

from tailrace.graph import GraphError, Store, build_app, fallback_id, format_error, format_errors, slug_from, topic_name


def store(*path: str) -> Store:
    return Store(path=path, name="t", file="graph.yml", line=1)


def test_a_fallback_id_is_the_same_every_time() -> None:
    """It names topics and State: another value would lose them. Base32 of a 5-byte BLAKE2b."""
    assert fallback_id("", "table:orders") == "xrvb5dw5"
    assert fallback_id("x", "table:orders") != fallback_id("", "table:orders")
    assert re.fullmatch("[a-z2-7]{8}", fallback_id("", ""))


def test_nodes_without_ids_get_lasting_ones() -> None:
    """Whatever stands around them, and the user's file is not touched. A component keeps its id in a new version."""
    one = build_app({"graph.yml": b"functions: [{node_file: a.py}, {uses: o/c@v1}]\nstores: [{table: a}]", "a.py": b""})
    two = build_app(
        {
            "graph.yml": b"stores: [{table: b}, {table: a}]\nfunctions: [{uses: o/c@v2}, {node_file: ./a.py}]",
            "a.py": b"",
        }
    )
    assert {node.key for node in one.nodes} == {node.key for node in two.nodes}
    assert {each.key for each in one.stores} < {each.key for each in two.stores}


def test_a_webhook_and_its_store_without_ids_are_two() -> None:
    app = build_app({"graph.yml": b"functions: [{webhook: a}]\nstores: [{table: a}]"})
    assert app.errors == () and app.nodes[0].key != app.stores[0].key


def test_inside_subgraphs_the_parents_id_counts() -> None:
    files = {"graph.yml": b"functions: [{node_file: s/graph.yml, id: x}, {node_file: s/graph.yml, id: y}]"}
    app = build_app({**files, "s/graph.yml": b"stores: [{table: a}]"})
    first, second = app.stores
    assert first.id != second.id and first.key.startswith("x.")


@pytest.mark.parametrize(
    ("folder", "slug"), [("My app_2", "my-app-2"), ("a  _b", "a-b"), ("Ünï!", "n"), ("…", "app"), ("", "app")]
)
def test_slugs(folder: str, slug: str) -> None:
    assert slug_from(folder) == slug


def test_a_topic_is_graph_and_path() -> None:
    assert topic_name("orders", store("st000001")) == "orders.st000001"
    assert topic_name("orders", store("s", "st000001")) == "orders.s.st000001"


@pytest.mark.parametrize("graph", ["a b", "ä", "a.b", "x" * 300, "", "a/b"])
def test_topics_have_only_names_that_kafka_takes(graph: str) -> None:
    """And different graphs never share one, however their names are mended."""
    name = topic_name(graph, store("s"))
    assert re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", name) and name not in (".", "..")
    assert name != topic_name(graph + "?", store("s"))


def test_errors_look_like_a_compilers() -> None:
    app = build_app({"graph.yml": b"title: Mine\nfunctions:\n- {node_file: a.py, id: n1}\n- {}"})
    assert format_errors(app, "apps/mine/") == (
        'apps/mine/graph.yml:3: error: [n1] File not found: "a.py"\n'
        "apps/mine/graph.yml:4: error: A function needs exactly one of node_file, webhook and uses; this one has none\n"
        "Mine: 2 errors in 1 node and 0 stores"
    )
    assert format_errors(build_app({"graph.yml": b"title: M"})) == "M: no errors in 0 nodes and 0 stores"


def test_a_hostile_name_cannot_write_to_the_terminal() -> None:
    assert format_error(GraphError(None, "a\x1b[2J\nb", "f", 1, hint="h")) == "f:1: error: a\\x1b[2J\\nb (h)"
