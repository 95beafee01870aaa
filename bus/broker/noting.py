"""What the shell notices, passed to the core, which logs it and may record it: connections, calls, the clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from ..core.core import Core
from ..core.effects import Ask, Effect, Moment, Note
from .admitting import ZapVerdict

__all__ = ["Noting"]

_AHEAD_SECONDS = 60.0
"""How far the log's last timestamp may be ahead of the clock before a warning."""

_log = structlog.get_logger("posthouse")


class Noting:
    """See the module. `carry_out` carries out what follows."""

    def __init__(
        self, core: Core, *, moment: Callable[[], Moment], carry_out: Callable[[list[Effect]], None]
    ) -> None:
        self._core = core
        self._moment = moment
        self._carry_out = carry_out
        self._clock_behind = False
        """Whether a warning was logged that the log's last timestamp is ahead of the clock."""

    def __repr__(self) -> str:
        return f"<Noting for {self._core}>"

    def note(self, event: str, **fields: Any) -> None:
        """Note an event."""
        self._carry_out(self._core.note(Note(event, fields), self._moment()))

    def deed(self, ask: Ask, deed: Note) -> None:
        """Note what a bot did by a workflow call, by its id if it was removed meanwhile."""
        bot = self._core.directory.bots.get(ask.bot_id)
        self.note(deed.event, bot=ask.bot_id if bot is None else bot.name, **deed.fields)

    def refused(self, verdict: ZapVerdict) -> None:
        """Note that a connection was refused."""
        who = {"address": verdict.address, "bot": verdict.bot, "key": verdict.key}
        self.note("connection_refused", reason=verdict.reason, **who)

    def clock(self, wall: str) -> None:
        """Log that the clock is behind the log, or is so no more."""
        ahead = self._core.log_ahead(wall)
        if not self._clock_behind and ahead > _AHEAD_SECONDS:
            _log.warning("clock_behind_log", seconds=round(ahead), clock=wall)
        elif self._clock_behind and ahead <= _AHEAD_SECONDS:
            _log.info("clock_caught_up", clock=wall)
        self._clock_behind = ahead > _AHEAD_SECONDS
