"""Checks of every request, and headers of every answer: the defence of the page against other sites.

Owns the headers. A request must name this site (`Host`, against names of other sites that point here), and one that
changes something must come from it (`Origin`). A browser may load and run only files of this site.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .api_shapes import Problem, encoded

__all__ = ["API", "Guard"]

API = "/v1/"
"""The prefix of addresses for programs, which send a token and no cookie, and need no Origin."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer, browsers would send `Origin: null` with the forms of this site.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

_SAFE = {"GET", "HEAD"}


class Guard:
    """The middleware around everything. `origins` are the addresses of the page, such as `http://127.0.0.1:7780`."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in self._origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        fault = self._fault(scope)
        app = self._app if fault is None else _refusal(scope["path"], fault)
        await app(scope, receive, guarded)

    def _fault(self, scope: Scope) -> str | None:
        """Return why a request is refused, or None."""
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._hosts:
            return "this page is not served under that name; to allow it: posthouse web --origin URL"
        origin = headers.get("origin")
        if origin is None and (scope["method"] in _SAFE or scope["path"].startswith(API)):
            return None
        if origin is not None and (origin in self._origins or scope["method"] in _SAFE):
            return None
        return "requests from another site are refused"


def _refusal(path: str, fault: str) -> Response:
    if path.startswith(API):
        return Response(encoded(Problem(code="forbidden", message=fault)), 403, None, "application/json")
    return PlainTextResponse(f"{fault}\n", 403)
