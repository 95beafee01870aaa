"""Whose a run is, and what a bot may do to the runs that its commit names.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..errors import Refused

__all__ = ["CommitRights", "RunOwners"]


class RunOwners(msgspec.Struct, frozen=True):
    """Whose a run is: its workflow's name and owner, its creator, and its holders, all by their ids.

    `owner` is None for a global workflow, `holder` if nobody holds it.
    """

    run_id: str
    workflow_name: str
    owner: str | None
    created_by: str | None
    holder: str | None
    last_holder: str | None


class CommitRights(Protocol):
    """What the bot of a commit may do to the runs that it names, decided where it is known whose they are."""

    def refuse_signal(self, owners: RunOwners) -> Refused | None:
        """Return why the bot may not send a signal to a run, or None."""

    def refuse_run(self, workflow_name: str, owner: str | None) -> Refused | None:
        """Return why the bot may not create a run of a workflow, which belongs to the bot `owner`, or None."""
