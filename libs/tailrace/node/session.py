"""One run of a node: what its order says, what it has read and written so far, and how it is committed.

A run is one transaction. What it writes stays here until `commit` or `finish`, so that going back to a savepoint
touches nothing but memory.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrace.node.errors import NoRunError, RunOverError
from tailrace.node.link import HostChannel, HostLink
from tailrace.node.protocol import DeadLetter, Outcome, Progress, RunOrder, StoreRef, progress_to_json
from tailrace.runtime import Clock, SystemClock
from tailrace.tables import StagedFiles

if TYPE_CHECKING:
    from tailrace.node.cursors import Cursor, Rest
    from tailrace.node.store import RunStore

__all__ = ["COMMIT_PAUSE_S", "LoopClock", "Session", "activate", "current_session", "deactivate", "suspend"]

COMMIT_PAUSE_S = 0.05
"""Least time between two commits of a run; checkpoints in between are savepoints. A commit costs milliseconds, so more
of them would be most of the work."""

_WRITE_BYTES = 4 << 20
"""About how much goes into one `write` frame: both ends hold a frame in memory as a whole."""

_current: Session | None = None


def current_session(what: str) -> Session:
    """The run that is going on in this process.

    Raises:
        NoRunError: rejected; there is none.
    """
    if _current is None:
        raise NoRunError(what)
    return _current


def activate(session: Session) -> None:
    """From here on the node API speaks to `session`."""
    global _current
    _current = session


def suspend() -> Session | None:
    """The run that is going on, for who wants to put another in its place for a while."""
    return _current


def deactivate() -> None:
    """No run is going on any more."""
    global _current
    _current = None


class LoopClock:
    """How long a run has been inside stream loops, and when its share of time is used up."""

    def __init__(self, clock: Clock, share_s: float) -> None:
        self.now_s = clock.monotonic_s
        self._share_s = share_s
        self._entered_s = 0.0
        self._inside_s = 0.0
        self._begun = False
        self.inside = False
        self.deadline_s = float("inf")
        """When streams are to end at the next row. It is counted from the first loop on."""

    def enter(self) -> None:
        """A loop asks for its first record."""
        self.inside = True
        self._entered_s = self.now_s()
        if not self._begun:
            self._begun = True
            self.deadline_s = self._entered_s + self._share_s

    def leave(self) -> None:
        """The loop has ended, or its iterator was dropped."""
        if self.inside:
            self.inside = False
            self._inside_s += self.now_s() - self._entered_s

    def unbound(self) -> None:
        """There is no share any more: streams go on to their end."""
        self._begun = True
        self.deadline_s = float("inf")

    @property
    def inside_s(self) -> float:
        """Seconds inside loops so far."""
        self.leave()
        return self._inside_s


class Session:
    """A run: its stores, streams, State and what is to be committed."""

    def __init__(
        self,
        order: RunOrder,
        channel: HostChannel,
        *,
        clock: Clock | None = None,
        rests: dict[str, Rest] | None = None,
    ) -> None:
        self.order = order
        self.clock = clock or SystemClock()
        self.link = HostLink(channel)
        self.files = StagedFiles(Path(order.staging), self._fetch_staged)
        self.lock = threading.RLock()
        self.state: dict[str, Any] = dict(order.state)
        """Typed JSON by key; streams' positions are not in it."""
        self.cursors: dict[tuple[str, str], Cursor] = {}
        self.rests: dict[str, Rest] = {} if rests is None else rests
        """By table, what the run before had parsed and not handed out; taken by this one, or dropped."""
        self.loop = LoopClock(self.clock, order.share_s)
        self.rows_left = order.rows_max
        """Rows that streams may still hand out."""
        self.quiet = False
        self.requested: tuple[int, bool] | None = None
        self.ports: dict[str, Any] = {}
        """Connected tables by port name, for templates."""
        self.legacy_nodes: list[Callable[..., Any]] = []
        self.hand: Cursor | None = None
        """The stream that handed out the latest record."""
        self.dropped_by: BaseException | None = None
        """The error for which a body was dropped, to be handed out again."""
        self.part = 0
        self.files_staged = 0
        self._stores: dict[str, RunStore] = {}
        self._refs = {ref.key: ref for ref in order.stores}
        self._refs_by_name = {ref.name: ref for ref in reversed(order.stores)}
        self._letters: list[DeadLetter] = []
        self._rows_out = 0
        self._began_s = self.clock.monotonic_s()
        self._committed_s = self._began_s
        self._saved_state = self._committed_state = dict(self.state)
        self._warned: set[str] = set()
        self.over = False
        """The run has ended: nothing that points here can do anything any more."""

    # -- what the run is about

    def ensure_going_on(self) -> None:
        """Raises `RunOverError` for objects that outlived their run."""
        if self.over:
            raise RunOverError(self.order.run)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return self.clock.monotonic_s() - self._began_s

    def ref(self, port: str, mode: str) -> StoreRef | None:
        """The store behind a port: by the node's wiring, else by its name; None where the port is unconnected."""
        wired = (self.order.outputs if mode == "w" else self.order.inputs).get(port)
        if wired is not None:
            return self._refs.get(wired) or self._refs_by_name.get(wired)
        return self._refs_by_name.get(port)

    def store(self, ref: StoreRef) -> RunStore:
        """The one object for a store in this run."""
        from tailrace.node.store import RunStore

        with self.lock:
            store = self._stores.get(ref.key)
            if store is None:
                if ref.is_plain:
                    store = RunStore(self, ref)
                else:
                    from tailrace.node.partitioned import PartitionedStore

                    store = PartitionedStore(self, ref)
                self._stores[ref.key] = store
            return store

    def unbound(self) -> None:
        """From here on streams go on to their end within this run."""
        self.rows_left = sys.maxsize
        self.loop.unbound()

    @property
    def refs(self) -> Sequence[StoreRef]:
        """All stores that the node can reach."""
        return list(self._refs.values())

    @property
    def stores(self) -> Sequence[RunStore]:
        """The stores used so far."""
        return list(self._stores.values())

    def log(self, text: str, level: str = "warning") -> None:
        """A line for the run's log."""
        self.link.tell({"op": "log", "level": level, "text": text})

    def warn_once(self, text: str) -> None:
        """A warning in the run's log, the first time only."""
        if text not in self._warned:
            self._warned.add(text)
            self.log(text)

    def _fetch_staged(self, path: str) -> bool:
        header, _ = self.link.request({"op": "staged", "path": path})
        return bool(header["there"])

    def next_staged_file(self) -> str:
        """Path, below the staging folder, of the next file that this run may write."""
        path = f"{self.order.stage}.{self.part}/{self.files_staged}.parquet"
        self.files_staged += 1
        return path

    # -- savepoints

    def save(self) -> None:
        """From here on a failure goes back to this point, no further."""
        with self.lock:
            self._saved_state = dict(self.state)
            for store in self._stores.values():
                store.writer.save()
            for cursor in self.cursors.values():
                cursor.save()

    def restore(self) -> None:
        """Back to the last savepoint: rows, State and places after it are dropped."""
        with self.lock:
            self.state = dict(self._saved_state)
            for store in self._stores.values():
                store.writer.restore()
            for cursor in self.cursors.values():
                cursor.restore()

    def restore_committed(self) -> None:
        """Back to the last commit."""
        with self.lock:
            self.state = dict(self._committed_state)
            for store in self._stores.values():
                store.writer.restore_committed()
            for cursor in self.cursors.values():
                cursor.restore_committed()
            self._letters = []

    def drop_body(self, error: BaseException) -> None:
        """The body in hand failed and is to be handed out again: what it did is dropped.

        While a version is begun and not finished, all bodies since the last commit belong to it, and go with it.
        """
        with self.lock:
            if self.holds_version:
                self.restore_committed()
            else:
                self.restore()
            self.dropped_by = error

    def body_failed(self, cursor: Cursor, error: BaseException) -> None:
        """A body of `consume_with_rollback` raised."""
        from tailrace.node.failures import letter_for

        if self.order.dead_letter and cursor.in_hand and cursor.taken == 1:
            position = cursor.position()
            letter = letter_for(self, cursor, error)
            self.restore()
            cursor.go_to(position)
            cursor.used = True
            self.add_letter(letter)
            self.save()
        else:
            self.drop_body(error)

    @property
    def record_in_hand(self) -> bool:
        """Whether code is at work on a streamed record."""
        return self.hand is not None and self.hand.held

    def flush(self) -> None:
        """Commit the run so far, unless a streamed record is in hand or a version is not finished: then rows are
        readable to the run alone, which they are anyway."""
        with self.lock:
            if not self.record_in_hand and not self.holds_version:
                self.commit()

    def checkpoint(self) -> None:
        """A savepoint; and a commit, unless the last one is less than `COMMIT_PAUSE_S` ago."""
        with self.lock:
            self.save()
            if self.clock.monotonic_s() - self._committed_s >= COMMIT_PAUSE_S and not self.holds_version:
                self.commit()

    @property
    def holds_version(self) -> bool:
        """Whether a version is begun and not finished: then nothing is committed before the run's end, or readers
        would see it half, or what led to it would be consumed and it lost."""
        return any(store.writer.holds_version for store in self._stores.values())

    # -- commits

    def add_letter(self, letter: DeadLetter) -> None:
        """To be committed with the rest."""
        self._letters.append(letter)

    def progress(self) -> Progress:
        """How far the run has come."""
        places = dict(self.order.places)
        orders: dict[str, Any] = {table: dict(of) for table, of in self.order.orders.items()}
        streamed: dict[str, None] = {}
        for (table, _), cursor in self.cursors.items():
            cursor.record(places, orders.setdefault(table, {}))
            if cursor.used or cursor.taken:
                streamed.update(dict.fromkeys(cursor.inputs))
            if not orders[table]:
                del orders[table]
        return Progress(
            state=self.state,
            places=places,
            orders=orders,
            streamed=list(streamed),
            dead_letters=self._letters,
            quiet=self.quiet,
            rows_in=sum(cursor.taken for cursor in self.cursors.values()),
            rows_out=self._rows_out,
        )

    def commit(self) -> None:
        """Commit the run so far: rows, State and places become visible together."""
        with self.lock:
            assert not self.holds_version, "a version that is not finished is not committed"
            self._write()
            progress = progress_to_json(self.progress())
            header, _ = self.link.request({"op": "commit", "progress": progress})
            self.part = header["part"]
            self.files_staged = 0
            self._letters = []
            for store in self._stores.values():
                store.committed(header["cuts"])
            self.save()
            self._committed_state = dict(self.state)
            for cursor in self.cursors.values():
                cursor.committed()
            self._committed_s = self.clock.monotonic_s()

    def _write(self) -> None:
        for store in [lane for each in self._stores.values() for lane in each.lanes]:
            messages = store.writer.messages(self.message_head())
            self._rows_out += store.writer.rows_pending
            start = 0
            while start < len(messages):
                stop, size = start, 0
                while stop < len(messages) and size < _WRITE_BYTES:
                    size += len(messages[stop])
                    stop += 1
                lot = messages[start:stop]
                header = {"op": "write", "table": store.ref.key, "sizes": [len(each) for each in lot]}
                self.link.tell(header, b",".join(lot))
                start = stop

    def message_head(self) -> Mapping[str, object]:
        """What every message of this run says of itself."""
        head: dict[str, object] = {"node": self.order.node, "run": self.order.run}
        if self.quiet:
            head["quiet"] = True
        return head

    # -- the end

    def finish(
        self, kind: str, *, error: str | None = None, traceback: str | None = None, retry: bool = False
    ) -> Outcome:
        """Send what is left to write and say how the run ended. Versions begun and not finished are kept only by a run
        that succeeded."""
        with self.lock:
            for store in self._stores.values():
                if kind == "ok":
                    store.writer.finish_version()
                else:
                    store.writer.drop_unfinished()
            loop_s = self.loop.inside_s
            more = sorted({table for cursor in self.cursors.values() if cursor.has_more for table in cursor.inputs})
            self.link.drain()
            self._write()
            if kind == "ok":
                for cursor in self.cursors.values():
                    cursor.keep_rest()
            self.over = True
            return Outcome(
                kind=kind,
                progress=self.progress(),
                more=more,
                retry=retry,
                requested=self.requested,
                error=error,
                traceback=traceback,
                loop_ms=loop_s * 1000,
                duration_ms=self.elapsed_s * 1000,
            )

    def close(self) -> None:
        """Whatever still points here from an earlier run can do nothing any more."""
        self.over = True
        for cursor in self.cursors.values():
            cursor.close()
