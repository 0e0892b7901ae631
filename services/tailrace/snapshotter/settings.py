"""What one snapshotter is told, and its bounds, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tailrace.errors import SettingError

__all__ = ["SnapshotterSettings", "TableWish"]

_S = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableWish:
    """What an app says about one Table."""

    name: str
    """Its versions are named after it."""
    freshness: timedelta | None = None
    """How old the lake may be; None: as the snapshotter's settings say."""
    retention: timedelta | None = None
    """How long superseded versions stay; None: as the settings say."""

    def to_json(self) -> dict[str, Any]:
        """Durations in seconds."""
        return {"name": self.name, "freshness_s": _seconds(self.freshness), "retention_s": _seconds(self.retention)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableWish:
        """The inverse of `to_json`."""
        return cls(
            name=data["name"],
            freshness=_duration(data.get("freshness_s")),
            retention=_duration(data.get("retention_s")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotterSettings:
    """Where a snapshotter works, and its bounds."""

    log_url: str
    """The log. It may hold a password: so settings come in by standard input, never as arguments."""

    lake_url: str
    """The lake's root."""

    staging_dir: str
    """Folder of the staged files that messages name; with a lake in an object store, of copies of them."""

    graphs: tuple[str, ...] = ()
    """Apps whose Tables it follows: all topics `<graph>.<table>`, dead letters too."""

    tables: Mapping[str, TableWish] = field(default_factory=dict)
    """What the apps say, by topic. Topics that are missing here are named by themselves."""

    instance: str = "1"
    """Tells instances apart; a second one of the same name ends the first."""

    shared: bool = False
    """Whether other instances may run: then they find each other, and share the tables."""

    share_timeout: timedelta = timedelta(seconds=15)
    """An instance that was not heard of for so long is dead. Shorter moves tables to and fro; longer leaves those of a
    dead one unattended."""

    freshness: timedelta = timedelta(seconds=10)
    """How old the lake may be for tables that only grow. Less makes more and smaller files to compact later."""

    keyed_interval: timedelta = timedelta(minutes=10)
    """The same for tables with a key whose tail is less than a tenth of them: each merge writes files again."""

    step_records_max: int = 250_000
    """Records after which a Delta commit is made without waiting any longer."""

    step_bytes_max: int = 16 << 20
    """Bytes of messages in one Delta commit: they are in memory as messages, as Arrow and as Parquet at once."""

    threads_max: int = 2
    """Tables that are worked on at once: a slow one holds up no more than one of them."""

    pause_max: timedelta = timedelta(minutes=5)
    """Longest pause before a table that failed is tried again; the first is a second, and each is twice the last."""

    discover_interval: timedelta = timedelta(seconds=15)
    """How often topics are looked for that were made since: those of dead letters come with the first dead letter."""

    idle_exit: timedelta | None = timedelta(seconds=30)
    """Ends the process after so long with nothing to do; None: never. Whoever started it starts it again on news."""

    upkeep_interval: timedelta = timedelta(minutes=10)
    """How often a table that changes is looked at for small files, and its Delta log for a checkpoint."""

    retention_interval: timedelta = timedelta(hours=1)
    """How often it is decided what may go."""

    retention: timedelta = timedelta(days=7)
    """How long superseded versions stay, and records of the log that are in the lake: `--retention`, `TAILRACE_RETENTION`.
    An app's and a table's `retention:` come first."""

    grace: timedelta = timedelta(minutes=70)
    """Nothing goes that was readable so recently: the longest run limit and an hour."""

    def __post_init__(self) -> None:
        for name in ("freshness", "keyed_interval", "share_timeout", "discover_interval"):
            if getattr(self, name) <= timedelta(0):
                raise SettingError(name, getattr(self, name), "more than nothing")
        for name in ("step_records_max", "step_bytes_max", "threads_max"):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "at least 1")

    def to_json(self) -> dict[str, Any]:
        """For standard input: durations in seconds, as `<name>_s`."""
        out: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name == "tables":
                out[name] = {topic: wish.to_json() for topic, wish in self.tables.items()}
            elif name in _DURATIONS:
                out[f"{name}_s"] = _seconds(value)
            else:
                out[name] = value
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SnapshotterSettings:
        """The inverse of `to_json`; what is not there keeps its default.

        Raises:
            SettingError: rejected; there is no such setting, or its value cannot work.
        """
        values: dict[str, Any] = {}
        for key, value in data.items():
            name = key.removesuffix("_s") if key.removesuffix("_s") in _DURATIONS else key
            if name not in cls.__dataclass_fields__:
                raise SettingError(key, value, f"one of: {', '.join(cls.__dataclass_fields__)}")
            if name in _DURATIONS:
                values[name] = _duration(value)
            elif name == "tables":
                values[name] = {topic: TableWish.from_json(wish) for topic, wish in value.items()}
            else:
                values[name] = tuple(value) if isinstance(value, list) else value
        missing = [name for name in ("log_url", "lake_url", "staging_dir") if name not in values]
        if missing:
            raise SettingError(missing[0], None, "it must be given")
        return cls(**values)


_DURATIONS = frozenset(
    name for name, field in SnapshotterSettings.__dataclass_fields__.items() if "timedelta" in str(field.type)
)


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value / _S


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
