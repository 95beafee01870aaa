"""What has to happen to a worker that lies: kills under load, until the checker finds what it did.

Owns the rounds, and their bound.
"""

from __future__ import annotations

import random
from pathlib import Path

from .kills import PAUSES, kills

__all__ = ["assert_found"]

_ROUNDS_MAX = 200
_ROUNDS_A_FILE = 5


def assert_found(lie: str, kinds: set[str], directory: Path, *, pauses: float = PAUSES) -> None:
    """Kill workers that tell a lie until one of these kinds of violations is found; fail after too many kills.

    A pause takes as long as some kills: `pauses` is the share of the rounds that have one.
    """
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    for outcome in kills(directory, seed=seed, lie=lie, rounds_a_file=_ROUNDS_A_FILE, pauses=pauses):
        found = {kind for _, verdict in outcome.broken for kind in verdict.kinds}
        if found & kinds:
            return
        assert outcome.rounds < _ROUNDS_MAX, f"{outcome.rounds} kills did not bring {lie} to light, but {found}"
