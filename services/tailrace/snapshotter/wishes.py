"""What apps ask of the snapshotter: names, freshness and retention of their Tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tailrace.snapshotter.settings import SnapshotterSettings, TableWish
from tailrace.tables import dead_letters_topic

if TYPE_CHECKING:
    from tailrace.graph import App

__all__ = ["following", "table_wishes"]


def table_wishes(apps: Iterable[App]) -> dict[str, TableWish]:
    """What is wished for each Table of the apps, by topic; for its dead letters, too."""
    # Here, because a process that is told its Tables does without graphs: 0.15 s of CPU time at each start.
    from tailrace.graph import topic_name

    wishes: dict[str, TableWish] = {}
    for app in apps:
        for store in app.stores:
            if store.storage is not None:
                continue
            topic = topic_name(app.slug, store)
            retention_s = store.retention_s or app.retention_s
            wish = TableWish(name=store.name, freshness=_duration(store.freshness_s), retention=_duration(retention_s))
            wishes[topic] = wish
            wishes[dead_letters_topic(topic)] = replace(wish, name=f"{store.name}_dead_letters")
    return wishes


def following(settings: SnapshotterSettings, apps: Iterable[App]) -> SnapshotterSettings:
    """The settings, told what those apps wish."""
    known = list(apps)
    return replace(settings, graphs=tuple(app.slug for app in known), tables=table_wishes(known))


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
