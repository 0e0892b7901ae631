"""What the coordinator's log tells of a transaction: records of a Kafka 4.3.1, and of one that writes the older form."""

from __future__ import annotations

import struct

import pytest

from tailrace.log import Offset, Partition, Record
from tailrace.log.kafka._unmarked import Decision, coordinator_partition, decisions

KEY = bytes.fromhex("0000000b7461696c726163652e7735")
PREPARED = bytes.fromhex(
    "00010000000000000005000000003a9802"  # version, producer id and epoch, time-out, "prepare commit"
    "03037435050000000200000001000000000000000300"
    "255f7461696c726163652e7772697465722e77352e39616339626332346564616137386665020000000000"
    "000001a22827ec9a000001a22827ec8e0100080000000000000005"
)
COMPLETE = bytes.fromhex("00010000000000000005000000003a980401000001a228282288000001a22827ec8e0100080000000000000005")
NUMBERS = Partition("_tailrace.writer.w5.9ac9bc24edaa78fe", 0)
TABLE = [Partition("t5", number) for number in (2, 1, 0, 3)]


def told(value: bytes | None, key: bytes = KEY) -> list[Decision]:
    return list(decisions([Record(Offset(0), 0, key, value)], "tailrace.w5"))


def test_a_decision_names_its_producer_and_all_partitions() -> None:
    assert told(PREPARED) == [Decision(5, 0, True, (*TABLE, NUMBERS))]


def test_an_abort_is_told_from_a_commit() -> None:
    aborted = bytearray(PREPARED)
    aborted[16] = 3
    assert told(bytes(aborted)) == [Decision(5, 0, False, (*TABLE, NUMBERS))]


def test_the_older_form_is_read() -> None:
    table = struct.pack(">h2si4i", 2, b"t5", 4, 2, 1, 0, 3)
    numbers = struct.pack(">h36sii", 36, NUMBERS.topic.encode(), 1, 0)
    value = struct.pack(">hqhibi", 0, 5, 7, 15_000, 2, 2) + table + numbers + struct.pack(">qq", 1, 1)
    assert told(value) == [Decision(5, 7, True, (*TABLE, NUMBERS))]


@pytest.mark.parametrize("value", [COMPLETE, None])
def test_other_records_tell_nothing(value: bytes | None) -> None:
    assert told(value) == []


def test_another_id_is_not_meant() -> None:
    assert told(PREPARED, KEY[:-1] + b"6") == []


@pytest.mark.parametrize(("name", "partition"), [("w2", 0), ("w5", 1), ("w1", 1), ("w4", 2), ("w0", 2), ("w3", 3)])
def test_an_id_is_looked_for_where_its_coordinator_keeps_it(name: str, partition: int) -> None:
    """As a broker with four of these partitions had them."""
    assert coordinator_partition(f"tailrace.{name}", 4) == partition
