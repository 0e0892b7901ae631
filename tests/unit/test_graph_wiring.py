"""Ports find their stores and parameters their values, through any depth of subgraphs."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import dedent

import pytest

from tailrace.graph import App, Edge, build_app, lineage

COPY = b"from patterns import Table, Parameter\nTable('a')\nTable('b', 'w')\n"


def build(graph: str, components: Mapping[str, Mapping[str, bytes]] | None = None, **files: str | bytes) -> App:
    given = {"graph.yml": dedent(graph).encode(), "copy.py": COPY}
    for path, content in files.items():
        given[path] = dedent(content).encode() if isinstance(content, str) else content
    return build_app(given, resolve_component=None if components is None else components.get)


def edges(app: App) -> set[tuple[str, str]]:
    return {(edge.source, edge.target) for edge in lineage(app)}


def told(app: App) -> list[tuple[str, int, str]]:
    return [(error.file, error.line, error.message) for error in app.errors if error.severity == "error"]


def test_names_connect_by_themselves_and_maps_rename() -> None:
    """A map may list some ports only; the others keep their names."""
    app = build("""\
        functions:
          - {node_file: copy.py, id: n1}
          - {node_file: copy.py, id: n2, inputs: {a: c}}
          - {node_file: q.sql, id: n3, inputs: {x: c}, outputs: {output_table: a}}
        stores: [{table: a, id: sa}, {table: b, id: sb}, {table: c, id: sc}]
    """, **{"q.sql": "select * from {{ Table('x') }}"})  # fmt: skip
    assert app.errors == ()
    assert edges(app) == {("sa", "n1"), ("n1", "sb"), ("sc", "n2"), ("n2", "sb"), ("sc", "n3"), ("n3", "sa")}
    node = app.node("n2")
    assert node is not None and (node.reads, node.writes) == (("sc",), ("sb",))
    assert Edge("sc", "n2", "a") in lineage(app)


def test_a_node_may_read_and_write_one_store() -> None:
    app = build("functions: [{node_file: copy.py, id: n, outputs: {b: a}}]\nstores: [{table: a, id: s}]")
    assert app.errors == () and edges(app) == {("s", "n"), ("n", "s")}


def test_a_name_known_at_run_time_only_finds_its_store_without_an_edge() -> None:
    app = build(
        "functions: [{node_file: d.py, id: n, inputs: {x: a}}]\nstores: [{table: a, id: sa}]",
        **{"d.py": "from patterns import Table\nTable(name)"},
    )
    (node,) = app.nodes
    assert app.ok and edges(app) == set()
    assert [app.store_for(node, name, "r") for name in ("a", "x", "y")] == ["sa", "sa", None]


@pytest.mark.parametrize(
    ("function", "stores", "error"),
    [
        ("{node_file: copy.py}", "b", ("copy.py", 2, 'Top level input is not connected: "a"')),
        ("{node_file: copy.py}", "a", ("copy.py", 3, "Could not resolve edge for port b")),
        ("\n  - node_file: copy.py\n    inputs:\n      a: gone", "b", ("graph.yml", 4, 'Cannot find output named "gone"')),
        ("\n  - node_file: copy.py\n    outputs:\n      b: gone", "a", ("graph.yml", 4, 'Cannot find output named "gone"')),
        ("\n  - webhook: gone", "a", ("graph.yml", 2, 'Cannot find output named "gone"')),
        ("\n  - node_file: c.json\n    chart_input: gone", "a", ("graph.yml", 3, 'Cannot find output named "gone"')),
        ("\n  - node_file: q.sql", "a", ("graph.yml", 2, "Could not resolve edge for port output_table")),
        ("\n  - node_file: p.py", "a", ("graph.yml", 2, 'Parameter "p" has no default or value')),
        ("\n  - node_file: p.py\n    parameter_values:\n      p:", "a", ("graph.yml", 4, 'Parameter "p" has no default or value')),
    ],
)  # fmt: skip
def test_what_is_missing_is_told_where_it_is_to_be_put_right(
    function: str, stores: str, error: tuple[str, int, str]
) -> None:
    app = build(
        f"functions: {function if function[0] == chr(10) else f'[{function}]'}\nstores: [{{table: {stores}}}]",
        **{
            "c.json": "{}",
            "q.sql": "select 1",
            "p.py": "from patterns import Parameter\nParameter('p')\nParameter('q', default=None)",
        },
    )
    assert told(app) == [error]
    assert all(error.hint for error in app.errors)


def test_optional_ports_may_stay_unconnected() -> None:
    app = build(
        "functions: [{node_file: o.py, id: n}]",
        **{"o.py": "from patterns import *\nTable('a', required=False)\nTable('b', 'w', required=False)"},
    )
    assert app.errors == ()
    assert [port.store for port in app.nodes[0].ports] == [None, None]


def test_names_that_the_code_never_asks_for_are_warnings() -> None:
    """Shipped apps carry such parameter values: they must load."""
    app = build("""\
        functions:
          - node_file: copy.py
            inputs: {z: a}
            parameter_values: {z: 1}
        stores: [{table: a}, {table: b}]
    """)
    assert app.ok and len(app.errors) == 2


def test_a_read_only_storage_is_not_written() -> None:
    app = build("""\
        functions: [{node_file: copy.py}]
        storages: [{database: ext, read_only: true}]
        stores: [{table: a, storage: ext}, {table: b, storage: ext}]
    """)
    assert ("graph.yml", 1, 'Table "b" cannot be written: storage "ext" is read-only') in told(app)


def test_a_table_of_an_external_database_is_told_to_stay_empty() -> None:
    app = build("""\
        storages: [{database: ext, read_only: true}]
        stores: [{table: a, storage: ext}]
    """)
    assert [(error.severity, error.message) for error in app.errors] == [
        ("warning", 'Table "a" stays empty: it lies in an external database, "ext"')
    ]


def test_an_undeclared_schema_is_a_warning() -> None:
    app = build("stores: [{table: a, schema: Order}]")
    assert app.ok and [error.message for error in app.errors] == ['Schema "Order" is not declared']


# Subgraphs


def test_a_subgraph_without_exposes_shows_what_it_does_not_satisfy_itself() -> None:
    """Its own stores stay its own, even when the parent has one of the same name."""
    app = build("""\
        functions: [{node_file: sub/graph.yml, id: s}]
        stores: [{table: a, id: sa}, {table: b, id: sb}, {table: m, id: sm}]
    """, **{
        "sub/graph.yml": """\
            functions:
              - {node_file: n.py, id: n1, outputs: {b: m}}
              - {node_file: n.py, id: n2, inputs: {a: m}}
            stores: [{table: m, id: im}]
        """,
        "sub/n.py": COPY,
    })  # fmt: skip
    assert app.errors == ()
    assert edges(app) == {("sa", "s.n1"), ("s.n1", "s.im"), ("s.im", "s.n2"), ("s.n2", "sb")}
    (subgraph,) = app.subgraphs
    assert (subgraph.key, subgraph.title, subgraph.graph_file) == ("s", "sub", "sub/graph.yml")
    assert [node.path for node in app.nodes] == [("s", "n1"), ("s", "n2")]
    assert app.nodes[0].file == "sub/graph.yml" and app.nodes[0].node_file == "sub/n.py"


def test_the_parent_maps_what_is_exposed() -> None:
    app = build("""\
        functions: [{node_file: sub/graph.yml, id: s, inputs: {a: orders}, outputs: {b: done}}]
        stores: [{table: orders, id: so}, {table: done, id: sd}, {table: a}, {table: b}]
    """, **{
        "sub/graph.yml": "functions: [{node_file: n.py, id: n}]\nexposes: {inputs: [a], outputs: [b]}",
        "sub/n.py": COPY,
    })  # fmt: skip
    assert app.errors == () and edges(app) == {("so", "s.n"), ("s.n", "sd")}


def test_names_that_are_not_exposed_are_not_connected() -> None:
    app = build(
        "functions: [{node_file: sub/graph.yml, id: s, inputs: {a: a}}]\nstores: [{table: a}, {table: b}]",
        **{"sub/graph.yml": "functions: [{node_file: n.py, id: n}]\nexposes: {outputs: [b]}", "sub/n.py": COPY},
    )
    assert told(app) == [
        ("graph.yml", 1, 'No exposed input named "a" on node "sub"'),
        ("sub/n.py", 2, "Could not resolve edge for port a"),
    ]


def test_an_exposed_output_that_nobody_wires_is_no_error_but_an_input_is() -> None:
    """To expose five outputs and wire one is normal; the code looks at `is_connected`."""
    app = build(
        "functions: [{node_file: sub/graph.yml, id: s}]",
        **{
            "sub/graph.yml": "functions: [{node_file: n.py}]\nexposes: {inputs: [a], outputs: [b]}",
            "sub/n.py": COPY,
        },
    )
    assert told(app) == [("sub/n.py", 2, 'Top level input is not connected: "a"')]


def test_an_exposed_store_gives_way_to_the_parents() -> None:
    """Readers and writers inside move together, and the store that nobody uses any more is gone."""
    files = {
        "sub/graph.yml": """\
            functions:
              - {node_file: n.py, id: n1, outputs: {b: m}}
              - {node_file: n.py, id: n2, inputs: {a: m}}
            stores: [{table: m, id: im}]
            exposes: {inputs: [a], outputs: [m, b]}
        """,
        "sub/n.py": COPY,
    }
    stores = "stores: [{table: a, id: sa}, {table: b, id: sb}, {table: outer, id: so}]"
    app = build(f"functions: [{{node_file: sub/graph.yml, id: s, outputs: {{m: outer}}}}]\n{stores}", **files)
    assert app.errors == ()
    assert edges(app) == {("sa", "s.n1"), ("s.n1", "so"), ("so", "s.n2"), ("s.n2", "sb")}
    assert [store.key for store in app.stores] == ["sa", "sb", "so"]
    alone = build(f"functions: [{{node_file: sub/graph.yml, id: s}}]\n{stores}", **files)
    assert "s.im" in {store.key for store in alone.stores} and ("s.n1", "s.im") in edges(alone)


def test_edges_and_values_go_through_any_depth() -> None:
    depth = 6
    files: dict[str, str | bytes] = {
        f"{'d/' * i}graph.yml": f"functions: [{{node_file: d/graph.yml, id: s, inputs: {{in{i + 1}: in{i}}}}}]"
        for i in range(1, depth)
    }
    files[f"{'d/' * depth}graph.yml"] = f"functions: [{{node_file: n.py, id: n, inputs: {{a: in{depth}}}}}]"
    files[f"{'d/' * depth}n.py"] = "from patterns import *\nTable('a')\nParameter('p')"
    app = build(
        "functions: [{node_file: d/graph.yml, id: s, inputs: {in1: top}, parameter_values: {p: 7}}]\n"
        "stores: [{table: top, id: st}]",
        **files,
    )
    assert app.errors == ()
    (node,) = app.nodes
    assert node.key == "s." * depth + "n" and node.reads == ("st",) and node.parameter_values == {"p": 7}


def test_the_outermost_exposing_parent_sets_a_parameter() -> None:
    """Null counts as not set, and what is not exposed cannot be set from outside."""
    inner = "functions: [{{node_file: n.py, id: n, parameter_values: {{p: inner, q: inner, r: inner}}}}]\n{}"
    files = {"sub/n.py": "from patterns import Parameter\nParameter('p')\nParameter('q')\nParameter('r')"}
    top = "functions: [{node_file: sub/graph.yml, id: s, parameter_values: {p: outer, q: , r: outer}}]"
    app = build(top, **files, **{"sub/graph.yml": inner.format("")})
    assert app.errors == ()
    assert app.nodes[0].parameter_values == {"p": "outer", "q": "inner", "r": "outer"}
    app = build(top, **files, **{"sub/graph.yml": inner.format("exposes: {parameters: [p, q]}")})
    assert app.nodes[0].parameter_values == {"p": "outer", "q": "inner", "r": "inner"}
    assert told(app) == [("graph.yml", 1, 'No exposed parameter named "r" on node "sub"')]


def test_a_value_for_a_parameter_that_nothing_inside_has_is_an_error() -> None:
    app = build(
        "functions: [{node_file: sub/graph.yml, id: s, title: Sub, parameter_values: {k: 1}}]",
        **{"sub/graph.yml": "functions: [{node_file: n.py}]", "sub/n.py": ""},
    )
    assert told(app) == [("graph.yml", 1, 'No exposed parameter named "k" on node "Sub"')]


def test_exposed_names_that_do_not_exist() -> None:
    app = build("""\
        functions: [{node_file: copy.py}]
        stores: [{table: a}, {table: b}]
        exposes:
          inputs: [a, x]
          outputs: [y]
          parameters:
            - z
    """)
    assert told(app) == [
        ("graph.yml", 4, 'Exposed input does not exist: "x"'),
        ("graph.yml", 5, 'Exposed output does not exist: "y"'),
        ("graph.yml", 7, 'Exposed parameter does not exist: "z"'),
    ]


def test_a_component_to_be_published_has_open_inputs_and_may_have_open_outputs() -> None:
    """Clients hide the error about its inputs when they publish it; its outputs are whoever uses it to wire."""
    app = build("functions: [{node_file: copy.py}]\nexposes: {inputs: [a], outputs: [b]}")
    assert told(app) == [("copy.py", 2, 'Top level input is not connected: "a"')]


def test_one_subgraph_used_twice() -> None:
    """Inner ids repeat, keys do not; errors of the shared file are told once a use of each node."""
    app = build("""\
        functions:
          - {node_file: sub/graph.yml, id: s1, outputs: {b: b1}}
          - {node_file: sub/graph.yml, id: s2, outputs: {b: b2}}
        stores: [{table: a, id: sa}, {table: b1, id: sb1}, {table: b2, id: sb2}]
    """, **{"sub/graph.yml": "functions: [{node_file: n.py, id: n}]\ntitle: [x]", "sub/n.py": COPY})  # fmt: skip
    assert edges(app) == {("sa", "s1.n"), ("sa", "s2.n"), ("s1.n", "sb1"), ("s2.n", "sb2")}
    assert told(app) == [("sub/graph.yml", 2, "title must be text, not a list")]


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"graph.yml": "functions:\n- node_file: graph.yml"}, ("graph.yml", 2)),
        (
            {
                "graph.yml": "functions:\n- node_file: a/graph.yml",
                "a/graph.yml": "functions:\n- node_file: b/graph.yml",
                "a/b/graph.yml": "title: b\nfunctions:\n- node_file: ../graph.yml",
            },
            ("a/b/graph.yml", 3),
        ),
    ],
)
def test_a_cycle_of_subgraphs_is_an_error(files: dict[str, str], place: tuple[str, int]) -> None:
    app = build_app({path: text.encode() for path, text in files.items()})
    ((file, line, message),) = told(app)
    assert (file, line) == place and message.startswith("Cycle of subgraphs: ")


def test_too_many_nodes_by_subgraphs_of_subgraphs() -> None:
    """Ten graphs that each use the next ten times would be ten thousand million nodes."""
    files = {f"g{i}/graph.yml": "functions:\n" + f"- node_file: ../g{i + 1}/graph.yml\n" * 10 for i in range(10)}
    app = build_app({path: text.encode() for path, text in files.items()} | {"g10/graph.yml": b""}, "g0/graph.yml")
    assert "The app unfolds to more than 10000 nodes and stores" in [error.message for error in app.errors]


def test_too_deep() -> None:
    files = {f"g{i}/graph.yml": f"functions:\n- node_file: ../g{i + 1}/graph.yml\n".encode() for i in range(30)}
    app = build_app(files, "g0/graph.yml")
    assert [error.message for error in app.errors] == ["Subgraphs are nested deeper than 16 levels"]


# Components


def test_a_component_that_is_not_at_hand_is_an_error_and_stays() -> None:
    app = build("""\
        functions: [{uses: org/comp@v1, id: c, inputs: {x: a}, outputs: {y: b}, parameter_values: {p: 1}, title: ''}]
        stores: [{table: a, id: sa}, {table: b, id: sb}]
    """)
    (node,) = app.nodes
    assert (node.kind, node.uses, node.title) == ("component", "org/comp@v1", "comp")
    assert (node.reads, node.writes, node.parameter_values) == (("sa",), ("sb",), {"p": 1})
    assert told(app) == [("graph.yml", 1, 'Component "org/comp@v1" could not be resolved')]


COMPONENT = {
    "org/comp@v1": {
        "main.yml": b"slug: comp\nversion: 1.0.0\nfunctions: [{node_file: code/n.py, id: n}]\n"
        b"exposes: {inputs: [a], outputs: [b], parameters: [The p]}",
        "code/n.py": COPY + b"Parameter('The p')\n",
        "../evil.py": b"",
    }
}


def test_a_component_unfolds_like_a_subgraph() -> None:
    """Its files stay apart from the app's, and code is imported from its own folder."""
    app = build(
        "functions: [{uses: org/comp@v1, id: c, inputs: {a: x}, parameter_values: {The p: 1}}]\nstores: [{table: x, id: s}]",
        COMPONENT,
    )
    assert app.errors == ()
    (node,) = app.nodes
    assert (node.key, node.kind, node.reads, node.writes) == ("c.n", "python", ("s",), ())
    assert node.package == ".components/org/comp@v1" and node.node_file == ".components/org/comp@v1/code/n.py"
    assert node.node_file in app.files and not any("evil" in path for path in app.files)
    assert node.parameter_values == {"The p": 1}
    assert app.subgraphs[0].uses == "org/comp@v1" and app.subgraphs[0].title == "comp"


