"""What `doctor` says of facts: a deployment in order, and one in which everything is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tailrace.doctor import Facts, MachineFacts, examine_all, hanging_writers
from tailrace.lake import LakeFacts
from tailrace.log import HangingTransaction, KafkaFacts, LogFacts, SqliteFacts
from tailrace.runner.containment import Containment

GOOD = Facts(
    log=LogFacts(
        url="sqlite:///log",
        backend=SqliteFacts(path="/log", journal_mode="wal", disk_free_bytes=9 << 30),
        clock_ahead_ms=0,
    ),
    lake=LakeFacts(url="/lake", clock_ahead_ms=0, disk_free_bytes=9 << 30),
    machine=MachineFacts(python=(3, 12, 1), versions={"tailrace": "1"}, now_ms=10**12, disk_free_bytes=9 << 30),
)


def test_nothing_is_said_against_a_deployment_in_order() -> None:
    assert {each.level for each in examine_all(GOOD)} == {"ok"}


def test_all_that_is_wrong_is_named_with_what_mends_it() -> None:
    bad = Facts(
        log=LogFacts(
            url="sqlite:///log",
            backend=SqliteFacts(path="/log", journal_mode="delete", damage="row 7 missing", disk_free_bytes=1 << 20),
            clock_ahead_ms=3_600_000,
            newest_birth_ms=10**12 + 3_600_000,
            lags={"shop.node": 5_000_000},
        ),
        lake=LakeFacts(url="s3://rows", refuses_second_put=False, clock_ahead_ms=-3_600_000),
        machine=MachineFacts(
            python=(3, 10, 0), now_ms=10**12, leftovers=("/data/tailrace.db-restoring",), gaps=("a; b",)
        ),
    )
    found = [each for each in examine_all(bad) if each.level != "ok"]
    wrong = {each.check for each in found if each.level == "wrong"}
    assert wrong == {"embedded log", "lake", "clock", "disk", "versions"}
    assert {each.check for each in found} - wrong == {"lag", "containment", "leftovers"}
    assert all(each.mend for each in found)
    texts = " ".join(each.what for each in found)
    assert "3600 s ahead of" in texts and "3600 s behind" in texts and "this clock went back" in texts


def test_a_transaction_that_nobody_ends_is_named_with_the_command_that_does() -> None:
    where = {"topic": "shop.orders", "number": 2, "start": 41, "open_ms": 90_000}
    hanging = (HangingTransaction(**where, writer="shard-3"), HangingTransaction(**where))  # type: ignore[arg-type]
    kafka = KafkaFacts(servers="b:9092", fetch_version_min=4, brokers=3, hanging=hanging)
    facts = Facts(log=LogFacts(url="kafka://b:9092", backend=kafka), lake=GOOD.lake, machine=GOOD.machine)
    ours, foreign = [each for each in examine_all(facts) if each.level == "wrong"]
    assert "shop.orders/2 from offset 41 on" in ours.what and "writer shard-3" in ours.what and "90 s" in ours.what
    assert ours.mend == "tailrace doctor --fix"
    assert "an unknown program" in foreign.what
    assert "abort --topic shop.orders --partition 2 --start-offset 41" in foreign.mend
    assert hanging_writers(facts) == ["shard-3"]


def test_an_older_broker_is_named_with_what_mends_it() -> None:
    kafka = KafkaFacts(servers="b:9092", fetch_version_min=0, brokers=3)
    facts = Facts(log=LogFacts(url="kafka://b:9092", backend=kafka), lake=GOOD.lake, machine=GOOD.machine)
    [finding] = [each for each in examine_all(facts) if each.level == "wrong"]
    assert "b:9092 is a Kafka older than 4.0" in finding.what
    assert "Kafka 4.x" in finding.mend


def test_what_holds_nodes_no_longer_is_told_with_the_way_out() -> None:
    """Each part of the containment that a machine does not have; none where it has all."""
    whole = Containment(
        landlock_abi=6, seccomp=True, pids_groups=True, is_root=False, bubblewrap=False, container_tool=None
    )
    assert whole.gaps() == []
    lacking: list[tuple[dict[str, Any], str, str]] = [
        ({"landlock_abi": 0}, "read the log", "executor to bubblewrap or container"),
        ({"landlock_abi": 5}, "send signals", "executor to bubblewrap or container"),
        ({"seccomp": False}, "network: false", "bubblewrap and container alone"),
        ({"pids_groups": False}, "fork bomb", "Delegate=yes"),
        ({"pids_groups": False, "is_root": True}, "as root nothing bounds them", "executor to container"),
    ]
    for change, what, mend in lacking:
        [gap] = replace(whole, **change).gaps()
        assert what in gap and mend in gap


def test_a_log_that_is_away_is_all_that_is_said_of_it() -> None:
    away = Facts(log=LogFacts(url="kafka://b:9092", unreachable="nobody answers"), lake=GOOD.lake, machine=GOOD.machine)
    [finding] = [each for each in examine_all(away) if each.level != "ok"]
    assert (finding.check, "start the brokers" in finding.mend) == ("log", True)
