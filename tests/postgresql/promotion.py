"""What whoever runs three nodes does when the primary is gone: hear both standbys, promote one, let others follow.

Owns the rule that keeps what was acknowledged: a commit was answered once one of two standbys had it, so both are
heard, when neither receives any more, and the one with more of the log is promoted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from .cluster import Node

__all__ = ["WAITED_FOR", "heir_of", "promote"]

WAITED_FOR = "synchronous_standby_names = 'ANY 1 (primary, s1, s2)'"
"""A setting for all nodes of a quorum: whichever is the primary waits for one of the others."""

_HEARD_SECONDS_MAX = 60.0

_HAS = """
    SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn FROM pg_stat_activity
    WHERE backend_type = 'startup' AND wait_event = 'RecoveryRetrieveRetryInterval'"""
"""How much of the log a standby has, once it has gone through all of it and gets no more.

What it received cannot be asked for: that starts from the segment's beginning when the standby does.
"""


def heir_of(standbys: Sequence[Node]) -> Node:
    """Return the standby that has most of the log, once the primary is gone."""
    has: dict[Node, int] = {}
    deadline = time.monotonic() + _HEARD_SECONDS_MAX
    while len(has) < len(standbys):
        assert time.monotonic() < deadline, "standbys still receive, though their primary is gone"
        for node in standbys:
            if rows := node.query(_HAS):
                has[node] = int(rows[0])
    return max(standbys, key=lambda node: has[node])


def promote(standbys: Sequence[Node]) -> Node:
    """Promote one of the standbys of a primary that is gone, and let the others follow it; return it."""
    heir = heir_of(standbys)
    heir.promote()
    for node in standbys:
        if node is not heir:
            node.follow(heir)
    return heir
