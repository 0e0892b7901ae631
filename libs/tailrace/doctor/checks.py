"""The checks: each takes the facts and yields what it finds. None of them asks anybody anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tailrace.doctor.facts import Facts
from tailrace.log import KafkaFacts, KafkaTopicFacts, SqliteFacts

__all__ = ["CHECKS", "Finding", "examine_all", "hanging_writers", "topic_mends"]

CLOCK_MS_MAX = 2_000
"""Clocks that differ by less do no harm: retention goes by hours, dedupe windows by minutes."""

CLOCK_BACK_MS_MAX = 60_000

DISK_BYTES_MIN = 1 << 30
"""With less left, the log stops within minutes of a busy webhook."""

WAL_BYTES_MAX = 512 << 20

LAG_MAX = 1_000_000

_FETCH_VERSION_MIN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found. `wrong` makes `doctor` end with 1; `note` does not."""

    check: str
    level: Literal["ok", "note", "wrong"]
    what: str
    mend: str = ""
    """What to do: a command where there is one."""


Check = Callable[[Facts], Iterator[Finding]]


def log_answers(facts: Facts) -> Iterator[Finding]:
    log = facts.log
    if log.is_half_restored:
        yield _wrong(
            "log", f"{log.url} is half restored", "run the same `tailrace restore` or `tailrace migrate` again"
        )
    elif log.unreachable:
        kafka = log.url.startswith("kafka://")
        mend = "start the brokers, or name the log with --log; then `tailrace doctor` again"
        yield _wrong("log", log.unreachable, mend if kafka else "check the path and its rights; --log URL, --data DIR")
    else:
        yield _ok("log", f"{log.url} answers")


def broker_version(facts: Facts) -> Iterator[Finding]:
    if (kafka := _kafka(facts)) is None:
        return
    if kafka.fetch_version_min is None:
        yield _note("broker version", f"{kafka.servers} did not tell; Kafka 4.x is asked for")
    elif kafka.fetch_version_min < _FETCH_VERSION_MIN:
        yield _wrong("broker version", f"{kafka.servers} is a Kafka older than 4.0", "upgrade the brokers to Kafka 4.x")
    else:
        yield _ok("broker version", "Kafka 4.0 or later")


def permissions(facts: Facts) -> Iterator[Finding]:
    if (kafka := _kafka(facts)) is None:
        return
    user = kafka.user or "ANONYMOUS"
    for right in sorted(kafka.missing_rights):
        yield _wrong("permissions", f"{user} lacks {right}", _acl(user, right))
    for topic in kafka.topics:
        if topic.missing_rights:
            rights = ", ".join(sorted(topic.missing_rights))
            operations = " ".join(f"--operation {each}" for each in sorted(topic.missing_rights))
            yield _wrong(
                "permissions",
                f"{user} lacks {rights} on topic {topic.name}",
                f"kafka-acls.sh --add --allow-principal User:{user} {operations} --topic {topic.name}",
            )
    if not kafka.missing_rights and not any(topic.missing_rights for topic in kafka.topics):
        yield _ok("permissions", f"{user} may do what is needed")


def topic_settings(facts: Facts) -> Iterator[Finding]:
    if (kafka := _kafka(facts)) is None:
        return
    mends = topic_mends(facts)
    for name, settings in mends.items():
        topic = next(each for each in kafka.topics if each.name == name)
        differing = ", ".join(f"{key} is {topic.settings[key]}, not {value}" for key, value in settings.items())
        yield _wrong("topic settings", f"{name}: {differing}", "tailrace doctor --fix")
    if not mends:
        yield _ok("topic settings", f"{len(kafka.topics)} topics are kept for ever, as they must be")


def transactions(facts: Facts) -> Iterator[Finding]:
    if (kafka := _kafka(facts)) is None:
        return
    for each in kafka.hanging:
        where = f"{each.topic}/{each.number}"
        abort = f"abort --topic {each.topic} --partition {each.number} --start-offset {each.start}"
        yield _wrong(
            "transactions",
            f"{where} from offset {each.start} on is seen by nobody: a transaction of "
            f"{f'writer {each.writer}' if each.writer else 'an unknown program'} has been open there for "
            f"{each.open_ms // 1000} s, and nothing will end it",
            "tailrace doctor --fix"
            if each.writer
            else f"kafka-transactions.sh --bootstrap-server {kafka.servers} {abort}; it drops what was written",
        )
    if not kafka.hanging:
        yield _ok("transactions", "none is left open")


