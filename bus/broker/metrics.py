"""What a worker tells of itself by HTTP: metrics for Prometheus, whether it is alive, and whether it is ready.

Owns the names of the metrics. No label holds a name that bots chose, so that their number is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..wire.answers import WorkerStatus
from .broker import Broker
from .measures import Histogram

__all__ = ["metrics_of", "unready"]

_READY = "1 if the worker serves and stores, as /readyz says."

_COUNTERS = {
    "published": ("Messages that were stored, and their publishers told.", "posthouse_messages_published"),
    "duplicates": ("Messages that were stored before, with the same id.", "posthouse_messages_duplicate"),
    "refused": ("Messages that were refused, except by a rate.", "posthouse_messages_refused"),
    "rate_limited": (
        "Messages whose senders were too fast.",
        "posthouse_messages_rate_limited",
    ),
    "delivered": ("Deliveries, repeated ones included.", "posthouse_messages_delivered"),
    "settled": ("Deliveries that were acknowledged or given up by their bots.", "posthouse_messages_settled"),
    "dead": ("Messages that became dead letters.", "posthouse_messages_dead"),
    "removed": (
        "Messages that were removed before they were delivered.",
        "posthouse_messages_removed",
    ),
    "damaged": (
        "Messages with a wrong checksum, not delivered.",
        "posthouse_messages_damaged",
    ),
    "ignored": ("Frames of connections whose key has ended.", "posthouse_frames_ignored"),
}
"""The metric of each counter of `status`."""

_SIZES = {
    "messages": ("Messages in the log.", "posthouse_log_messages"),
    "scheduled": ("Messages that are not due yet.", "posthouse_scheduled_messages"),
    "kv_keys": ("Keys of keyed stores.", "posthouse_kv_keys"),
    "database_bytes": ("Size of the database.", "posthouse_database_bytes"),
    "wal_bytes": ("Size of the write-ahead log beside the database.", "posthouse_wal_bytes"),
    "free_bytes": ("Free room of the disk of the database.", "posthouse_disk_free_bytes"),
}
"""The metric of each size of `status`; a store has not all of them."""


async def metrics_of(broker: Broker | None, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that an Accept header asks for, and its media type.

    A worker that does not serve, such as one that stands by, has those of its process, and is not ready.
    """
    registry = CollectorRegistry()
    registry.register(_Idle() if broker is None else _Families(broker, await broker.status()))
    ProcessCollector(registry=registry)
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def unready(broker: Broker) -> list[str]:
    """Return why no bot should be sent here now, one line each; nothing if the worker serves and stores."""
    if broker.stopping:
        return ["stopping: the worker takes no more requests"]
    fault = broker.measures.fault
    return [] if fault is None else [f"{fault}: the last transaction was refused; see the worker's log"]


class _Idle(Collector):
    def collect(self) -> Iterator[Metric]:
        """Yield the one metric of a worker that does not serve."""
        yield _gauge("posthouse_ready", _READY, 0)


class _Families(Collector):
    def __init__(self, broker: Broker, status: WorkerStatus) -> None:
        self._broker = broker
        self._status = status

    def describe(self) -> Iterable[Metric]:
        """Return nothing: each registry is asked once."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        status, measures = self._status, self._broker.measures
        yield InfoMetricFamily("posthouse_worker", "Versions of the worker and its libraries.", status.versions)
        yield _gauge("posthouse_ready", _READY, not unready(self._broker))
        yield _gauge("posthouse_uptime_seconds", "Time since the worker started.", status.uptime_seconds)
        yield CounterMetricFamily("posthouse_log_seq", "The last seq of the log.", status.last_seq)
        yield _gauge(
            "posthouse_log_ahead_seconds", "How far the clock is behind the log.", status.log_ahead_seconds
        )
        yield _gauge("posthouse_sessions", "Sessions of bots.", status.sessions)
        yield _gauge("posthouse_bots", "Bots that are known.", status.bots)
        yield _gauge("posthouse_channels", "Channels.", status.channels)
        held = self._broker.held()
        yield _gauge("posthouse_messages_unsettled", "Deliveries that are not settled.", held.unsettled)
        yield _gauge("posthouse_mailboxes_waiting", "Mailboxes whose connected bots take no more.", held.waiting)
        for name, (text, metric) in _COUNTERS.items():
            yield CounterMetricFamily(metric, text, status.counters[name])
        for name, (text, metric) in _SIZES.items():
            if name in status.sizes:
                yield _gauge(metric, text, status.sizes[name])
        text = "Room for more: 0 is enough, 1 low, 2 very low, as the worker's log and doctor say."
        yield _gauge("posthouse_storage_level", text, status.storage.rank)
        refused = CounterMetricFamily("posthouse_transactions_refused", "Transactions not stored.", labels=["code"])
        for code, times in measures.refused.items():
            refused.add_metric([code], times)
        yield refused
        yield _histogram("posthouse_commit_seconds", "Time of a transaction until it is on disk.", measures.commits)
        yield _histogram(
            "posthouse_delivery_seconds",
            "Time from a transaction's first request until its answers and deliveries were sent.",
            measures.rounds,
        )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _histogram(name: str, text: str, histogram: Histogram) -> HistogramMetricFamily:
    buckets = [("+Inf" if bound == float("inf") else str(bound), times) for bound, times in histogram.buckets()]
    return HistogramMetricFamily(name, text, buckets, histogram.total_seconds)
