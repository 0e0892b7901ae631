"""One measurement with its baseline and what is asked of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Result", "percentile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`value` in `unit`, next to `baseline`, measured in the same run on the same machine."""

    name: str
    value: float
    unit: str
    baseline: float
    what: str
    """What was measured, in a few words."""
    against: str
    """What the baseline is."""
    wanted: str
    """What is asked of it."""
    met: bool
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """`value / baseline`."""
        return self.value / self.baseline if self.baseline else float("inf")

    def to_json(self) -> dict[str, Any]:
        """The line that `--json` prints."""
        return {
            "name": self.name,
            "value": round(self.value, 3),
            "unit": self.unit,
            "baseline": round(self.baseline, 3),
            "ratio": round(self.ratio, 3),
            "wanted": self.wanted,
            "met": self.met,
            **self.extra,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of them do not exceed."""
    assert values
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[min(998, max(0, round(share * 1000) - 1))]
