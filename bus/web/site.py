"""Pages and their visits: who asks, over which connection, and how an answer is rendered.

Owns the cookie, the token in each form, and the notes that a person sees once. A page is a plain function of what
is asked, and shared by all who look at it; an action is one of a visit. The routes around them check the log-in, so
that none can forget it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import anyio
import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..bot import Bot
from ..errors import BusError
from . import shown
from .feed import Feed
from .forms import Form, new_nonce, number, read_form
from .sampling import Samples
from .sharing import Shared
from .statuses import http_status, in_words
from .tickets import Login, LoginLink, Tickets, Token
from .upstream import Upstream, Upstreams

__all__ = ["NOT_YOURS", "Done", "Look", "Shown", "Visit", "Website", "action", "page"]

NOT_YOURS = "this form is from another log-in: load the page again"

_LOGIN_TIME = timedelta(hours=12)
"""A working day."""

_NONCE = "page"
"""The parameter by which a live page is known to be the same one."""

_SEEN = "seen"
"""The one with the digest of what it shows at first."""

_LIVE_SECONDS = 2.0
_LIVE_MAX = 50
"""Pages that are kept up to date at the same time: each is rendered every two seconds."""
_BEAT_LOOKS = 8

_NEWS_SECONDS = 1.5
"""How old an answer of the worker may be that a live page shows."""

_LOADED_SECONDS = 0.2
"""The same for a page that is loaded: a person may look at what was just done elsewhere."""

_NAMES_MAX = 10_000

T = TypeVar("T", Login, LoginLink, Token)

_log = logging.getLogger("posthouse.web")


class Shown(NamedTuple):
    """What a page shows: its template, and the values in it."""

    template: str
    values: Mapping[str, Any]


class Done(NamedTuple):
    """What an action did, in a sentence that is empty if it only leads on, and the page to go on to."""

    text: str
    to: str


class _FormKeys(NamedTuple):
    """What each form of a page carries: the token of the log-in, and which page it is on."""

    token: str
    page: str


class Website:
    """What all visits share."""

    def __init__(self, tickets: Tickets, upstream: Upstream, upstreams: Upstreams, origins: Sequence[str]) -> None:
        self.tickets = tickets
        self.upstream = upstream
        self.upstreams = upstreams
        self.samples = Samples(upstream)
        self.feed = Feed(upstream)
        self.shared = Shared()
        self._names: dict[str, str] = {}
        self.origins = tuple(origins)
        """Where browsers find the page; links name the first."""
        self.began_at = datetime.now(UTC)
        self.stopping = anyio.Event()
        self.cookie = f"posthouse-{re.sub('[^0-9]', '', self.origins[0])}"
        """Browsers do not tell the ports of one host apart."""
        self._notes: dict[str, tuple[str, str]] = {}
        self.watchers = 0
        """How many pages are kept up to date now."""
        self.streams = 0
        """How many programs listen to channels now."""
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for name in ("amount", "block", "body", "clock", "one_line", "size", "span", "visible"):
            self._templates.filters[name] = getattr(shown, name)
        self._templates.globals["link"] = shown.link
        self._templates.globals["parts"] = self._templates.get_template("parts.html").module

    def __repr__(self) -> str:
        return f"<Website {self.origins[0]}>"

    async def ticket(self, secret: str, kind: type[T]) -> T | None:
        """Return the valid ticket of that kind with a secret: its file is read in a thread."""
        return await anyio.to_thread.run_sync(self.tickets.find, secret, kind)

    async def visit(self, request: Request) -> Visit | None:
        """Return the visit of a person who is logged in."""
        secret = request.cookies.get(self.cookie, "")
        login = await self.ticket(secret, Login)
        return None if login is None else Visit(self, request, login, secret)

    async def look(self, request: Request, show: Callable[[Look], Awaitable[Shown]], seconds: float) -> Shown:
        """Return what a page shows, at most so old unless it is costly, for all who look at it. Raise BusError."""
        given = [each for each in request.query_params.multi_items() if each[0] not in (_NONCE, _SEEN)]

        async def ask() -> Shown:
            return await show(Look(self, await self.upstream.bot(), given))

        return await self.shared.get((request.url.path, *given), ask, seconds=seconds)

    async def names(self, bot: Bot, ids: Iterable[str]) -> dict[str, str]:
        """Return names of bots by their ids, those of these bots among them unless they were removed."""
        missing = sorted({id for id in ids if id not in self._names})
        if missing:
            found = {each.id: each.name for each in await bot.bots(only=missing)}
            self._names = found if len(self._names) + len(found) > _NAMES_MAX else self._names | found
        return self._names

    async def welcome(self, given: LoginLink, origin: str) -> Response:
        """Let a person in who used a link up, at one of the addresses of this page."""
        ticket = Login(person=given.person, read_only=given.read_only, **self.tickets.times(_LOGIN_TIME))
        secret = await anyio.to_thread.run_sync(self.tickets.issue, ticket)
        _log.info("%s logged in", given.person)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            self.cookie,
            secret,
            max_age=int(_LOGIN_TIME.total_seconds()),
            httponly=True,
            samesite="strict",
            secure=origin.startswith("https:"),
        )
        return answer

    def note(self, secret: str, kind: str, text: str) -> None:
        """Keep a note for the next page of a person."""
        self._notes[secret] = (kind, text)

    def take_note(self, secret: str) -> tuple[str, str] | None:
        """Return that note, once."""
        return self._notes.pop(secret, None)

    def render(self, name: str, values: Mapping[str, Any], block: str | None = None) -> str:
        """Render a template, or only a block of it."""
        template = self._templates.get_template(name)
        if block is None:
            return template.render(values)
        context = template.new_context(dict(values))
        return "".join(template.blocks[block](context))

    async def live(self, look: Callable[[], Awaitable[str | None]], last: str) -> AsyncIterator[str]:
        """Yield what a page shows whenever that has changed, as events, until it is None; `last` is its digest."""
        silent = 0
        while not self.stopping.is_set() and (text := await look()) is not None:
            silent += 1
            if (digest := _digest(text)) != last:
                yield f"id: {digest}\n" + "".join(f"data: {line}\n" for line in text.split("\n")) + "\n"
                last, silent = digest, 0
            elif silent == _BEAT_LOOKS:
                yield ":\n\n"  # so that a browser that has gone is noticed
                silent = 0
            with anyio.move_on_after(_LIVE_SECONDS):
                await self.stopping.wait()


class Look:
    """What a page is asked for, by its parameters, and the page's bot, connected: the same whoever asks."""

    def __init__(self, site: Website, bot: Bot, parameters: Sequence[tuple[str, str]]) -> None:
        self.site = site
        self.bot = bot
        self._parameters = parameters

    def __repr__(self) -> str:
        return f"<Look {self._parameters}>"

    def asked(self, name: str) -> str | None:
        """Return a parameter of the address; None if it is missing or empty."""
        return next((value for each, value in self._parameters if each == name), None) or None

    def all(self, name: str) -> list[str]:
        """Return all parameters of a name."""
        return [value for each, value in self._parameters if each == name]

    def asked_number(self, name: str) -> int | None:
        """Return a parameter that is a number; None if it is not one."""
        return number(self.asked(name) or "")

    async def names(self, ids: Iterable[str]) -> dict[str, str]:
        """Return names of bots by their ids; see `Website.names`."""
        return await self.site.names(self.bot, ids)


