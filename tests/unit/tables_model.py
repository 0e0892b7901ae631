"""A topic in memory, for tests of what is folded and read from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tailrace.tables import IdMaker, Messages, StagedFiles, TableFold, VersionReader, message, rows_message

BORN_MS = 1_700_000_000_000


class MemoryTopic:
    """Messages in a list; an offset is an index, with a gap before every fifth message as Kafka's markers leave."""

    def __init__(self, name: str = "shop.orders", folder: Path = Path("/nonexistent")) -> None:
        self.name = name
        self.messages: list[tuple[int, int, bytes]] = []
        self.end = 0
        self.files = StagedFiles(folder)

    def put(self, value: bytes) -> int:
        """Append one message; returns its offset."""
        if len(self.messages) % 5 == 4:
            self.end += 1
        offset, self.end = self.end, self.end + 1
        self.messages.append((offset, BORN_MS + 10 * offset, value))
        return offset

    def rows(self, *rows: Mapping[str, Any], fields: Mapping[str, str], **head: Any) -> int:
        """Append a `rows` message."""
        full = {"kind": "rows", "n": len(rows), "fields": dict(fields), **head}
        return self.put(rows_message(full, orjson.dumps(list(rows))))

    def marker(self, kind: str, **head: Any) -> int:
        """Append a message without rows."""
        return self.put(message({"kind": kind, **head}))

    def fold(self, table: str = "orders") -> TableFold:
        """All of it, folded."""
        fold = TableFold(table)
        fold.advance(self.messages, self.end)
        return fold

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        """As a log gives them: three messages a batch."""
        wanted = [entry for entry in self.messages if start <= entry[0] < stop]
        for at in range(0, len(wanted), 3):
            part = wanted[at : at + 3]
            values = [value for _, _, value in part]
            yield Messages(
                [offset for offset, _, _ in part],
                [ts_ms for _, ts_ms, _ in part],
                [len(value) for value in values],
                b",".join(values),
            )

    def reader(self) -> VersionReader:
        """Of the active version."""
        view = self.fold().view()
        assert view is not None
        return VersionReader(view, IdMaker(self.name, BORN_MS), self, self.files)

    def read(self) -> list[dict[str, Any]]:
        """The rows of the active version, without ids; [] when there is none."""
        return [] if self.fold().view() is None else self.reader().table().to_pylist()

    def stream(self, place: tuple[int, int] = (0, 0)) -> list[tuple[dict[str, Any], tuple[int, int]]]:
        """The rows that a stream hands over from `place`, each with its next place."""
        return [
            (row, after)
            for batch in self.reader().stream(*place)
            for row, after in zip(batch.rows, batch.places, strict=True)
        ]
