"""The page *Now*: how the worker is, who is connected, and what needs a person."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from starlette.routing import Route

from ..model.records import timestamp
from .alarms import Present, alarms
from .mailboxes import survey
from .site import Look, Shown, page

__all__ = ["ROUTES"]

_SESSIONS = 100
"""Sessions that are listed."""

_APPROVALS = 100
"""Approvals that are counted."""


class _Happened(NamedTuple):
    """Something that happened, and whether that was before the page was started."""

    at: str
    text: str
    is_before: bool


async def _now(look: Look) -> Shown:
    bot, site = look.bot, look.site
    status = await bot.status()
    boxes = await survey(look)
    counts: Counter[str] = Counter()
    for each in (await bot.workflows.count_runs()).counts:
        counts[each.status] += each.runs
    present = Present(
        status=status,
        boxes={box.name: box for box in boxes},
        approvals=await bot.workflows.list_waiting_approvals(limit=_APPROVALS),
        approvals_max=_APPROVALS,
        runs=counts,
    )
    heard, began_at = site.feed.heard(), timestamp(site.began_at)
    happened = [_Happened(at, text, is_before=at < began_at) for text, at in reversed(heard.lately.items())]
    sessions = await bot.sessions(limit=_SESSIONS)
    values = {
        "status": status,
        "sessions": sessions,
        "more_sessions": max(0, status.sessions - _SESSIONS) if len(sessions) == _SESSIONS else 0,
        "waiting": sum(box.waiting for box in boxes),
        "counts": counts,
        "alarms": alarms(heard, present),
        "happened": happened,
        "remembers": site.feed.remembers,
        "fault": site.feed.fault,
        "plots": site.samples.plots(),
        "began_at": site.began_at,
    }
    return Shown("now.html", values)


ROUTES: list[Route] = [page("/", _now)]
