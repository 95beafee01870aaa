"""What the worker itself does to runs: it ends lost holds, starts what is due, and removes what is old.

Owns these changes of the log and their answers, and no behavior. Times are text in the stored form.

Pure.
"""

from __future__ import annotations

import msgspec

from .lots import LogMessage
from .records import RecoveredRun

__all__ = ["RecoverRuns", "Recovered", "RemoveRuns", "StartScheduled", "Started"]


class RemoveRuns(msgspec.Struct, frozen=True):
    """Remove runs for good, with all that belongs to them. Answered with the number of runs removed.

    Those stay that have not ended, or ended after `ended_until`: they were retried in the meantime.
    """

    run_ids: tuple[str, ...]
    ended_until: str


class RecoverRuns(msgspec.Struct, frozen=True):
    """End the holds of runs whose lease has expired, and notify each last holder by a message from `sender_name`.

    Answered `Recovered`, with the runs that may start since the time `due_after`.
    """

    runs_max: int
    sender_id: str
    sender_name: str
    timestamp: str
    due_after: str = ""
    due_max: int = 100


class StartScheduled(msgspec.Struct, frozen=True):
    """Start the runs of schedules that are due, at most about `runs_max`, and tell the bots that they name.

    Answered `Started`.
    """

    runs_max: int
    sender_id: str
    sender_name: str
    timestamp: str


class Recovered(msgspec.Struct, frozen=True):
    """Runs that were recovered, and the messages that notify their last holders.

    `due` has the ids of pending runs that may start now, whose time came until `due_until`, and `cancelled` those
    of runs whose programs had their time to clean up, or that were cancelled with others. In `next_seconds` there
    is the next one of either; `more` if some are to be cancelled at once.
    """

    runs: list[RecoveredRun]
    messages: list[LogMessage]
    due: list[str] = []
    due_until: str = ""
    next_seconds: float | None = None
    cancelled: list[str] = []
    more: bool = False


class Started(msgspec.Struct, frozen=True):
    """The runs that schedules started, and the messages about them.

    In `next_seconds` the next time comes; None if there is none. `more` if more of them may be due already.
    """

    run_ids: list[str]
    messages: list[LogMessage]
    next_seconds: float | None = None
    more: bool = False
