"""What the control log says: an app was deployed, with its files, or it was taken away.

Every record has a key of its own, so that the topic can be compacted: a version that nobody can go back to any more is
taken away by a tombstone, and the rest stays for ever.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

import orjson

from tailrace.log import NewRecord, Partition, Record, TopicSpec

__all__ = ["CONTROL", "CONTROL_TOPIC", "Deployed", "Event", "Undeployed", "event_of", "forgotten"]

CONTROL = Partition("tailrace._control")
"""The control log: one partition, so that all see deployments in one order."""

CONTROL_TOPIC = TopicSpec(CONTROL.topic, compacted=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """From here on this is the app of that slug."""

    app: str
    """Its slug."""
    title: str
    version: int
    """Counts the deployments of the app, from 1."""
    content: str
    """The hash of what was deployed (`content_hash`)."""
    root_file: str
    at_ms: int
    by: str
    """Who did it, as far as known: `user@machine`."""
    back_to: int | None = None
    """The version that this one is the same as, where it was a rollback."""
    archive: bytes = field(default=b"", repr=False)
    """The app's files (`pack`)."""

    def to_record(self) -> NewRecord:
        """This event for the control log."""
        value = {
            "kind": "deployed",
            "app": self.app,
            "title": self.title,
            "version": self.version,
            "content": self.content,
            "root_file": self.root_file,
            "at_ms": self.at_ms,
            "by": self.by,
            "back_to": self.back_to,
            "archive": base64.b64encode(self.archive).decode(),
        }
        return NewRecord(orjson.dumps(value), _key(self.app, self.version))


@dataclass(frozen=True, slots=True, kw_only=True)
class Undeployed:
    """From here on no app of that slug runs; its Tables stay."""

    app: str
    version: int
    """Counts on with the deployments."""
    at_ms: int
    by: str

    def to_record(self) -> NewRecord:
        """This event for the control log."""
        value = {"kind": "undeployed", "app": self.app, "version": self.version, "at_ms": self.at_ms, "by": self.by}
        return NewRecord(orjson.dumps(value), _key(self.app, self.version))


Event = Deployed | Undeployed


def forgotten(app: str, version: int) -> NewRecord:
    """A tombstone: nobody goes back to that version any more."""
    return NewRecord(None, _key(app, version))


def event_of(record: Record) -> Event | None:
    """The event of a record; None for a tombstone, and for what another release of ours wrote."""
    try:
        data: Any = orjson.loads(record.value or b"null")
        match data["kind"]:
            case "deployed":
                values = {name: data[name] for name in Deployed.__slots__ if name not in ("archive", "back_to")}
                archive = base64.b64decode(data["archive"], validate=True)
                return Deployed(**values, back_to=data.get("back_to"), archive=archive)
            case "undeployed":
                return Undeployed(**{name: data[name] for name in Undeployed.__slots__})
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        pass
    return None


def _key(app: str, version: int) -> bytes:
    return f"deployment/{app}/{version}".encode()
