"""Opening and ending sessions: hellos, the registration of new bots, and the welcome.

Owns the hellos that wait: for the registration of a new bot, or for the log to say whose messages a returning
client holds. With keys, a session is that of its key's bot, and no hello registers one.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import msgspec

from ..errors.words import amount
from ..mailbox.sessions import Session, Sessions, client_of
from ..model.keys import Principal
from ..model.records import CONSOLE_ID, CONSOLE_NAME, WORKER_ID, BotRecord
from ..model.repository import AddBot, MailboxState, Surveyed
from ..settings import Settings
from ..wire.frames import PROTOCOL_VERSION, Code, Goodbye, Hello, Refusal, RequestFrame
from .batches import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Locate, Turn
from .founding import Founding
from .large import LargeFrames
from .matching import Matching
from .pausing import Pausing
from .returning import Returning
from .shares import Shares
from .waking import Waking
from .welcoming import Welcoming
from .wills import Wills

__all__ = ["Opening"]


class Opening:
    """See the module. `receive` handles a frame that had to wait."""

    def __init__(
        self,
        directory: Directory,
        sessions: Sessions,
        *,
        batches: Batches,
        dispatch: Dispatch,
        founding: Founding,
        large: LargeFrames,
        matching: Matching,
        pausing: Pausing,
        returning: Returning,
        shares: Shares,
        waking: Waking,
        welcoming: Welcoming,
        wills: Wills,
        turn: Turn,
        settings: Settings,
        new_id: Callable[[], str],
        receive: Callable[[bytes, RequestFrame, Principal | None], None],
    ) -> None:
        self._directory = directory
        self._sessions = sessions
        self._batches = batches
        self._dispatch = dispatch
        self._founding = founding
        self._large = large
        self._matching = matching
        self._pausing = pausing
        self._returning = returning
        self._shares = shares
        self._waking = waking
        self._welcoming = welcoming
        self._wills = wills
        self._turn = turn
        self._settings = settings
        self._new_id = new_id
        self._receive = receive
        self._registering: dict[str, list[tuple[bytes, Hello]]] = {}
        self._claimed: set[str] = set()
        self._swept_at = 0.0

    def __repr__(self) -> str:
        return f"<Opening {self._sessions} registering={len(self._registering)}>"

    def hello(self, address: bytes, hello: Hello, principal: Principal | None) -> None:
        """Open a session, or let the hello wait. Raise Refusal if it is invalid."""
        if hello.protocol != PROTOCOL_VERSION:
            raise Refusal(
                Code.UNSUPPORTED_PROTOCOL,
                f"this worker speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}",
            )
        if hello.read_only:
            self._console(address, hello, principal)
            return
        hello = _named(hello, principal)
        if hello.bot_id in (WORKER_ID, CONSOLE_ID):
            raise Refusal(Code.BAD_REQUEST, "the UUIDs 0 and 1 are reserved for the worker")
        bot = self._directory.names.get(hello.name)
        before = self._sessions.get(address)
        returns = bot is not None and self._sessions.of_client(bot.id, client_of(hello.token)) is not None
        if before is None and not returns and len(self._sessions) >= self._settings.limits.sessions_max:
            raise Refusal(Code.BUSY, f"the worker has {amount(len(self._sessions), 'session')}, its maximum")
        if bot is not None and not returns:
            self._check_sessions(bot, before, principal)
        waiting = self._registering.get(hello.name)
        if waiting is not None:
            if len(waiting) >= self._settings.limits.held_requests_max:
                raise Refusal(Code.BUSY, f"bot {hello.name!r} is still being registered; say hello again later")
            if before is not None:
                self.end(before, vanished=False)
            waiting.append((address, hello))
            return
        if bot is not None and hello.bot_id not in (None, bot.id):
            raise Refusal(Code.BOT_CONFLICT, f"bot {hello.name!r} has a different id than {hello.bot_id}")
        if bot is None:
            self._founding.check(hello.name, hello.bot_id, self._claimed)
            self._founding.check_connection(address)
        if before is not None:
            self.end(before, vanished=False)
        session = self._new_session(address, hello)
        session.principal = principal
        if bot is not None:
            self._open(session, bot, hello)
        else:
            self._register(session, hello)

    def _console(self, address: bytes, hello: Hello, principal: Principal | None) -> None:
        """Open a session that only asks. Raise Refusal if it is invalid, or if there are too many."""
        if principal is not None:
            hello = _named(hello, principal)
            if principal.bot_name in self._directory.leaving:
                raise Refusal(Code.BUSY, f"bot {principal.bot_name!r} is being removed, with its keys")
        elif hello.bot is not None or hello.bot_id is not None:
            raise Refusal(Code.BAD_REQUEST, "a read-only session belongs to no bot: leave out bot and bot_id")
        before = self._sessions.get(address)
        if before is None and len(self._sessions) >= self._settings.limits.sessions_max:
            raise Refusal(Code.BUSY, f"the worker has {amount(len(self._sessions), 'session')}, its maximum")
        if principal is not None:
            self._check_sessions(self._directory.bots[principal.bot_id], before, principal)
        if before is not None:
            self.end(before, vanished=False)
        session = self._new_session(address, msgspec.structs.replace(hello, max_in_flight=0))
        session.principal, session.reads_only = principal, True
        session.bot_id = CONSOLE_ID if principal is None else principal.bot_id
        session.bot_name = CONSOLE_NAME if principal is None else principal.bot_name
        self._sessions.add(session)
        last_seq = self._dispatch.last_seq
        self._welcoming.welcome(session, hello, earlier=None, not_held=(), last_seq=last_seq)

    def _check_sessions(self, bot: BotRecord, before: Session | None, principal: Principal | None) -> None:
        """Raise Refusal if a bot has as many sessions as its role allows, besides the one that a hello ends."""
        share = self._shares.of(principal)
        others = sum(session is not before for session in self._sessions.of_bot(bot.id, reading=True))
        if others >= share.sessions:
            raise share.refusal("sessions", f"bot {bot.name!r} has {amount(others, 'session')}, the maximum")

    def _new_session(self, address: bytes, hello: Hello) -> Session:
        limits = self._settings.limits
        credit = limits.in_flight_default if hello.max_in_flight is None else hello.max_in_flight
        session = Session(
            address,
            self._new_id(),
            self._turn.moment.now,
            credit=min(credit, limits.in_flight_max),
            in_flight_bytes_max=limits.in_flight_bytes_max,
        )
        session.program = hello.client
        session.wakes = hello.wakes
        session.in_parts = hello.parts
        return session

    def _register(self, session: Session, hello: Hello) -> None:
        wall = self._turn.moment.wall
        bot = BotRecord(id=hello.bot_id or self._new_id(), name=hello.name, created_at=wall, last_seen_at=wall)
        session.bot_id, session.opening = bot.id, True
        self._sessions.add(session)
        self._registering[bot.name] = []
        self._claimed.add(bot.id)
        self._founding.register(session.address)
        self._batches.add(_RegisterJob(self, session, hello, bot))

    def registered(self, session: Session, hello: Hello, bot: BotRecord, start_seq: int) -> None:
        """Open the session of a newly registered bot, and those that waited for it."""
        self._directory.add_bot(bot, MailboxState(bot.id, start_seq), last_seq=start_seq)
        others = self._end_registering(bot)
        if self._sessions.get(session.address) is session:
            session.opening = False
            self._sessions.remove(session)
            self._open(session, bot, hello)
            self._carry_out_held(session)
        for address, other in others:
            self._receive(address, other, None)

    def not_registered(self, session: Session, hello: Hello, bot: BotRecord, error: Refusal) -> None:
        """Refuse the sessions of a new bot that could not be registered."""
        if self._sessions.get(session.address) is session:
            self._sessions.remove(session)
            self._turn.refuse(session.address, error.code, error.message, hello.request)
        for address, other in self._end_registering(bot):
            self._turn.refuse(address, error.code, error.message, other.request)

    def _end_registering(self, bot: BotRecord) -> list[tuple[bytes, Hello]]:
        """Return the hellos that waited for a bot's registration."""
        self._claimed.remove(bot.id)
        return self._registering.pop(bot.name)

    def _carry_out_held(self, session: Session) -> None:
        """Carry out the requests that arrived while a session was being opened."""
        held, session.held = session.held, []
        for request in held:
            self._receive(session.address, request, session.principal)

    def _open(self, session: Session, bot: BotRecord, hello: Hello) -> None:
        session.bot_id, session.bot_name = bot.id, bot.name
        self._sessions.add(session)
        unknown = self._returning.unknown(session, hello)
        if unknown:
            session.opening = True
            self._returning.postpone(session, client_of(hello.token))
            self._turn.add(Locate(session.address, session.id, hello, unknown))
        else:
            self._welcome(session, hello, ())

    def located(self, session: Session, hello: Hello, located: Sequence[Surveyed]) -> None:
        """Begin a session whose client's messages were looked up."""
        session.opening = False
        self._welcome(session, hello, located)
        self._carry_out_held(session)

    def _welcome(self, session: Session, hello: Hello, located: Sequence[Surveyed]) -> None:
        """Begin a session, which replaces its client's earlier one."""
        client = client_of(hello.token)
        earlier = self._sessions.of_client(session.bot_id, client)
        session.client = client
        self._wills.came(session.bot_id)
        self._dispatch.see(session.bot_id)
        not_held = self._returning.keep(session, hello, earlier, located)
        last_seq = self._dispatch.last_seq
        self._welcoming.welcome(session, hello, earlier=earlier, not_held=not_held, last_seq=last_seq)
        self._dispatch.attach(session)
        if session.principal is not None:
            self._pausing.look_at(session.bot_id)
            self._matching.look_at(session.bot_id)
        self._returning.take_over(session, hello, earlier)
        if earlier is not None:
            self.end(earlier, vanished=False)

    def session_at(self, address: bytes, principal: Principal | None) -> Session | None:
        """Return the session at an address. One of another key ends: its connection must be gone."""
        session = self._sessions.get(address)
        if session is None or session.principal is principal:
            return session
        if principal is None or session.principal is None or session.principal.public_key != principal.public_key:
            by = None if principal is None else principal.bot_name
            self._turn.note("session_taken", bot=session.bot_name, by=by)
            self.end(session, vanished=True)
            return None
        return session

    def end_silent(self, now: float) -> None:
        """End the sessions that have been silent for too long, if it is time to look; send wills that are due."""
        timeout = self._settings.delivery.session_timeout_seconds
        if now - self._swept_at >= timeout / 10:
            self._swept_at = now
            for session in self._sessions.silent(now - timeout):
                self.end(session, vanished=True)
        self._wills.tick(now)

    def goodbye(self, session: Session, request: Goodbye) -> None:
        """End a session as its client asks."""
        self._end(session, vanished=False)
        self._wills.goodbye(session, request)

    def end(self, session: Session, *, vanished: bool, unsent: Container[int] = ()) -> None:
        """End a session. What it had in flight has failed if it `vanished`, except what is `unsent`."""
        self._end(session, vanished=vanished, unsent=unsent)
        self._wills.left(session.bot_id)

    def _end(self, session: Session, *, vanished: bool, unsent: Container[int] = ()) -> None:
        self._sessions.remove(session)
        self._waking.leave(session)
        self._large.forget(session.address)
        if session.opening or session.reads_only:
            return
        self._dispatch.see(session.bot_id)
        self._dispatch.detach(session, vanished=vanished, unsent=unsent)
        if session.principal is not None:
            self._pausing.look_at(session.bot_id)


