"""The page *Now*: how the worker is, who is connected, and what needs a person."""

from __future__ import annotations

from collections import Counter

from starlette.routing import Route

from .alarms import Present, alarms
from .mailboxes import survey
from .site import Look, Shown, page

__all__ = ["ROUTES"]

_SESSIONS = 100
"""Sessions that are listed."""

_APPROVALS = 100
"""Approvals that are counted."""


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
    sessions = await bot.sessions(limit=_SESSIONS)
    values = {
        "status": status,
        "sessions": sessions,
        "more_sessions": max(0, status.sessions - _SESSIONS) if len(sessions) == _SESSIONS else 0,
        "waiting": sum(box.waiting for box in boxes),
        "counts": counts,
        "alarms": alarms(site.feed.heard(), present),
        "fault": site.feed.fault,
        "plots": site.samples.plots(),
        "began_at": site.began_at,
    }
    return Shown("now.html", values)


ROUTES: list[Route] = [page("/", _now)]
