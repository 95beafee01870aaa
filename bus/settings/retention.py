"""The settings of what is kept in the store, and for how long: messages, security events, and events of the worker.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["EventSettings", "Keep", "RetentionSettings"]

_Age = Annotated[float, Meta(ge=0, le=86_400 * 36_600)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Keep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much is kept; 0 means no limit. Messages beyond any of the three are removed, the oldest first."""

    age_seconds: _Age = 0.0
    """Messages older than this are removed."""

    messages_max: _Count = 0
    """Messages beyond this number of the newest are removed."""

    bytes_max: _Count = 0
    """Messages beyond the newest with this many bytes of bodies and headers are removed."""

    @property
    def limits_anything(self) -> bool:
        """Whether there is a limit."""
        return bool(self.age_seconds or self.messages_max or self.bytes_max)


class RetentionSettings(Keep, frozen=True):
    """What leaves the log: these limits apply to the whole log, and a channel's to the channel. Off by default."""

    remove_undelivered: bool = False
    """Whether to remove even what some mailbox has still to deliver; its bot is notified by a `gap`."""

    sweep_seconds: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """The time from the end of one sweep of the log to the next."""

    portion_messages_max: Annotated[int, Meta(ge=1, le=10_000)] = 500
    """Messages read or removed at once: some milliseconds of the writer's time."""

    security_age_seconds: _Age = 7_776_000.0
    """Security events older than this are removed; 0 means no limit. Ninety days: what is noticed late."""

    security_events_max: _Count = 1_000_000
    """Security events beyond this number of the newest are removed; 0 means no limit. Some 200 MB."""

    channels: dict[str, Keep] = {}
    """The limits of single channels, by name; the log's limits apply to them too."""

    def rules(self) -> list[tuple[str | None, Keep]]:
        """Return the limits by channel; None stands for the whole log."""
        return [(None, self), *self.channels.items()]


class EventSettings(Keep, frozen=True):
    """What the worker tells of itself on `posthouse.events`, and how much of it is kept, delivered or not."""

    publish: Literal["never", "subscribed", "always"] = "subscribed"
    """Whether events are published: `subscribed` is while somebody is subscribed, or listens at the tap."""

    age_seconds: _Age = 604_800.0
    """Events older than this are removed; 0 means no limit. A week: what nobody has read by then is history."""

    messages_max: _Count = 10_000
    """Events beyond this number of the newest are removed; 0 means no limit. Some 5 MB."""
