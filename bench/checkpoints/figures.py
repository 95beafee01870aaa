"""What becomes of the turns of the benchmark of checkpoints: medians over rounds, and ratios of the same round.

Owns the arithmetic and the goal, and knows nothing of processes or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..figures import Spread, spread
from .loads import Alone

__all__ = ["GOAL", "GOAL_RUNS", "Plan", "Report", "Summary", "System", "Turn", "compare"]

GOAL = 10.0
"""How many times as many checkpoints a second as each rival posthouse is to keep, ..."""

GOAL_RUNS = 64
"""... at so many runs side by side."""


class System(msgspec.Struct, frozen=True):
    """What is measured, the way in which it is used, and what is on disk when a step is over.

    A rival is what the goal is about, and names the way of posthouse that it is set against, which does the same. A
    limit is no system, and has one run alone.
    """

    name: str
    way: str
    promise: str
    rival_of: str | None = None
    limit: bool = False

    def __str__(self) -> str:
        return f"{self.name}, {self.way}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is carried out in each turn."""

    rounds: int
    runs: tuple[int, ...]
    warm_seconds: float
    seconds: float
    alone_runs: int
    alone_steps: int


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What a system did in one round: alone, and under load; `steps` ended, and so many are `kept` in its file."""

    round: int
    system: System
    load_before: float
    alone: Alone
    per_second: dict[int, float]
    cpu_us: dict[int, float]
    """Microseconds of the processors for a checkpoint, of all processes of the system."""
    steps: int
    kept: int

    @property
    def lost(self) -> int:
        """How many checkpoints the system said it kept and did not keep."""
        return max(0, self.steps - self.kept)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a system did over all rounds. `ratio` is how many times as many the one `against` it kept."""

    system: System
    against: System
    per_second: dict[int, Spread]
    ratio: dict[int, Spread]
    cpu_us: dict[int, Spread]
    step_ms: Spread
    run_ms: Spread
    lost: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was found."""

    machine: dict[str, Any]
    versions: dict[str, str]
    durability: str
    plan: Plan
    summary: list[Summary]
    turns: list[Turn]

    @property
    def is_clean(self) -> bool:
        """Whether every system kept all that it said it kept."""
        return not any(each.lost for each in self.summary)

    @property
    def goal_ratio(self) -> float | None:
        """The least of the medians that the goal is about; None where no rival was measured beside its like."""
        return min((each.ratio[GOAL_RUNS].median for each in self.rivals), default=None)

    @property
    def rivals(self) -> list[Summary]:
        """Those that the goal is about, measured beside what they are set against."""
        return [each for each in self.summary if each.system.rival_of == each.against.way]


def compare(systems: Sequence[System], turns: Sequence[Turn]) -> list[Summary]:
    """Sum up the turns of each system; each is set against another one's turn of the same round.

    A rival is set against its like, where that was measured, and everything else against the first system.
    """
    ways = {each.way: each for each in systems}
    return [_summary(each, ways.get(each.rival_of or "", systems[0]), turns) for each in systems]


def _summary(system: System, against: System, all_turns: Sequence[Turn]) -> Summary:
    turns = [turn for turn in all_turns if turn.system == system]
    other = {turn.round: turn for turn in all_turns if turn.system == against}
    counts = list(turns[0].per_second)
    return Summary(
        system=system,
        against=against,
        per_second={runs: spread([turn.per_second[runs] for turn in turns]) for runs in counts},
        ratio={
            runs: spread([_times(other[turn.round].per_second[runs], turn.per_second[runs]) for turn in turns])
            for runs in counts
        },
        cpu_us={runs: spread([turn.cpu_us[runs] for turn in turns]) for runs in counts},
        step_ms=spread([turn.alone.step.p50_ms for turn in turns]),
        run_ms=spread([turn.alone.run.p50_ms for turn in turns]),
        lost=sum(turn.lost for turn in turns),
    )


def _times(one: float, other: float) -> float:
    """Give a ratio; where the other kept nothing in its time, as if it had kept one checkpoint."""
    return one / (other or 1.0)
