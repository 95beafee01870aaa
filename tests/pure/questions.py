"""What the core of a simulated world asks of the disk, looked up at one time and answered at another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.core.core import Core
from bus.core.effects import Count, Effect, Locate, LookUp, Moment, Read, Survey
from bus.model.repository import SurveyRequest

from .fake_log import FakeLog

__all__ = ["Question", "given", "looked_up"]

Question = Read | Count | LookUp | Survey | Locate
"""What the core asks of the disk."""


def looked_up(log: FakeLog, question: Question) -> Any:
    """Return the answer to a question, as it is now."""
    match question:
        case Read(request):
            return log.read_page(request)
        case Count(request):
            return log.backlog(request)
        case LookUp(change):
            return log.look(change)
        case Survey(SurveyRequest() as survey):
            return log.survey(survey)
        case Locate():
            return log.locate(question.seqs)


def given(core: Core, question: Question, answer: Any, moment: Moment) -> Sequence[Effect]:
    """Pass an answer to the core, and return its effects."""
    match question:
        case Read(request):
            return core.page_read(request, answer, moment)
        case Count():
            return core.counted(question, answer, moment)
        case LookUp(change):
            return core.looked_up(change, answer, moment)
        case Survey():
            return core.surveyed(answer, moment)
        case Locate():
            return core.located(question, answer, moment)
