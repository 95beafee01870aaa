"""Who is connected: one session a connection, with its credit and what it was last heard.

Owns the sessions, by address and by bot. An address is where frames go, never who somebody is.

Pure: time is an argument, in seconds of a clock that never goes back.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..wire.frames import RequestFrame

__all__ = ["Session", "Sessions", "client_of"]


def client_of(token: str | None) -> str | None:
    """Return which client a token is of: a digest, since the token is a secret, and this is kept on disk."""
    return None if token is None else hashlib.blake2b(token.encode(), digest_size=12).hexdigest()


class Session:
    """One connection's hello; it lends its bot's mailboxes a credit. It knows them by their ids."""

    __slots__ = (
        "address",
        "bot_id",
        "bot_name",
        "client",
        "credit",
        "doubted",
        "expecting",
        "express",
        "held",
        "id",
        "in_flight",
        "in_flight_bytes",
        "in_flight_bytes_max",
        "last_heard",
        "mailbox_ids",
        "opening",
        "served",
    )

    def __init__(
        self, address: bytes, session_id: str, now: float, *, credit: int, in_flight_bytes_max: int
    ) -> None:
        self.address = address
        self.id = session_id
        self.bot_id = ""
        self.bot_name = ""
        self.credit = credit
        self.mailbox_ids: deque[str] = deque()
        """What it receives from: its bot's mailbox, and those of the bot's groups."""
        self.in_flight: dict[int, str] = {}
        """The seqs that were delivered here and are not settled, each with the id of its mailbox."""
        self.expecting: dict[str, None] = {}
        """Ids of messages whose first reply goes to this session at once."""
        self.express: set[int] = set()
        """Those in flight that are such replies: they lie outside the credit."""
        self.in_flight_bytes = 0
        self.in_flight_bytes_max = in_flight_bytes_max
        self.last_heard = now
        self.served = 0
        """When it was last handed a message: of sessions with as much credit, who waits longest is next."""
        self.opening = False
        """True while the registration of a new bot, or a look at what a client holds, is on its way to the disk."""
        self.held: list[RequestFrame] = []
        """Requests that came in the meantime, to be carried out in order."""
        self.doubted = False
        """Whether it let an `ack_wait` run out and was not heard since: it may be cut off."""
        self.client: str | None = None
        """Which client it is of, by `client_of`, where that one has a token to prove it in later sessions."""

    def __repr__(self) -> str:
        state = "opening" if self.opening else "open"
        return f"<Session {self.bot_name!r} {state} in_flight={len(self.in_flight)}/{self.credit}>"

    @property
    def free(self) -> int:
        """How many more messages may be delivered now: none when the bytes in flight are spent."""
        if self.in_flight_bytes >= self.in_flight_bytes_max:
            return 0
        return self.credit - len(self.in_flight) + len(self.express)

    def expect(self, message_ids: Iterable[str], most: int) -> None:
        """Note messages whose first replies go to this session at once; beyond `most` the oldest are forgotten."""
        self.expecting.update(dict.fromkeys(message_ids))
        while len(self.expecting) > most:
            del self.expecting[next(iter(self.expecting))]


class Sessions:
    """All sessions."""

    def __init__(self) -> None:
        self._by_address: dict[bytes, Session] = {}
        self._by_bot: dict[str, list[Session]] = {}

    def __len__(self) -> int:
        return len(self._by_address)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_address.values()))

    def __repr__(self) -> str:
        return f"<Sessions {len(self)} of {len(self._by_bot)} bots>"

    def get(self, address: bytes) -> Session | None:
        """Return the session at an address, or None."""
        return self._by_address.get(address)

    def of_bot(self, bot_id: str) -> list[Session]:
        """Return a bot's sessions."""
        return self._by_bot.get(bot_id, [])

    def of_client(self, bot_id: str, client: str | None) -> Session | None:
        """Return the session of a client; None where there is none."""
        if client is None:
            return None
        return next((session for session in self.of_bot(bot_id) if session.client == client), None)

    def add(self, session: Session) -> None:
        """Add a session whose address has none."""
        assert session.address not in self._by_address
        self._by_address[session.address] = session
        self._by_bot.setdefault(session.bot_id, []).append(session)

    def remove(self, session: Session) -> None:
        """Forget a session."""
        del self._by_address[session.address]
        siblings = self._by_bot[session.bot_id]
        siblings.remove(session)
        if not siblings:
            del self._by_bot[session.bot_id]

    def silent(self, since: float) -> list[Session]:
        """Return the sessions that were not heard after `since`."""
        return [session for session in self._by_address.values() if session.last_heard < since]
