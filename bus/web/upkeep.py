"""The pages *Settings* (versions, sizes, the configuration, and who has access here) and *Removals*."""

from __future__ import annotations

import sys

import anyio
from starlette.routing import Route

from ..cli.removals import newest_removals, removal_in_words
from ..errors import NotFound
from .forms import Form
from .site import Done, Look, Shown, Visit, action, page
from .tickets import Login, Token

__all__ = ["ROUTES"]

_REMOVALS = 100
"""Removals that are shown at once."""


async def _settings(look: Look) -> Shown:
    tickets = look.site.tickets
    values = {
        "status": await look.bot.status(),
        "bot": look.bot,
        "origins": look.site.origins,
        "folder": tickets.folder,
        "logins": await anyio.to_thread.run_sync(tickets.listed, Login),
        "tokens": await anyio.to_thread.run_sync(tickets.listed, Token),
        "watchers": look.site.watchers,
        "streams": look.site.streams,
    }
    return Shown("settings.html", values)


async def _removals(look: Look) -> Shown:
    before = look.asked_number("before")
    found = await newest_removals(look.bot, _REMOVALS + 1, before=before or sys.maxsize)
    rows = [(each, removal_in_words(each)) for each in reversed(found[-_REMOVALS:])]
    earlier = rows[-1][0].number if len(found) > _REMOVALS else None
    return Shown("removals.html", {"removals": rows, "before": before, "earlier": earlier})


async def _reload(visit: Visit, form: Form) -> Done:
    found = await visit.bot.rights.reload()
    text = f"the worker has read its configuration again; changed: {', '.join(found.changed) or 'nothing'}"
    if found.restart:
        text += f"; these need a restart: {', '.join(found.restart)}"
    return Done(text, "/settings")


async def _end(visit: Visit, form: Form) -> Done:
    if not await anyio.to_thread.run_sync(visit.site.tickets.end, form["ticket"]):
        raise NotFound("log-in or token", form["ticket"])
    return Done("access was ended", "/settings")


ROUTES: list[Route] = [
    page("/settings", _settings),
    page("/removals", _removals),
    action("/settings/reload", _reload),
    action("/settings/end", _end),
]
