"""What retention asks a store: which messages and runs are there.

Owns these values, and no behavior. Times are text in the stored form (`records.timestamp`).

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .priorities import source_of

__all__ = ["EndedRun", "RunSurvey", "SurveyRequest", "Surveyed", "SurveyedRuns"]


class SurveyRequest(msgspec.Struct, frozen=True):
    """Which part of the log retention reads: the messages after a seq, of one channel or (None) of all."""

    channel: str | None
    after_seq: int
    through_seq: int
    messages_max: int


class Surveyed(msgspec.Struct, frozen=True, gc=False):
    """A message without its contents; `size_bytes` is that of its body and headers."""

    seq: int
    sender_bot_id: str
    recipient_bot_id: str | None
    recipient_channel: str | None
    timestamp: str
    size_bytes: int
    priority: int = 0

    @property
    def source(self) -> str | None:
        """The source of mailboxes that it is of, as `source_of` returns it."""
        return source_of(self.recipient_channel, self.priority)


class RunSurvey(msgspec.Struct, frozen=True):
    """Which runs retention looks at: those of one workflow that have ended, the oldest first, at most `runs_max`.

    They ended before the time `before`, or are not among the `newest_max` of their workflow that ended last (0: no
    such limit). `after` is the place of the last one that was looked at. Without a `workflow_id` they are of the
    first workflow after another one, by their ids.
    """

    workflow_id: str | None
    after_workflow_id: str
    after: tuple[str, int]
    before: str
    newest_max: int
    runs_max: int


class EndedRun(msgspec.Struct, frozen=True):
    """A run that has ended: its place in the order of ends, its number of step logs, and the messages of its id."""

    id: str
    place: tuple[str, int]
    steps: int
    messages: Sequence[Surveyed]


class SurveyedRuns(msgspec.Struct, frozen=True):
    """Runs of one workflow; without a `workflow_id` there is no further workflow."""

    workflow_id: str | None
    runs: list[EndedRun]
