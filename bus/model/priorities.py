"""Priorities of direct messages, and the sources of mailboxes that they are.

A priority is a number here: 1 for "high", 0 for "normal", which is that of nearly all messages, and -1 for "low".
What has one that is not normal is a *prioritized* message. Those of one priority are a source of their bot's
mailbox, as a channel is; the name of such a source is no channel's.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

__all__ = [
    "DIRECT",
    "NORMAL",
    "PRIORITIES",
    "PRIORITIZED",
    "Priority",
    "name_of",
    "priority_of_source",
    "source_of",
]

Priority = Literal["low", "normal", "high"]

PRIORITIES: Mapping[str, int] = {"low": -1, "normal": 0, "high": 1}
"""The numbers of priorities. A mailbox delivers what has a higher one first."""

DIRECT = ""
"""The source of all direct messages, whatever their priority."""

NORMAL = "^"
"""The source of the direct messages that are not prioritized."""

_SOURCES = {priority: f"^{name}" for name, priority in PRIORITIES.items() if priority}
PRIORITIZED = tuple(_SOURCES.values())
"""The sources of prioritized messages."""
_OF_SOURCES = {source: priority for priority, source in _SOURCES.items()} | {NORMAL: 0}
_NAMES: dict[int, Priority] = {-1: "low", 0: "normal", 1: "high"}


def name_of(priority: int) -> Priority:
    """Return the name of a priority."""
    return _NAMES[priority]


def source_of(channel: str | None, priority: int) -> str | None:
    """Return the source of a message: its channel, or its priority; None if it is direct and not prioritized."""
    return _SOURCES[priority] if priority else channel


def priority_of_source(source: str) -> int | None:
    """Return the priority of the direct messages of a source; None if it is a channel, or all direct messages."""
    return _OF_SOURCES.get(source)
