"""A bot's connection, as the simulation keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Connection"]


class Connection:
    """One connection as a bot sees it."""

    def __init__(self, address: bytes, bot: str, token: str) -> None:
        self.address = address
        self.bot = bot
        self.token = token
        self.bot_id = ""
        """The id of its bot, as it was welcomed: another one may have had its name before."""
        self.acking: dict[int, dict[tuple[str, int], int]] = {}
        """Acks whose confirmation is waited for, by request."""
        self.welcomed = False
        self.inbox: list[bytes] = []
        self.unsettled: list[int] = []
        self.parked: set[int] = set()
        """Those of them that it parked, unless it was at its limit."""
        self.answers: dict[int, Callable[[Any], None]] = {}
        self.later: list[Callable[[], None]] = []
        """What it says when it is welcome."""
        self.groups: dict[int, str | None] = {}
        """By which group each message was delivered."""

    def held_groups(self, seqs: Iterable[int]) -> dict[str, list[int]]:
        """Return those that groups delivered, by the group's name."""
        found: dict[str, list[int]] = {}
        for seq in seqs:
            if (group := self.groups[seq]) is not None:
                found.setdefault(group, []).append(seq)
        return found
