"""What a Table is, folded from its topic: its versions, which one is active, their schemas, who wrote last.

A fold reads heads only. It is the truth that indexes cache: two folds of the same records are equal, whoever makes
them. Markers decide: an append carries no version, the last marker before it says where it belongs. An append that
finds no active version begins one.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tailrace.tables.ids import IdMaker
from tailrace.tables.messages import DATA_KINDS, Head, split_head
from tailrace.tables.schema import TEXT, FieldType, join_schemas, parse_type
from tailrace.tables.seen import SeenIds

__all__ = [
    "NO_SETTINGS",
    "PATTERNS_ID",
    "WEBHOOK_FIELDS",
    "Settings",
    "TableFold",
    "Version",
    "VersionView",
    "activation",
    "version_name",
]

VERSIONS_MAX = 100
"""Superseded versions that a fold keeps, the newest: a SQL node that fires all day makes thousands. Of older ones it keeps
the first of each hour."""
REPEAT_MS = 60_000
"""How long after a post another one of its id is a repeat to readers. Gateways turn away those that come a second and more
later, save where the log was away: this is for what they could not see. Windows of gateways are no shorter, so that it
never hides what one of them took on purpose."""
REPEAT_IDS_MAX = 8_192
"""Most ids that a fold remembers, more than two busy gateways take in half a second: all of them are in each index."""
REPEATS_MAX = 10_000
"""Most repeats that are left out of a version; each of them is told to every reader."""
OLDER_MAX = 200
"""Of these, too, the newest: more than a week has hours."""
_HOUR_MS = 3_600_000

PATTERNS_ID = "patterns_id"
WEBHOOK_FIELDS = {"timestamp": "DateTime", "record": "Json"}
_POST = re.compile(rb'\{"kind":"webhook","ts":[1-9][0-9]*,"n":([1-9][0-9]{0,5}),"rows":\[').match
"""The head of a post as `webhook_message` writes it, with nothing in it that a fold would have to look at."""
REQUEST_FIELDS = {**WEBHOOK_FIELDS, "patterns_request_key": "Text"}
_POSTED: Head = {"fields": WEBHOOK_FIELDS}
_REQUESTED: Head = {"fields": REQUEST_FIELDS}


@dataclass(frozen=True, slots=True)
class Settings:
    """What `Table.init` and the graph say about a version; fixed when it begins, save the key."""

    monotonic_id: str | None = PATTERNS_ID
    """Name under which rows show their id; None: they show none."""

    ordered: bool = True
    """Whether streams may go by the log where no role gives an ordering. Not where the author chose to have no ids."""

    unique_on: tuple[str, ...] = ()
    """The unique key: of rows that share it the last one counts. Empty: every row counts."""

    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field roles of the Common Model, by role."""

    schema_name: str | None = None
    """Name of the declared schema, if any."""

    nullable: Mapping[str, bool] = field(default_factory=dict)
    """Fields declared NOT NULL, as `{name: False}`."""

    def to_json(self) -> dict[str, object]:
        """Only what differs from the defaults."""
        out: dict[str, object] = {}
        if self.monotonic_id != PATTERNS_ID:
            out["id"] = self.monotonic_id
        if not self.ordered:
            out["ordered"] = False
        if self.unique_on:
            out["key"] = list(self.unique_on)
        if self.roles:
            out["roles"] = {role: list(names) for role, names in self.roles.items()}
        if self.schema_name:
            out["schema"] = self.schema_name
        if self.nullable:
            out["nullable"] = dict(self.nullable)
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Settings:
        """The inverse of `to_json`; unknown keys are passed over."""
        if not data:
            return NO_SETTINGS
        return cls(
            monotonic_id=data.get("id", PATTERNS_ID),
            ordered=data.get("ordered", True),
            unique_on=tuple(data.get("key", ())),
            roles={role: tuple(names) for role, names in data.get("roles", {}).items()},
            schema_name=data.get("schema"),
            nullable=dict(data.get("nullable", {})),
        )

    @classmethod
    def from_message(cls, data: object) -> Settings:
        """As `from_json`, of a message that anybody may have written: what is not readable counts as not said."""
        if not data or not isinstance(data, dict):
            return NO_SETTINGS
        known = {key: value for key, value in data.items() if _SETTINGS.get(key, lambda _: False)(value)}
        return cls.from_json(known)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_SETTINGS: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: value is None or isinstance(value, str),
    "ordered": lambda value: isinstance(value, bool),
    "key": _are_names,
    "roles": lambda value: isinstance(value, dict) and all(map(_are_names, value.values())),
    "schema": lambda value: isinstance(value, str),
    "nullable": lambda value: isinstance(value, dict),
}
"""What each setting looks like in JSON."""

