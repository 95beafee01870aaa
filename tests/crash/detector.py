"""What has to happen to a worker that lies: kills under load, until the checker finds what it did.

Owns the rounds, and their bound; and which lies are told whenever the tests run. `make lies` tells all of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

from .kills import PAUSES, kills

__all__ = ["EVERY_TIME", "assert_found", "chosen"]

EVERY_TIME = frozenset({
    "ack_before_commit",
    "torn_commit",
    "forgotten_checkpoint",
    "kept_subscription",
    "vanished_unnoticed",
    "swapped_order",
    "ack_in_the_wrong_mailbox",
    "restarts_are_failures",
    "double_credit",
    "nak_delay_ignored",
    "ttl_ignored",
    "replies_in_their_turn",
    "budgets_of_this_start_alone",
    "gap_not_told",
    "pauses_expel",
    "signals_taken_twice",
    "retries_set_all_aside",
    "times_twice",
    "local_commits",
    "wills_sent_twice",
})  # fmt: skip
"""One for each kind of violation that lies bring to light, and for each subject of runs."""

_ROUNDS_MAX = 200
_ROUNDS_A_FILE = 5


def chosen(lies: Iterable[str]) -> list[str]:
    """Return those that are told: all, if the environment has `POSTHOUSE_LIES=all`."""
    everything = os.environ.get("POSTHOUSE_LIES") == "all"
    return [lie for lie in lies if everything or lie in EVERY_TIME]


def assert_found(lie: str, kinds: set[str], directory: Path, *, pauses: float = PAUSES) -> None:
    """Kill workers that tell a lie until one of these kinds of violations is found; fail after too many kills.

    A pause takes as long as some kills: `pauses` is the share of the rounds that have one.
    """
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    rounds = {"rounds_a_file": _ROUNDS_A_FILE, "watchers": int("presence" in kinds)}
    for outcome in kills(directory, seed=seed, lie=lie, pauses=pauses, **rounds):
        found = {kind for _, verdict in outcome.broken for kind in verdict.kinds}
        if found & kinds:
            return
        assert outcome.rounds < _ROUNDS_MAX, f"{outcome.rounds} kills did not bring {lie} to light, but {found}"
