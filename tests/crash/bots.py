"""The bots of the load: what each of them does, at random but by its seed, until it is told to end.

Owns two manners: a publisher, with several frames on their way and repeats of what was not answered; and a
subscriber, who settles in every way, comes, goes and vanishes. A bot that loses its session opens another one and
goes on. The bot at work on runs is in `run_bot`.
"""

from __future__ import annotations

import random
from collections import deque
from contextlib import suppress
from typing import Any

import msgspec

from ..integration.wire import new_id
from .history import (
    Delivery,
    Publish,
    Sent,
    Settle,
    Subscribe,
    Unsubscribe,
    digest,
)
from .link import Ended, Frame, Link, Lost, Refused

__all__ = [
    "DELAY_SECONDS_MAX",
    "MAX_DELIVER",
    "RETAINED",
    "Bot",
    "Letters",
    "Publisher",
    "Shape",
    "Subscriber",
    "acknowledge",
    "nothing",
    "publish",
    "sent",
    "settle",
    "subscribe",
    "subscribed",
]

DELAY_SECONDS_MAX = 0.3
"""The longest that a message of the load waits until it is due."""


NAK_SECONDS_MAX = 1.0
"""The longest that a nak of the load asks for: longer than a restart takes."""

MAX_DELIVER = 3
"""After so many failures the worker of a load gives a message up: often enough to be judged."""


RETAINED = {"ticks": 8}
"""Channels that keep only so many of their messages: few, so that a bot which is slow loses some."""


class Shape(msgspec.Struct, frozen=True):
    """How large the load is, and how it is spread. A bot waits at most `pause_seconds` between two turns."""

    publishers: int = 2
    subscribers: tuple[int, ...] = (2, 2, 1)
    """How many sessions each has at once."""
    readers: int = 1
    sleepers: int = 1
    workers: int = 2
    visitors: int = 1
    onlookers: int = 1
    latecomers: int = 1
    watchers: int = 0
    """Whoever watches who is there takes some seconds at the end, until the last change was told."""
    undertakers: int = 1
    packers: int = 0
    """Only a file can be compacted."""
    channels: tuple[str, ...] = ("news", "fleeting", "ticks", "jobs")
    groups: tuple[tuple[str, str], ...] = (("jobs", "crew"),)
    """Channels that are subscribed to in a group, with its name."""
    batch_max: int = 8
    frames_in_flight: int = 4
    body_bytes_max: int = 20_000
    pause_seconds: float = 0.02


_HOPS_MAX = 3
"""The most messages that may follow in a thread that ends."""

_COPIED = 0.05
"""How many messages have an id that another bot used before."""

_used: deque[tuple[str, str]] = deque(maxlen=200)
"""The last ids that were used, with the senders: whoever takes one from here is its last user."""


class Letters:
    """Makes messages to the bots and channels of a load."""

    def __init__(self, sender: str, targets: tuple[str, ...], shape: Shape, chance: random.Random) -> None:
        self._sender = sender
        self._targets = targets
        self._shape = shape
        self._chance = chance
        self._number = 0

    def some(self) -> list[Frame]:
        """Make a few, each to a target of its own."""
        return [self.one() for _ in range(self._chance.randint(1, self._shape.batch_max))]

    def one(self) -> Frame:
        """Make one: most are short, some are long, and some wait until they are due."""
        chance = self._chance
        self._number += 1
        size = chance.randrange(self._shape.body_bytes_max if chance.random() < 0.05 else 200)
        body = {"from": self._sender, "number": self._number, "fill": "x" * size}
        recipient = {"type": "direct", "bot": chance.choice(self._targets)}
        if chance.random() < 0.6:
            recipient = {"type": "channel", "name": chance.choice(self._shape.channels)}
        message: Frame = {"id": self._id(), "recipient": recipient, "body": body}
        if (copied := self._copied()) is not None:  # nobody may answer it, which is nobody else's matter
            message |= {"id": copied, "hops": 0}
        if recipient["type"] == "direct" and chance.random() < 0.5:
            message["priority"] = chance.choice(["high", "low"])
        if chance.random() < 0.05:
            message["delay"] = round(chance.uniform(0.01, DELAY_SECONDS_MAX), 3)
        if chance.random() < 0.05:
            message["ttl"] = round(chance.uniform(0.05, 0.5), 3)
        if chance.random() < 0.1:
            body["fails"] = chance.choice([MAX_DELIVER - 1, MAX_DELIVER + 2])
        return message

    def _id(self) -> str:
        id = new_id()
        _used.append((id, self._sender))
        return id

    def _copied(self) -> str | None:
        """Take an id that another bot used, now and then."""
        if self._chance.random() < _COPIED:
            with suppress(IndexError):
                id, sender = _used.popleft()
                return None if sender == self._sender else id
        return None

    def question(self, answering: tuple[str, ...]) -> Frame:
        """Make a direct message that wants a reply."""
        self._number += 1
        recipient = {"type": "direct", "bot": self._chance.choice(answering)}
        body = {"from": self._sender, "number": self._number, "asks": True}
        question = {"id": self._id(), "recipient": recipient, "body": body, "expects_reply": True}
        if self._chance.random() < 0.5:  # whoever gets a message of the thread answers it, as long as it may
            body["answered"] = True
            question["hops"] = self._chance.randrange(_HOPS_MAX + 1)
        return question

    def reply(self, question: Frame) -> Frame:
        """Make the reply to one that was delivered."""
        self._number += 1
        recipient = {"type": "direct", "bot": question["sender_bot_name"]}
        body = {"from": self._sender, "number": self._number, "answers": True}
        reply = {"id": self._id(), "recipient": recipient, "body": body, "reply_to": question["id"]}
        if question["body"].get("answered"):
            body["answered"] = True
            if self._chance.random() < 0.2:
                reply["hops"] = self._chance.randrange(_HOPS_MAX + 1)
        return reply


