"""Logging in and out, and the files that need no log-in.

A link is shown by a page first, and used up by a form: what only looks at links, as a mail program does, ends none.
"""

from __future__ import annotations

from pathlib import Path

import anyio
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from .forms import read_form
from .site import NOT_YOURS, Website

__all__ = ["ROUTES"]

_FILES = Path(__file__).parent / "static"


async def _ask(request: Request) -> Response:
    site: Website = request.app.state.site
    return HTMLResponse(site.render("outside.html", {"secret": request.query_params.get("link"), "fault": None}))


async def _log_in(request: Request) -> Response:
    site: Website = request.app.state.site
    form = await read_form(request)
    link = await anyio.to_thread.run_sync(site.tickets.use_up, form["link"])
    if link is not None:
        return await site.welcome(link, request.headers["origin"])
    fault = "This link was already used, or has expired."
    return HTMLResponse(site.render("outside.html", {"secret": None, "fault": fault}), 403)


async def _log_out(request: Request) -> Response:
    site: Website = request.app.state.site
    visit = await site.visit(request)
    if visit is not None:
        if not visit.sent(await read_form(request)):
            return PlainTextResponse(f"{NOT_YOURS}\n", 403)
        await anyio.to_thread.run_sync(site.tickets.end_secret, visit.secret)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(site.cookie, httponly=True, samesite="strict")
    return answer


async def _icon(request: Request) -> Response:
    return FileResponse(_FILES / "icon.svg")


ROUTES: list[BaseRoute] = [
    Route("/favicon.ico", _icon, methods=["GET"]),
    Route("/login", _ask, methods=["GET"]),
    Route("/login", _log_in, methods=["POST"]),
    Route("/logout", _log_out, methods=["POST"]),
    Mount("/static", StaticFiles(directory=_FILES)),
]