def test_a_trigger_on_a_component_is_for_its_roots() -> None:
    components = {
        "o/c@v1": {
            "graph.yml": b"functions: [{node_file: r.py, id: r}, {node_file: n.py, id: n}, {node_file: m.py, id: m, trigger: manual}]\n"
            b"stores: [{table: a, id: a}]\nexposes: {}",
            "r.py": b"from patterns import Table\nTable('a', 'w')",
            "n.py": b"from patterns import Table\nTable('a')",
            "m.py": b"",
        }
    }
    app = build("functions: [{uses: o/c@v1, id: c, trigger: 0 * * * *}]", components)
    assert app.errors == ()
    assert [(node.id, node.trigger) for node in app.nodes] == [("r", "0 * * * *"), ("n", None), ("m", "manual")]


def test_components_that_use_each_other_are_a_cycle() -> None:
    components = {
        "o/a@v1": {"graph.yml": b"functions: [{uses: o/b@v1}]"},
        "o/b@v1": {"graph.yml": b"functions: [{uses: o/a@v1}]"},
    }
    app = build("functions: [{uses: o/a@v1}]", components)
    ((file, _, message),) = told(app)
    assert file == ".components/o/b@v1/graph.yml" and message.startswith("Cycle of subgraphs")


def test_a_component_without_a_graph_file() -> None:
    app = build("functions: [{uses: o/a@v1}]", {"o/a@v1": {"a.yml": b"", "b.yml": b""}})
    assert [error.message for error in app.errors] == ['Component "o/a@v1" has no graph.yml']