NO_SETTINGS = Settings()

_UNCOUNTED = -(1 << 62)
"""So far below none that what is added later does not make it a count."""


@dataclass(frozen=True, slots=True)
class VersionView:
    """One table version as of a cut: what a reader needs, and nothing that changes under it."""

    name: str
    begun_ms: int
    segments: tuple[tuple[int, int], ...]
    """Half-open ranges of message offsets whose rows are this version's, in order."""

    schemas: tuple[tuple[int, Mapping[str, FieldType]], ...]
    """(first offset, fields in force from there on), in order."""

    settings: Settings
    deletes: tuple[int, ...]
    """Offsets of the `delete` messages."""

    appended: int
    """Rows appended since it began or was truncated; with a key or deletes there are fewer to be seen. Less than none
    where that is not known, as of an earlier cut."""

    unsure: bool = False
    """Whether other programs wrote some of these rows: those that fit no type of theirs are not to be seen."""

    keys: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """(first offset, unique key in force from there on), in order; each key acts on the rows that are there by then."""

    repeats: tuple[int, ...] = ()
    """Offsets of messages that repeat a post: their rows are not the version's."""

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The fields at the cut, in first-seen order."""
        return self.schemas[-1][1] if self.schemas else {}

    def fields_at(self, offset: int) -> Mapping[str, FieldType]:
        """The fields in force for the message at `offset`."""
        at = bisect_right(self.schemas, offset, key=lambda entry: entry[0]) - 1
        return self.schemas[at][1] if at >= 0 else {}

    @property
    def exact_count(self) -> int | None:
        """Number of rows where appending alone decides it, else None (it takes a read)."""
        unknown = self.settings.unique_on or self.deletes or self.unsure or self.appended < 0
        return None if unknown else self.appended

    def before(self, cut: int) -> VersionView:
        """This version without what lies at or after `cut`."""
        segments = tuple((start, min(stop, cut)) for start, stop in self.segments if start < cut)
        keys = tuple(entry for entry in self.keys if entry[0] < cut)
        return replace(
            self,
            segments=segments,
            schemas=tuple(entry for entry in self.schemas if entry[0] < cut),
            settings=replace(self.settings, unique_on=keys[-1][1]) if keys else self.settings,
            deletes=tuple(at for at in self.deletes if at < cut),
            keys=keys,
            repeats=tuple(at for at in self.repeats if at < cut),
            appended=_UNCOUNTED if any(stop > cut for _, stop in self.segments) else self.appended,
        )

    def to_json(self) -> dict[str, object]:
        """For a worker or an index."""
        data: dict[str, object] = {
            "name": self.name,
            "begun_ms": self.begun_ms,
            "segments": [list(segment) for segment in self.segments],
            "schemas": [[offset, {n: str(t) for n, t in fields.items()}] for offset, fields in self.schemas],
            "settings": self.settings.to_json(),
            "deletes": list(self.deletes),
            "appended": self.appended,
        }
        if self.unsure:
            data["unsure"] = True
        if len(self.keys) > 1:
            data["keys"] = [[offset, list(key)] for offset, key in self.keys]
        if self.repeats:
            data["repeats"] = list(self.repeats)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VersionView:
        """The inverse of `to_json`."""
        segments = tuple((start, stop) for start, stop in data["segments"])
        settings = Settings.from_json(data["settings"])
        keys = data.get("keys") or [(segments[0][0] if segments else 0, settings.unique_on)]
        return cls(
            name=data["name"],
            begun_ms=data["begun_ms"],
            segments=segments,
            schemas=tuple((offset, parse_fields(fields)) for offset, fields in data["schemas"]),
            settings=settings,
            deletes=tuple(data["deletes"]),
            appended=data["appended"],
            unsure=data.get("unsure", False),
            keys=tuple((offset, tuple(key)) for offset, key in keys),
            repeats=tuple(data.get("repeats", ())),
        )


def activation(view: VersionView) -> dict[str, object]:
    """What an `activate` message says of the version that it makes active; partitions that never had a row of it learn of
    it by that."""
    return {"name": view.name, "begun_ms": view.begun_ms, "settings": view.settings.to_json()}


def parse_fields(fields: Mapping[str, str]) -> dict[str, FieldType]:
    """`{name: "Type"}` as field types."""
    return {name: parse_type(text) for name, text in fields.items()}


def message_fields(head: Head) -> dict[str, FieldType]:
    """The field types of a message, whoever wrote it: a type that nobody knows is Text, which holds everything."""
    fields = head.get("fields")
    return {name: _known_type(text) for name, text in fields.items()} if isinstance(fields, dict) else {}


def _known_type(text: object) -> FieldType:
    try:
        return parse_type(text) if isinstance(text, str) else TEXT
    except (KeyError, ValueError):
        return TEXT


def message_ms(head: Head, ts_ms: int) -> int:
    """When a message says that it was made; its record's time where it says nothing that is a time."""
    ts = head.get("ts")
    return ts if type(ts) is int and 0 < ts < _MS_MAX else ts_ms


