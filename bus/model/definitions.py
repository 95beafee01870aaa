"""Checks of a workflow's definition before it is saved: whether it could be executed.

Owns these checks, and the order of versions. A cron line is checked only where it can be read. A definition saved
by an earlier version is returned unchecked.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from ..errors import InvalidValue
from .occurrences import CronTimes, can_read_cron, check_times
from .records import CronTrigger, WorkflowDefinition

__all__ = ["check_definition", "is_older"]

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