def hanging_writers(facts: Facts) -> list[str]:
    """Writers of ours that have transactions open which nothing will end."""
    kafka = _kafka(facts)
    return sorted({each.writer for each in (kafka.hanging if kafka else ()) if each.writer})


def replication(facts: Facts) -> Iterator[Finding]:
    if (kafka := _kafka(facts)) is None:
        return
    if kafka.brokers == 1:
        yield _note(
            "replication",
            "one broker: Kafka does not fsync each message, so a power cut can lose the last seconds",
            "take backups (`tailrace backup`); for more, three brokers with min.insync.replicas=2",
        )
        return
    for topic in kafka.topics:
        if topic.replication < 3 and topic.replication < kafka.brokers:
            yield _wrong(
                "replication",
                f"{topic.name} has {topic.replication} replicas on {kafka.brokers} brokers",
                "kafka-reassign-partitions.sh; default.replication.factor=3 for new ones",
            )
        elif topic.settings.get("min.insync.replicas") == "1":
            yield _wrong(
                "replication",
                f"{topic.name} takes writes with one replica in sync: the loss of a broker loses rows",
                f"kafka-configs.sh --alter --topic {topic.name} --add-config min.insync.replicas=2",
            )
        if topic.in_sync < topic.replication:
            yield _wrong(
                "replication", f"{topic.name}: {topic.in_sync} of {topic.replication} replicas are in sync", _BROKERS
            )


_BROKERS = "look at the brokers' logs: one of them is away or slow"


def lag(facts: Facts) -> Iterator[Finding]:
    behind = {group: offsets for group, offsets in facts.log.lags.items() if offsets > LAG_MAX}
    for group, offsets in sorted(behind.items()):
        yield _note("lag", f"{group} is {offsets:,} offsets behind", "`tailrace nodes` tells why; start more runners")
    if not behind and facts.log.backend is not None:
        yield _ok("lag", f"no group is more than {LAG_MAX:,} offsets behind")


def sqlite_file(facts: Facts) -> Iterator[Finding]:
    sqlite = facts.log.backend
    if not isinstance(sqlite, SqliteFacts):
        return
    if sqlite.damage:
        yield _wrong(
            "embedded log", f"{sqlite.path} is damaged: {sqlite.damage}", "tailrace restore BACKUP --data NEWDIR"
        )
    if sqlite.journal_mode != "wal":
        yield _wrong("embedded log", f"its journal_mode is {sqlite.journal_mode}, not wal", "put it on a local disk")
    if sqlite.wal_bytes > WAL_BYTES_MAX:
        megabytes = sqlite.wal_bytes >> 20
        yield _note(
            "embedded log", f"its WAL has {megabytes} MB: a reader holds it", "stop what reads the file from outside"
        )
    if not sqlite.damage and sqlite.journal_mode == "wal":
        yield _ok(
            "embedded log", f"{sqlite.file_bytes >> 20} MB, of which {sqlite.free_bytes >> 20} MB can be used again"
        )


def lake_works(facts: Facts) -> Iterator[Finding]:
    lake = facts.lake
    if lake.unusable:
        yield _wrong("lake", lake.unusable, "check rights, network and credentials; --lake URL names another")
    elif not lake.refuses_second_put:
        yield _wrong(
            "lake",
            f"{lake.url} lets two make the same object: two snapshotters could lose rows",
            "use a store with conditional puts (If-None-Match), or set AWS_CONDITIONAL_PUT=dynamo:TABLE",
        )
    else:
        yield _ok("lake", f"{lake.url} can be read and written, and refuses a second put")


