"""Whole apps, as people write them for the node API: posted to and triggered in one running `up`, compared by tables.

Nodes with `trigger: manual` are scripts that assert what must hold within a run; the other apps run by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from golden import APPS, Golden, golden_up

ONE_HOUSE = [
    "reading",
    "writing",
    "streaming",
    "state",
    "leads",
    "queries",
    "wiring",
    "letters",
    "schedules",
    "asks",
    "idioms",
]
"""Apps that share one `up`."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    with golden_up(tmp_path_factory.mktemp("golden") / "data", *ONE_HOUSE) as golden:
        yield golden


def probes(app: str) -> list[str]:
    """The manual nodes of an app, in the order of its graph.yml."""
    graph = yaml.safe_load((APPS / app / "graph.yml").read_text())
    return [function["id"] for function in graph["functions"] if function.get("trigger") == "manual"]


def failures(house: Golden, app: str) -> dict[str, str]:
    """The errors of the app's runs by node."""
    return {
        run["title"]: run["error"] for run in house.runs(last=10_000) if run["graph"] == app and run["kind"] != "ok"
    }


def numbers(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


HOOKS: list[Any] = [
    [
        {"kind": "a", "amount": "1.50", "nested": {"n": 3}},
        {"kind": "a", "amount": 2},
        {"kind": "b", "amount": "7"},
    ],
    {"kind": "c", "amount": None},
    {"no": "kind"},
]


def test_idioms(house: Golden) -> None:
    """Ways in which people use streams, keys, frames and threads: the probes follow each other."""
    app = "idioms"
    house.send("hooks", *HOOKS)
    house.passes("idseed01", app)
    for _ in range(4):
        house.passes("idkeyed1", app)
        house.passes("idfollow", app)
    for _ in range(5):
        house.passes("idrollba", app)
    steps = [(row["step"], row["n"]) for row in house.rows("out", app)]
    assert steps == [(0, 0), (0, 1), (0, 2), (1, 4), (2, 6), (2, 7)], "each body that was through, once"
    for node in ("idthread", "iddedupe", "idframes", "idbulk01", "idhelper", "idhelper", "idhelper"):
        house.passes(node, app)
    rows = house.rows("bulk", app, limit=200_000)
    assert len(rows) == 120_001 and numbers(rows, "n")[-2:] == [19_999, -1]
    house.passes("idchain1", app)
    house.until(lambda: numbers(house.rows("queue", app), "depth"), wanted=lambda depths: depths == [0, 1, 2, 3, 4])
    sums = house.until(
        lambda: [
            (row["kind"], row["count"], row["total"] and float(row["total"])) for row in house.rows("hook_sums", app)
        ],
        wanted=lambda rows: rows == [("a", 2, 3.5), ("b", 1, 7.0), ("c", 1, None)],
    )
    assert sums
    by_time = house.until(lambda: house.rows("by_time", app), wanted=lambda rows: len(rows) >= 5)
    assert numbers(by_time, "kind") == ["a", "a", "b", "c", None], "ties stay together, in the order of the log"


def test_reading(house: Golden) -> None:
    """Each probe once, in order: the later ones read what the first wrote."""
    for node in probes("reading"):
        house.passes(node, "reading")


def test_writing(house: Golden) -> None:
    """Each probe once, and what they leave behind, as seen from outside."""
    for node in probes("writing"):
        house.passes(node, "writing")
    house.passes("wrboth01", "writing")
    house.passes("wrboth01", "writing")
    assert numbers(house.rows("counted", "writing"), "n") == [1, 2, 3]
    rows = house.rows("items", "writing")
    assert numbers(rows, "id") == list(range(1, 12))
    ids = numbers(rows, "patterns_id")
    assert ids == sorted(set(ids)), "an id that was taken along from another row is issued anew"
    assert rows[7]["nested"] == {"a": [{"b": 1}]} and rows[10]["late"] == "added in the end"
    (version,) = [each for each in house.get("tables/swap/versions", app="writing") if each["active"]]
    assert version["version"].startswith("swap_")
    by_id = house.rows("hinted", "writing")
    assert [(row["id"], row["n"]) for row in by_id] == [("12345678901234567890", 3), ("007", 4)]
    one, two = house.rows("numbered", "writing")
    assert len(one["id"]) == 26 and one["id"] < two["id"] and "patterns_id" not in one


def test_streams(house: Golden) -> None:
    """All that a stream's iterators, places and orderings promise."""
    check_streams(house)


def check_streams(house: Golden) -> None:
    """The probes of `streaming` in their order, some of them several times."""
    for node in probes("streaming"):
        if node not in ("stfail01", "streplac", "strewind", "stonce01", "stgather"):
            house.passes(node, "streaming")
    for _ in range(5):
        house.passes("streplac", "streaming")
    for _ in range(3):
        house.passes("strewind", "streaming")
    assert numbers(house.rows("handed", "streaming"), "count") == [250, 250]
    house.passes("stgather", "streaming")
    house.until(lambda: numbers(house.rows("gathered", "streaming"), "count"), wanted=lambda counts: counts == [250])


def test_each_record_once_over_runs(house: Golden) -> None:
    """A stream hands out what is new since the last run, and forwarded rows get ids of their own."""
    house.passes("stseed01", "streaming")
    for _ in range(3):
        house.passes("stonce01", "streaming")
    seen = house.rows("seen", "streaming")
    source = house.rows("numbers", "streaming")
    assert numbers(seen, "n") == list(range(30)), house.runs("stonce01")
    assert numbers(seen, "patterns_id_in") == numbers(source, "patterns_id")
    assert set(numbers(seen, "patterns_id")).isdisjoint(numbers(source, "patterns_id"))
    house.passes("stseed01", "streaming")
    house.passes("stonce01", "streaming")
    assert len(house.rows("seen", "streaming")) == 60, "all rows of a replaced table are new"


def test_a_failing_loop_goes_on_behind_the_record(house: Golden) -> None:
    """Consumed the moment it is handed out: the next run has the rest, and the record lies in the dead letters."""
    house.passes("stseed01", "streaming")
    run = house.run("stfail01", "streaming")
    assert run["kind"] == "failed" and "cannot take 5" in run["error"] and "fail_half.py:10" in run["error"]
    house.passes("stfail01", "streaming")


def test_state_and_parameters(house: Golden) -> None:
    house.passes("stavalue", "state")
    house.passes("stavalue", "state")
    house.passes("staparam", "state")
    house.passes("stalegac", "state")
    assert "hello" in house.output("stalegac")
    missing = house.run("starequi", "state")
    assert missing["kind"] == "failed" and "api key" in missing["error"]


def test_requested_runs(house: Golden) -> None:
    """A node that asks for its next run gets it; asked for quietly, its rows fire nobody."""
    house.passes("staloop1", "state")
    house.until(lambda: numbers(house.rows("ticks", "state"), "page"), wanted=lambda pages: pages == [0, 1, 2])
    house.passes("staquiet", "state")
    house.until(lambda: numbers(house.rows("quietly", "state"), "run"), wanted=lambda runs: runs == [0, 1])
    assert [row["runs"] for row in house.rows("seen", "state")] in ([[]], []), "it ran at the deploy alone"


def test_state_survives_a_failure(house: Golden) -> None:
    assert house.run("stasurvi", "state")["kind"] == "failed"
    house.passes("stasurvi", "state")


def test_exit_is_a_normal_end(house: Golden) -> None:
    house.passes("stastops", "state")
    assert numbers(house.rows("stopped", "state"), "a") == [1]


POSTED: list[Any] = [
    {"email": "a@x.de", "amount": "12.5", "comment": "hi", "address": {"lines": [{"n": 1}]}},
    [{"email": "b@x.com"}, {"email": "c@x.de", "amount": None, "other": [1]}],
    {"email": "d@y.de", "amount": 7},
]


def check_leads(house: Golden) -> None:
    """Post to the app `leads` and compare all that it makes of it."""
    house.send("Leads in", *POSTED)
    house.send("signups", {"email": "s@x.de", "plan": {"name": "pro"}}, {"email": "t@x.de"})
    emails = ["a@x.de", "b@x.com", "c@x.de", "d@y.de"]
    cities = ["Köln", "elsewhere", "Köln", "Köln"]
    clean = [{"email": email, "city": city} for email, city in zip(emails, cities, strict=True)]
    house.until_rows("clean", "leads", clean, key="email")
    rows = {row["email"]: row for row in house.rows("clean", "leads")}
    assert rows["a@x.de"]["amount"] == 12.5 and rows["a@x.de"]["nested"] == {"n": 1}
    assert rows["a@x.de"]["comment"] == "hi" and rows["b@x.com"]["comment"] is None
    assert rows["b@x.com"]["record"] == {"email": "b@x.com"}
    direct = [
        {"email": "s@x.de", "missing": None, "got": {"name": "pro"}, "keys": ["patterns_id", "record", "timestamp"]},
        {"email": "t@x.de", "missing": None, "got": None, "keys": ["patterns_id", "record", "timestamp"]},
    ]
    house.until_rows("direct", "leads", direct, key="email")
    both = [
        {"by+n": f"{by}{n} {email}", "email": email, "by": by, "n": n}
        for email in emails
        for by, n in (("a", 0), ("a", 1), ("b", 0))
    ]
    collected = house.until(lambda: house.rows("collected", "leads"), wanted=lambda rows: len(rows) >= len(both))
    assert sorted((row["email"], row["by"], row["n"]) for row in collected) == sorted(
        (row["email"], row["by"], row["n"]) for row in both
    )
    assert len(set(numbers(collected, "source"))) == len(both), "rows fanned out have ids of their own"
    by_city = [
        {"city": "Köln", "count": 3, "total (all)": 20, "share": "100%", "literal": "-- not a comment"},
        {"city": "elsewhere", "count": 1, "total (all)": None, "share": "33%", "literal": "-- not a comment"},
    ]
    house.until(lambda: house.rows("by_city", "leads"), wanted=lambda rows: rows == by_city)
    house.until(lambda: house.output("plside01"), wanted=lambda text: "Köln" in text)
    assert house.output("plclean1").count("Lead(email=") == 4
    assert failures(house, "leads") in ({}, {"side_effect": None})


def test_leads(house: Golden) -> None:
    """Webhook to stream to tables to SQL to a frame that is printed; packages, parameters and helpers on the way."""
    check_leads(house)
    (app,) = [each for each in house.get("status")["apps"] if each["app"] == "leads"]
    assert {"by_city", "clean", "leads_in"} <= {table["table"] for table in app["tables"]}


@pytest.mark.kafka
def test_apps_on_kafka(tmp_path: Path, kafka_broker: Any) -> None:
    """The same on the other log, and the probes of streams."""
    with golden_up(tmp_path / "data", "leads", "streaming", log=kafka_broker.url) as golden:
        check_leads(golden)
        check_streams(golden)


def test_sql_nodes(house: Golden) -> None:
    """Names, order, literals and types of what SQL nodes write."""
    app = "queries"
    house.until(lambda: house.rows("joined", app), wanted=lambda rows: len(rows) == 6)
    assert house.rows("Sorted", app) == [
        {"id": 5, "place": 1},
        {"id": 4, "place": 1},
        {"id": 3, "place": 2},
        {"id": 2, "place": 2},
        {"id": 1, "place": 3},
        {"id": 0, "place": 3},
    ]
    (names,) = house.rows("names", app)
    assert list(names) == [
        "count", "sum", "avg", "max", "ceil", "trunc", "coalesce", "date_trunc", "id", "?column?", "Length (minutes)",
    ]  # fmt: skip
    assert names["count"] == 1 and names["id"] == "4" and names["?column?"] == 2
    fields = {each["table"]: each["fields"] for each in house.get("tables", app=app)}
    assert fields["names"]["sum"] == "Decimal(precision=38, scale=0)"
    params = house.rows("params", app)
    assert params[0] == {
        "name": "x'; drop table t; --",
        "day": "2021-05-04",
        "flag": True,
        "none": None,
        "its": "it's",
        "id": 0,
    }
    assert numbers(params, "id") == [0, 1]
    (dates,) = house.rows("dates", app)
    assert dates == {
        "month": "2021-05-01T00:00:00",
        "kinds": 2,
        "first": "2020-09-13T12:26:40+00:00",
        "int_div": 3,
        "price": "3.75",
        "half": 2.0,
        "three": 3.0,
        "six": "yes",
        "earlier": True,
    }
    assert [(row["id"], row["doc"], row["first"]) for row in house.rows("jsons", app)][:2] == [
        (0, {"k": [0]}, "0"),
        (1, {"k": [1]}, "1"),
    ]


def test_sql_nodes_that_write_by_themselves(house: Golden) -> None:
    app = "queries"
    house.passes("qyinto01", app)
    house.passes("qyinto01", app)
    assert numbers(house.rows("summed", app), "kind") == ["a", "b", "a", "b"]
    house.passes("qycreate", app)
    house.passes("qycreate", app)
    assert house.rows("created", app) == [{"kind": "a", "max": 4}, {"kind": "b", "max": 5}]
    house.passes("qylonely", app)


@pytest.mark.parametrize(
    ("node", "reason"),
    [("qymissin", "never"), ("qyoutsid", "read_csv"), ("qydouble", '"count" specified more than once')],
)
def test_sql_nodes_that_cannot_run_say_why(house: Golden, node: str, reason: str) -> None:
    before = house.rows("params", "queries")
    run = house.run(node, "queries")
    assert run["kind"] == "failed" and reason in run["error"]
    assert house.rows("params", "queries") == before, "readers stay on the version before"


def test_wiring(house: Golden) -> None:
    """A subgraph used twice with parameters of its own, one that exposes everything, one file under two ids."""
    app = "wiring"
    house.send("posts", [{"n": n} for n in range(3)])
    for table, factor in (("first", 3), ("second", 5)):
        house.until_rows(table, app, [{"n": n * factor, "factor": factor} for n in range(3)], key="n")
    house.until_rows("doubled", app, [{"n": n * 2} for n in range(3)], key="n")
    expected = [(n * factor, factor) for factor in (3, 5) for n in range(3)]
    rows = house.until(lambda: house.rows("twice", app), wanted=lambda rows: len(rows) >= 6)
    assert sorted((row["n"], row["factor"]) for row in rows) == sorted(expected)


def test_letters(house: Golden) -> None:
    """Bad records go to the dead letters, good ones go on, and each output is there once."""
    app = "letters"
    house.send("incoming", *[{"n": n, "bad": n % 3 == 1} for n in range(6)])
    rows = house.until(lambda: house.rows("good", app), wanted=lambda rows: len(rows) >= 4)
    assert [(row["n"], row["handled"]) for row in rows] == [(0, 1), (2, 3), (3, 4), (5, 6)], "State counts the bad too"
    letters = house.until(lambda: house.rows("incoming_dead_letters", app), wanted=lambda rows: len(rows) >= 2)
    assert [row["record"]["record"]["n"] for row in letters] == [1, 4]
    assert all("bad record" in row["error"] for row in letters)
    house.until_rows("tries", app, [{"n": n} for n in range(6)], key="n")
    house.send("incoming", {"n": 6, "flaky": True})
    house.until(lambda: house.runs("lecarefu")[-1]["kind"], wanted=lambda kind: kind == "failed")
    assert numbers(house.rows("tries", app), "n") == list(range(6)), "what the body did is dropped"


def test_a_version_that_fails_is_not_seen(house: Golden) -> None:
    house.passes("lehalf01", "letters")
    assert house.run("lehalf01", "letters")["kind"] == "failed"
    assert numbers(house.rows("whole", "letters"), "run") == [0]
    house.passes("lehalf01", "letters")
    assert numbers(house.rows("whole", "letters"), "run") == [2]


def test_code_that_is_wrong_says_where(house: Golden) -> None:
    wrong = house.run("lewrong1", "letters")
    assert wrong["kind"] == "failed" and "wrong.py:1" in wrong["error"] and "SyntaxError" in wrong["error"]
    unwritable = house.run("leunwrit", "letters")
    assert unwritable["kind"] == "failed" and "unwritable.py:3" in unwritable["error"]


def test_what_runs_when(house: Golden) -> None:
    """Roots once, readers on news, schedules and manual nodes not by news; nobody fires itself without a stream."""
    app = "schedules"
    house.until(lambda: numbers(house.rows("reactions", app), "rows"), wanted=lambda rows: rows[-1:] == [3])
    assert numbers(house.rows("roots", app), "n") == [0, 1, 2]
    house.passes("scbyhand", app)
    house.until(lambda: numbers(house.rows("reactions", app), "hands"), wanted=lambda hands: hands[-1:] == [1])
    house.passes("scnightl", app)
    house.until(lambda: house.runs("sccyclea"), wanted=lambda runs: len(runs) == 1)
    house.until(lambda: house.rows("counted", app), wanted=lambda rows: rows and rows[-1]["seen"] == 3)
    counted = house.rows("counted", app)
    assert numbers(counted, "before") == list(range(len(counted))) and len(counted) <= 2
    house.passes("scwrites", app)
    assert numbers(house.rows("once", app), "id") == [0, 1, 2]
    assert len(house.runs("scwrites")) == 2, "a table in write mode makes no edge"
    house.until(lambda: numbers(house.rows("chain", app), "n"), wanted=lambda links: links == [0, 1, 2, 3])
    assert failures(house, app) == {}


def test_questions_are_answered(house: Golden) -> None:
    """The payload is the body of the answer to the request that waits."""
    for n in (4, 5):
        answer = house.post("questions", {"n": n})
        assert answer.status_code == 200 and answer.json()["double"] == n * 2
    rows = house.rows("questions", "asks")
    assert all(row["patterns_request_key"] for row in rows) and len(rows) == 2
