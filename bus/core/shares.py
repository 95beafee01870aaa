"""What one bot may have of everything that is limited: the share of every bot, or less by its roles.

Owns the shares. A role can only make them smaller; of several roles, the smallest counts. Without keys every bot
has the same. What a bot has is counted where it is used, whatever key it used.

Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..model.keys import Principal
from ..settings import Limits
from ..settings.rights import RoleLimits
from ..wire.frames import Code, Refusal
from ..wire.limits import HOPS_MAX
from .access import Access

__all__ = ["Share", "Shares"]

_REMEMBERED_MAX = 1000
"""Shares that are remembered: combinations of roles; beyond it they are all found anew."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How much one bot may have. The rates are 0 if they are not limited; `of_role` names what a role limits."""

    messages_per_second: float
    bytes_per_second: float
    sessions: int
    subscriptions: int
    groups: int
    channels: int
    delayed: int
    backlog: int
    questions: int
    parts_bytes: int
    hops: int
    """Of a thread that it begins; HOPS_MAX means no limit."""
    of_role: frozenset[str] = frozenset()

    @property
    def has_rates(self) -> bool:
        """Whether messages are to be counted against a rate."""
        return self.messages_per_second > 0 or self.bytes_per_second > 0

    def refusal(self, limit: str, text: str, code: Code = Code.BUSY) -> Refusal:
        """Return the refusal of what would exceed a limit, which says so if it is that of a role."""
        if limit not in self.of_role:
            return Refusal(code, text)
        return Refusal(code, f"{text} by its role ({limit})", details={"limit": limit})


class Shares:
    """See the module."""

    def __init__(self, access: Access, limits: Limits) -> None:
        self._access = access
        self._everyone = Share(
            messages_per_second=0.0,
            bytes_per_second=0.0,
            sessions=limits.sessions_max,
            subscriptions=limits.subscriptions_per_bot_max,
            groups=limits.subscriptions_per_bot_max,
            channels=limits.channels_per_bot_max,
            delayed=limits.scheduled_per_bot_max,
            backlog=limits.backlog_per_sender_max,
            questions=limits.queries_per_bot_max,
            parts_bytes=limits.parts_per_bot_bytes_max,
            hops=limits.thread_hops_max or HOPS_MAX,
        )
        self._remembered: dict[RoleLimits, Share] = {}

    def __repr__(self) -> str:
        return f"<Shares remembered={len(self._remembered)}>"

    def of(self, principal: Principal | None) -> Share:
        """Return what a bot may have."""
        limits = None if principal is None else self._access.limits(principal)
        if limits is None:
            return self._everyone
        share = self._remembered.get(limits)
        if share is None:
            share = self._lowered(limits)
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[limits] = share
        return share

    def _lowered(self, limits: RoleLimits) -> Share:
        lower: dict[str, Any] = {}
        for name in RoleLimits.__struct_fields__:
            wanted, most = getattr(limits, name), getattr(self._everyone, name)
            if wanted is not None and (wanted < most or name.endswith("_per_second")):
                lower[name] = wanted
        return msgspec.structs.replace(self._everyone, **lower, of_role=frozenset(lower))
