"""Who is connected: one session per connection, with its credit and when it was last heard.

Owns the sessions, by address and by bot. An address is where frames go, and identifies nobody.

Pure: time is an argument, in seconds of a monotonic clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..model.keys import Principal
    from ..wire.frames import RequestFrame

__all__ = ["Asked", "Session", "Sessions", "client_of"]


def client_of(token: str | None) -> str | None:
    """Return the client that a token belongs to, as a digest: the token is a secret, and this is kept on disk."""
    return None if token is None else hashlib.blake2b(token.encode(), digest_size=12).hexdigest()


class Asked(NamedTuple):
    """Who may answer a message: a bot, or the subscribers of a channel; anybody, if neither is known."""

    bot_id: str | None = None
    channel: str | None = None


class Session:
    """One connection's session; it lends credit to its bot's mailboxes, which it knows by id."""

    __slots__ = (
        "address",
        "bot_id",
        "bot_name",
        "client",
        "credit",
        "doubted",
        "expecting",
        "express",
        "follows",
        "held",
        "id",
        "in_flight",
        "in_flight_bytes",
        "in_flight_bytes_max",
        "in_parts",
        "last_heard",
        "mailbox_ids",
        "opening",
        "parked",
        "principal",
        "program",
        "reads_only",
        "retries",
        "served",
        "since",
        "waiting",
        "wakes",
    )

    def __init__(
        self, address: bytes, session_id: str, now: float, *, credit: int, in_flight_bytes_max: int
    ) -> None:
        self.address = address
        self.id = session_id
        self.bot_id = ""
        self.bot_name = ""
        self.credit = credit
        self.mailbox_ids: dict[str, None] = {}
        """The mailboxes it receives from: its bot's, and those of the bot's groups."""
        self.waiting: OrderedDict[str, None] = OrderedDict()
        """Those of them that have something for it when it has credit, the next one first."""
        self.in_flight: dict[int, str] = {}
        """The unsettled seqs delivered to this session, each with the id of its mailbox."""
        self.expecting: dict[str, Asked] = {}
        """Ids of messages whose first reply goes to this session at once, and who was asked."""
        self.express: set[int] = set()
        """The replies among them that were delivered outside the credit."""
        self.parked: set[int] = set()
        """Those of them that wait without a deadline and outside the credit; their text is not in memory."""
        self.retries = False
        """Whether a message was in flight for it that had failed before."""
        self.in_flight_bytes = 0
        self.in_flight_bytes_max = in_flight_bytes_max
        self.since = self.last_heard = now
        self.program: str | None = None
        """The name and version of its program, as its hello gave it."""
        self.served = 0
        """When it last got a message: among sessions with equal credit, the one that has waited longest is next."""
        self.opening = False
        """True while a new bot is being registered, or the messages that a client holds are being looked up."""
        self.held: list[RequestFrame] = []
        """Requests that arrived meanwhile, to be carried out in order."""
        self.doubted = False
        """Whether it let an `ack_wait` run out and has not been heard since: it may be cut off."""
        self.principal: Principal | None = None
        """Who the key of its connection says it is; None without keys."""
        self.client: str | None = None
        """Its client, by `client_of`, if that has a token to prove its identity in later sessions."""

        self.in_parts = False
        """Whether it reads answers in parts that are larger than a frame."""
        self.reads_only = False
        """Whether it only asks, and takes part in nothing."""
        self.wakes = False
        """Whether its client is told of runs to which something happens."""
        self.follows = False
        """Whether it is told when its bot loses a subscription: once, until it asks again."""

    def __repr__(self) -> str:
        state = "opening" if self.opening else "open"
        return f"<Session {self.bot_name!r} {state} in_flight={len(self.in_flight)}/{self.credit}>"

    @property
    def public_key(self) -> str | None:
        """The key of its connection; None without keys."""
        return None if self.principal is None else self.principal.public_key

    @property
    def free(self) -> int:
        """How many more messages may be delivered now; 0 if the bytes in flight are used up."""
        if self.in_flight_bytes >= self.in_flight_bytes_max:
            return 0
        return self.credit - len(self.in_flight) + len(self.express) + len(self.parked)

    def take(self, seqs: Iterable[int], mailbox_id: str, size_bytes: int) -> None:
        """Note what is in flight for it from now on."""
        self.in_flight.update(dict.fromkeys(seqs, mailbox_id))
        self.in_flight_bytes += size_bytes

    def drop(self, seqs: Iterable[int], size_bytes: int) -> None:
        """Note what is in flight for it no more, each named once."""
        for seq in seqs:
            del self.in_flight[seq]
        self.in_flight_bytes -= size_bytes
        if self.express:
            self.express.difference_update(seqs)
        if self.parked:
            self.parked.difference_update(seqs)

    def park(self, seq: int, size_bytes: int) -> None:
        """Note that a message in flight waits outside the credit, without its text."""
        self.express.discard(seq)
        self.parked.add(seq)
        self.in_flight_bytes -= size_bytes

    def expect(self, messages: Mapping[str, Asked], most: int) -> None:
        """Note messages whose first replies go to this session at once; beyond `most`, forget the oldest."""
        self.expecting.update(messages)
        while len(self.expecting) > most:
            del self.expecting[next(iter(self.expecting))]


class Sessions:
    """All sessions."""

    def __init__(self) -> None:
        self._by_address: dict[bytes, Session] = {}
        self._by_bot: dict[str, list[Session]] = {}
        self._reading: dict[str, list[Session]] = {}
        """Those that only ask, which are not in `_by_bot`."""

    def __len__(self) -> int:
        return len(self._by_address)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_address.values()))

    def __repr__(self) -> str:
        return f"<Sessions {len(self)} of {len(self._by_bot)} bots>"

    def get(self, address: bytes) -> Session | None:
        """Return the session at an address, or None."""
        return self._by_address.get(address)

    def of_bot(self, bot_id: str, *, reading: bool = False) -> list[Session]:
        """Return a bot's sessions; with `reading`, also those that only ask."""
        taking_part = self._by_bot.get(bot_id, [])
        return [*taking_part, *self._reading.get(bot_id, ())] if reading else taking_part

    def there(self, bot_id: str) -> list[Session]:
        """Return a bot's sessions that were welcomed. Nobody is told of the end of others."""
        return [session for session in self.of_bot(bot_id) if not session.opening]

    def of_client(self, bot_id: str, client: str | None) -> Session | None:
        """Return the session of a client, or None."""
        if client is None:
            return None
        return next((session for session in self.of_bot(bot_id) if session.client == client), None)

    def add(self, session: Session) -> None:
        """Add a session; its address must not have one."""
        assert session.address not in self._by_address
        self._by_address[session.address] = session
        self._like(session).setdefault(session.bot_id, []).append(session)

    def remove(self, session: Session) -> None:
        """Forget a session."""
        del self._by_address[session.address]
        siblings = self._like(session)[session.bot_id]
        siblings.remove(session)
        if not siblings:
            del self._like(session)[session.bot_id]

    def _like(self, session: Session) -> dict[str, list[Session]]:
        return self._reading if session.reads_only else self._by_bot

    def heard(self, now: float) -> None:
        """Note that none was silent until now."""
        for session in self:
            session.last_heard = now

    def silent(self, since: float) -> list[Session]:
        """Return the sessions last heard before `since`."""
        return [session for session in self._by_address.values() if session.last_heard < since]
