"""A run that continues as a new one: its successor, which begins with another input and an empty history.

Owns the successor's id, and how it is found. It is created in the transaction that completes the run before it: a
completed run has a successor or never will have one.
"""

from __future__ import annotations

import re
import uuid

from ..model.records import CONTINUED, RunStatus, WorkflowRun
from ..model.repository import WorkflowRepository
from ..wire.limits import NAME_CHARACTERS_MAX

__all__ = ["find_latest", "find_successor", "successor_id"]

_NAMESPACE = uuid.UUID("0c1f6d0e-5f0b-5b43-9a59-6d5c6d3c7f27")

_numbered = re.compile(r"(.+)~([1-9][0-9]{0,8})\Z", re.DOTALL).match


def successor_id(run_id: str) -> str:
    """Return the id of a run's successor, which is the same each time: `order~2` for `order`, then `order~3`."""
    found = _numbered(run_id)
    base, number = (run_id, 1) if found is None else (found[1], int(found[2]))
    id = f"{base}~{number + 1}"
    return id if len(id) <= NAME_CHARACTERS_MAX else str(uuid.uuid5(_NAMESPACE, id))


async def find_successor(workflows: WorkflowRepository, run: WorkflowRun) -> WorkflowRun | None:
    """Return the run as which an ended run continued, or None."""
    if run.status is not RunStatus.COMPLETED or run.result is not None:
        return None
    found = await workflows.get_run(successor_id(run.id))
    is_successor = found is not None and (found.trigger_type, found.parent_run_id) == (CONTINUED, run.id)
    return found if is_successor else None


async def find_latest(workflows: WorkflowRepository, run: WorkflowRun) -> WorkflowRun:
    """Return the last run as which a run continued: itself, if it did not."""
    while (successor := await find_successor(workflows, run)) is not None:
        run = successor
    return run
