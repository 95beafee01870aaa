"""Coming in and leaving, and the files that need no log-in.

A link is shown by a page first, and used up by a form: what only looks at links, as a mail program does, ends none.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from .site import Website, read_form

__all__ = ["ROUTES"]

_FILES = Path(__file__).parent / "static"


async def _ask(request: Request) -> Response:
    site: Website = request.app.state.site
    return HTMLResponse(site.render("outside.html", {"secret": request.query_params.get("link"), "fault": None}))


async def _log_in(request: Request) -> Response:
    site: Website = request.app.state.site
    form = await read_form(request)
    link = site.tickets.use_up(form["link"])
    if link is not None:
        return await site.welcome(link)
    fault = "This link was used before, or has expired."
    return HTMLResponse(site.render("outside.html", {"secret": None, "fault": fault}), 403)


async def _log_out(request: Request) -> Response:
    site: Website = request.app.state.site
    visit = site.visit(request)
    if visit is not None:
        form = await read_form(request)
        if not hmac.compare_digest(form["form_token"].encode(), visit.form_token.encode()):
            return PlainTextResponse("this form is not of your log-in: load the page again\n", 403)
        site.tickets.end_secret(visit.secret)
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
