"""A run that continues as a new one: its successor, which begins with another input and an empty history.

Owns the successor's id, and how the latest is found. It is created in the transaction that completes the run before
it, which has its id from then on.
"""

from __future__ import annotations

import re
import uuid

from ..errors import SuccessorDeleted
from ..model.records import RunStatus, WorkflowRun
from ..model.repository import WorkflowRepository
from ..wire.limits import NAME_CHARACTERS_MAX

__all__ = ["find_latest", "successor_id"]

_NAMESPACE = uuid.UUID("0c1f6d0e-5f0b-5b43-9a59-6d5c6d3c7f27")

_numbered = re.compile(r"(.+)~([1-9][0-9]{0,8})\Z", re.DOTALL).match


def successor_id(run_id: str) -> str:
    """Return the id of a run's successor, which is the same each time: `order~2` for `order`, then `order~3`."""
    found = _numbered(run_id)
    base, number = (run_id, 1) if found is None else (found[1], int(found[2]))
    id = f"{base}~{number + 1}"
    return id if len(id) <= NAME_CHARACTERS_MAX else str(uuid.uuid5(_NAMESPACE, id))


async def find_latest(workflows: WorkflowRepository, run: WorkflowRun) -> WorkflowRun:
    """Return the last run as which a run continued: itself, if it did not. Raise SuccessorDeleted."""
    while run.status is RunStatus.COMPLETED and run.continued_as is not None:
        latest = await workflows.get_latest_run(run.id)
        if latest is None or latest.id == run.id:
            raise SuccessorDeleted(run.id, run.continued_as)
        run = latest
    return run