def sent(messages: list[Frame]) -> tuple[Sent, ...]:
    """Give messages as they are written down."""
    return tuple(
        Sent(
            message["id"],
            digest(message["body"]),
            to=message["recipient"].get("bot"),
            channel=message["recipient"].get("name"),
            reply_to=message.get("reply_to"),
            asks=message.get("expects_reply", False),
            delay=message.get("delay", 0.0),
            ttl=message.get("ttl"),
            priority=message.get("priority", "normal"),
            hops=message.get("hops"),
        )
        for message in messages
    )


def publish(link: Link, messages: list[Frame]) -> int:
    """Begin to publish."""
    return link.begin(Publish(link.bot, sent(messages)), _seqs, messages=messages)


def settle(link: Link, how: str, seqs: list[int], **fields: Any) -> int:
    """Begin to settle, and have it confirmed."""
    delay = fields.get("delay", 0.0)
    action = Settle(link.bot, link.session, _how(how), tuple(seqs), confirmed=True, delay=delay)
    return link.begin(action, _passed_over, op=how, seqs=seqs, **fields)


def _passed_over(value: Frame | None) -> dict[str, Any]:
    return {"passed_over": tuple(each["seq"] for each in (value or {}).get("passed_over", ()))}


def _how(how: str) -> Any:
    return how


def nothing(_: Any) -> dict[str, Any]:
    """Write down nothing of an answer."""
    return {}


def _seqs(answer: Frame) -> dict[str, Any]:
    lists = {name: tuple(answer.get(name, ())) for name in ("duplicates", "scheduled")}
    spent = tuple(each["index"] for each in answer.get("errors", ()) if each["code"] == "budget_spent")
    return {"seqs": tuple(answer["seqs"]), "spent": spent, **lists}


class Bot:
    """Opens sessions until it is told to end, and takes turns in each."""

    credit: int = 0

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        self.link = link
        self.shape = shape
        self.targets = targets
        self.chance = chance
        self.letters = Letters(link.bot, targets, shape, chance)
        self.turns = 0
        self.failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.link.bot} turns={self.turns}>"

    def run(self) -> None:
        """Live, until the load ends. What goes wrong with the bot itself is kept in `failure`."""
        try:
            self._live()
        except Exception as error:
            self.failure = error
        finally:
            self.link.forget()

    def _live(self) -> None:
        while not self.link.ended.is_set():
            self.rest()
            try:
                self.link.open(self.credit)
                with suppress(Refused):
                    self.begin()
                while not self.link.ended.is_set():
                    with suppress(Refused):
                        self.turn()
                    self.turns += 1
                    self.link.listen(self.chance.uniform(0, self.shape.pause_seconds))
                self.link.goodbye()
            except Lost:
                continue
            except Ended:
                return

    def rest(self) -> None:
        """Stay away for a while before the next session."""

    def begin(self) -> None:
        """Do what a new session needs."""

    def turn(self) -> None:
        """Do one thing."""
        raise NotImplementedError


class Publisher(Bot):
    """Publishes, with a window of frames that are not answered yet."""

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self._open: deque[tuple[int, list[Frame]]] = deque()
        self._again: list[list[Frame]] = []

    def begin(self) -> None:
        # What was not answered is repeated with its ids, in its order; now and then a sender forgets.
        self._again = [messages for _, messages in self._open if self.chance.random() < 0.85] + self._again
        self._open.clear()

    def turn(self) -> None:
        if self._again:
            messages = self._again.pop(0)
        else:
            messages = self.letters.some()
            if self.chance.random() < 0.03:
                self._again.append(messages)  # a repeat of what is known: it gets its first seqs
        try:
            request = publish(self.link, messages)
        except Lost:
            self._again.insert(0, messages)
            raise
        self._open.append((request, messages))
        while len(self._open) >= self.chance.randint(1, self.shape.frames_in_flight):
            with suppress(Refused):
                self.link.finish(self._open[0][0])
            self._open.popleft()


