"""One page and its visits: who asks, over which connection, and how an answer is rendered.

Owns the cookie, the token in each form, and the notes that a person sees once. Pages and actions are plain
functions of a visit; the routes around them check the log-in, so that none can forget it.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..bot import Bot
from ..errors import BusError
from . import shown
from .sampling import Samples
from .statuses import http_status
from .tickets import Login, LoginLink, Tickets
from .upstream import Upstream, Upstreams

__all__ = [
    "BodyTooLarge",
    "Done",
    "Form",
    "Shown",
    "Visit",
    "Website",
    "action",
    "link",
    "page",
    "read_body",
    "read_form",
]

_LOGIN_TIME = timedelta(hours=12)
"""A working day."""

_NONCE = "page"
"""The parameter by which a live page is known to be the same one."""

_SEEN = "seen"
"""The one with the digest of what it shows at first."""

_FORM_BYTES_MAX = 65_536
_BODY_SECONDS = 20.0
_LIVE_SECONDS = 2.0
_LIVE_MAX = 50
"""Pages that are kept up to date at the same time; each asks the worker every two seconds."""
_BEAT_LOOKS = 8

_log = logging.getLogger("posthouse.web")


class Shown(NamedTuple):
    """What a page shows: its template, and the values in it."""

    template: str
    values: Mapping[str, Any]


class Done(NamedTuple):
    """What an action did, in a sentence, and the page to go on to."""

    text: str
    to: str


class BodyTooLarge(Exception):
    """A request's body has more bytes than it may have."""


class Website:
    """What all visits share."""

    def __init__(self, tickets: Tickets, upstream: Upstream, upstreams: Upstreams, origins: Sequence[str]) -> None:
        self.tickets = tickets
        self.upstream = upstream
        self.upstreams = upstreams
        self.samples = Samples(upstream)
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
        self._templates.globals["link"] = link
        self._templates.globals["parts"] = self._templates.get_template("parts.html").module

    def __repr__(self) -> str:
        return f"<Website {self.origins[0]}>"

    def visit(self, request: Request) -> Visit | None:
        """Return the visit of a person who is logged in."""
        secret = request.cookies.get(self.cookie, "")
        login = self.tickets.find(secret, Login)
        return None if login is None else Visit(self, request, login, secret)

    async def welcome(self, given: LoginLink) -> Response:
        """Let a person in who used a link up."""
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
            secure=self.origins[0].startswith("https:"),
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


class Visit:
    """A request of a person who is logged in."""

    def __init__(self, site: Website, request: Request, login: Login, secret: str) -> None:
        self.site = site
        self.request = request
        self.login = login
        self.secret = secret
        self.nonce = request.query_params.get(_NONCE) or secrets.token_urlsafe(12)
        self.bot: Bot
        """The page's bot, connected, for a page or an action."""

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

    @property
    def may_act(self) -> bool:
        """Whether the person may change something."""
        return not self.login.read_only

    def chosen_id(self, what: str) -> str:
        """Return an id for something that a form of this page creates: the same while the page is open.

        So sending it twice creates one.
        """
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.nonce} {what}"))

    def asked(self, name: str) -> str | None:
        """Return a parameter of the address; None if it is missing or empty."""
        return self.request.query_params.get(name) or None

    def asked_number(self, name: str) -> int | None:
        """Return a parameter that is a number; None if it is none."""
        text = self.asked(name) or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None

    async def seeing(self, show: Callable[[Visit], Awaitable[Shown]]) -> Shown:
        """Return what a page shows, with a bot that is connected. Raise BusError."""
        self.bot = await self.site.upstream.bot()
        return await show(self)

    def render(self, what: Shown, block: str | None = None) -> str:
        """Render a page for this person."""
        return self.site.render(what.template, self._values() | dict(what.values), block)

    def failure(self, error: BusError) -> Response:
        """Return the page that says why there is none."""
        text = self.render(Shown("failure.html", {"text": str(error)}))
        return HTMLResponse(text, http_status(error))

    def _values(self) -> dict[str, Any]:
        request = self.request
        return {
            "path": request.url.path,
            "address": self.address,
            "live": None,
            "person": self.login.person,
            "may_act": self.may_act,
            "form_token": self.form_token,
            "now": datetime.now(UTC),
        }


class Form:
    """The fields that a person sent."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        """Return a field; an empty text if it is missing."""
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Return all fields of a name."""
        return self._fields.get(name, [])

    def numbers(self, name: str) -> list[int]:
        """Return those of them that are numbers."""
        return [int(text) for text in self.all(name) if text.isascii() and text.isdigit() and len(text) < 19]


def link(path: str, **parameters: Any) -> str:
    """Return an address of this site, with those of the parameters that are not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return a request's body. Raise BodyTooLarge, or TimeoutError if it comes too slowly."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > bytes_max:
        raise BodyTooLarge
    found = bytearray()
    with anyio.fail_after(_BODY_SECONDS):
        async for part in request.stream():
            found += part
            if len(found) > bytes_max:
                raise BodyTooLarge
    return bytes(found)


async def read_form(request: Request) -> Form:
    """Return the fields of a request. Raise HTTPException if they are too large, or come too slowly."""
    try:
        data = await read_body(request, _FORM_BYTES_MAX)
    except BodyTooLarge:
        raise HTTPException(413, f"a form has at most {_FORM_BYTES_MAX} bytes") from None
    except TimeoutError:
        raise HTTPException(408, "the form came too slowly") from None
    return Form(parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True))


def page(path: str, show: Callable[[Visit], Awaitable[Shown]], *, live: bool = True) -> Route:
    """Return the route of a page. If it is live, who asks for events gets its block `live` when that changes."""

    async def answer(request: Request) -> Response:
        site: Website = request.app.state.site
        visit = site.visit(request)
        if visit is None:
            return RedirectResponse("/login", 303)
        if live and "text/event-stream" in request.headers.get("accept", ""):
            return _watched(site, request, show)
        note = site.take_note(visit.secret)
        try:
            what = await visit.seeing(show)
        except BusError as error:
            return visit.failure(error)
        again = None
        if live:
            seen = _digest(visit.render(what, "live"))
            parameters = [*request.query_params.multi_items(), (_NONCE, visit.nonce), (_SEEN, seen)]
            again = f"{path}?{urlencode(parameters)}"
        return HTMLResponse(visit.render(Shown(what.template, {"note": note, "live": again, **what.values})))

    return Route(path, answer, methods=["GET"])


def _watched(site: Website, request: Request, show: Callable[[Visit], Awaitable[Shown]]) -> Response:
    if site.watchers >= _LIVE_MAX:
        return PlainTextResponse("too many pages are watched\n", 503)

    async def look() -> str | None:
        visit = site.visit(request)
        if visit is None:
            return None
        try:
            return visit.render(await visit.seeing(show), "live")
        except BusError as error:
            return site.render("fault.html", {"text": str(error)})

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
        visit = site.visit(request)
        if visit is None:
            return RedirectResponse("/login", 303)
        form = await read_form(request)
        if not hmac.compare_digest(form["form_token"].encode(), visit.form_token.encode()):
            return PlainTextResponse("this form is not of your log-in: load the page again\n", 403)
        if not visit.may_act:
            return PlainTextResponse("your log-in may only look\n", 403)
        try:
            visit.bot = await site.upstream.bot()
            outcome = await act(visit, form)
        except BusError as error:
            _log.info("%s: %s: refused: %s", visit.login.person, request.url.path, shown.visible(error))
            site.note(visit.secret, "fault", str(error))
            return RedirectResponse(_back(request), 303)
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
