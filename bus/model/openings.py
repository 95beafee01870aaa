"""Opening a run in one call: it is found or created, and claimed.

Owns which definition a new run is created with, and whether a known run is the one that is meant.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ..errors import Conflict, NotFound
from .definitions import is_newer
from .records import Claim, Record, StepPage, WorkflowDefinition, WorkflowRun
from .values import json_value, same_json, same_values

__all__ = ["OpenedRun", "RunOpener", "RunOpening", "check_input", "check_known", "counting", "run_of"]


class RunOpening(Record, frozen=True, omit_defaults=True):
    """What is asked of `open_run`: which run, what it is created with if it is new, and how it is claimed.

    `workflow` is the name of a definition, the holder's own or a global one, or its id. `input` enters the context
    under that name. The last fields are those of `claim_run`.
    """

    run_id: str
    workflow: str
    definition: WorkflowDefinition | None = None
    """With which definition a new run is created: it must be stored as it is here, or have been replaced."""
    input: Any = None
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    concurrency_key: str | None = None
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    trigger_type: str = "manual"
    trigger_payload: Any = None
    lease_seconds: float | None = None
    claim_id: str | None = None
    place_seconds: float | None = None
    cleans_up: bool = False


class OpenedRun(Record, frozen=True):
    """A run that was opened: its claim, and whether this created it.

    `definition` is the one with which it was created, and `steps` are its first step logs. Over a connection, a
    client that does not read answers in parts gets neither if the answer would be larger than a frame.
    """

    claim: Claim
    definition: WorkflowDefinition | None = None
    created: bool = False
    steps: StepPage | None = None


class RunOpener(Protocol):
    """The part of a repository that opens runs."""

    async def open_run(self, opening: RunOpening, holder: str) -> OpenedRun:
        """Claim a run for a bot (id) like `claim_run`, and create it first if it does not exist.

        Both happen in one transaction. With a `claim_id` it may be repeated, like a claim. If the claim is refused
        for lack of a slot, the run exists all the same, and has its place.

        Raises what `claim_run` does, NotFound if there is no such workflow, or not with that definition (save it
        then), and Conflict if the run is of another workflow or was started with another input.
        """


def run_of(opening: RunOpening, definition: WorkflowDefinition, started_at: str) -> WorkflowRun:
    """Return the record of the run that is to be created."""
    input = {} if opening.input is None else {"input": opening.input}
    return WorkflowRun(
        id=opening.run_id,
        workflow_id=definition.id,
        workflow_name=definition.name,
        trigger_type=opening.trigger_type,
        started_at=started_at,
        context=opening.context | input,
        trigger_payload=opening.trigger_payload,
        concurrency_key=opening.concurrency_key,
        attributes=opening.attributes,
    )


def counting(
    opening: RunOpening, stored: WorkflowDefinition | None, replaced: Sequence[str] = ()
) -> WorkflowDefinition:
    """Return the definition with which a new run is created. Raise NotFound if it has to be saved first.

    `replaced` are the digests of those that were stored before (`definitions.is_newer`).
    """
    given = opening.definition
    if stored is None:
        raise NotFound("workflow", opening.workflow)
    if given is None or same_values(stored, given) or is_newer(stored, given, replaced):
        return stored
    raise NotFound("such definition of workflow", opening.workflow)


def check_known(run: WorkflowRun, workflow: str, input: Any) -> None:
    """Raise Conflict if a run is of another workflow, or was started with another input."""
    if workflow not in (run.workflow_name, run.workflow_id):
        raise Conflict(f"run {run.id!r} belongs to workflow {run.workflow_name!r}, not to {workflow!r}")
    check_input(run, input)


def check_input(run: WorkflowRun, input: Any) -> None:
    """Raise Conflict if a run was started with another input."""
    recorded = run.context.get("input") if isinstance(run.context, dict) else None
    if None not in (input, recorded) and not same_json(recorded, json_value(input, "input of a run")):
        raise Conflict(f"run {run.id!r} was started with another input: start another run, or pass no input")
