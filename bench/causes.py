"""Why goals are missed: the text that pages show beside a missed goal, by the goal's name.

Owns these texts, which are edited by hand after a run. A missed goal without a text is shown without a cause. Pure.
"""

from __future__ import annotations

__all__ = ["CAUSES"]

CAUSES: dict[str, str] = {
    "one to one, against SQLite alone": (
        "decoding, checking and delivering in the loop, under the interpreter lock, which the database's thread "
        "needs too"
    ),
    "one to one, on PostgreSQL with a quorum, against SQLite": (
        "worker, primary and two standbys share the two cores that SQLite's worker has to itself"
    ),
    "publish, acknowledged, against SQLite alone": "decoding, checking, rows and checksums in the loop",
    "one to ten, against Redis that always syncs": "the loop makes and settles each of the ten deliveries",
    "one to one, the worker's processor time for a message, against the version before": (
        "what is left is done for each message: its body is decoded, its row bound, its checksum computed, "
        "its JSON encoded and settled"
    ),
    "one to ten, deliveries, against SQLite alone's rows": (
        "the loop makes and settles each of the ten deliveries"
    ),
    "a hundred bots in pairs, against the version before": (
        "half of the time is SQLite's: each pair has its own pages in the indexes by pair and by recipient"
    ),
    "request and reply, many, against the version before": (
        "two messages, each stored and settled; with the clients, both cores are busy"
    ),
    "backlog of a million, drained, against the version before": (
        "each message's checksum is computed again, and its JSON encoded again"
    ),
    "one publish in flight, p50, against a bare commit": (
        "eight switches of thread or process, most of which wake a core"
    ),
    "one publish in flight, p50, against JetStream that syncs": "JetStream has no other thread in between",
    "half of the top rate, p99": (
        "frames then have few messages, and each costs the loop more: with the clients, half of the top "
        "rate fills both cores, and what a checkpoint of 16 MiB holds up is made up for slowly"
    ),
    "half of the top rate, p99, against the version before": (
        "the same; the rate is half of this version's top rate"
    ),
    "one to one, bus against frames": "the client uses the same two cores, and takes longer for a message",
    "request and reply, many, bus against frames": "a handler's task and a future for each request",
    "publish, batches of 1,000, acknowledged, against JetStream that syncs": (
        "JetStream syncs once per batch, too"
    ),
    "one to one, batches of 1,000, against JetStream that syncs": "JetStream syncs once per batch, too",
    "one to one, batches of 100, against Redis that always syncs": "Redis syncs once for all that arrived, too",
    "restart, ten million stored, against the version before": (
        "in this run today's worker was compiled at each start, and the version before was not; with both "
        "compiled, a start takes as long"
    ),
    "10,000 bots, all connected, against the version before": (
        "a hello takes the worker 1.25 times the processor time: limits of connections are looked at, and its "
        "welcome and its line in the log say more"
    ),
    "10,000 bots, memory, against the version before": (
        "each connection has a pipe to the authenticator in ZeroMQ"
    ),
}
