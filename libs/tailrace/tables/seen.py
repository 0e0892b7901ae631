"""Which ids of posts came of late: what tells a repeat, where posts come in and where they are read."""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

__all__ = ["SeenIds"]


class SeenIds:
    """Ids with the times at which they came: at most `ids_max`, the oldest go first.

    Args:
        digest_bytes: how much of an id's digest is kept; the ids themselves are not.
    """

    def __init__(self, window_ms: int, ids_max: int, *, digest_bytes: int = 16) -> None:
        self.window_ms, self.ids_max = window_ms, ids_max
        self._digest_bytes = digest_bytes
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def has(self, key: str, now_ms: int) -> bool:
        """Whether `key` came within the window."""
        ts_ms = self._seen.get(self._digest(key))
        return ts_ms is not None and now_ms - ts_ms < self.window_ms

    def add(self, key: str, ts_ms: int) -> bool:
        """`key` came then; whether it is new within the window. The first time counts, also where it comes again."""
        digest = self._digest(key)
        before = self._seen.get(digest)
        if before is not None and ts_ms - before < self.window_ms:
            return False
        self._seen.pop(digest, None)
        self._seen[digest] = ts_ms
        oldest, oldest_ms = next(iter(self._seen.items()))
        while len(self._seen) > self.ids_max or ts_ms - oldest_ms >= self.window_ms:
            del self._seen[oldest]
            oldest, oldest_ms = next(iter(self._seen.items()))
        return True

    def to_json(self) -> dict[str, object]:
        """What is kept, oldest first."""
        digests = base64.b64encode(b"".join(self._seen)).decode()
        return {"digests": digests, "ts_ms": list(self._seen.values())}

    def fill(self, data: Mapping[str, Any]) -> None:
        """The inverse of `to_json`."""
        digests = base64.b64decode(data["digests"])
        for number, ts_ms in enumerate(data["ts_ms"]):
            at = number * self._digest_bytes
            self._seen[digests[at : at + self._digest_bytes]] = ts_ms

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=self._digest_bytes).digest()
