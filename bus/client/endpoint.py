"""Where a bot connects, and which key it has.

Owns the choice between what a program passes, what a file of credentials says and the defaults; opening sockets
accordingly, at the worker that `route` chooses; and what it means that a connection did not come about. A bot with
credentials never speaks to a worker without keys, because it could not tell who that is.

A file is read again before each connection: somebody may have replaced its key meanwhile. A key may end as soon as
the worker knows the next one, which is therefore kept, in `<file>.next` or here, before the worker hears of it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import msgspec
import zmq

from ..curve import CurveKeys, curve_fault
from ..errors import (
    AddressError,
    CredentialsError,
    HandshakeError,
    KeyRefused,
    KeysRequired,
    KeysUnsupported,
    WorkerUnavailable,
    WrongWorker,
)
from ..transport import Break, Port, check_address, connect_command, connect_tap
from ..wire.addresses import address_fault, reached_by
from ..wire.keys import read_public, read_secret
from .credentials import Credentials, drop_next, prepare_next, read_credentials, take_next
from .greeting import mechanism_at
from .route import Route

__all__ = ["DEFAULT_TAP_URL", "DEFAULT_URL", "URL_VARIABLE", "VARIABLE", "Endpoint"]

DEFAULT_URL = "tcp://127.0.0.1:7710"
"""The default address of a worker."""

DEFAULT_TAP_URL = "tcp://127.0.0.1:7711"
"""The default address of its tap."""

VARIABLE = "POSTHOUSE_CREDENTIALS"
"""The environment variable with the name of a file of credentials."""

URL_VARIABLE = "POSTHOUSE_URL"
"""The one with the addresses of workers, for programs that name neither addresses nor credentials."""

_UNFINISHED_MAX = 3
"""Handshakes in a row that end without a reason, before the reason is looked for: a worker that stops ends one."""

_logger = logging.getLogger("posthouse.client")


class Endpoint:
    """A worker's addresses, and the credentials for it. `context` is by default the process's."""

    def __init__(
        self,
        url: str | Sequence[str] | None,
        tap_url: str | Sequence[str] | None,
        *,
        credentials: Credentials | str | os.PathLike[str] | None,
        context: zmq.Context[zmq.Socket[bytes]] | None,
    ) -> None:
        """Read the credentials, or those that the environment names. Raise CredentialsError or AddressError."""
        urls, tap_urls = _listed(url), _listed(tap_url)
        if not urls and credentials is None:
            urls = os.environ.get(URL_VARIABLE, "").split()
        is_inproc = any(_is_inproc(each) for each in urls)
        if credentials is None and not is_inproc:
            credentials = os.environ.get(VARIABLE) or None
        elif credentials is not None and is_inproc:
            raise AddressError(urls[0], "inproc has no handshakes, and so no keys")
        for each in (*urls, *tap_urls):
            check_address(each)
        self.path = None if credentials is None or isinstance(credentials, Credentials) else os.fspath(credentials)
        """The file of the credentials, if they came from one."""
        self.credentials: Credentials | None
        """What is used for the next connection."""
        if isinstance(credentials, Credentials):
            self.credentials = credentials
        else:
            self.credentials = None if credentials is None else read_credentials(credentials)
        self._presented = self.credentials
        """What the last connection was opened with, or the first one will be."""
        self._next: Credentials | None = None
        """What is to replace credentials that came from no file."""
        mine = self.credentials
        if mine is not None and (fault := curve_fault()) is not None:
            raise CredentialsError(self.path or f"of {mine.bot}", fault)
        self.route = Route(urls or ([DEFAULT_URL] if mine is None else [mine.url, *mine.other_urls]))
        own_taps = [] if mine is None or mine.tap is None else [mine.tap, *mine.other_taps]
        self._tap_urls = tap_urls or own_taps
        self._tap_told: list[str] = []
        self._context = context
        self._unfinished = 0

    def __repr__(self) -> str:
        return f"<Endpoint {self.where} {'without a key' if self.credentials is None else self.credentials!r}>"

    @property
    def url(self) -> str:
        """The address of the worker that the bot is, or is being, connected to."""
        return self.route.url

    @property
    def tap_url(self) -> str:
        """The address of its tap, as far as it is known."""
        return self._taps[0]

    @property
    def _taps(self) -> list[str]:
        return list(dict.fromkeys([*self._tap_told, *self._tap_urls])) or [DEFAULT_TAP_URL]

    @property
    def where(self) -> str:
        """The given addresses, as people are told."""
        return " or ".join(self.route.urls)

    def name_of(self, name: str | None) -> str:
        """Return the name of the bot. Raise CredentialsError if a program gives another one."""
        if self.credentials is None:
            if name is None:
                raise TypeError("a bot needs a name, or credentials")
            return name
        if name not in (None, self.credentials.bot):
            reason = f"they are of the bot {self.credentials.bot!r}, and not of {name!r}"
            raise CredentialsError(self.path or "that were given", reason)
        return self.credentials.bot

    @property
    def sockets(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The given ZeroMQ context, or that of this process, which may have been forked since."""
        return zmq.Context.instance() if self._context is None else self._context

    @property
    def _keys(self) -> CurveKeys | None:
        mine = self.credentials
        return None if mine is None else CurveKeys(read_secret(mine.secret), read_public(mine.worker))

    # ── Connecting ───────────────────────────────────────────────────────────────────────────────────────

    def open_command(self) -> Port:
        """Connect to the worker, which may not be running yet. Raise AddressError for an invalid address."""
        self._renew()
        self._presented = self.credentials
        return connect_command(self.sockets, self.url, self._keys)

    def open_tap(self) -> Port:
        """Connect to the worker's tap, likewise; with those of several workers, of which one sends."""
        return connect_tap(self.sockets, self._taps, self._keys)

    def sent_on(self, message: str, details: Mapping[str, Any] | None) -> WorkerUnavailable:
        """Note where another worker serves, as this one says; return what a caller is told if that is in vain."""
        url, tap = ((details or {}).get(name) for name in ("url", "tap"))
        failure = WorkerUnavailable(f"the worker at {self.url} does not serve: {message}")
        self._tap_told = [tap] if self._may_connect(tap) else self._tap_told
        self.route.hear(url if self._may_connect(url) else None)
        return failure

    def _may_connect(self, url: Any) -> TypeGuard[str]:
        return isinstance(url, str) and address_fault(url) is None and _is_inproc(url) == _is_inproc(self.url)

    def _renew(self) -> None:
        """Read the file again."""
        before = self.credentials
        if self.path is None or before is None:
            return
        try:
            found = read_credentials(self.path)
            if found.bot != before.bot:
                raise CredentialsError(self.path, f"they are now of the bot {found.bot!r}")
        except CredentialsError as error:
            _logger.warning("the credentials in use are kept: %s", error)
            return
        self.credentials = msgspec.structs.replace(before, secret=found.secret, worker=found.worker)

    def recovered(self) -> bool:
        """Return True if there is another key than the one that has ended, also that of an interrupted rotation."""
        self._renew()
        if self.credentials == self._presented:
            try:
                self.take_next()
            except CredentialsError as error:
                _logger.warning("%s", error)
        if self.credentials == self._presented:
            return False
        _logger.info("the key has ended; going on with the one that has replaced it")
        return True

    # ── Rotation ─────────────────────────────────────────────────────────────────────────────────────────

    def prepare_next(self, after: Credentials) -> Credentials:
        """Keep what is to replace the credentials, and return it; see `prepare_next` of a file."""
        if self.path is not None:
            return prepare_next(self.path, after)
        self._next = self._next or after
        return self._next

    def take_next(self) -> None:
        """Replace the credentials by those that were prepared, if any. Raise CredentialsError if that fails."""
        if self.path is not None:
            take_next(self.path)
            self._renew()
        elif self._next is not None:
            self.credentials, self._next = self._next, None

    def drop_next(self) -> None:
        """Forget what was prepared."""
        self._next = None
        if self.path is not None:
            drop_next(self.path)

    def welcomed(self, tap: str | None) -> None:
        """Note that a session was opened, at a worker that names its tap: for who was not told of one."""
        self._unfinished = 0
        tap = None if tap is None else reached_by(tap, self.url)
        if not self._tap_urls and self._may_connect(tap):
            self._tap_told = [tap]

    async def judge(self, how: Break) -> HandshakeError | None:
        """Return why a worker and this bot did not accept each other; None if the next attempt may succeed."""
        self._unfinished = self._unfinished + 1 if how is Break.UNFINISHED else 0
        mine = self.credentials
        if how is Break.REFUSED:
            if mine is None:
                return HandshakeError(self.url, f"the worker at {self.url} takes no connections from this machine")
            return None if self.recovered() else KeyRefused(self.url, mine.bot)
        if how is Break.MISMATCHED:
            return KeysRequired(self.url) if mine is None else KeysUnsupported(self.url)
        if self._unfinished < _UNFINISHED_MAX:
            return None
        match await mechanism_at(self.url):
            case "CURVE":
                return KeysRequired(self.url) if mine is None else WrongWorker(self.url)
            case "NULL" if mine is not None:
                return KeysUnsupported(self.url)
        return None


def _listed(url: str | Sequence[str] | None) -> list[str]:
    return [url] if isinstance(url, str) and url else list(url or ())


def _is_inproc(url: str) -> bool:
    return url.startswith("inproc:")
