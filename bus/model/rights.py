"""The words of rights: actions, the roles that always exist, and verdicts.

Pure.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = ["ADMIN_ROLE", "MEMBER_ROLE", "NO_ROLE", "OPS_ROLE", "OWN", "Action", "Verdict"]

MEMBER_ROLE, OPS_ROLE, ADMIN_ROLE = "member", "ops", "admin"
"""The roles that exist without a configuration; the last one cannot be redefined."""

NO_ROLE = "none"
"""As the default role: a key without roles may do nothing."""

OWN = "own"
"""In the place of a pattern: what belongs to the bot that asks, whatever its name."""


class Action(enum.StrEnum):
    """What a rule allows or denies, and what its patterns are about."""

    PUBLISH = "publish"
    """To a channel."""
    SEND = "send"
    """Directly to a bot."""
    SUBSCRIBE = "subscribe"
    """To a channel, not in a group."""
    GROUP = "group"
    """To a channel in a group: `channel/group`."""
    TAP = "tap"
    """To listen to the tap, which has all channels: `**`."""
    READ = "read"
    """`own`, `all`, or a pattern of bots, channels or keyed stores after `conversation:`, `channel:` or `kv:`."""
    WRITE = "write"
    """To a keyed store, by its name."""
    RETRY = "retry"
    """The dead letters of a bot, or of a group: `channel/group`. To discard them, too."""
    DEFINE = "define"
    """To save and delete the definition of a workflow, by its name."""
    RUN = "run"
    """To create and claim runs of a workflow, by its name."""
    OPERATE = "operate"
    """To change runs of a workflow, by its name, that another bot holds or nobody does."""
    APPROVE = "approve"
    """To answer what waits for an approval in runs of a workflow, by its name."""
    SIGNAL = "signal"
    """To send signals to runs of a workflow, by its name."""
    ADMIN = "admin"
    """What concerns the worker itself: `reload`, `may` about other bots, `audit`, `erase`, `remove`."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether something is allowed, and by which rule of the configuration, or why not."""

    allowed: bool
    rule: str
    denied: bool = False
    """Whether a rule denies it, rather than none allowing it."""
