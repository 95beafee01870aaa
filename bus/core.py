"""The broker's decisions: (event, now) in, effects out.

Owns what happens to a frame, to a transaction's answer, to a page that was read and to time that passed. Its
rules (design, chapters 1 and 4):

- Nothing is sent, to anyone, before the transaction that holds it has returned; refusals are the exception.
- What a transaction's answer changes is entered job by job, in the order in which the log took them, so that a
  subscription wants exactly the messages after it.
- A session that cannot be reached ends at once, and what it had in flight goes to the bot's others.

Pure: time, ids and answers come in as arguments; the shell (`broker`) carries the effects out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from store.records import Bot, Channel, parse_timestamp, timestamp
from store.repository import (
    AddBot,
    AddDeadLetters,
    Added,
    AddSubscription,
    Change,
    DeadLetter,
    LogMessage,
    LogState,
    MailboxState,
    NewMessage,
    Page,
    PageRequest,
    RemoveDeadLetters,
    RemoveSubscription,
    SeenBot,
    Subscribed,
)

from .admission import admit
from .batch import Batch, Batches, Done, Failed, Job
from .directory import Directory
from .mailbox import Abandoned, Envelope, Interest, Mailbox
from .protocol import (
    PROTOCOL_VERSION,
    RETRY,
    Ack,
    Closing,
    Code,
    Credit,
    ErrorFrame,
    Extend,
    Gap,
    Goodbye,
    Hello,
    ItemError,
    Nak,
    Ok,
    Ping,
    Pong,
    Publish,
    Published,
    Query,
    Rejected,
    Request,
    RetryDeadLetters,
    StartAt,
    Subscribe,
    Term,
    Unsubscribe,
    Welcome,
    deliver_frame,
    encode,
    envelope,
    tap_topic,
)
from .sessions import Session, Sessions
from .settings import Settings

__all__ = ["Ask", "Core", "Effect", "FindStart", "Moment", "Read", "Send", "Tap"]


class Moment(NamedTuple):
    """A point in time: seconds of a clock that never goes back, and the wall clock as text."""

    now: float
    wall: str


class Send(NamedTuple):
    """Send a frame to a connection."""

    address: bytes
    frame: bytes


class Tap(NamedTuple):
    """Send a live copy to whoever listens."""

    topic: bytes
    frame: bytes


class Read(NamedTuple):
    """Read a page, and give it to `Core.page_read`."""

    request: PageRequest


class Ask(NamedTuple):
    """Answer a question from the store."""

    address: bytes
    bot_id: str
    query: Query


class FindStart(NamedTuple):
    """Find the last seq before a time, and give it to `Core.start_found`."""

    address: bytes
    subscribe: Subscribe
    time: str


Effect = Send | Tap | Read | Ask | FindStart


class Core:
    """See the module. Every method takes the moment, and returns what is to be done."""

    def __init__(self, state: LogState, settings: Settings, *, worker: str, new_id: Callable[[], str]) -> None:
        self.directory = Directory(state, settings)
        self.sessions = Sessions()
        self.last_seq = state.last_seq
        self.epoch = state.epoch
        self.tapped = False
        """Whether anybody listens at the tap; nothing is copied there for nobody."""
        self.counters = {
            "published": 0,
            "duplicates": 0,
            "refused": 0,
            "delivered": 0,
            "settled": 0,
            "dead": 0,
        }
        self._settings = settings
        self._worker = worker
        self._new_id = new_id
        self._batches = Batches(settings.limits)
        self._last_timestamp = state.last_timestamp
        self._changing: dict[tuple[str, str], deque[Callable[[], None]]] = {}
        self._registering: dict[str, list[tuple[bytes, Hello]]] = {}
        self._touched: dict[Mailbox, None] = {}
        self._dirty: dict[Mailbox, None] = {}
        self._seen: dict[str, str] = {}
        self._timed: dict[Mailbox, None] = {}
        self._unwritten: list[Job] = []
        self._flushed_at = 0.0
        self._swept_at = 0.0
        self._effects: list[Effect] = []
        self._moment = Moment(0.0, "")

    def __repr__(self) -> str:
        return f"<Core last_seq={self.last_seq} {self.sessions} {self.directory} {self._batches}>"

    # ── Events ───────────────────────────────────────────────────────────────────────────────────────────

    def receive(self, address: bytes, request: Request, moment: Moment) -> list[Effect]:
        """Take a client's frame."""
        self._moment = moment
        try:
            self._receive(address, request)
        except Rejected as error:
            self._refuse(address, error.code, error.message, getattr(request, "request", None))
        return self._finish()

    def reject(self, address: bytes, error: Rejected, moment: Moment) -> list[Effect]:
        """Take a frame that could not be read; the session stays."""
        self._moment = moment
        session = self.sessions.get(address)
        if session is not None:
            session.last_heard = moment.now
        self._refuse(address, error.code, error.message, error.request)
        return self._finish()

    def applied(self, batch: Batch, outcome: Sequence[Any], moment: Moment) -> list[Effect]:
        """Take the log's answer to a batch: everything in it is on disk."""
        self._moment = moment
        self.directory.add_channels(batch.channels.values())
        self._last_timestamp = batch.timestamp
        for job, answers in batch.answers(outcome):
            job.done(answers)
        return self._finish()

    def failed(self, batch: Batch, code: Code, message: str, moment: Moment) -> list[Effect]:
        """Take the log's refusal of a batch: nothing of it is on disk."""
        self._moment = moment
        for mailbox in batch.mailboxes:
            mailbox.dirty = True
            self._dirty[mailbox] = None
        for job in batch.jobs:
            job.failed(code, message)
        return self._finish()

    def page_read(self, request: PageRequest, page: Page, moment: Moment) -> list[Effect]:
        """Take what was read for a mailbox."""
        self._moment = moment
        mailbox = self.directory.mailboxes[request.bot_id]
        lost = mailbox.page_read(
            [_envelope(message) for message in page.recalled],
            [_envelope(message) for message in page.messages],
            complete=page.complete,
            damaged=page.damaged,
        )
        for seq in lost:
            reason = "damaged" if seq in page.damaged else "retention"
            for session in mailbox.sessions:
                self._send(session.address, Gap(from_seq=seq, to_seq=seq, reason=reason))
        self._touch(mailbox)
        return self._finish()

    def start_found(self, found: FindStart, start_seq: int, moment: Moment) -> list[Effect]:
        """Take the seq at which a subscription by time starts."""
        self._moment = moment
        session = self.sessions.get(found.address)
        if session is not None:
            self._subscribe(session, found.subscribe, start_seq)
        return self._finish()

    def unreachable(self, address: bytes, moment: Moment) -> list[Effect]:
        """Take that nothing can be sent to a connection any more: its session is over."""
        self._moment = moment
        session = self.sessions.get(address)
        if session is not None:
            self._end(session, vanished=True)
        return self._finish()

    def tick(self, moment: Moment) -> list[Effect]:
        """Take that time has passed."""
        self._moment = moment
        timeout = self._settings.delivery.session_timeout_seconds
        if moment.now - self._swept_at >= timeout / 10:
            self._swept_at = moment.now
            for session in self.sessions.silent(moment.now - timeout):
                self._end(session, vanished=True)
        for mailbox in list(self._timed):
            self._bury(mailbox, mailbox.expire(moment.now))
            self._touch(mailbox)
        return self._finish()

    def close(self, moment: Moment) -> list[Effect]:
        """Take that the worker is shutting down: every session is told."""
        self._moment = moment
        for session in self.sessions:
            self._send(session.address, Closing())
            self._end(session, vanished=False)
        return self._finish()

    def last_seen(self, bot_id: str) -> str | None:
        """Give when a bot was last heard, where that is not on disk yet."""
        return self._moment.wall if self.sessions.of_bot(bot_id) else self._seen.get(bot_id)

    # ── Batches ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def full(self) -> bool:
        """Whether requests should wait in their sockets until a batch is written."""
        return self._batches.full

    def has_batch(self, moment: Moment) -> bool:
        """Tell whether there is something to write now."""
        unflushed = self._dirty or self._seen or self._unwritten
        return bool(self._batches) or (bool(unflushed) and self._flush_due(moment))

    def take_batch(self, moment: Moment, *, flush: bool = False) -> Batch | None:
        """Take what is to be written next; `flush` takes every position along, as at shutdown."""
        mailboxes: list[Mailbox] = []
        if flush or self._flush_due(moment):
            self._flushed_at = moment.now
            mailboxes = [mailbox for mailbox in self._dirty if mailbox.dirty]
            self._dirty.clear()
            for job in self._unwritten:
                self._batches.add(job)
            self._unwritten = []
            if self._seen:
                self._write([SeenBot(bot_id, at) for bot_id, at in self._seen.items()])
                self._seen = {}
        if not self._batches and not mailboxes:
            return None
        return self._batches.take(mailboxes, max(moment.wall, self._last_timestamp))

    def _flush_due(self, moment: Moment) -> bool:
        return moment.now - self._flushed_at >= self._settings.delivery.mailbox_flush_seconds

    def _write(self, changes: Sequence[Change], mailboxes: Sequence[Mailbox] = ()) -> None:
        """Write what nobody waits for; where the disk is full, again with the next flush."""
        job = Job(
            lambda _: None,
            lambda code, message: self._unwritten.append(job),
            changes=changes,
            mailboxes=mailboxes,
        )
        self._batches.add(job)

    # ── Requests ─────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self, address: bytes, request: Request) -> None:
        session = self.sessions.get(address)
        if isinstance(request, Hello):
            self._hello(address, request)
            return
        if session is None:
            raise Rejected(Code.UNKNOWN_SESSION, "no session here: say hello, then repeat what was not answered")
        session.last_heard = self._moment.now
        if session.opening and not isinstance(request, Ping):
            if len(session.held) >= self._settings.limits.held_requests_max:
                raise Rejected(Code.BUSY, "the bot is still being registered; wait for welcome")
            session.held.append(request)
            return
        match request:
            case Publish():
                self._publish(session, request)
            case Ack():
                self._settle(session, request.seqs, request.request)
            case Nak() | Term():
                self._give_up(session, request)
            case Extend():
                for mailbox in dict.fromkeys(session.in_flight.values()):
                    mailbox.extend(session, request.seqs, self._moment.now)
                self._confirm(session, request.request, ())
            case Credit():
                session.credit = min(request.max_in_flight, self._settings.limits.in_flight_max)
                self._touch(self.directory.mailboxes[session.bot_id])
                self._confirm(session, request.request, ())
            case Subscribe():
                self._find_start(session, request)
            case Unsubscribe():
                self._unsubscribe(session, request)
            case RetryDeadLetters():
                self._retry_dead_letters(session, request)
            case Ping():
                self._send(address, Pong(last_seq=self.last_seq))
            case Goodbye():
                self._end(session, vanished=False)
                self._send(address, Ok(request=request.request))
            case _:
                self._effects.append(Ask(address, session.bot_id, request))

    def _hello(self, address: bytes, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            raise Rejected(
                Code.UNSUPPORTED_PROTOCOL,
                f"this worker speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}",
            )
        if self.sessions.get(address) is None and len(self.sessions) >= self._settings.limits.sessions_max:
            raise Rejected(Code.BUSY, f"there are {len(self.sessions)} sessions, the most this worker takes")
        if hello.bot in self._registering:
            self._registering[hello.bot].append((address, hello))
            return
        bot = self.directory.names.get(hello.bot)
        if bot is not None and hello.bot_id not in (None, bot.id):
            raise Rejected(Code.BOT_CONFLICT, f"bot {hello.bot!r} has another id than {hello.bot_id}")
        if bot is None and hello.bot_id in self.directory.bots:
            name = self.directory.bots[hello.bot_id].name
            raise Rejected(Code.BOT_CONFLICT, f"id {hello.bot_id} belongs to bot {name!r}")
        before = self.sessions.get(address)
        if before is not None:
            self._end(before, vanished=False)
        session = self._new_session(address, hello)
        if bot is not None:
            self._open(session, bot, hello)
        else:
            self._register(session, hello)

    def _new_session(self, address: bytes, hello: Hello) -> Session:
        limits = self._settings.limits
        credit = limits.in_flight_default if hello.max_in_flight is None else hello.max_in_flight
        return Session(
            address,
            self._new_id(),
            self._moment.now,
            credit=min(credit, limits.in_flight_max),
            in_flight_bytes_max=limits.in_flight_bytes_max,
        )

    def _register(self, session: Session, hello: Hello) -> None:
        wall = self._moment.wall
        bot = Bot(id=hello.bot_id or self._new_id(), name=hello.bot, created_at=wall, last_seen_at=wall)
        session.bot_id, session.opening = bot.id, True
        self.sessions.add(session)
        self._registering[bot.name] = []

        def waiting() -> list[tuple[bytes, Hello]]:
            return self._registering.pop(bot.name)

        def done(answers: Sequence[Any]) -> None:
            self.directory.add_bot(bot, MailboxState(bot.id, answers[0]))
            others = waiting()
            if self.sessions.get(session.address) is session:
                session.opening = False
                self.sessions.remove(session)
                self._open(session, bot, hello)
                for request in session.held:
                    self._again(session.address, request)
            for address, other in others:
                self._again(address, other)

        def failed(code: Code, message: str) -> None:
            if self.sessions.get(session.address) is session:
                self.sessions.remove(session)
                self._refuse(session.address, code, message, hello.request)
            for address, other in waiting():
                self._refuse(address, code, message, other.request)

        self._batches.add(Job(done, failed, changes=[AddBot(bot)]))

    def _again(self, address: bytes, request: Request) -> None:
        """Carry out a request that was held."""
        try:
            self._receive(address, request)
        except Rejected as error:
            self._refuse(address, error.code, error.message, getattr(request, "request", None))

    def _open(self, session: Session, bot: Bot, hello: Hello) -> None:
        session.bot_id, session.bot_name = bot.id, bot.name
        self.sessions.add(session)
        self._seen[bot.id] = self._moment.wall
        delivery, limits = self._settings.delivery, self._settings.limits
        self._send(
            session.address,
            Welcome(
                request=hello.request,
                protocol=PROTOCOL_VERSION,
                worker=self._worker,
                session=session.id,
                epoch=self.epoch,
                bot=bot.name,
                bot_id=bot.id,
                max_in_flight=session.credit,
                max_publish_in_flight=limits.publishes_in_flight_max,
                heartbeat=delivery.heartbeat_seconds,
                session_timeout=delivery.session_timeout_seconds,
                ack_wait=delivery.ack_wait_seconds,
                max_deliver=delivery.max_deliver,
                max_frame_bytes=limits.frame_bytes_max,
                max_body_bytes=limits.body_bytes_max,
                last_seq=self.last_seq,
            ),
        )
        mailbox = self.directory.mailboxes[bot.id]
        mailbox.attach(session)
        self._touch(mailbox)

    def _end(self, session: Session, *, vanished: bool) -> None:
        self.sessions.remove(session)
        if session.opening:
            return
        self._seen[session.bot_id] = self._moment.wall
        mailbox = self.directory.mailboxes[session.bot_id]
        self._bury(mailbox, mailbox.detach(session, self._moment.now, vanished=vanished))
        self._touch(mailbox)

    # ── Publishing ───────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, session: Session, publish: Publish) -> None:
        most = self._settings.limits.messages_per_publish_max
        if not 1 <= len(publish.messages) <= most:
            raise Rejected(
                Code.BAD_REQUEST, f"a publish frame has 1 to {most} messages, not {len(publish.messages)}"
            )
        messages: list[NewMessage] = []
        indexes: list[int] = []
        errors: list[ItemError] = []
        channels: dict[str, Channel] = {}
        for index, publication in enumerate(publish.messages):
            try:
                message = admit(publication, session, self.directory, self._settings.limits)
            except Rejected as error:
                errors.append(ItemError(index, error.code, error.message))
                continue
            messages.append(message)
            indexes.append(index)
            name = message.recipient_channel
            if name is not None and name not in self.directory.channels:
                channels[name] = self._new_channel(name, session)
        self.counters["refused"] += len(errors)
        address, number, count = session.address, publish.request, len(publish.messages)

        def done(added: Sequence[Added]) -> None:
            seqs: list[int | None] = [None] * count
            duplicates: list[int] = []
            for index, message, outcome in zip(indexes, messages, added, strict=True):
                seqs[index] = outcome.seq
                if outcome.duplicate:
                    duplicates.append(index)
                elif outcome.seq is None:
                    text = f"message id {message.id} belongs to another bot's message"
                    errors.append(ItemError(index, Code.ID_CONFLICT, text))
                else:
                    self._enter(message, outcome.seq)
            self.counters["duplicates"] += len(duplicates)
            errors.sort(key=lambda error: error.index)
            self._send(address, Published(request=number, seqs=seqs, duplicates=duplicates, errors=errors))

        def failed(code: Code, message: str) -> None:
            self._refuse(address, code, message, number)

        if messages:
            self._batches.add(Job(done, failed, messages=messages, channels=list(channels.values())))
        else:
            done(())

    def _new_channel(self, name: str, session: Session) -> Channel:
        return Channel(name=name, created_at=self._moment.wall, created_by_bot_id=session.bot_id)

    def _enter(self, message: NewMessage, seq: int) -> None:
        """Give a message that is on disk now to the mailboxes that are level, and to the tap."""
        assert seq > self.last_seq, "the log grows at its end"
        self.last_seq = seq
        self.counters["published"] += 1
        channel = message.recipient_channel
        wire = envelope(message, seq, self._last_timestamp)
        letter = Envelope(seq, message.sender_bot_id, channel, wire)
        if channel is None:
            mailbox = self.directory.mailboxes[message.recipient_bot_id or ""]
            if mailbox.listening and mailbox.arrive(letter):
                self._touch(mailbox)
            return
        entry = self.directory.channels[channel]
        prev_seq, entry.head_seq = entry.head_seq, seq
        for mailbox in entry.mailboxes.values():
            if mailbox.listening and mailbox.arrive(letter):
                self._touch(mailbox)
        if self.tapped:
            self._effects.append(Tap(tap_topic(channel), b'%b,"prev_seq":%d}' % (wire, prev_seq)))

    # ── Subscriptions ────────────────────────────────────────────────────────────────────────────────────

    def _find_start(self, session: Session, subscribe: Subscribe) -> None:
        start = subscribe.start
        if isinstance(start, StartAt):
            if (start.seq is None) == (start.time is None):
                raise Rejected(Code.BAD_REQUEST, "start has either seq or time - at `$.start`")
            if start.time is not None:
                try:
                    time = timestamp(parse_timestamp(start.time))
                except ValueError as error:
                    raise Rejected(Code.BAD_REQUEST, f"{error} - at `$.start.time`") from None
                self._effects.append(FindStart(session.address, subscribe, time))
                return
            self._subscribe(session, subscribe, max(0, (start.seq or 0) - 1))
        else:
            self._subscribe(session, subscribe, 0 if start == "all" else None)

    def _subscribe(self, session: Session, subscribe: Subscribe, start_seq: int | None) -> None:
        key = (session.bot_id, subscribe.channel)
        if key in self._changing:
            self._changing[key].append(lambda: self._subscribe(session, subscribe, start_seq))
            return
        mailbox = self.directory.mailboxes[session.bot_id]
        new = subscribe.channel not in mailbox.interests
        if new and start_seq is not None:
            mailbox.prepare(subscribe.channel, start_seq)
        wall = self._moment.wall

        def done(answers: Sequence[Any]) -> None:
            subscribed: Subscribed = answers[0]
            if subscribed.created:
                self.directory.subscribe(
                    session.bot_id,
                    subscribe.channel,
                    Interest(subscribed.start_seq, subscribe.echo),
                    at=wall,
                    last_seq=self.last_seq,
                )
            mailbox.dismiss(subscribe.channel)
            self._touch(mailbox)
            value = {
                "channel": subscribe.channel,
                "start_seq": subscribed.start_seq,
                "created": subscribed.created,
            }
            self._answer(session.address, subscribe.request, value)

        change = AddSubscription(session.bot_id, subscribe.channel, wall, start_seq, subscribe.echo)
        finished, failed = self._one_at_a_time(key, session.address, subscribe.request, done)

        def refused(code: Code, message: str) -> None:
            mailbox.dismiss(subscribe.channel)
            failed(code, message)

        channels = [self._new_channel(subscribe.channel, session)]
        mailboxes = [mailbox] if new else []
        self._batches.add(Job(finished, refused, changes=[change], channels=channels, mailboxes=mailboxes))

    def _unsubscribe(self, session: Session, unsubscribe: Unsubscribe) -> None:
        key = (session.bot_id, unsubscribe.channel)
        if key in self._changing:
            self._changing[key].append(lambda: self._unsubscribe(session, unsubscribe))
            return

        def done(answers: Sequence[Any]) -> None:
            if answers[0]:
                self.directory.unsubscribe(session.bot_id, unsubscribe.channel)
            self._answer(session.address, unsubscribe.request, {"removed": answers[0]})

        change = RemoveSubscription(session.bot_id, unsubscribe.channel)
        finished, failed = self._one_at_a_time(key, session.address, unsubscribe.request, done)
        self._batches.add(Job(finished, failed, changes=[change]))

    def _one_at_a_time(self, key: tuple[str, str], address: bytes, number: int, done: Done) -> tuple[Done, Failed]:
        """Let further changes of the same subscription wait until this one is known."""
        waiting: deque[Callable[[], None]] = deque()
        self._changing[key] = waiting

        def proceed() -> None:
            del self._changing[key]
            while waiting:
                waiting.popleft()()
                if key in self._changing:
                    self._changing[key].extend(waiting)
                    return

        def finished(answers: Sequence[Any]) -> None:
            done(answers)
            proceed()

        def failed(code: Code, message: str) -> None:
            self._refuse(address, code, message, number)
            proceed()

        return finished, failed

    # ── Settling ─────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, session: Session, seqs: Iterable[int], number: int | None) -> None:
        mailboxes: dict[Mailbox, None] = {}
        for seq in seqs:
            mailbox = session.in_flight.get(seq)
            if mailbox is not None and mailbox.settle(session, seq):
                mailboxes[mailbox] = None
                self.counters["settled"] += 1
        for mailbox in mailboxes:
            self._touch(mailbox)
        self._confirm(session, number, mailboxes)

    def _give_up(self, session: Session, request: Nak | Term) -> None:
        mailboxes: dict[Mailbox, None] = {}
        for seq in request.seqs:
            mailbox = session.in_flight.get(seq)
            if mailbox is None:
                continue
            mailboxes[mailbox] = None
            if isinstance(request, Nak):
                abandoned = mailbox.fail(session, seq, self._moment.now, delay=request.delay)
            else:
                abandoned = mailbox.terminate(session, seq, request.reason or "term")
            if abandoned is not None:
                self._bury(mailbox, [abandoned])
        for mailbox in mailboxes:
            self._touch(mailbox)
        self._confirm(session, request.request, mailboxes)

    def _confirm(self, session: Session, number: int | None, mailboxes: Iterable[Mailbox]) -> None:
        """Answer a settle that asked for it, once it is on disk; where nothing changed, after what came before."""
        if number is None:
            return
        address = session.address
        self._batches.add(
            Job(
                lambda _: self._send(address, Ok(request=number)),
                lambda code, message: self._refuse(address, code, message, number),
                mailboxes=list(mailboxes) or [self.directory.mailboxes[session.bot_id]],
            )
        )

    def _bury(self, mailbox: Mailbox, abandoned: Iterable[Abandoned]) -> None:
        dead_letters = tuple(
            DeadLetter(mailbox.bot_id, given_up.seq, given_up.reason, given_up.attempts, self._moment.wall)
            for given_up in abandoned
        )
        if dead_letters:
            self.counters["dead"] += len(dead_letters)
            self._write([AddDeadLetters(dead_letters)], [mailbox])

    def _retry_dead_letters(self, session: Session, request: RetryDeadLetters) -> None:
        bot = self.directory.find_bot(request.bot)
        if bot is None:
            raise Rejected(Code.UNKNOWN_BOT, f"no bot named {request.bot[:64]!r}")
        mailbox = self.directory.mailboxes[bot.id]
        address, number = session.address, request.request
        seqs = mailbox.put_back(request.seqs)

        def done(_: Sequence[Any]) -> None:
            mailbox.revive(seqs)
            self._answer(address, number, {"retried": len(seqs)})
            self._touch(mailbox)

        def failed(code: Code, message: str) -> None:
            mailbox.stay_dead(seqs)
            self._refuse(address, code, message, number)

        changes = [RemoveDeadLetters(bot.id, tuple(seqs))]
        self._batches.add(Job(done, failed, changes=changes, mailboxes=[mailbox]))

    # ── Effects ──────────────────────────────────────────────────────────────────────────────────────────

    def _touch(self, mailbox: Mailbox) -> None:
        """Note that a mailbox may have something to hand out, to read or to save."""
        self._touched[mailbox] = None

    def _finish(self) -> list[Effect]:
        """Hand out what the touched mailboxes can, and give all effects of this event."""
        touched, self._touched = self._touched, {}
        for mailbox in touched:
            for session, deliveries in mailbox.hand_out(self._moment.now):
                self.counters["delivered"] += len(deliveries)
                self._deliver(session, deliveries)
            request = mailbox.next_read(self.last_seq)
            if request is not None:
                self._effects.append(Read(request))
            if mailbox.dirty:
                self._dirty[mailbox] = None
            if mailbox.timed and mailbox.sessions:
                self._timed[mailbox] = None
            else:
                self._timed.pop(mailbox, None)
        effects, self._effects = self._effects, []
        return effects

    def _deliver(self, session: Session, deliveries: list[bytes]) -> None:
        """Pack deliveries into as few frames as their limit allows."""
        frame_bytes_max = self._settings.limits.frame_bytes_max
        packed: list[bytes] = []
        size = 0
        for delivery in deliveries:
            if packed and size + len(delivery) + 64 > frame_bytes_max:
                self._effects.append(Send(session.address, deliver_frame(packed)))
                packed, size = [], 0
            packed.append(delivery)
            size += len(delivery) + 1
        self._effects.append(Send(session.address, deliver_frame(packed)))

    def _send(self, address: bytes, frame: msgspec.Struct) -> None:
        self._effects.append(Send(address, encode(frame)))

    def _answer(self, address: bytes, number: int, value: Any) -> None:
        self._send(address, Ok(request=number, value=msgspec.Raw(encode(value))))

    def _refuse(self, address: bytes, code: Code, message: str, number: int | None) -> None:
        self._send(address, ErrorFrame(code=code, message=message, request=number, retry=code in RETRY))


def _envelope(message: LogMessage) -> Envelope:
    wire = envelope(message, message.seq, message.timestamp)
    return Envelope(message.seq, message.sender_bot_id, message.recipient_channel, wire)
