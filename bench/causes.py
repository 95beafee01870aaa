"""Why goals are missed: the text that pages show beside a missed goal, by the goal's name.

Owns these texts, which are edited by hand after a run. A missed goal without a text is shown without a cause. Pure.
"""

from __future__ import annotations

__all__ = ["CAUSES"]

CAUSES: dict[str, str] = {
    "one to one, against SQLite alone": "decoding, checking and delivering in the loop, under the interpreter lock "
    "that the database's thread needs too",
    "publish, acknowledged, against SQLite alone": "decoding, checking, rows and checksums in the loop",
    "one to ten, deliveries, against SQLite alone's rows": "the loop makes and settles each of the ten deliveries",
    "one publish in flight, p50, against a bare commit": "eight switches of thread or process, most of which "
    "wake a core",
    "one publish in flight, p50, against JetStream that syncs": "JetStream has no other thread in between",
    "half of the top rate, p99": "frames then have few messages, and each costs the loop more",
    "one to one, bus against frames": "the client uses the same two cores, and takes longer for a message",
    "publish, batches of 1,000, acknowledged, against JetStream that syncs": "JetStream syncs once per batch, too",
    "one to one, batches of 1,000, against JetStream that syncs": "JetStream syncs once per batch, too",
    "one to one, batches of 100, against Redis that always syncs": "Redis syncs once for all that arrived, too",
    "one to ten, against Redis that always syncs": "the loop makes and settles each of the ten deliveries",
}
