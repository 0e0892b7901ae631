"""Dead letters as people handle them: look, edit, give back to their node, drop.

They are rows of an ordinary Table, so they are read by a worker, as any Table is, and each change is one append to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import orjson

from tailrace.errors import RejectedError
from tailrace.log import NewRecord, Offset, OffsetGapError, Partition, scan
from tailrace.runner.deployment import DeployedTable, Deployment
from tailrace.runner.host import Host
from tailrace.runner.requests import RunRequest
from tailrace.tables import dead_letters_message, lane_of, message, split_head

__all__ = ["BadLetterError", "LetterFilter", "Letters", "UnknownLetterError"]

_PAGE = 500
"""Letters that are given back, or dropped, at a time."""

_WISH_BYTES_MAX = 256 << 10
"""About how much goes into one record of the triggers topic."""

_FIELDS = ("at", "node", "run", "source_partition", "source_offset", "source_row", "record", "error", "traceback")
_BY_THE_LAKE = "the lake left it out, no node failed at it: correct it, and post it again"
_NODE_GONE = "its node is not deployed any more"


class UnknownLetterError(RejectedError):
    """A Table has no dead letter of that id, or none any more."""

    def __init__(self, table: str, letter: str) -> None:
        self.table, self.letter = table, letter
        super().__init__(
            f"table {table!r} has no dead letter {letter!r}; `tailrace table dead-letters {table}` lists them"
        )


class BadLetterError(RejectedError):
    """What is to take a dead letter's place is no record."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"a record is a JSON object of the Table's fields: {detail}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters."""

    ids: Sequence[str] = ()
    """Empty: all."""
    slots: Sequence[str] | None = None
    """Slots of the node that failed; None: any."""
    since_ms: int | None = None

    def where(self, *, after: str = "", until: str = "") -> str:
        """The condition in SQL, for ids in (after, until]."""
        parts = ["true"]
        if self.ids:
            parts.append(f"patterns_id in ({', '.join(map(_literal, self.ids))})")
        if self.slots is not None:
            parts.append(f"node in ({', '.join(map(_literal, self.slots))})")
        if self.since_ms is not None:
            moment = datetime.fromtimestamp(self.since_ms / 1000, UTC).replace(tzinfo=None).isoformat(sep=" ")
            parts.append(f"at >= timestamp '{moment}'")
        if after:
            parts.append(f"patterns_id > {_literal(after)}")
        if until:
            parts.append(f"patterns_id <= {_literal(until)}")
        return " and ".join(parts)


class Letters:
    """The dead letters of one Table."""

    def __init__(self, host: Host, deployment: Deployment, table: DeployedTable) -> None:
        self._host, self._deployment, self._table = host, deployment, table
        self._partition = Partition(table.dead_letters)

    async def newest(self, wanted: LetterFilter, limit: int) -> list[dict[str, Any]]:
        """The newest, oldest first."""
        found = await self._select(wanted.where(), f"order by patterns_id desc limit {int(limit)}")
        return found[::-1]

    async def edit(self, letter: str, record: object) -> dict[str, Any]:
        """Put another record in the place of a letter's; returns the letter, which has a new id.

        Raises:
            UnknownLetterError, BadLetterError: rejected.
        """
        if not isinstance(record, dict):
            raise BadLetterError(f"{orjson.dumps(record)[:100].decode()} is none")
        old = await self._one(letter)
        found = (old["source_offset"], old["source_row"], record, old["error"], old["traceback"])
        new = dead_letters_message(
            [found], self._host.now_ms(), node=old["node"], run=old["run"], partition=old["source_partition"]
        )
        await self._append([_deleted([letter]), NewRecord(new)])
        now = await self.newest(LetterFilter(), 1)
        return now[0] if now else {**old, "record": record}

    async def drop(self, wanted: LetterFilter) -> int:
        """Delete letters; returns how many."""
        dropped = 0
        async for page in self._pages(wanted):
            await self._append([_deleted([letter["id"] for letter in page])])
            dropped += len(page)
        return dropped

    async def replay(self, wanted: LetterFilter) -> AsyncGenerator[dict[str, Any], None]:
        """Give letters back to the nodes that failed at them, and tell what becomes of each: `replayed`, `failed` (it is a
        letter again, under a new id), or `kept`. Whoever stops listening stops no replay that was wished."""
        async for page in self._pages(wanted):
            position = await self._end()
            pending = {letter["id"]: letter for letter in page}
            for slot, letters in groupby(sorted(page, key=lambda each: each["node"]), key=lambda each: each["node"]):
                mine = list(letters)
                if slot in self._deployment.nodes:
                    await self._wish(slot, mine)
                    continue
                for letter in mine:
                    del pending[letter["id"]]
                    yield {"type": "kept", "id": letter["id"], "why": _NODE_GONE if slot else _BY_THE_LAKE}
            async for event in self._follow(position, pending):
                yield event

    # -- reading --------------------------------------------------------------------------------------------------

    async def _select(self, where: str, rest: str) -> list[dict[str, Any]]:
        if self._partition.topic not in await asyncio.to_thread(self._host.log.topics, self._partition.topic):
            return []
        name = f"{self._table.store.name}_dead_letters".replace('"', '""')
        sql = f'select * from "{name}" where {where} {rest}'  # noqa: S608 - quoted
        answer = b"".join([piece async for piece in self._host.ask(self._deployment.graph, "query", {"sql": sql})])
        found = orjson.loads(answer)
        names = [column["name"] for column in found["columns"]]
        return [_letter(dict(zip(names, values, strict=True))) for values in found["rows"]]

    async def _one(self, letter: str) -> dict[str, Any]:
        found = await self._select(LetterFilter(ids=[letter]).where(), "limit 1")
        if not found:
            raise UnknownLetterError(self._table.store.name, letter)
        return found[0]

    async def _pages(self, wanted: LetterFilter) -> AsyncIterator[list[dict[str, Any]]]:
        """The letters that are there now, oldest first."""
        newest = await self._select(wanted.where(), "order by patterns_id desc limit 1")
        if wanted.ids:
            known = {letter["id"] for letter in await self._select(wanted.where(), "")}
            for missing in set(wanted.ids) - known:
                raise UnknownLetterError(self._table.store.name, missing)
        after, until = "", newest[0]["id"] if newest else ""
        while until:
            page = await self._select(wanted.where(after=after, until=until), f"order by patterns_id limit {_PAGE}")
            if not page:
                return
            yield page
            after = page[-1]["id"]

    # -- writing --------------------------------------------------------------------------------------------------

    async def _append(self, records: Sequence[NewRecord]) -> None:
        await asyncio.to_thread(self._host.log.append, self._partition, records)

    async def _wish(self, slot: str, letters: Sequence[Mapping[str, Any]]) -> None:
        triggers = Partition(self._deployment.triggers_topic)
        for chunk in _chunks(letters, self._table.topic):
            wish = RunRequest(slot=slot, at_ms=self._host.now_ms(), kind="replay", letters=chunk)
            await asyncio.to_thread(self._host.log.append, triggers, [wish.to_record()])

    # -- what becomes of them -------------------------------------------------------------------------------------

    async def _end(self) -> Offset:
        ends = await asyncio.to_thread(self._host.log.settled_ends, [self._partition])
        return ends[self._partition]

    async def _follow(self, position: Offset, pending: dict[str, dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        watch = self._host.log.watch()
        try:
            watch.add([self._partition])
            while pending:
                end = await self._end()
                heads, position = await asyncio.to_thread(self._read, position, end)
                for event in _events(heads, pending):
                    yield event
                if pending and position >= end:
                    await watch.wait()
        finally:
            watch.close()

    def _read(self, start: Offset, end: Offset) -> tuple[list[dict[str, Any]], Offset]:
        """The messages from `start` on, letters with their rows, and where they end."""
        heads: list[dict[str, Any]] = []
        try:
            for batch in scan(self._host.log, self._partition, start, end):
                for record in batch.records:
                    head = split_head(record.value)
                    if head["kind"] == "rows" and record.value is not None:
                        head["rows"] = orjson.loads(record.value)["rows"]
                    heads.append(head)
                start = batch.next
        except OffsetGapError as gap:
            return heads, Offset(gap.start)
        return heads, max(start, end)


def _events(heads: Sequence[Mapping[str, Any]], pending: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What messages say of letters that somebody waits for; takes those out of `pending`."""
    again = {(head.get("run"), *_place(row)): row for head in heads if head["kind"] == "rows" for row in head["rows"]}
    for head in heads:
        for letter in head.get("ids") or head.get("kept") or ():
            known = pending.pop(letter, None)
            if known is None:
                continue
            failed = again.get((head.get("run"), *_place(known)))
            if head["kind"] == "signal":
                yield {"type": "kept", "id": letter, "why": head.get("why")}
            elif failed is not None:
                yield {"type": "failed", "id": letter, "run": head.get("run"), "error": failed.get("error")}
            elif head.get("run"):
                yield {"type": "replayed", "id": letter, "run": head["run"]}
            else:
                yield {"type": "kept", "id": letter, "why": "somebody dropped or edited it meanwhile"}