class Visit:
    """A request of a person who is logged in."""

    def __init__(self, site: Website, request: Request, login: Login, secret: str) -> None:
        self.site = site
        self.request = request
        self.login = login
        self.secret = secret
        self.nonce = request.query_params.get(_NONCE) or new_nonce()
        self.bot: Bot
        """The page's bot, connected, for an action."""

    def __repr__(self) -> str:
        return f"<Visit {self.login.person} {self.request.url.path}>"

    @property
    def address(self) -> str:
        """The page that was asked for, with its parameters."""
        url = self.request.url
        return f"{url.path}?{url.query}" if url.query else url.path

    @property
    def form_token(self) -> str:
        """What each form of this log-in carries, so that no other site can send one."""
        return hashlib.sha256(f"form {self.secret}".encode()).hexdigest()

    def sent(self, form: Form) -> bool:
        """Return True if a form is from a page of this log-in."""
        return hmac.compare_digest(form["form_token"].encode(), self.form_token.encode())

    @property
    def may_act(self) -> bool:
        """Whether the person may change something."""
        return not self.login.read_only

    def render(self, what: Shown, block: str | None = None) -> str:
        """Render a page for this person."""
        return self.site.render(what.template, self._values() | dict(what.values), block)

    def failure(self, error: BusError) -> Response:
        """Return the page that says why there is none."""
        text = self.render(Shown("failure.html", {"text": in_words(error)}))
        return HTMLResponse(text, http_status(error))

    def _values(self) -> dict[str, Any]:
        request = self.request
        return {
            "path": request.url.path,
            "address": self.address,
            "live": None,
            "person": self.login.person,
            "may_act": self.may_act,
            "form": _FormKeys(self.form_token, self.nonce),
        }


