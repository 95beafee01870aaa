"""The page *Settings*: the worker's versions and sizes, its configuration, and who may come in here."""

from __future__ import annotations

import anyio
from starlette.routing import Route

from ..errors import NotFound
from .site import Done, Form, Shown, Visit, action, page
from .tickets import Login, Token

__all__ = ["ROUTES"]


async def _settings(visit: Visit) -> Shown:
    tickets = visit.site.tickets
    values = {
        "status": await visit.bot.status(),
        "bot": visit.bot,
        "origins": visit.site.origins,
        "folder": tickets.folder,
        "logins": await anyio.to_thread.run_sync(tickets.listed, Login),
        "tokens": await anyio.to_thread.run_sync(tickets.listed, Token),
        "watchers": visit.site.watchers,
    }
    return Shown("settings.html", values)


async def _reload(visit: Visit, form: Form) -> Done:
    found = await visit.bot.rights.reload()
    text = f"taken over: {', '.join(found.changed) or 'nothing has changed'}"
    if found.restart:
        text += f"; after a restart: {', '.join(found.restart)}"
    return Done(text, "/settings")


async def _end(visit: Visit, form: Form) -> Done:
    if not visit.site.tickets.end(form["ticket"]):
        raise NotFound("log-in or token", form["ticket"])
    return Done("it has ended", "/settings")


ROUTES: list[Route] = [
    page("/settings", _settings),
    action("/settings/reload", _reload),
    action("/settings/end", _end),
]
