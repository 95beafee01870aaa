"""What the core wants to know of the log, beside pages: each is read in a task of its own.

Removals are looked up one after another, because that may take long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import structlog

from ..core.core import Core
from ..core.effects import Count, Effect, Locate, LookUp, Moment, Survey
from ..errors import StoreFailure
from ..model.repository import Looked, MessageLog, Remove, RunSurvey
from ..wire.frames import Code, Refusal

__all__ = ["Lookups"]

_log = structlog.get_logger("posthouse")


class Lookups:
    """See the module."""

    def __init__(
        self,
        core: Core,
        log: MessageLog,
        *,
        moment: Callable[[], Moment],
        carry_out: Callable[[list[Effect]], None],
    ) -> None:
        self._core = core
        self._log = log
        self._moment = moment
        self._carry_out = carry_out
        self._looking = anyio.Lock()

    async def do(self, asked: Count | LookUp | Survey | Locate) -> None:
        """Read what was asked for, and let the core go on. Raise StoreFailure."""
        self._carry_out(await self._read(asked))

    async def _read(self, asked: Count | LookUp | Survey | Locate) -> list[Effect]:
        match asked:
            case Count(request):
                waiting = await self._log.count(request)
                return self._core.counted(asked, waiting, self._moment())
            case LookUp(change):
                looked = await self._look(change)
                return self._core.looked_up(change, looked, self._moment())
            case Survey(of):
                found: Any = await (
                    self._log.survey_runs(of) if isinstance(of, RunSurvey) else self._log.survey(of)
                )
                return self._core.surveyed(found, self._moment())
            case Locate(seqs=seqs):
                located = await self._log.locate(seqs)
                return self._core.located(asked, located, self._moment())

    async def _look(self, change: Remove) -> Looked | Refusal:
        try:
            async with self._looking:
                return await self._log.look(change)
        except StoreFailure:
            raise
        except Exception:
            _log.exception("look_failed", removal=change.id)
            return Refusal(Code.INTERNAL, "the worker could not look this up; see its log")
