"""Letters on their way back: none is forgotten while their node's shard is lost, or while others of the wish come first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tailrace.engine import RunOutcome, SlotRecord, StartRun
from tailrace.log import Log, TopicNotFoundError
from tailrace.runner.given import Given, GivenLetter
from tailrace.runner.lettersback import LettersBack
from tailrace.runner.runs import Run
from tailrace.runner.slot import Slot
from tailrace.runner.slots import SlotState
from tailrace.runner.tails import Pin

SLOT, TABLE = "shop/node", "shop.orders"
LETTERS = [GivenLetter(f"letter {n}", TABLE, n, 0, {"n": n}) for n in range(3)]
PINS = {TABLE: Pin(9, cast(Any, SimpleNamespace(segments=((0, 9),), settings=SimpleNamespace(unique_on=()))))}


class Post:
    """What gives letters back, on a log that answers when it is told to."""

    def __init__(self) -> None:
        self.answers, self.told = asyncio.Event(), 0
        self.letters_back = LettersBack(cast(Log, None), self._call, self._spawn)

    async def _call(self, function: Callable[[], Any]) -> Any:
        await self.answers.wait()
        raise TopicNotFoundError(f"{TABLE}-dead")

    def _spawn(self, work: Any) -> None:
        self.told += 1
        work.close()

    async def give(self, rows_max: int = 100) -> Given | None:
        slot = cast(Slot, SimpleNamespace(name=SLOT, head=SlotState()))
        start = StartRun(slot=SLOT, run=1, reasons=("trigger",), rows_max=rows_max, share_ms=1)
        return await self.letters_back.give(slot, start, f"{SLOT}#1", SlotRecord(), PINS)


async def test_letters_of_a_run_that_is_lost_while_it_begins_wait_for_the_next() -> None:
    post = Post()
    post.letters_back.wish(SLOT, 0, LETTERS)
    beginning = asyncio.create_task(post.give())
    await asyncio.sleep(0)
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    post.answers.set()
    given = await post.give()
    assert given is not None and list(given.letters) == LETTERS


async def test_a_wish_is_done_with_by_the_run_that_comes_to_its_last_letter() -> None:
    """Until then it stays a wish, which whoever hosts the node next finds."""
    post = Post()
    post.answers.set()
    post.letters_back.wish(SLOT, 0, LETTERS)
    told = []
    while given := await post.give(rows_max=2):
        given.taken = 1  # and then its share was over
        run = cast(Run, SimpleNamespace(given=given, slot=SLOT))
        owed_before = post.letters_back.owes(run)
        outcome = post.letters_back.take_back(run, SlotRecord(), None, RunOutcome(kind="died"))
        assert outcome.owes == owed_before
        told.append((given.letters[0].id, outcome.owes))
    assert told == [("letter 0", True), ("letter 1", True), ("letter 2", False)]
    assert post.told == 0
