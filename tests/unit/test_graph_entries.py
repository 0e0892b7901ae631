"""What a graph file may say, key by key: carried with its type, or an error with its line."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tailrace.graph import App, ConnectionRef, GraphError, SecretRef, build_app

FILES = {
    "a.py": b"",
    "b.py": b"",
    "q.sql": b"select 1",
    "c.json": b'{"mark": "bar"}',
    "d.md": b"# Hello",
    "sub/graph.yml": b"",
}


def build(graph: str, **files: bytes) -> App:
    return build_app({"graph.yml": dedent(graph).encode(), **FILES, **files}, folder_name="my_App 2")


def told(app: App) -> list[tuple[int, str]]:
    return [(error.line, error.message) for error in app.errors]


@pytest.mark.parametrize("graph", ["", "# nothing", "nodes:\n  - a", "nodes: []\nname: old", "functions:\nstores:\n"])
def test_an_empty_or_old_file_is_an_empty_app(graph: str) -> None:
    """Title and slug come from the folder; formats of old need not run, but load."""
    app = build(graph)
    assert (app.title, app.slug, app.nodes, app.stores, app.errors) == ("my_App 2", "my-app-2", (), (), ())


def test_top_level_keys() -> None:
    app = build(
        """\
        title: An app
        slug: an-app
        description_file: gone.md
        requirements_file: reqs.txt
        tags: [a, 2]
        version: 2.10
        icon: icon.png
        storages:
          - {database: ext, definition: {url: x}, engines: [postgres], namespace: public, read_only: true, more: 1}
        schemas:
          - schema_file: order.yml
        exposes: {inputs: [], parameters: []}
        future: {key: [1]}
        """,
        **{"reqs.txt": b"x", "order.yml": b"name: Order\nfields: {id: Text}"},
    )
    assert app.errors == ()
    assert (app.title, app.slug, app.description_file, app.tags) == ("An app", "an-app", "gone.md", ("a", "2"))
    assert (app.version, app.icon_url, app.requirements_file) == ("2.10", "icon.png", "reqs.txt")
    (storage,) = app.storages
    assert (storage.database, storage.engines, storage.namespaces) == ("ext", ("postgres",), ("public",))
    assert storage.read_only and storage.definition == {"url": "x"} and storage.extra == {"more": 1}
    (schema,) = app.schemas
    assert (schema.name, schema.data) == ("Order", {"name": "Order", "fields": {"id": "Text"}})
    assert app.exposes == {"inputs": (), "outputs": (), "parameters": (), "schemas": ()}
    assert app.extra == {"future": {"key": [1]}}


def test_function_keys() -> None:
    """Also those of ours; what we do not know is carried."""
    app = build("""\
        functions:
          - node_file: ./a.py
            id: '00000001'
            title: First
            trigger: 0  22 * * MON
            timeout: 10m
            memory: 512MB
            retries: 3
            backoff: [5s, 2m, 0.5]
            on_error: stop
            icon_url: http://x/y.png
            description_file: gone.md
            display: {x: -1, y: 2, style: form}
            parameters: {old: 1, both: 1}
            parameter_values:
              both: 2
              key: ${{ open_ai }}
              mail: ${{connection.gmail}}
              text: "{a} ${{ not one }} text"
              none:
            schedule: legacy
            later: {x: 1}
          - node_file: b.py
            trigger: manual
            timeout: 1.5
            cpu: 90s
            network: false
            executor: bubblewrap
            memory: 2GiB
          - webhook: hook
            respond: true
        stores:
          - table: hook
            partitions: 8
            partition_key: customer
            freshness: 5m
            retention: 2d
            title: none
          - stream: old_stream
    """)
    first, second, hook = app.nodes
    assert (first.key, first.kind, first.title, first.node_file) == ("00000001", "python", "First", "a.py")
    assert (first.trigger, first.cron, first.timeout_s, first.memory_bytes) == (
        "0 22 * * MON",
        "0 22 * * MON",
        600.0,
        512_000_000,
    )
    assert (first.retries, first.on_error, first.icon_url) == (3, "stop", "http://x/y.png")
    assert first.backoff_s == (5.0, 120.0, 0.5)
    assert first.display == {"x": -1, "y": 2, "style": "form"}
    assert first.extra == {"schedule": "legacy", "later": {"x": 1}}
    assert first.parameter_values == {
        "old": 1,
        "both": 2,
        "key": SecretRef("open_ai"),
        "mail": ConnectionRef("gmail"),
        "text": "{a} ${{ not one }} text",
    }
    assert (second.is_manual, second.cron, second.timeout_s, second.memory_bytes) == (True, None, 1.5, 2 << 30)
    assert (first.cpu_s, first.network, first.executor) == (None, True, None)
    assert (second.cpu_s, second.network, second.executor) == (90.0, False, "bubblewrap")
    assert (hook.kind, hook.title, hook.respond) == ("webhook", "hook", True)
    assert [
        (store.name, store.partitions, store.partition_key, store.freshness_s, store.retention_s)
        for store in app.stores
    ] == [
        ("hook", 8, "customer", 300.0, 172_800.0),
        ("old_stream", 1, None, None, None),
    ]
    assert app.ok


def test_charts_and_documents_carry_their_text() -> None:
    app = build("""\
        functions: [{node_file: c.json, chart_input: t, id: ch}]
        docs: [{markdown_file: d.md, id: md, display: {x: 1}}]
        stores: [{table: t, id: st}]
    """)
    assert app.errors == ()
    assert [(node.kind, node.text, node.reads) for node in app.charts] == [("chart", '{"mark": "bar"}', ("st",))]
    assert [(node.kind, node.title, node.text) for node in app.docs] == [("markdown", "d", "# Hello")]


def test_dashboards_show_nodes_and_stores() -> None:
    app = build("""\
        stores: [{table: t, id: st}]
        dashboards:
          - {id: db, title: All, items: [{id: i1, node: st, type: data, position: {x: 1, y: 2, width: 3}}]}
          - title: Empty
          - title: Wrong
            items:
              - {id: i2, node: gone}
    """)
    first, _, wrong = app.dashboards
    (item,) = first.items
    assert (item.node, item.type, item.x, item.y, item.width, item.height) == ("st", "data", 1, 2, 3, 1)
    assert wrong.items[0].node == "gone"
    assert [(error.line, error.severity) for error in app.errors] == [(7, "warning")]


@pytest.mark.parametrize("written", ["My_App", "my app", "-my-app"])
def test_a_slug_of_the_original_is_made_one_of_ours(written: str) -> None:
    """Its client took whatever stood there, and replaced characters itself."""
    app = build(f"slug: {written}")
    assert app.slug == "my-app"
    assert [(error.line, error.severity, error.message) for error in app.errors] == [
        (1, "warning", f'slug "{written}" is taken as "my-app"')
    ]


def test_a_mistyped_key_is_told() -> None:
    """Unknown keys are carried along; one that is nearly a key would be silently without effect. Other unknown keys,
    and older ones such as `description`, are not told."""
    app = build(
        """\
        titel: Shop
        title: Shop
        functions:
          - id: a
            node_file: a.py
            triger: manual
            inptus: {x: y}
            description: older
            shade: 3
        """
    )
    assert [(error.line, error.severity, error.message, error.hint) for error in app.errors] == [
        (6, "warning", 'Key "triger" has no effect', "is it meant to be trigger?"),
        (7, "warning", 'Key "inptus" has no effect', "is it meant to be inputs?"),
    ]
    assert app.nodes[0].trigger is None


@pytest.mark.parametrize(
    ("graph", "line", "message"),
    [
        ("[]", 1, "A graph file must be a map of keys"),
        ("title: [1]", 1, "title must be text, not a list"),
        ("\ntitle: 5", 2, "title must be text, not the number '5'"),
        ("functions: x", 1, "functions must be a list, not the text 'x'"),
        ("functions:\n  - x", 2, "An entry of functions must be a map of keys, not the text 'x'"),
        ("stores: {a: b}", 1, "stores must be a list, not a map"),
        ("stores:\n  - id: a", 2, "A store needs a name"),
        ("stores:\n  - table: t\n    partitions: 0", 3, "partitions must be a whole number from 1 to 256, not the number '0'"),
        ("stores:\n  - table: t\n  - table: t", 3, 'table "t" is declared twice'),
        ("stores:\n  - table: t\n    storage: x", 2, 'Storage "x" is not declared'),
        ("requirements_file: gone.txt", 1, 'File not found: "gone.txt"'),
        ("requirements_file: ../up.txt", 1, 'requirements_file "../up.txt" leaves the app\'s folder'),
        ("schemas:\n  - schema_file: gone.yml", 2, 'File not found: "gone.yml"'),
        ("docs:\n  - id: x", 2, "A document needs a markdown_file"),
        ("docs:\n  - id: x\n    markdown_file: gone.md", 3, 'File not found: "gone.md"'),
        ("storages:\n  - read_only: 1\n    database: x", 2, "read_only must be true or false, not the number '1'"),
        ("exposes: 3", 1, "exposes must be a map of keys, not the number '3'"),
    ],
)  # fmt: skip
def test_top_level_errors(graph: str, line: int, message: str) -> None:
    app = build(graph)
    assert told(app) == [(line, message)]
    assert not app.ok


@pytest.mark.parametrize(
    ("entry", "line", "message"),
    [
        ("title: x", 2, "A function needs exactly one of node_file, webhook and uses; this one has none"),
        ("node_file: a.py\n    uses: o/c@v1", 2, "A function needs exactly one of node_file, webhook and uses; this one has node_file and uses"),
        ("node_file: a.txt", 2, 'Unsupported file extension ".txt" of node_file "a.txt"'),
        ("node_file: gone.py", 2, 'File not found: "gone.py"'),
        ("id: x\n    node_file: gone/graph.yml", 3, 'File not found: "gone/graph.yml"'),
        ("node_file: /etc/x.py", 2, 'node_file "/etc/x.py" leaves the app\'s folder'),
        ("node_file: x/../../a.py", 2, 'node_file "x/../../a.py" leaves the app\'s folder'),
        ("node_file: [a.py]", 2, "node_file must be text, not a list"),
        ("node_file: c.json", 2, 'Chart "c.json" has no chart_input'),
        ("node_file: a.py\n    chart_input: t", 3, "chart_input does not apply to a python"),
        ("node_file: c.json\n    chart_input: t\n    trigger: manual", 4, "trigger does not apply to a chart"),
        ("node_file: c.json\n    chart_input: t\n    inputs: {a: t}", 4, "inputs does not apply to a chart"),
        ("webhook: t\n    trigger: manual", 3, "trigger does not apply to a webhook"),
        ("webhook: t\n    outputs: {t: t}", 3, "outputs does not apply to a webhook"),
        ("node_file: sub/graph.yml\n    trigger: manual", 3, "trigger does not apply to a subgraph"),
        ("node_file: a.py\n    trigger: 0 22 * *", 3, 'trigger "0 22 * *" has 4 fields'),
        ("node_file: a.py\n    trigger: 0 0 30 2 *", 3, 'trigger "0 0 30 2 *" never fires'),
        ("node_file: a.py\n    trigger: R * * * *", 3, 'trigger "R * * * *" is no cron'),
        ("node_file: a.py\n    trigger: '@hourly'", 3, 'trigger "@hourly" has 1 fields'),
        ("node_file: a.py\n    id: a-b", 3, 'id "a-b" must be 1 to 128 letters and digits'),
        ("node_file: a.py\n    executor: jail", 3, 'executor must be process, bubblewrap or container, not "jail"'),
        ("node_file: a.py\n    timeout: soon", 3, "timeout must be a number of seconds or a text such as 90s, 10m or 2h, not the text 'soon'"),
        ("node_file: a.py\n    memory: -1", 3, "memory must be a number of bytes or a text such as 512MB or 2GiB, not the number '-1'"),
        ("node_file: a.py\n    retries: many", 3, "retries must be a whole number from 0 to 1000, not the text 'many'"),
        ("node_file: a.py\n    backoff: [1s, soon]", 3, "backoff must be a number of seconds or a text such as 90s, 10m or 2h, not the text 'soon'"),
        ("node_file: a.py\n    backoff: []", 3, "backoff must be a number of seconds or a text such as 90s, 10m or 2h, or a list of these, not a list"),
        ("node_file: a.py\n    on_error: skip", 3, 'on_error must be dead-letter or stop, not "skip"'),
        ("webhook: t\n    retries: 2", 3, "retries does not apply to a webhook"),
        ("node_file: a.py\n    display: 3", 3, "display must be a map of keys, not the number '3'"),
        ("node_file: a.py\n    parameter_values: [1]", 3, "parameter_values must be a map of keys, not a list"),
        ("uses: nonsense", 2, 'uses "nonsense" is no component'),
    ],
)  # fmt: skip
def test_function_errors(entry: str, line: int, message: str) -> None:
    app = build(f"functions:\n  - {entry}\nstores: [{{table: t}}]")
    assert (line, message) in told(app)
    assert not app.ok


def test_an_invalid_trigger_leaves_the_node_to_be_triggered_by_hand() -> None:
    """To fire on every news instead could be expensive, and nobody asked for it."""
    app = build("functions: [{node_file: a.py, trigger: never}]")
    assert [node.trigger for node in app.nodes] == ["manual"]


def test_ids_used_twice_are_told_and_kept_apart() -> None:
    """Over functions, stores and documents alike: one node keeps the id, the other gets one from its name."""
    app = build("functions:\n- {node_file: a.py, id: x}\n- {node_file: b.py, id: y}\nstores:\n- {table: t, id: x}")
    assert told(app) == [(5, 'id "x" is used twice')]
    keys = [node.key for node in app.nodes] + [store.key for store in app.stores]
    assert len(set(keys)) == 3


def test_one_file_may_be_two_nodes() -> None:
    app = build("functions: [{node_file: a.py, id: x}, {node_file: a.py, id: y}, {node_file: a.py}, {node_file: a.py}]")
    assert app.errors == () and len({node.key for node in app.nodes}) == 4


def test_a_title_used_twice_is_a_warning() -> None:
    app = build("functions: [{node_file: a.py, title: x}, {node_file: b.py, title: x}]")
    assert [error.severity for error in app.errors] == ["warning"]


def test_a_file_that_is_not_utf8_is_named() -> None:
    app = build_app({"graph.yml": b"title: x\nslug: \xff"})
    assert app.errors == (
        GraphError(None, "Not UTF-8: byte 0xff at position 15", "graph.yml", 2, "error", hint="save the file as UTF-8"),
    )
    app = build("docs: [{markdown_file: e.md, id: x}]", **{"e.md": b"a\n\xff"})
    assert [(error.file, error.line, error.node_id) for error in app.errors] == [("e.md", 2, "x")]


def test_yaml_that_cannot_be_parsed_is_an_error_with_its_line() -> None:
    app = build("title: x\nfunctions: [\n")
    assert [(error.file, error.line) for error in app.errors] == [("graph.yml", 3)]
    assert app.errors[0].message.startswith("Error parsing YAML: ")


def test_a_chart_that_is_no_json_is_an_error_with_its_line() -> None:
    graph = "functions: [{node_file: e.json, chart_input: t, id: x}]\nstores: [{table: t}]"
    app = build(graph, **{"e.json": b'{\n"a" 1}'})
    assert [(error.file, error.line, error.message) for error in app.errors] == [
        ("e.json", 2, "Error parsing file e.json: Expecting ':' delimiter")
    ]
    assert not build(graph, **{"e.json": b"[]"}).ok


def test_a_node_with_a_syntax_error_stays_in_the_graph() -> None:
    app = build("functions: [{node_file: e.py, id: x, inputs: {a: t}}]\nstores: [{table: t}]", **{"e.py": b"\nx ="})
    assert [node.key for node in app.nodes] == ["x"]
    assert [(error.node_id, error.file, error.line, error.message) for error in app.errors] == [
        ("x", "e.py", 2, "Error parsing file e.py: invalid syntax")
    ]


def test_no_graph_file_at_all() -> None:
    app = build_app({"App/Graph.yml": b""})
    assert told(app) == [(1, 'File not found: "graph.yml"')]
    assert app.errors[0].hint == 'there is "App/Graph.yml"'


def test_a_root_of_another_name() -> None:
    app = build_app({"other.yaml": b"title: Other\nfunctions: [{node_file: a.py}]", "a.py": b""}, "other.yaml")
    assert (app.title, app.root_file, len(app.nodes), app.errors) == ("Other", "other.yaml", 1, ())


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../../b", ".components/o/c@v1/graph.yml", "a\\b", ""])
def test_paths_that_leave_the_folder_are_not_taken_in(path: str) -> None:
    app = build_app({"graph.yml": b"", path: b"x"})
    assert path not in app.files and not app.ok


def test_errors_are_bounded() -> None:
    app = build("functions:\n" + "- {}\n" * 3000)
    assert len(app.errors) == 1001
    assert "the rest is not shown" in "".join(error.message for error in app.errors)
