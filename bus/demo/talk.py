"""Bots that talk with each other, for the demonstration, and a count of what happened to their messages.

Owns what the bots say, and the counting: from receipts, from each bot's deliveries, and from the log as it was read
back. It knows nothing of the kill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import anyio
import msgspec
import uuid_utils

from ..bot import Bot
from ..client.draft import Draft
from ..client.message import Message
from ..client.waiting import Receipt
from ..wire.frames import StoredMessage

__all__ = ["CHANNEL", "Account", "Heard", "Said", "Speaker", "account", "speakers"]

CHANNEL = "road"

_NAMES = ("rider", "keeper", "clerk")

_MESSAGES_A_CALL = 50
"""Few enough that answers come in between, and that a kill interrupts calls."""

_QUESTIONS = (
    ("Is the pass open?", "Since Tuesday, with chains."),
    ("How far is it to the next house?", "Four hours, three with a fresh horse."),
    ("Is there a bed tonight?", "Two, and soup."),
    ("Did the bag from Augsburg come?", "At noon, and all seals are whole."),
    ("Who rides on to Innsbruck?", "The grey one, at dawn."),
)

_NOTES = (
    "Left the house at dawn.",
    "A wheel broke at the ford; the bags are dry.",
    "Changed horses, on in ten minutes.",
    "The bridge is closed, going round by the mill.",
    "Arrived, and every letter is counted.",
)

_ANSWERS = dict(_QUESTIONS)


class Said(msgspec.Struct, frozen=True):
    """A message that a bot sent: its number among the bot's messages, and its recipient (None: the channel)."""

    id: str
    sender: str
    number: int
    to: str | None
    kind: str
    text: str
    reply_to: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The body that is sent."""
        return {"number": self.number, "text": self.text}


class Heard(NamedTuple):
    """A message that was delivered to a bot."""

    seq: int
    id: str
    sender: str
    number: int


class _Line(NamedTuple):
    """What a bot is going to say."""

    to: str | None
    kind: str
    text: str
    reply_to: str | None = None


class Speaker:
    """One bot: it says its lines, answers questions, and notes what it sent and received.

    `said_planned` and `heard_planned` determine when it is done; they are not part of the count.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: dict[str, Said] = {}
        self.receipts: dict[str, Receipt] = {}
        self.heard: list[Heard] = []
        self.said_planned = 0
        self.heard_planned = 0
        self._lines: deque[_Line] = deque()
        self._answers: deque[_Line] = deque()
        self._asked = anyio.Event()
        self._heard_ids: set[str] = set()

    def __repr__(self) -> str:
        return f"<Speaker {self.name!r} said={len(self.said)}/{self.said_planned} heard={len(self.heard)}>"

    @property
    def done(self) -> bool:
        """Whether everything is acknowledged, and everything planned has been delivered."""
        return len(self.receipts) >= self.said_planned and len(self._heard_ids) >= self.heard_planned

    def plan(self, to: str | None, kind: str, text: str) -> None:
        """Add a line to what this bot will say."""
        self._lines.append(_Line(to, kind, text))

    async def talk(self, bot: Bot) -> None:
        """Send all lines, answers first; return when the last one is acknowledged."""
        while len(self.said) < self.said_planned:
            while not (self._answers or self._lines):
                self._asked = anyio.Event()
                await self._asked.wait()
            drafts = [self._draft() for _ in range(min(_MESSAGES_A_CALL, len(self._answers) + len(self._lines)))]
            for receipt in await bot.send_all(drafts):
                self.receipts[receipt.id] = receipt

    def _draft(self) -> Draft:
        line = self._answers.popleft() if self._answers else self._lines.popleft()
        said = Said(str(uuid_utils.uuid7()), self.name, len(self.said) + 1, *line)
        self.said[said.id] = said
        return Draft(
            id=said.id,
            to=said.to,
            channel=CHANNEL if said.to is None else None,
            message_type=said.kind,
            reply_to=said.reply_to,
            body=said.body,
        )

    async def listen(self, bot: Bot) -> None:
        """Receive messages until cancelled; note each, prepare an answer to a question, and ack it."""
        async for message in bot.messages():
            self.note(message)
            await message.ack()

    def note(self, message: Message) -> None:
        """Note a delivered message, and prepare an answer if it is a question."""
        self._heard_ids.add(message.id)
        self.heard.append(Heard(message.seq, message.id, message.sender, message.body["number"]))
        if message.message_type == "question":
            self._answers.append(_Line(message.sender, "answer", _ANSWERS[message.body["text"]], message.id))
            self._asked.set()