def _named(hello: Hello, principal: Principal | None) -> Hello:
    """Return a hello with the name of its bot: with keys, that of the key's. Raise Refusal if it is another's."""
    if principal is None:
        if hello.bot is None:
            raise Refusal(Code.BAD_REQUEST, "hello must name your bot: this worker has no keys to know it by")
        return hello
    if hello.bot is None:
        return msgspec.structs.replace(hello, bot=principal.bot_name)
    if hello.bot != principal.bot_name:
        raise Refusal(
            Code.FORBIDDEN,
            f"your key is that of bot {principal.bot_name!r}, not of {hello.bot!r}: say hello as the former, or"
            " leave the name out",
            details={"action": "hello", "object": hello.bot, "rule": "a key is one bot's"},
        )
    return hello


class _RegisterJob(Job[int]):
    """The registration of a new bot; the answer is the seq after which it receives messages."""

    def __init__(self, opening: Opening, session: Session, hello: Hello, bot: BotRecord) -> None:
        super().__init__(changes=[AddBot(bot)])
        self._opening = opening
        self._session = session
        self._hello = hello
        self._bot = bot

    def done(self, answers: Sequence[int], at: str) -> None:
        """Open its session, and those that waited for it."""
        self._opening.registered(self._session, self._hello, self._bot, answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Refuse all these sessions."""
        self._opening.not_registered(self._session, self._hello, self._bot, Refusal(code, message))
