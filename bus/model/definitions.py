"""Checks of a workflow's definition before it is saved: whether it could be executed.

Owns these checks, the order of versions, and which of two definitions counts. A cron line is checked only where it
can be read. A definition saved by an earlier version is returned unchecked.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter

import msgspec

from ..errors import InvalidValue
from .occurrences import CronTimes, can_read_cron, check_times
from .records import CronTrigger, WorkflowDefinition

__all__ = ["check_definition", "definition_digest", "is_newer", "is_older", "replaced_by"]

_REPLACED_MAX = 100
"""How many of the definitions that were replaced are remembered: more than releases that are at work at once."""

_VERSION = re.compile(r"\d{1,9}(\.\d{1,9})*", re.ASCII)


def check_definition(definition: WorkflowDefinition) -> None:
    """Raise InvalidValue, which says what is wrong, if a definition contradicts itself."""
    fault = next(_faults(definition), None)
    if fault is not None:
        raise InvalidValue(f"workflow {definition.id!r}", fault)


def _faults(definition: WorkflowDefinition) -> Iterator[str]:
    if definition.concurrency is not None and not 1 <= definition.concurrency < 2**31:
        yield f"concurrency must be 1 or more, not {definition.concurrency}"
    for trigger in definition.triggers:
        if isinstance(trigger, CronTrigger) and can_read_cron():
            try:
                check_times(CronTimes(line=trigger.schedule, timezone=trigger.timezone or "UTC"))
            except InvalidValue as error:
                yield error.reason
    known: set[str] = set()
    for step in definition.steps:
        if step.id in known:
            yield f"there are two steps {step.id!r}"
        known.add(step.id)
        tag = step.config.get("type", step.type)
        if tag != step.type:
            yield f"step {step.id!r} has type {step.type}, but its config has type {tag!r}"
        if step.retry is not None and step.retry.max_attempts < 1:
            yield f"step {step.id!r}: retry.max_attempts must be 1 or more, not {step.retry.max_attempts}"
    for step in definition.steps:
        for name in step.depends_on:
            if name not in known:
                yield f"step {step.id!r} depends on {name!r}, which is not a step"
    try:
        TopologicalSorter({step.id: step.depends_on for step in definition.steps}).prepare()
    except CycleError as error:
        # In the cycle, each step depends on the one before it.
        yield f"the steps wait for each other: {' -> '.join(reversed(error.args[1]))}"


def is_older(version: str, other: str) -> bool:
    """Return True if a version is older than another one: if both are numbers between dots, compared one by one."""
    numbers = [_VERSION.fullmatch(each) and tuple(map(int, each.split("."))) for each in (version, other)]
    one, two = numbers
    if not one or not two:
        return False
    length = max(len(one), len(two))
    return one + (0,) * (length - len(one)) < two + (0,) * (length - len(two))


def definition_digest(definition: WorkflowDefinition) -> str:
    """Return a text that two definitions share if they are equal."""
    return hashlib.sha256(msgspec.json.encode(definition, order="deterministic")).hexdigest()[:32]


def is_newer(stored: WorkflowDefinition, offered: WorkflowDefinition, replaced: Sequence[str]) -> bool:
    """Return True if a stored definition counts, and not one with its id that a program has.

    `replaced` are the digests of those that were stored before.
    """
    if stored.name != offered.name:
        return False
    return is_older(offered.version, stored.version) or definition_digest(offered) in replaced


def replaced_by(stored: WorkflowDefinition, definition: WorkflowDefinition, replaced: Sequence[str]) -> list[str]:
    """Return the digests of the definitions that were replaced, when another one is stored."""
    before = [*(each for each in replaced if each != definition_digest(stored)), definition_digest(stored)]
    return [each for each in before if each != definition_digest(definition)][-_REPLACED_MAX:]