def speakers(messages: int) -> list[Speaker]:
    """Return three bots that send this many messages: a third questions, a third their answers, the rest notes."""
    found = [Speaker(name) for name in _NAMES]
    questions = messages // 3
    for turn in range(messages - 2 * questions):
        sender = found[turn % 3]
        sender.plan(None, "note", _NOTES[turn % len(_NOTES)])
        sender.said_planned += 1
        for other in found:
            other.heard_planned += other is not sender
        if turn < questions:
            # Each asks its two neighbours in turn.
            asked = found[(turn + 1 + turn // 3 % 2) % 3]
            sender.plan(asked.name, "question", _QUESTIONS[turn % len(_QUESTIONS)][0])
            for one in (sender, asked):
                one.said_planned += 1
                one.heard_planned += 1
    return found


# ── The count ────────────────────────────────────────────────────────────────────────────────────────────


class Account(msgspec.Struct, frozen=True):
    """The outcome of the messages.

    `sent` were passed to the client, `acknowledged` have a receipt, `stored` are in the log as they were sent, and
    `repeated` had been stored before they were sent again. `due` is the number of deliveries that the acknowledged
    ones require, and `delivered` how many of these arrived. `lost` are acknowledged messages that are not in the
    log, and missing deliveries; `out_of_order` are first deliveries, and places in the log, after something later;
    `twice` are messages that the client delivered again.
    """

    sent: int
    acknowledged: int
    repeated: int
    stored: int
    due: int
    delivered: int
    lost: int
    out_of_order: int
    twice: int

    @property
    def is_clean(self) -> bool:
        """Whether the contract was kept, and everything that was sent was acknowledged in the end."""
        return self.sent == self.acknowledged and not (self.lost or self.out_of_order or self.twice)


def account(taking_part: Sequence[Speaker], log: Sequence[StoredMessage]) -> Account:
    """Count. `log` is the whole log, in order."""
    said = {message.id: message for speaker in taking_part for message in speaker.said.values()}
    receipts = {id: receipt for speaker in taking_part for id, receipt in speaker.receipts.items()}
    stored = {message.id for message in log if _is_as_said(message, said.get(message.id))}
    due = delivered = twice = 0
    out_of_order = _disorder((message.seq, message.sender_bot_name, _number(message)) for message in log)
    for speaker in taking_part:
        wanted = {id for id in receipts if _is_for(speaker.name, said[id])}
        firsts: dict[str, Heard] = {}
        for heard in speaker.heard:
            firsts.setdefault(heard.id, heard)
        due += len(wanted)
        delivered += len(wanted & firsts.keys())
        twice += len(speaker.heard) - len(firsts)
        out_of_order += _disorder((heard.seq, heard.sender, heard.number) for heard in firsts.values())
    return Account(
        sent=len(said),
        acknowledged=len(receipts),
        repeated=sum(receipt.duplicate for receipt in receipts.values()),
        stored=len(stored),
        due=due,
        delivered=delivered,
        lost=len(receipts.keys() - stored) + due - delivered,
        out_of_order=out_of_order,
        twice=twice,
    )


def _is_as_said(message: StoredMessage, said: Said | None) -> bool:
    return said is not None and (message.sender_bot_name, message.body) == (said.sender, said.body)


def _is_for(name: str, said: Said) -> bool:
    return said.to == name if said.to is not None else said.sender != name


def _number(message: StoredMessage) -> int:
    return int(message.body["number"])


def _disorder(places: Iterable[tuple[int, str, int]]) -> int:
    """Count what comes after something later: in the log, or among its sender's messages."""
    last_seq, last_numbers, count = 0, dict[str, int](), 0
    for seq, sender, number in places:
        count += seq <= last_seq or number <= last_numbers.get(sender, 0)
        last_seq = max(seq, last_seq)
        last_numbers[sender] = max(number, last_numbers.get(sender, 0))
    return count
