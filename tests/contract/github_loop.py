"""What a plain loop makes of the GitHub example's payloads."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

EXAMPLE = Path(__file__).parents[2] / "examples" / "github"
DELIVERIES: list[dict[str, Any]] = orjson.loads(gzip.decompress((EXAMPLE / "payloads.json.gz").read_bytes()))


Event = tuple[str, str, str, str | None, datetime | None]


def expected_events(posted: Sequence[dict[str, Any]]) -> list[Event]:
    """Repository, actor, kind, action and time of each post. The kind is what GitHub's header says; a time that the
    payload does not tell is None."""
    events: list[Event] = []
    for delivery in posted:
        kind, payload = delivery["event"], delivery["payload"]
        if kind == "push":
            time = payload["head_commit"] and payload["head_commit"]["timestamp"]
        elif kind in ("issue_comment", "pull_request_review_comment"):
            time = payload["comment"]["updated_at"]
        elif kind == "pull_request_review":
            time = payload["review"]["submitted_at"]
        elif kind == "release":
            time = payload["release"].get("updated_at") or payload["release"]["published_at"]
        elif kind == "fork":
            time = payload["forkee"]["updated_at"]
        elif kind == "star":
            time = payload["starred_at"]
        elif kind in ("create", "delete"):
            time = None
        else:
            time = payload[{"issues": "issue"}.get(kind, kind)]["updated_at"]
        events.append(
            (
                payload["repository"]["full_name"],
                payload["sender"]["login"],
                kind,
                payload.get("action"),
                moment(time) if time else None,
            )
        )
    return events


def expected_counts(events: Sequence[Event]) -> dict[tuple[str, str], tuple[int, int]]:
    """Events and different actors by kind and repository."""
    found: Counter[tuple[str, str]] = Counter()
    actors: dict[tuple[str, str], set[str]] = defaultdict(set)
    for repository, actor, kind, _, _ in events:
        found[kind, repository] += 1
        actors[kind, repository].add(actor)
    return {key: (count, len(actors[key])) for key, count in found.items()}


def moment(text: str) -> datetime:
    """A time in UTC; what has no zone is in UTC."""
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