_MS_MAX = 253_402_300_800_000
"""The end of the year 9999."""


def version_name(table: str, begun_ms: int) -> str:
    """The physical name of a version: the table's name and a suffix that grows with time (`leads_01k3x9v2qd`)."""
    return f"{table}_{IdMaker('', begun_ms).prefix(0)[:10]}"


@dataclass(slots=True)
class Version:
    """One table version while the fold goes on. A segment's stop is None while it is open."""

    name: str
    begun_ms: int
    segments: list[tuple[int, int | None]]
    schemas: list[tuple[int, dict[str, FieldType]]]
    settings: Settings
    keys: list[tuple[int, tuple[str, ...]]]
    deletes: list[int] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    appended: int = 0
    unsure: bool = False
    last_fields: object = None

    @classmethod
    def of(cls, view: VersionView) -> Version:
        """The version that a view shows; its last segment ends where the view ends."""
        return cls(
            view.name,
            view.begun_ms,
            list(view.segments),
            [(offset, dict(fields)) for offset, fields in view.schemas],
            view.settings,
            list(view.keys),
            list(view.deletes),
            list(view.repeats),
            view.appended,
            view.unsure,
        )

    def view(self, cut: int) -> VersionView:
        """This version with everything before `cut`, which is not before the fold's position."""
        return VersionView(
            self.name,
            self.begun_ms,
            tuple((start, cut if stop is None else stop) for start, stop in self.segments),
            tuple(self.schemas),
            self.settings,
            tuple(self.deletes),
            self.appended,
            self.unsure,
            tuple(self.keys),
            tuple(self.repeats),
        )

    def widen(self, offset: int, head: Head) -> None:
        """From `offset` on the version holds the fields of `head` too."""
        fields = head.get("fields")
        if fields is None or fields == self.last_fields:
            return
        self.last_fields = fields
        now = self.schemas[-1][1] if self.schemas else {}
        joined = join_schemas(now, message_fields(head))
        if joined != now or list(joined) != list(now):
            self.schemas.append((offset, joined))

    def set_key(self, offset: int, key: tuple[str, ...]) -> None:
        """From `offset` on `key` is the unique key."""
        if key != self.settings.unique_on:
            self.settings = replace(self.settings, unique_on=key)
            if self.keys[-1][0] == offset:
                self.keys.pop()
            self.keys.append((offset, key))


