"""What a gateway counts, and how Prometheus gets to see it.

Counting is on the way of every post, so the counters are plain numbers; they become samples when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

__all__ = ["Metrics", "WebhookCounts"]

WEBHOOKS_MAX = 1_000
"""Most webhooks that have samples of their own; the others are counted together as `other`."""

_COMMIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class WebhookCounts:
    """Counters of one webhook since the process began."""

    __slots__ = ("accepted", "bytes", "label", "last_accepted_ms", "refused", "rows")

    def __init__(self, label: str) -> None:
        self.label = label
        """What samples and log lines call it: its topic, as the id in its URL is as good as a password."""
        self.accepted = 0
        """Posts that got their 200."""
        self.rows = 0
        self.bytes = 0
        """As they were sent."""
        self.refused: Counter[str] = Counter()
        """By the code of the refusal."""
        self.last_accepted_ms = 0
        """When the last post came that was accepted; 0 before the first."""


class Metrics:
    """Counters of one gateway, per webhook and for all.

    Args:
        gauges: name to a reading of now, and what it is.
    """

    def __init__(self, gauges: Mapping[str, tuple[Callable[[], float], str]] | None = None) -> None:
        self.webhooks: dict[str, WebhookCounts] = {}
        self._gauges = dict(gauges or {})
        self._commits = [0] * (len(_COMMIT_S) + 1)
        self._commit_s_sum = 0.0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def of(self, webhook: str, label: str) -> WebhookCounts:
        """The counters of a webhook that exists: names come from deployments, never from a request."""
        counts = self.webhooks.get(webhook)
        if counts is None:
            if len(self.webhooks) >= WEBHOOKS_MAX:
                webhook = label = "other"
            counts = self.webhooks.setdefault(webhook, WebhookCounts(label))
        return counts

    @property
    def unknown(self) -> WebhookCounts:
        """The counters of requests to no webhook that there is."""
        return self.of("unknown", "unknown")

    def committed(self, seconds: float) -> None:
        """A post waited so long for the log."""
        self._commits[bisect_left(_COMMIT_S, seconds)] += 1
        self._commit_s_sum += seconds

    def exposition(self) -> bytes:
        """All samples in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """For `prometheus_client`."""
        accepted = CounterMetricFamily("tailrace_webhook_accepted", "Posts that got their 200.", labels=["webhook"])
        rows = CounterMetricFamily("tailrace_webhook_rows", "Rows of accepted posts.", labels=["webhook"])
        size = CounterMetricFamily("tailrace_webhook_bytes", "Bytes of accepted bodies, as sent.", labels=["webhook"])
        refused = CounterMetricFamily(
            "tailrace_webhook_refused", "Posts that were refused, by reason.", labels=["webhook", "reason"]
        )
        by_label: dict[str, list[WebhookCounts]] = {}  # several webhooks may write one topic
        for counts in list(self.webhooks.values()):
            by_label.setdefault(counts.label, []).append(counts)
        for label, group in by_label.items():
            accepted.add_metric([label], sum(counts.accepted for counts in group))
            rows.add_metric([label], sum(counts.rows for counts in group))
            size.add_metric([label], sum(counts.bytes for counts in group))
            for reason, number in sum((counts.refused for counts in group), Counter()).items():
                refused.add_metric([label, reason], number)
        yield from (accepted, rows, size, refused)
        for name, (reading, what) in self._gauges.items():
            yield GaugeMetricFamily(f"tailrace_gateway_{name}", what, value=reading())
        total, buckets = 0, []
        for limit, number in zip([*map(str, _COMMIT_S), "+Inf"], self._commits, strict=True):
            total += number
            buckets.append((limit, float(total)))
        yield HistogramMetricFamily(
            "tailrace_gateway_commit_seconds",
            "What posts waited for the log to be durable.",
            buckets=buckets,
            sum_value=self._commit_s_sum,
        )