def _place(letter: Mapping[str, Any]) -> tuple[Any, ...]:
    return letter.get("source_partition") or 0, letter.get("source_offset"), letter.get("source_row")


def _letter(row: Mapping[str, Any]) -> dict[str, Any]:
    """A letter as it is shown; older ones say nothing of a partition."""
    record = row["record"]
    return {
        "id": row["patterns_id"],
        **{name: row.get(name) for name in _FIELDS},
        "record": orjson.loads(record) if isinstance(record, str) else record,
        "source_partition": row.get("source_partition") or 0,
    }


def _deleted(ids: Sequence[str]) -> NewRecord:
    return NewRecord(message({"kind": "delete", "ids": list(ids)}))


def _chunks(letters: Sequence[Mapping[str, Any]], table: str) -> Iterator[list[list[Any]]]:
    chunk: list[list[Any]] = []
    size = 0
    for letter in letters:
        lane = lane_of(table, letter["source_partition"])
        row = [letter["id"], lane, letter["source_offset"], letter["source_row"], letter["record"]]
        size += len(orjson.dumps(row))
        if chunk and size > _WISH_BYTES_MAX:
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
    if chunk:
        yield chunk


def _literal(text: str) -> str:
    """Text in SQL; what is no printable text is no name of anything."""
    return "'" + re.sub(r"[^\x20-\x7e\u00a0-\U0010ffff]", "", text).replace("'", "''") + "'"
