"""The page *Settings*: the worker's versions and sizes, its configuration, and who has access here."""

from __future__ import annotations

import anyio
from starlette.routing import Route

from ..errors import NotFound
from .forms import Form
from .site import Done, Look, Shown, Visit, action, page
from .tickets import Login, Token

__all__ = ["ROUTES"]


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
    action("/settings/reload", _reload),
    action("/settings/end", _end),
]