class TableFold:
    """The fold of one table's topic (one partition) up to `position`.

    Args:
        tied_ms: the topic's birth where the topic has several partitions, None where it has one. Markers then stand in
            every partition, but other writers' records may lie around them in another order: so versions are told by
            when their marker says that they begun, and a marker that is older than the active version comes too late.
    """

    def __init__(self, table: str, tied_ms: int | None = None) -> None:
        self.table = table
        self._tied_ms = tied_ms
        """When the version begins that an append begins by itself: at the last `reset`, else at the topic's birth."""
        self._tied_by = ""
        """The run whose marker said so: of two in one millisecond the greater name counts."""
        self._late: tuple[str, str] | None = None
        """The run whose marker came too late, and the version that its rows are of."""
        self.position = 0
        """The next offset to fold."""
        self.versions: dict[str, Version] = {}
        self.active: Version | None = None
        self.last_by_writer: dict[str, int] = {}
        """For each node that wrote ("" for none): offset of its last message that is to fire readers."""
        self.dropped: dict[str, tuple[int, Version]] = {}
        """Of a topic with several partitions, versions that a `drop` has taken away, and when (milliseconds). An `activate` of
        somebody who did not know may lie before the `drop` in one partition and after it in another: so it brings the
        version back, and only a `drop` that says `gone`, when nobody can be left who does not know, has it forgotten."""
        self.forgotten_until = 0
        """Where the last segment of those versions ends that were begun and are not known any more."""
        self._last_ms = 0
        self._ids = SeenIds(REPEAT_MS, REPEAT_IDS_MAX, digest_bytes=8)

    def advance(self, records: Iterable[tuple[int, int, bytes | None]], next_offset: int) -> None:
        """Fold `(offset, ts_ms, value)` in order, and move on to `next_offset`. Those before `position` are passed over."""
        for offset, ts_ms, value in records:
            if offset >= self.position:
                # Posts are nearly all of a busy log, and each of them one row: they are told without parsing.
                post = _POST(value) if value is not None else None
                active = self.active
                if post is not None and active is not None and active.last_fields is WEBHOOK_FIELDS:
                    active.appended += int(post[1])
                    self.last_by_writer[""] = offset
                else:
                    self._apply(offset, ts_ms, split_head(value))
                self.position = offset + 1
        self.position = max(self.position, next_offset)

    def view(self, cut: int | None = None) -> VersionView | None:
        """The active version as of the fold's position."""
        assert cut is None or cut >= self.position
        return self.active.view(self.position if cut is None else cut) if self.active else None

    @property
    def foremost(self) -> Version | None:
        """The active version; where none is, the one whose rows come last."""
        return self.active or max(self.versions.values(), key=lambda each: each.segments[-1][1] or 0, default=None)

    @property
    def begun_ms(self) -> int | None:
        """When the active version began, or the one will have that an append begins; None where its time will say."""
        return self.active.begun_ms if self.active else self._tied_ms

    def view_of(self, name: str) -> VersionView | None:
        """A version by name, active or not."""
        version = self.versions.get(name)
        return version.view(self.position) if version else None

    def _apply(self, offset: int, ts_ms: int, head: Head) -> None:
        kind = head.get("kind")
        if "id" in head and kind in DATA_KINDS and self._repeats(offset, head["id"], message_ms(head, ts_ms)):
            return
        if not head.get("quiet"):
            self.last_by_writer[str(head.get("node", ""))] = offset
        if kind in DATA_KINDS:
            version = self.active or self._begin(offset, message_ms(head, ts_ms), head.get("settings"))
            if self._late is not None and head.get("run") == self._late[0]:
                version = self._late_version(offset)
            version.widen(offset, head if kind != "webhook" else _POSTED if "request_key" not in head else _REQUESTED)
            if "key" in head and _are_names(head["key"]):
                version.set_key(offset, tuple(head["key"]))
            rows = head.get("n")
            version.appended += rows if type(rows) is int and rows > 0 else 0
            version.unsure |= kind != "webhook" and "run" not in head
        elif kind == "version":
            begun_ms = message_ms({"ts": head.get("begun_ms")}, message_ms(head, ts_ms))
            if self._comes_late(begun_ms, head):
                self._begin_late(offset, begun_ms, head)
                return
            self._end(offset)
            self._tie(begun_ms, head)
            self._begin(offset, begun_ms, head.get("settings")).widen(offset, head)
        elif kind == "activate":
            self._activate(offset, str(head.get("name")), head)
        elif kind == "drop" and _are_names(head.get("names")):
            for name in head["names"]:
                self._drop(name, ts_ms, gone=self._tied_ms is None or bool(head.get("gone")))
        elif kind == "reset":
            begun_ms = message_ms({"ts": head.get("begun_ms")}, message_ms(head, ts_ms))
            if not self._comes_late(begun_ms, head):
                self._end(offset)
                self._tie(begun_ms, head)
        elif kind == "truncate" and self.active:
            self.active.segments = [(offset, None)]
            self.active.keys = [(offset, self.active.settings.unique_on)]
            self.active.deletes.clear()
            self.active.repeats.clear()
            self.active.appended = 0
            self.active.unsure = False
        elif kind == "delete" and self.active:
            self.active.deletes.append(offset)

    def _activate(self, offset: int, name: str, head: Head) -> None:
        if name in self.dropped:
            self.versions[name] = self.dropped.pop(name)[1]
        named = self.versions.get(name)
        begun_ms = head.get("begun_ms")
        if named is None and self._tied_ms is not None and type(begun_ms) is int and 0 < begun_ms < _MS_MAX:
            self._end(offset)  # the other partitions have rows of it, this one never had
            self._tie(begun_ms, head)
            self._begin(offset, begun_ms, head.get("settings"), name)
        elif named is not None and named is not self.active:
            self._end(offset)
            named.segments.append((offset, None))
            self.active = named

    def _drop(self, name: str, ts_ms: int, *, gone: bool) -> None:
        _, version = self.dropped.pop(name, (0, self.versions.get(name)))
        if version is None or version is self.active:
            return
        self._forget(version)
        if not gone:
            self.dropped[name] = ts_ms, version

    def _repeats(self, offset: int, key: object, ts_ms: int) -> bool:
        """Whether a message is left out because a post of its id came just before."""
        if type(key) is not str or self._ids.add(key, ts_ms):
            return False
        if self.active is not None:
            if len(self.active.repeats) >= REPEATS_MAX:
                return False
            self.active.repeats.append(offset)
        return True

    def _begin(self, offset: int, ts_ms: int, given: object, name: str | None = None) -> Version:
        begun_ms = max(ts_ms, self._last_ms + 1)  # two in a millisecond still have names that grow
        if self._tied_ms is not None:
            begun_ms = self._tied_ms
        self._last_ms = begun_ms
        settings = Settings.from_message(given)
        key = (offset, settings.unique_on)
        name = name or version_name(self.table, begun_ms)
        version = Version(name, begun_ms, [(offset, None)], [], settings, [key])
        self.versions[version.name] = self.active = version
        self._thin()
        return version

    def _thin(self) -> None:
        """Of many versions keep the newest, and one an hour."""
        older = list(self.versions.values())[: -VERSIONS_MAX - 1]
        if len(older) > 1 and older[-1].begun_ms // _HOUR_MS == older[-2].begun_ms // _HOUR_MS:
            self._forget(older[-1])
        elif len(older) > OLDER_MAX:
            self._forget(older[0])

    def _forget(self, version: Version) -> None:
        stop = version.segments[-1][1]
        if stop is not None:  # the active one stays
            self.versions.pop(version.name, None)
            self.forgotten_until = max(self.forgotten_until, stop)

    def _tie(self, begun_ms: int, head: Head) -> None:
        if self._tied_ms is not None:
            self._tied_ms, self._tied_by = begun_ms, str(head.get("run", ""))

    def _comes_late(self, begun_ms: int, head: Head) -> bool:
        if self._tied_ms is None or self.active is None:
            return False
        return (begun_ms, str(head.get("run", ""))) < (self.active.begun_ms, self._tied_by)

    def _begin_late(self, offset: int, begun_ms: int, head: Head) -> None:
        """A version that was superseded before it came: it gets the rows of its run, and is never active by itself."""
        name = version_name(self.table, begun_ms)
        self._late = str(head.get("run")), name
        if name not in self.versions:
            settings = Settings.from_message(head.get("settings"))
            key = offset, settings.unique_on
            self.versions[name] = Version(name, begun_ms, [(offset, offset + 1)], [], settings, [key])
            self.versions[name].widen(offset, head)

    def _late_version(self, offset: int) -> Version:
        assert self._late is not None
        name = self._late[1]
        version = self.versions.get(name)
        if version is None or version is self.active:  # the one that counts has its name: these rows are nobody's
            version = Version(name, 0, [], [], NO_SETTINGS, [(offset, ())])
        version.segments.append((offset, offset + 1))
        if self.active:  # around it
            start, _ = self.active.segments.pop()
            self.active.segments += [*([(start, offset)] if start < offset else []), (offset + 1, None)]
        return version

    def _end(self, offset: int) -> None:
        if self.active:
            start, stop = self.active.segments[-1]
            assert stop is None, "the active version's last segment is open"
            self.active.segments[-1] = (start, offset)
            self.active = None

    def to_json(self) -> dict[str, object]:
        """The whole fold, for an index: a cache *as of* `position`."""
        versions = [version.view(self.position).to_json() for version in self.versions.values()]
        return {
            "table": self.table,
            "position": self.position,
            "active": self.active.name if self.active else None,
            "last_ms": self._last_ms,
            "last_by_writer": self.last_by_writer,
            "versions": versions,
            **({"forgotten_until": self.forgotten_until} if self.forgotten_until else {}),
            **({"ids": self._ids.to_json()} if self._ids else {}),
            **(
                {"dropped": [[ms, each.view(self.position).to_json()] for ms, each in self.dropped.values()]}
                if self.dropped
                else {}
            ),
            **(
                {}
                if self._tied_ms is None
                else {"tied_ms": self._tied_ms, "tied_by": self._tied_by, "late": self._late}
            ),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableFold:
        """The inverse of `to_json`."""
        fold = cls(data["table"], data.get("tied_ms"))
        fold._tied_by = data.get("tied_by", "")
        fold._late = tuple(data["late"]) if data.get("late") else None
        fold.position = data["position"]
        fold.forgotten_until = data.get("forgotten_until", 0)
        fold._last_ms = data["last_ms"]
        fold._ids.fill(data.get("ids", {"digests": "", "ts_ms": []}))
        fold.last_by_writer = dict(data["last_by_writer"])
        for entry in data["versions"]:
            version = Version.of(VersionView.from_json(entry))
            fold.versions[version.name] = version
        for ms, entry in data.get("dropped", ()):
            version = Version.of(VersionView.from_json(entry))
            fold.dropped[version.name] = ms, version
        if data["active"] is not None:
            fold.active = fold.versions[data["active"]]
            start, _ = fold.active.segments[-1]
            fold.active.segments[-1] = (start, None)
        return fold
