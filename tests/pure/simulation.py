"""A world of bots, a disk and a network around the pure core, played at random from a seed.

Everything that can happen to a worker happens here in any order: frames, answers of the disk that come late or
say that it is full, pages read at one time and delivered at another, connections that vanish, crashes before and
after a commit. After each event the promises of docs/design.md are checked; now and then the faults stop, and
everything that is owed must arrive.

    python -m tests.pure.simulation --steps 200000 --seed 1
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import click
import msgspec

from bus.batch import Batch
from bus.core import Core
from bus.effects import Effect, Moment, Read, Send, Tap, unsent
from bus.mailbox import Mailbox
from bus.protocol import (
    Ack,
    Code,
    Credit,
    Deliver,
    ErrorFrame,
    Extend,
    Goodbye,
    Hello,
    Nak,
    Ok,
    Ping,
    Publication,
    Publish,
    Published,
    Request,
    RetryDeadLetters,
    StartAt,
    StoredMessage,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
    Welcome,
    decode_worker_frame,
)
from bus.settings import Delivery, Limits, Settings
from store.records import timestamp
from store.repository import AddSubscription, Page, PageRequest, RemoveSubscription

from .fake_log import FakeLog

__all__ = ["Simulation", "Violation"]

BOTS = [f"bot-{number}" for number in range(5)]
CHANNELS = ["news", "work", "idle"]

# Small enough that every bound is reached all the time.
SETTINGS = Settings(
    delivery=Delivery(
        ack_wait_seconds=3.0,
        max_deliver=4,
        backoff_seconds=(0.5, 2.0),
        heartbeat_seconds=1.0,
        session_timeout_seconds=5.0,
        mailbox_flush_seconds=0.5,
    ),
    limits=Limits(
        ready_messages_max=6,
        ready_bytes_max=400,
        in_flight_max=5,
        in_flight_default=5,
        in_flight_bytes_max=1500,
        batch_messages_max=8,
        batch_bytes_max=1000,
        held_requests_max=3,
    ),
)


class Violation(AssertionError):
    """A promise was broken; the text says which, and the seed plays it again."""


class Connection:
    """One connection as a bot sees it."""

    def __init__(self, address: bytes, bot: str) -> None:
        self.address = address
        self.bot = bot
        self.welcomed = False
        self.inbox: list[bytes] = []
        self.unsettled: list[int] = []
        self.answers: dict[int, Callable[[Any], None]] = {}


class Simulation:
    """The world. `step` lets one thing happen, `settle` lets everything that is owed arrive."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.log = FakeLog()
        self.now = 100.0
        self.steps = 0
        self.ids = 0
        self.requests = 0
        self.connections: dict[bytes, Connection] = {}
        self.batch: Batch | None = None
        self.reads: list[tuple[PageRequest, Page | None]] = []
        self.acknowledged: dict[str, int] = {}
        self.sent: dict[str, Publication] = {}
        self.pending_publishes: dict[tuple[bytes, int], list[Publication]] = {}
        self.subscribed: dict[tuple[str, str], int] = {}
        self.delivered_at: dict[tuple[str, int], int] = {}
        self.wanted_again: dict[tuple[str, int], int] = {}
        self.wishes: dict[tuple[str, str], int] = {}
        self.retried: set[tuple[str, int]] = set()
        self.interests: dict[tuple[str, str], int] = {}
        self.delivered: dict[str, set[int]] = {bot: set() for bot in BOTS}
        self.settled: dict[str, set[int]] = {bot: set() for bot in BOTS}
        self.last_first: dict[str, int] = {}
        self.deliveries = 0
        self.core = self._start()

    # ── The worker ───────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> Core:
        return Core(self.log.load(), SETTINGS, worker="simulated", new_id=self._new_id)

    def _new_id(self) -> str:
        self.ids += 1
        return f"00000000-0000-7000-8000-{self.ids:012x}"

    def _moment(self) -> Moment:
        return Moment(self.now, timestamp(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)))

    def _do(self, effects: Sequence[Effect]) -> None:
        """Carry out effects as the shell does: at once, in order."""
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            match effect:
                case Send(address, frame):
                    connection = self.connections.get(address)
                    if connection is None:
                        queue += self.core.unreachable(address, self._moment(), unsent(effect, queue))
                    else:
                        self._check_frame(connection, frame)
                        connection.inbox.append(frame)
                case Read(request):
                    self.reads.append((request, None))
                case Tap():
                    pass
                case _:
                    raise AssertionError(f"nothing here asks for {effect}")

    def _send(self, connection: Connection, request: Request) -> None:
        self._do(self.core.receive(connection.address, request, self._moment()))

    def _number(self) -> int:
        self.requests += 1
        return self.requests

    # ── Events ───────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> None:
        """Let one thing happen, and check everything."""
        self.steps += 1
        events: list[tuple[Callable[[], None], int]] = [
            (self._connect, 3),
            (self._publish, 14),
            (self._read_frame, 22),
            (self._settle_some, 12),
            (self._subscribe, 4),
            (self._unsubscribe, 1),
            (self._take_batch, 10),
            (self._commit, 10),
            (self._read_page, 6),
            (self._page_arrives, 6),
            (self._pass_time, 6),
            (self._leave, 2),
            (self._change_credit, 2),
            (self._retry, 1),
            (self._refuse_batch, 1),
            (self._crash, 1),
        ]
        event = self.random.choices([event for event, _ in events], [weight for _, weight in events])[0]
        event()
        self._check()

    def _pick(self, *, welcomed: bool = True) -> Connection | None:
        found = [connection for connection in self.connections.values() if connection.welcomed or not welcomed]
        return self.random.choice(found) if found else None

    def _connect(self) -> None:
        if len(self.connections) >= 8:
            return
        self._hello(self.random.choice(BOTS), self.random.choice([0, 1, 2, 5, 5]))

    def _hello(self, bot: str, credit: int) -> Connection:
        connection = Connection(self._new_id().encode(), bot)
        self.connections[connection.address] = connection
        hello = Hello(request=self._number(), protocol=1, bot=bot, max_in_flight=credit)
        self._send(connection, hello)
        return connection

    def _publish(self) -> None:
        connection = self._pick()
        if connection is None or self.core.full:
            return
        messages: list[Publication] = []
        for _ in range(self.random.choice([1, 1, 2, 5])):
            if self.sent and self.random.random() < 0.1:
                publication = self.sent[self.random.choice(list(self.sent))]  # again, perhaps by another bot
            else:
                publication = self._publication()
                self.sent[publication.id] = publication
            messages.append(publication)
        number = self._number()
        self.pending_publishes[connection.address, number] = messages
        self._send(connection, Publish(request=number, messages=messages))

    def _publication(self) -> Publication:
        known = [bot.name for bot in self.core.directory.bots.values()]
        to_bot = self.random.random() < 0.6
        recipient: ToBot | ToChannel = (
            ToBot(bot=self.random.choice(known)) if to_bot else ToChannel(self.random.choice(CHANNELS))
        )
        body = b'"%s"' % (b"x" * self.random.choice([1, 1, 10, 200]))
        reply_to = None
        if self.log.messages and self.random.random() < 0.3:
            answered = self.random.choice(self.log.messages[-20:])
            reply_to, recipient = answered.id, ToBot(bot=answered.sender_bot_name)
        return Publication(
            id=self._new_id(),
            recipient=recipient,
            body=msgspec.Raw(body),
            reply_to=reply_to,
            expects_reply=self.random.random() < 0.6,
            ttl=self.random.choice([None] * 12 + [2.0, 20.0]),
        )

    def _read_frame(self) -> None:
        waiting = [connection for connection in self.connections.values() if connection.inbox]
        if waiting:
            connection = self.random.choice(waiting)
            self._take(connection, connection.inbox.pop(0))

    def _take(self, connection: Connection, frame: bytes) -> None:
        match decode_worker_frame(frame):
            case Welcome():
                connection.welcomed = True
            case Deliver(messages):
                connection.unsettled += [message.seq for message in messages]
            case Published() as published:
                self._published(connection, published)
            case Ok(request=number, value=value):
                connection.answers.pop(number, lambda _: None)(msgspec.json.decode(value))
            case ErrorFrame(request=number, code=code):
                if code == Code.UNKNOWN_SESSION:
                    self.connections.pop(connection.address, None)
                elif number is not None:
                    connection.answers.pop(number, lambda _: None)(None)

    def _published(self, connection: Connection, published: Published) -> None:
        messages = self.pending_publishes.pop((connection.address, published.request))
        for index, publication in enumerate(messages):
            seq = published.seqs[index]
            if seq is None:
                continue
            if self.log.messages[seq - 1].id != publication.id:
                raise Violation(f"acknowledged {publication.id} as {seq}, which is another message")
            if self.acknowledged.setdefault(publication.id, seq) != seq:
                raise Violation(f"{publication.id} was acknowledged with two seqs")

    def _settle_some(self) -> None:
        connection = self._pick()
        if connection is None or not connection.unsettled:
            return
        count = self.random.randint(1, len(connection.unsettled))
        seqs = self.random.sample(connection.unsettled, count)
        session = self.core.sessions.get(connection.address)
        in_flight = [seq for seq in seqs if session is not None and seq in session.in_flight]
        number = self._number() if self.random.random() < 0.4 else None
        how = self.random.choices(["ack", "nak", "release", "term", "extend", "forget"], [10, 3, 2, 1, 1, 1])[0]
        if how != "extend":
            connection.unsettled = [seq for seq in connection.unsettled if seq not in seqs]
        if how == "ack":
            if number is not None:
                connection.answers[number] = self._confirmed(connection.bot, in_flight)
            self._send(connection, Ack(seqs=seqs, request=number))
        elif how in ("nak", "release"):
            delay = self.random.choice([None, 0.0, 1.0])
            self._send(connection, Nak(seqs=seqs, delay=delay, release=how == "release", request=number))
        elif how == "term":
            self._send(connection, Term(seqs=seqs, reason="no", request=number))
        elif how == "extend":
            self._send(connection, Extend(seqs=seqs, request=number))

    def _confirmed(self, bot: str, seqs: list[int]) -> Callable[[Any], None]:
        """Give what notes a confirmed ack, unless the bot asked for these messages again after they came."""
        delivered = {seq: self.delivered_at[bot, seq] for seq in seqs}

        def answered(value: Any) -> None:
            if value is not None:
                self.settled[bot].update(
                    seq for seq, step in delivered.items() if self.wanted_again.get((bot, seq), -1) < step
                )

        return answered

    def _want_again(self, bot: str, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self.settled[bot].discard(seq)
            self.wanted_again[bot, seq] = self.steps

    def _subscribe(self) -> None:
        connection = self._pick()
        if connection is None:
            return
        channel = self.random.choice(CHANNELS)
        seq = self.random.randint(1, self.log.last_seq + 3)
        starts: list[Literal["new", "all"] | StartAt] = ["new", "new", "new", "all", StartAt(seq=seq)]
        start = self.random.choice(starts)
        echo = self.random.random() < 0.3
        number = self._number()
        key = (connection.bot, channel)

        wish = self.wishes.get(key, 0)

        def answered(value: Any) -> None:
            if value is not None and self.wishes.get(key, 0) == wish:
                self.subscribed[key] = value["start_seq"]

        connection.answers[number] = answered
        self._send(connection, Subscribe(request=number, channel=channel, start=start, echo=echo))

    def _unsubscribe(self) -> None:
        connection = self._pick()
        if connection is not None:
            channel = self.random.choice(CHANNELS)
            key = (connection.bot, channel)
            self.wishes[key] = self.wishes.get(key, 0) + 1
            self.subscribed.pop(key, None)
            self._send(connection, Unsubscribe(request=self._number(), channel=channel))

    def _take_batch(self) -> None:
        if self.batch is None and self.core.has_batch(self._moment()):
            self.batch = self.core.take_batch(self._moment())

    def _commit(self) -> None:
        if self.batch is None:
            return
        batch, self.batch = self.batch, None
        answers = self.log.apply(batch.changes)
        self._note(batch, answers)
        if self.random.random() < 0.05:
            self._restart()  # on disk, and nobody was told
            return
        self._do(self.core.applied(batch, answers, self._moment()))

    def _note(self, batch: Batch | None, answers: Sequence[Any]) -> None:
        """Follow the subscriptions that the core knows, as they are when it is told."""
        for change, answer in zip(batch.changes if batch else (), answers, strict=True):
            if isinstance(change, AddSubscription) and answer.created:
                bot = self._name(change.bot_id)
                self.interests[bot, change.channel] = answer.start_seq
                self.last_first[bot] = min(self.last_first.get(bot, 0), answer.start_seq)
                # What lies after the start is wanted again, whatever was settled before.
                on_channel = (m.seq for m in self.log.messages if m.recipient_channel == change.channel)
                self._want_again(bot, (seq for seq in on_channel if seq > answer.start_seq))
            elif isinstance(change, RemoveSubscription) and answer:
                self.interests.pop((self._name(change.bot_id), change.channel), None)

    def _name(self, bot_id: str) -> str:
        return self.log.bots[bot_id].name

    def _refuse_batch(self) -> None:
        if self.batch is not None:
            batch, self.batch = self.batch, None
            self._do(self.core.failed(batch, Code.STORAGE_FULL, "the disk is full", self._moment()))

    def _read_page(self) -> None:
        """Let the disk read: what is committed until now is seen, and the page arrives later."""
        unread = [index for index, (_, page) in enumerate(self.reads) if page is None]
        if unread:
            index = self.random.choice(unread)
            request = self.reads[index][0]
            self.reads[index] = (request, self.log.read_page(request))

    def _page_arrives(self) -> None:
        read = [index for index, (_, page) in enumerate(self.reads) if page is not None]
        if read:
            request, page = self.reads.pop(self.random.choice(read))
            assert page is not None
            self._do(self.core.page_read(request, page, self._moment()))

    def _pass_time(self) -> None:
        for connection in list(self.connections.values()):
            if self.random.random() < 0.9:
                self._send(connection, Ping())
        if self.random.random() < 0.1:
            self.now += 10.0  # the worker itself stood still
        for _ in range(self.random.choice([1, 1, 3, 8])):
            self.now += self.random.choice([0.05, 0.5, 0.9])
            self._do(self.core.tick(self._moment()))

    def _leave(self) -> None:
        connection = self._pick(welcomed=False)
        if connection is None:
            return
        if connection.welcomed and self.random.random() < 0.5:
            self._send(connection, Goodbye(request=self._number()))
        del self.connections[connection.address]

    def _change_credit(self) -> None:
        connection = self._pick()
        if connection is not None:
            credit = self.random.choice([0, 1, 3, 5])
            self._send(connection, Credit(max_in_flight=credit))

    def _retry(self) -> None:
        connection = self._pick()
        dead = [key for key in self.log.dead_letters if key[0] in self.core.directory.bots]
        if connection is None or not dead:
            return
        bot_id, seq = self.random.choice(dead)
        self._want_again(self._name(bot_id), [seq])
        self.retried.add((self._name(bot_id), seq))
        retry = RetryDeadLetters(request=self._number(), bot=self._name(bot_id), seqs=[seq])
        self._send(connection, retry)

    def _crash(self) -> None:
        if self.random.random() < 0.3:
            self._restart()

    def _restart(self) -> None:
        """Kill the worker: what was not committed is gone, and every connection with it."""
        self.batch = None
        self.reads = []
        self.connections = {}
        self.last_first = {}
        self.interests = {(self._name(s.bot_id), s.channel): s.start_seq for s in self.log.subscriptions.values()}
        self.core = self._start()

    # ── Promises ─────────────────────────────────────────────────────────────────────────────────────────

    def _check_frame(self, connection: Connection, raw: bytes) -> None:
        frame = decode_worker_frame(raw)
        if isinstance(frame, Deliver):
            session = self.core.sessions.get(connection.address)
            if session is None:
                raise Violation("something was delivered to a session that is over")
            waited_for = {message.seq for message in frame.messages} <= session.express
            if not waited_for and len(session.in_flight) - len(session.express) > session.credit:
                raise Violation(f"{session} was given more than its credit")
            for message in frame.messages:
                self._check_delivery(connection.bot, message)

    def _check_delivery(self, bot: str, message: StoredMessage) -> None:
        self.deliveries += 1
        seq = message.seq
        if seq > self.log.last_seq:
            raise Violation(f"{seq} was delivered to {bot} before it was on disk")
        stored = self.log.messages[seq - 1]
        if stored.expires_at is not None and stored.expires_at <= self._moment().wall:
            raise Violation(f"{seq} was delivered to {bot} after it expired")
        if stored.id != message.id or msgspec.json.decode(stored.body) != message.body:
            raise Violation(f"{seq} was delivered to {bot} with other contents")
        channel = stored.recipient_channel
        if channel is None:
            if self._name(stored.recipient_bot_id or "") != bot:
                raise Violation(f"{seq} was delivered to {bot}, and is for another bot")
        elif self.interests.get((bot, channel), self.log.last_seq) >= seq:
            raise Violation(f"{seq} on {channel} was delivered to {bot} outside its subscription")
        if seq in self.settled[bot]:
            raise Violation(f"{seq} was delivered to {bot} after a confirmed ack")
        self.delivered[bot].add(seq)
        self.delivered_at[bot, seq] = self.steps
        if message.attempt == 1:
            # Sessions of one bot share its mailbox: between them there is no order that anybody could see.
            alone = len(self.core.sessions.of_bot(self.core.directory.names[bot].id)) == 1
            if (bot, seq) in self.retried:
                return  # a dead letter that is tried again starts anew, out of order
            if stored.reply_to is not None and self.sent[stored.reply_to].expects_reply:
                return  # somebody may have waited for it
            if alone and seq <= self.last_first.get(bot, 0):
                raise Violation(f"{seq} was first delivered to {bot} after {self.last_first[bot]}")
            self.last_first[bot] = max(seq, self.last_first.get(bot, 0))

    def _check(self) -> None:
        for session in self.core.sessions:
            largest = 700
            if session.in_flight_bytes > SETTINGS.limits.in_flight_bytes_max + largest * (1 + len(session.express)):
                raise Violation(f"{session} has more bytes in flight than its limit")
            flying = sum(len(mailbox_wire(mailbox, seq)) for seq, mailbox in session.in_flight.items())
            if flying != session.in_flight_bytes:
                raise Violation(f"{session} counts its bytes wrongly")
        for mailbox in self.core.directory.mailboxes.values():
            self._check_memory(mailbox)
        if self.core.last_seq > self.log.last_seq:
            raise Violation("the core is ahead of the disk")

    def _check_memory(self, mailbox: Mailbox) -> None:
        waiting = len(mailbox._ready) + len(mailbox._arrived)
        if waiting > 2 * SETTINGS.limits.ready_messages_max:
            raise Violation(f"{mailbox} keeps {waiting} messages in memory")
        if not mailbox.sessions and (waiting or any(item.envelope for item in mailbox._unsettled.values())):
            raise Violation(f"{mailbox} is away and keeps messages in memory")

    # ── The end of all faults ────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        """Stop the faults, connect every bot, and let everything arrive: nothing that is owed may be missing."""
        self._drain_disk()
        for connection in list(self.connections.values()):
            if connection.welcomed:
                self._send(connection, Goodbye(request=self._number()))
            del self.connections[connection.address]
        homes = [self._hello(name, 5) for name in BOTS]
        for _ in range(10_000):
            self._drain_disk()
            for connection in homes:
                while connection.inbox:
                    self._take(connection, connection.inbox.pop(0))
                if connection.unsettled:
                    seqs, connection.unsettled = connection.unsettled, []
                    self._send(connection, Ack(seqs=seqs))
            self._drain_disk()
            if all(mailbox.level and not mailbox.loaded() for mailbox in self.core.directory.mailboxes.values()):
                break
            self.now += 0.5
            for connection in homes:
                self._send(connection, Ping())
            self._do(self.core.tick(self._moment()))
        else:
            raise Violation("the mailboxes never become empty")
        self.now += 1.0  # whatever waits for the next flush
        self._drain_disk()
        self._check_nothing_lost()

    def _drain_disk(self) -> None:
        """Let the disk answer everything, without faults."""
        while self.batch is not None or self.reads or self.core.has_batch(self._moment()):
            if self.batch is None:
                self.batch = self.core.take_batch(self._moment())
            batch, self.batch = self.batch, None
            if batch is not None:
                answers = self.log.apply(batch.changes)
                self._note(batch, answers)
                self._do(self.core.applied(batch, answers, self._moment()))
            while self.reads:
                request, page = self.reads.pop()
                self._do(self.core.page_read(request, page or self.log.read_page(request), self._moment()))

    def _check_nothing_lost(self) -> None:
        names = {bot.name: bot_id for bot_id, bot in self.log.bots.items()}
        for message_id, seq in self.acknowledged.items():
            stored = self.log.by_id.get(message_id)
            if stored is None or stored.seq != seq:
                raise Violation(f"{message_id} was acknowledged as {seq} and is not in the log")
            if stored.recipient_bot_id is not None:
                owed = [self._name(stored.recipient_bot_id)]
            else:
                owed = [
                    bot
                    for (bot, channel), start in self.subscribed.items()
                    if channel == stored.recipient_channel and start < seq and self._echoes(names[bot], stored)
                ]
            for bot in owed:
                if seq not in self.delivered[bot] and (names[bot], seq) not in self.log.dead_letters:
                    raise Violation(f"{seq} was acknowledged and never delivered to {bot}")
        for (bot, channel), start in self.subscribed.items():
            subscription = self.log.subscriptions.get((names[bot], channel))
            if subscription is None or subscription.start_seq != start:
                raise Violation(f"the subscription of {bot} to {channel} was acknowledged and is gone")

    def _echoes(self, bot_id: str, stored: Any) -> bool:
        subscription = self.log.subscriptions[bot_id, stored.recipient_channel]
        return stored.sender_bot_id != bot_id or subscription.echo


def mailbox_wire(mailbox: Mailbox, seq: int) -> bytes:
    """Give what a message that is in flight weighs."""
    envelope = mailbox._unsettled[seq].envelope
    assert envelope is not None
    return envelope.wire


def play(seed: int, steps: int, *, settle_every: int = 500) -> Simulation:
    """Play a world for some steps, and let it settle now and then; raises Violation."""
    simulation = Simulation(seed)
    for step in range(1, steps + 1):
        simulation.step()
        if step % settle_every == 0:
            simulation.settle()
    simulation.settle()
    return simulation


@click.command()
@click.option("--steps", default=200_000, show_default=True, help="Events, over worlds of 2,000 each.")
@click.option("--seed", default=None, type=int, help="The first world's seed.  [default: random]")
def main(steps: int, seed: int | None) -> None:
    """Play many worlds from one seed on, until one breaks a promise."""
    first = random.SystemRandom().randrange(2**32) if seed is None else seed
    click.echo(f"worlds from seed {first} on")
    deliveries = 0
    for number in range(max(1, steps // 2000)):
        try:
            deliveries += play(first + number, 2000).deliveries
        except Exception:
            click.echo(f"broken in the world of seed {first + number}", err=True)
            raise
    click.echo(f"{steps} steps, {deliveries} deliveries, every promise kept")


if __name__ == "__main__":
    main()
