"""Looking at a log from outside, without relying on anything in it: for `tailrace doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress

from tailrace.errors import TailraceError
from tailrace.log.contract import Log, LogLimits
from tailrace.log.errors import RestoreUnfinishedError
from tailrace.log.facts import LogFacts
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["end_hanging", "examine", "mend_topics"]


def examine(url: str, *, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> LogFacts:
    """What is found at `url`. Raises nothing of the log's: what fails is a fact.

    On Kafka a small topic `_tailrace.doctor` is made, written to, and deleted.
    """
    from tailrace.log import open_log

    shown = url.partition("?")[0]
    try:
        log = open_log(url, limits=limits, runtime=runtime)
    except RestoreUnfinishedError:
        return LogFacts(url=shown, is_half_restored=True)
    except TailraceError as error:
        return LogFacts(url=shown, unreachable=str(error))
    try:
        return _facts(log, shown)
    except TailraceError as error:
        return LogFacts(url=shown, unreachable=str(error))
    finally:
        log.close()


def _facts(log: Log, shown: str) -> LogFacts:
    from tailrace.log.sqlite import SqliteLog

    lags: dict[str, int] = {}
    with suppress(TailraceError):
        cut = log.cut()
        for group, places in cut.places.items():
            lags[group] = sum(cut.partitions[partition].stop - place.offset for partition, place in places.items())
    born_ms = max((info.born_ms for info in log.topics().values()), default=0)
    if isinstance(log, SqliteLog):
        return LogFacts(url=shown, backend=log.find_facts(), clock_ahead_ms=0, newest_birth_ms=born_ms, lags=lags)
    from tailrace.log.kafka import KafkaLog

    assert isinstance(log, KafkaLog)
    kafka, ahead_ms = log.find_facts()
    return LogFacts(url=shown, backend=kafka, clock_ahead_ms=ahead_ms, newest_birth_ms=born_ms, lags=lags)


def end_hanging(url: str, writers: Sequence[str]) -> None:
    """End what Kafka has left open of these writers, as it was decided; nothing on SQLite, where nothing stays open.

    Raises what opening a writer does.
    """
    if writers and url.startswith("kafka://"):
        from tailrace.log.kafka import KafkaLog

        with closing(KafkaLog(url)) as log:
            log.end_hanging(writers)


def mend_topics(url: str, wrong: dict[str, dict[str, str]]) -> None:
    """Give Kafka's topics (name -> settings) what our promises rest on; nothing on SQLite, which has no settings."""
    if wrong and url.startswith("kafka://"):
        from tailrace.log.kafka import KafkaLog

        with closing(KafkaLog(url)) as log:
            log.mend_topics(wrong)
