"""Bots of the load with one errand each: what a busy subscriber would hide is seen where nothing else goes on.

Owns eight manners: a reader, which never has an ack confirmed, so that nothing but the worker's own flush puts them
on disk; a sleeper, which is away while its messages are removed; a visitor, which subscribes to one channel after
the other and is the first to write there; an onlooker, which asked once for all channels of visitors, and a
latecomer, which asks for all that was written there; a watcher, which keeps a picture of who is there; an
undertaker, which puts dead letters back; and a packer, which gives the system back what the file does not use.
"""

from __future__ import annotations

import random

from bus.model.records import PRESENCE_CHANNEL

from .bots import RETAINED, Bot, Shape, acknowledge, publish, subscribe, subscribed
from .history import Retry, Subscribe
from .link import Frame, Link, Lost

__all__ = ["ROOMS", "Latecomer", "Onlooker", "Packer", "Reader", "Sleeper", "Undertaker", "Visitor", "Watcher"]

ROOMS = "room-*"
"""The pattern that matches the channels of visitors."""

_RETRIED_MAX = 3
_LATE_TURNS = 20
_LOOKS = 3
_AWAY_SECONDS = 1.0


class Reader(Bot):
    """Acks what comes, and never has that confirmed."""

    credit = 10

    def rest(self) -> None:
        if self.chance.random() < 0.2:  # what is lost meanwhile, it is told when it comes
            self.link.ended.wait(self.chance.uniform(0, _AWAY_SECONDS))

    def begin(self) -> None:
        for channel in (self.shape.channels[0], *RETAINED):
            subscribe(self.link, channel)

    def turn(self) -> None:
        acknowledge(self.link, [self.link.mail.popleft()[1].seq for _ in range(len(self.link.mail))])
        if self.chance.random() < 0.3:  # an answer shows that it was heard
            self.link.finish(publish(self.link, [self.letters.one()]))


class Sleeper(Bot):
    """Subscribes to what is soon removed, and stays away until the end: it is told of all that it missed."""

    credit = 10

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self._asleep = False

    def rest(self) -> None:
        if self._asleep:
            self.link.ended.wait()

    def begin(self) -> None:
        for channel in RETAINED:
            subscribe(self.link, channel)
        self._asleep = True

    def turn(self) -> None:
        self.link.goodbye()
        raise Lost("it went to sleep")


class Visitor(Bot):
    """Subscribes to channels that nobody else knows, and writes there at once, to itself."""

    credit = 10

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self._rooms = 0

    def turn(self) -> None:
        acknowledge(self.link, [self.link.mail.popleft()[1].seq for _ in range(len(self.link.mail))])
        if self.chance.random() < 0.1:
            self._rooms += 1
            room = f"room-{self._rooms}"
            action = Subscribe(self.link.bot, room, echo=True)
            request = self.link.begin(action, subscribed, channel=room, echo=True)
            messages: list[Frame] = [self.letters.one() for _ in range(self.chance.randint(1, 2))]
            for message in messages:
                message["recipient"] = {"type": "channel", "name": room}
            published = publish(self.link, messages)
            self.link.finish(request)
            self.link.finish(published)


class Onlooker(Bot):
    """Subscribes to a pattern, and acks what comes of channels that nobody tells it of."""

    credit = 10

    def begin(self) -> None:
        subscribe(self.link, ROOMS)

    def turn(self) -> None:
        acknowledge(self.link, [self.link.mail.popleft()[1].seq for _ in range(len(self.link.mail))])


class Latecomer(Onlooker):
    """An onlooker that asks late, for all that was ever written in channels of visitors."""

    def begin(self) -> None:
        if self.turns > _LATE_TURNS:
            subscribe(self.link, ROOMS, "all")


class Watcher(Bot):
    """Listens to who comes and goes, and asks who is there at the beginning of each session."""

    credit = 10

    def begin(self) -> None:
        subscribe(self.link, PRESENCE_CHANNEL)
        self.link.look_who_is_there()

    def turn(self) -> None:
        acknowledge(self.link, [self.link.mail.popleft()[1].seq for _ in range(len(self.link.mail))])


class Undertaker(Bot):
    """Looks for dead letters of a mailbox, and puts some of them back."""

    def turn(self) -> None:
        mailboxes = [*self.targets, *(f"{channel}/{group}" for channel, group in self.shape.groups)]
        for mailbox in self.chance.sample(mailboxes, _LOOKS):
            rows = self.link.ask("dead_letters", bot=mailbox, limit=100)["dead_letters"]
            seqs = [row["seq"] for row in rows]
            some = self.chance.sample(seqs, min(len(seqs), self.chance.randint(1, _RETRIED_MAX)))
            if some:
                retry = Retry(self.link.bot, mailbox, tuple(some))
                fields = {"op": "retry_dead_letters", "bot": mailbox, "seqs": some}
                self.link.call(retry, lambda value: {"retried": value["retried"]}, **fields)
                return


class Packer(Bot):
    """Has the pages given back that retention frees, again and again: a kill meets that in the middle, too."""

    def __init__(self, link: Link, shape: Shape, chance: random.Random, targets: tuple[str, ...]) -> None:
        super().__init__(link, shape, chance, targets)
        self.freed_bytes = 0

    def turn(self) -> None:
        self.freed_bytes += self.link.ask("compact")["freed_bytes"]