def clocks(facts: Facts) -> Iterator[Finding]:
    sound = True
    for name, ahead_ms in (("log", facts.log.clock_ahead_ms), ("lake", facts.lake.clock_ahead_ms)):
        if ahead_ms is not None and abs(ahead_ms) > CLOCK_MS_MAX:
            sound = False
            way = "ahead of" if ahead_ms > 0 else "behind"
            yield _wrong("clock", f"the {name}'s clock is {abs(ahead_ms) / 1000:.0f} s {way} this machine's", _NTP)
    back_ms = facts.log.newest_birth_ms - facts.machine.now_ms
    if back_ms > CLOCK_BACK_MS_MAX:
        sound = False
        yield _wrong("clock", f"a topic was born {back_ms / 60_000:.0f} min from now: this clock went back", _NTP)
    if sound:
        yield _ok("clock", "agrees with those of log and lake")


_NTP = "timedatectl set-ntp true"


def disk_space(facts: Facts) -> Iterator[Finding]:
    sqlite = facts.log.backend
    places = {
        facts.machine.data_dir: facts.machine.disk_free_bytes,
        facts.lake.url: facts.lake.disk_free_bytes,
        **({sqlite.path: sqlite.disk_free_bytes} if isinstance(sqlite, SqliteFacts) else {}),
    }
    full = {place: free for place, free in places.items() if free is not None and free < DISK_BYTES_MIN}
    for place, free in full.items():
        yield _wrong("disk", f"{free >> 20} MB are left at {place}", "tailrace gc; or give it more space")
    if not full and any(free is not None for free in places.values()):
        yield _ok("disk", f"{min(free for free in places.values() if free is not None) >> 30} GB are left")


def versions(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    named = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    shown = f"Python {'.'.join(map(str, machine.python))}, {named}"
    if machine.python < (3, 11):
        yield _wrong("versions", f"{shown}: Python 3.11 or later is asked for", "install it, and Tailrace in it")
    else:
        yield _ok("versions", shown)


def containment(facts: Facts) -> Iterator[Finding]:
    for gap in facts.machine.gaps:
        what, _, mend = gap.rpartition("; ")
        yield _note("containment", what or gap, mend if what else "")
    if not facts.machine.gaps:
        yield _ok("containment", "the kernel holds node code")


def leftovers(facts: Facts) -> Iterator[Finding]:
    for path in facts.machine.leftovers:
        yield _note("leftovers", f"{path} was left by something that was interrupted", f"rm -r {path}")
    if not facts.machine.leftovers:
        yield _ok("leftovers", "none")


CHECKS: Sequence[Check] = (
    log_answers,
    broker_version,
    permissions,
    topic_settings,
    transactions,
    replication,
    lag,
    sqlite_file,
    lake_works,
    clocks,
    disk_space,
    versions,
    containment,
    leftovers,
)


def examine_all(facts: Facts) -> list[Finding]:
    """What all checks find, in their order."""
    return [finding for check in CHECKS for finding in check(facts)]


def topic_mends(facts: Facts) -> dict[str, dict[str, str]]:
    """Topic -> the settings that it lacks: safe to set, as they only keep more."""
    kafka = _kafka(facts)
    mends = {topic.name: _differing(topic) for topic in (kafka.topics if kafka else ())}
    return {name: settings for name, settings in mends.items() if settings}


def _differing(topic: KafkaTopicFacts) -> dict[str, str]:
    return {
        name: value for name, value in topic.wanted.items() if name in topic.settings and not _suits(name, value, topic)
    }


def _suits(name: str, wanted: str, topic: KafkaTopicFacts) -> bool:
    found = topic.settings[name]
    if name == "max.message.bytes":
        return found.isdigit() and int(found) >= int(wanted)
    return set(found.split(",")) == set(wanted.split(","))


def _kafka(facts: Facts) -> KafkaFacts | None:
    return facts.log.backend if isinstance(facts.log.backend, KafkaFacts) else None


def _acl(user: str, right: str) -> str:
    return f"kafka-acls.sh --add --allow-principal User:{user} ...: docs/operations.md lists all of them"


def _ok(check: str, what: str) -> Finding:
    return Finding(check=check, level="ok", what=what)


def _note(check: str, what: str, mend: str = "") -> Finding:
    return Finding(check=check, level="note", what=what, mend=mend)


def _wrong(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, level="wrong", what=what, mend=mend)