class Subscriber(Bot):
    """Takes its mail, settles it in every way there is, and changes its subscriptions if it `leads`."""

    credit = 40

    def __init__(
        self,
        link: Link,
        shape: Shape,
        chance: random.Random,
        targets: tuple[str, ...],
        *,
        leads: bool = True,
    ) -> None:
        super().__init__(link, shape, chance, targets)
        self._leads = leads
        self._answering = tuple(target for target in targets if target.startswith("subscriber"))
        self._confirming: list[int] = []
        self._standing: set[str] = set()
        self.credit = 40 if leads else 6

    def begin(self) -> None:
        self._confirming.clear()
        if not self._leads:
            return
        # Also where it stands: then that is what the worker has to say.
        self._subscribe(self.shape.channels[0])
        for channel in RETAINED:
            subscribe(self.link, channel)
            self._standing.add(channel)
        if not self._standing.intersection(dict(self.shape.groups)):
            self._subscribe(self.shape.channels[-1])

    def turn(self) -> None:
        chance = self.chance.random()
        if self.link.mail and chance < 0.86:
            self._settle()
        elif chance < 0.9:
            self._confirming.append(publish(self.link, [self.letters.question(self._answering)]))
        elif chance < 0.92 and self._leads:
            self._change()
        elif chance < 0.925:
            self.link.goodbye()
            raise Lost("it said goodbye")
        elif chance < 0.928:
            self.link.forget()
            raise Lost("it vanished")
        elif chance < 0.94:
            self.link.close()
            raise Lost("its connection broke")
        if len(self._confirming) > self.chance.randint(0, 6):
            self._finish()

    def _finish(self) -> None:
        while self._confirming:
            try:
                self.link.finish(self._confirming.pop())
            except Refused:
                continue

    def _settle(self) -> None:
        count = self.chance.randint(1, len(self.link.mail))
        taken = []
        for frame, message in [self.link.mail.popleft() for _ in range(count)]:
            if frame["body"].keys() & {"asks", "answered"}:
                self._confirming.append(publish(self.link, [self.letters.reply(frame)]))
            if message.attempt <= frame["body"].get("fails", 0):
                self._fail([message])
            else:
                taken.append(message)
        if not taken:
            return
        chance = self.chance.random()
        if chance < 0.5:
            self._confirming.append(settle(self.link, "ack", [message.seq for message in taken]))
        elif chance < 0.8:
            self._ack(taken)
        elif chance < 0.85:
            request = settle(self.link, "term", [taken[0].seq], reason="on purpose")
            self._confirming.append(request)
            self._ack(taken[1:])
        else:
            failed = [message for message in taken if message.attempt < 3 and self.chance.random() < 0.5]
            if failed:
                self._fail(failed)
            self._ack([message for message in taken if message not in failed])

    def _fail(self, messages: list[Delivery]) -> None:
        delay = round(self.chance.uniform(0, 0.03 if self.chance.random() < 0.9 else NAK_SECONDS_MAX), 3)
        request = settle(self.link, "nak", [message.seq for message in messages], delay=delay)
        self._confirming.append(request)

    def _ack(self, messages: list[Delivery]) -> None:
        acknowledge(self.link, [message.seq for message in messages])

    def _change(self) -> None:
        channel = self.chance.choice(self.shape.channels[1:])
        if channel in self._standing or self.chance.random() < 0.2:
            unsubscribe = Unsubscribe(self.link.bot, channel)
            self.link.call(unsubscribe, lambda value: {"removed": value["removed"]}, channel=channel)
            self._standing.discard(channel)
        else:
            self._subscribe(channel)

    def _subscribe(self, channel: str) -> None:
        start: Any = self.chance.choices(["new", "all", "seq"], [17, 1, 2])[0]
        if start == "seq":
            start = self.chance.randint(1, min(200, max(1, self.link.last_seq)))
        subscribe(self.link, channel, start, group=dict(self.shape.groups).get(channel))
        self._standing.add(channel)


def acknowledge(link: Link, seqs: list[int]) -> None:
    """Ack without a confirmation."""
    if seqs:
        link.tell(Settle(link.bot, link.session, "ack", tuple(seqs)), op="ack", seqs=seqs)


def subscribe(
    link: Link, channel: str, start: Any = "new", *, echo: bool = False, group: str | None = None
) -> None:
    """Subscribe, and wait for the answer."""
    wire: dict[str, Any] = {"channel": channel, "start": {"seq": start} if isinstance(start, int) else start}
    if group is not None:
        wire["group"] = group
    link.call(Subscribe(link.bot, channel, start, echo, group), subscribed, echo=echo, **wire)


def subscribed(value: Frame) -> dict[str, Any]:
    """Return what is written down of an answer to `subscribe`."""
    return {"start_seq": value["start_seq"], "created": value["created"]}