def page(path: str, show: Callable[[Look], Awaitable[Shown]], *, live: bool = True) -> Route:
    """Return the route of a page. If it is live, who asks for events gets its block `live` when that changes."""

    async def answer(request: Request) -> Response:
        site: Website = request.app.state.site
        visit = await site.visit(request)
        if visit is None:
            return RedirectResponse("/login", 303)
        if live and "text/event-stream" in request.headers.get("accept", ""):
            return _watched(site, request, show)
        note = site.take_note(visit.secret) if request.method == "GET" else None
        try:
            what = await site.look(request, show, _LOADED_SECONDS)
        except BusError as error:
            return visit.failure(error)
        again = None
        if live:
            seen = _digest(visit.render(what, "live"))
            parameters = [*request.query_params.multi_items(), (_NONCE, visit.nonce), (_SEEN, seen)]
            again = f"{path}?{urlencode(parameters)}"
        return HTMLResponse(visit.render(Shown(what.template, {"note": note, "live": again, **what.values})))

    return Route(path, answer, methods=["GET"])


def _watched(site: Website, request: Request, show: Callable[[Look], Awaitable[Shown]]) -> Response:
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    if site.watchers >= _LIVE_MAX:
        return PlainTextResponse(f"{_LIVE_MAX} live pages are open: close one of them\n", 503)

    async def look() -> str | None:
        visit = await site.visit(request)
        if visit is None:
            return None
        try:
            return visit.render(await site.look(request, show, _NEWS_SECONDS), "live")
        except BusError as error:
            return site.render("fault.html", {"text": in_words(error)})

    seen = request.headers.get("last-event-id") or request.query_params.get(_SEEN, "")
    return _Watched(site, site.live(look, seen))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Watched(StreamingResponse):
    """The events of a page, counted while somebody reads them."""

    def __init__(self, site: Website, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until the reader has gone, or the log-in has ended."""
        self._site.watchers += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._site.watchers -= 1


def action(path: str, act: Callable[[Visit, Form], Awaitable[Done]]) -> Route:
    """Return the route of what a person does by a form."""

    async def answer(request: Request) -> Response:
        site: Website = request.app.state.site
        visit = await site.visit(request)
        if visit is None:
            return RedirectResponse("/login", 303)
        form = await read_form(request)
        if not visit.sent(form):
            return PlainTextResponse(f"{NOT_YOURS}\n", 403)
        if not visit.may_act:
            return PlainTextResponse("your log-in is read-only: it may look, and change nothing\n", 403)
        try:
            visit.bot = await site.upstream.bot()
            try:
                outcome = await act(visit, form)
            finally:
                site.shared.forget()
        except BusError as error:
            _log.info("%s: %s: refused: %s", visit.login.person, request.url.path, shown.visible(error))
            site.note(visit.secret, "fault", in_words(error))
            return RedirectResponse(_back(request), 303)
        if outcome.text:
            _log.info("%s: %s: %s", visit.login.person, request.url.path, shown.visible(outcome.text))
            site.note(visit.secret, "done", outcome.text)
        return RedirectResponse(outcome.to, 303)

    return Route(path, answer, methods=["POST"])


def _back(request: Request) -> str:
    """Return the page of this site that a form was sent from."""
    site: Website = request.app.state.site
    referrer = urlsplit(request.headers.get("referer", ""))
    if f"{referrer.scheme}://{referrer.netloc}" not in site.origins or referrer.path.startswith("//"):
        return "/"
    return f"{referrer.path or '/'}?{referrer.query}"
