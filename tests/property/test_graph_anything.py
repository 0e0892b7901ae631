"""Whatever an app's files hold: an App comes back, never an exception."""

from __future__ import annotations

import json

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.graph import App, build_app, format_errors, lineage, read_python, read_sql, topic_name

QUICK = settings(max_examples=150)


def words(text: str) -> list[str]:
    return text.split()


KEYS = [
    *words("title slug functions stores docs dashboards storages schemas exposes requirements_file tags version"),
    *words("node_file webhook uses chart_input id inputs outputs parameter_values parameters trigger display"),
    *words("table stream storage schema partitions freshness markdown_file schema_file items node position type"),
    *words("database read_only timeout memory retries backoff on_error stop respond a b x y"),
]
WORDS = [
    *words("a.py q.sql c.json d.md sub/graph.yml ../up.py /abs graph.yml a b t output_table manual o/c@v1"),
    *["0 * * * *", "${{ s }}", "", "é\ud800", "10m", "512MB", "<<"],
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5) | st.dates()
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=6)
    ),
    max_leaves=25,
)


def entries(*keys: str) -> st.SearchStrategy[object]:
    """Lists of maps that look like entries, so that the search gets past the first check."""
    names = st.dictionaries(st.sampled_from("abt"), st.sampled_from("abt") | NESTED, max_size=3)
    values = st.sampled_from(WORDS) | names | NESTED
    return st.lists(st.dictionaries(st.sampled_from(keys), values, max_size=6), max_size=5) | NESTED


GRAPHS = st.fixed_dictionaries(
    {},
    optional={
        "functions": entries(
            *words("node_file webhook uses chart_input id inputs outputs parameter_values trigger display timeout")
        ),
        "stores": entries("table", "stream", "id", "storage", "schema", "partitions"),
        "docs": entries("markdown_file", "id"),
        "dashboards": entries("items", "id", "title"),
        "storages": entries("database", "read_only"),
        "schemas": entries("schema_file"),
        "exposes": st.dictionaries(st.sampled_from(["inputs", "outputs", "parameters"]), st.lists(SCALARS, max_size=3)),
        "title": SCALARS,
        "slug": SCALARS,
    },
)
CODE = {
    "a.py": b"from patterns import *\nTable('a'); Table('b', 'w'); Table(x); Parameter('x')",
    "q.sql": b"select * from {{ Table('a') }}",
    "c.json": b"{}",
    "d.md": b"text",
}


def dumped(value: object) -> bytes:
    """YAML of `value`; JSON where YAML's writer has no form for it. Half characters are left in on purpose."""
    try:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, UnicodeEncodeError):
        return json.dumps(value, default=str).encode()


def check(app: App) -> None:
    """What holds for every app: unique keys, edges between what is there, topics, a report."""
    keys = [node.key for node in app.nodes] + [store.key for store in app.stores]
    assert len(keys) == len(set(keys))
    for edge in lineage(app):
        assert {edge.source, edge.target} <= set(keys)
    topics = [topic_name(app.slug, store) for store in app.stores]
    assert len(set(topics)) == len(topics)
    assert all(error.line >= 1 and error.file.encode() for error in app.errors)
    format_errors(app).encode()


@given(GRAPHS | NESTED, GRAPHS)
@QUICK
def test_any_graph(graph: object, inner: object) -> None:
    check(build_app({"graph.yml": dumped(graph), "sub/graph.yml": dumped(inner), **CODE}))


@given(GRAPHS, GRAPHS)
@QUICK
def test_any_component(graph: object, inner: object) -> None:
    files = {"graph.yml": dumped(inner), "main.yml": b"", **CODE}
    check(build_app({"graph.yml": dumped(graph), **CODE}, resolve_component=lambda name: files))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@QUICK
def test_any_bytes(data: bytes) -> None:
    check(build_app({"graph.yml": data}))
    app = build_app(
        {
            "graph.yml": b"functions: [{node_file: a.py}, {node_file: q.sql}, {node_file: c.json, chart_input: t}, "
            b"{node_file: sub/graph.yml}]\ndocs: [{markdown_file: d.md}]\nschemas: [{schema_file: s.yml}]",
            **dict.fromkeys(["a.py", "q.sql", "c.json", "d.md", "s.yml", "sub/graph.yml"], data),
        }
    )
    check(app)
    assert len(app.nodes) >= 4


@given(st.lists(st.sampled_from([*"-[]{}:,&*!|>'\"%@`#?\n \t", "a", "&a", "*a", "<<: ", "- ", ": ", "---", "!!int "])))
@QUICK
def test_any_text_that_looks_like_yaml(parts: list[str]) -> None:
    check(build_app({"graph.yml": "".join(parts).encode()}))


PIECES = [*"(){}[],.*=:'\"\\%|\n ", "Table", "Parameter", "'a'", "{{", "}}", "{%", "%}", "mode=", "'w'", "for ", "x"]


@given(st.lists(st.sampled_from([*PIECES, "from patterns import *\n", "def f(", "@node\n", "Connection", "datetime"])))
@QUICK
def test_any_code(parts: list[str]) -> None:
    source = "".join(parts).encode()
    for read, path in ((read_python, "a.py"), (read_sql, "q.sql")):
        interface = read(source, path)
        lines = source.count(b"\n") + 1
        assert all(1 <= problem.line <= lines + 1 for problem in interface.problems)


@given(st.permutations(["clean.py", "totals.sql", "hook"]), st.permutations(["a", "b", "c"]))
@QUICK
def test_the_order_of_entries_changes_nothing(functions: list[str], stores: list[str]) -> None:
    """Keys, edges and ids are those of the entries, not of their places in the file."""

    def build(functions: list[str], stores: list[str]) -> App:
        entries = [{"webhook": "a"} if name == "hook" else {"node_file": name} for name in functions]
        graph = {"functions": entries, "stores": [{"table": name} for name in stores]}
        files = {
            "graph.yml": dumped(graph),
            "clean.py": b"from patterns import *\nTable('a'); Table('b', 'w')",
            "totals.sql": b"insert into {{ Table('c', 'w') }} select * from {{ Table('b') }}",
        }
        return build_app(files)

    app, plain = build(functions, stores), build(sorted(functions), sorted(stores))
    assert app.errors == ()
    assert set(lineage(app)) == set(lineage(plain)) and len(lineage(app)) == 5
