"""The names under which workloads and systems stand in a report, in its goals and in the words made of them.

Owns the names that more than one module needs, and nothing else.
"""

from __future__ import annotations

__all__ = [
    "ASK_MANY",
    "BEFORE",
    "BUS",
    "FRAMES",
    "HALF_RATE",
    "JETSTREAM",
    "JETSTREAM_ATOMIC",
    "JETSTREAM_FAST",
    "JETSTREAM_SYNCING",
    "ONE_TO_ONE_100",
    "ONE_TO_ONE_1000",
    "ONE_TO_ONE_SINGLES",
    "ONE_TO_TEN",
    "ON_POSTGRESQL",
    "ON_QUORUM",
    "PAIRS",
    "PUBLISH_100",
    "PUBLISH_1000",
    "PUBLISH_ONE",
    "PUBLISH_SINGLES",
    "RABBITMQ",
    "REDIS",
    "REDIS_SYNCING",
    "SQLITE",
    "SQLITE_ROW",
    "WATCHED",
]

FRAMES = "posthouse, frames"
BUS = "posthouse, bus"
WATCHED = "posthouse, watched"
"""With metrics that are scraped, and a bot that follows `posthouse.events`."""
BEFORE = "posthouse, before"
"""The worker of an earlier commit, with today's clients that write their frames by hand."""
ON_POSTGRESQL = "posthouse on PostgreSQL, frames"
ON_QUORUM = "posthouse on PostgreSQL with a quorum, frames"
JETSTREAM_SYNCING = "JetStream, syncing"
JETSTREAM_FAST = "JetStream, syncing, fast ingest"
JETSTREAM = "JetStream, its default"
JETSTREAM_ATOMIC = "JetStream, its default, atomic batches"
REDIS_SYNCING = "Redis, always"
REDIS = "Redis, every second"
RABBITMQ = "RabbitMQ, quorum queue"

PUBLISH_ONE = "publish, 1 in flight"
PUBLISH_SINGLES = "publish, singles in flight"
PUBLISH_100 = "publish, batches of 100"
PUBLISH_1000 = "publish, batches of 1,000"
ONE_TO_ONE_SINGLES = "one to one, singles in flight"
ONE_TO_ONE_100 = "one to one, batches of 100"
ONE_TO_ONE_1000 = "one to one, batches of 1,000"
HALF_RATE = "one to one, half of the rate"
ONE_TO_TEN = "one to ten"
PAIRS = "a hundred bots in pairs"
ASK_MANY = "request and reply, many"

SQLITE = "SQLite, 4096 rows"
SQLITE_ROW = "SQLite, 1 row"
