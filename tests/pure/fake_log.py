"""A log in memory, for tests of the pure core: what was applied stays, and nothing waits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, assert_never

from store.records import Bot, Channel
from store.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    Added,
    AddMessages,
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
    SaveMailbox,
    SeenBot,
    Subscribed,
    Subscription,
)


class FakeLog:
    """The behaviour of a MessageLog without its disk; `tests/store` holds the real one to the same promises."""

    def __init__(self) -> None:
        self.messages: list[LogMessage] = []
        self.by_id: dict[str, LogMessage] = {}
        self.bots: dict[str, Bot] = {}
        self.channels: dict[str, Channel] = {}
        self.subscriptions: dict[tuple[str, str], Subscription] = {}
        self.mailboxes: dict[str, MailboxState] = {}
        self.dead_letters: dict[tuple[str, int], DeadLetter] = {}

    @property
    def last_seq(self) -> int:
        return len(self.messages)

    def load(self) -> LogState:
        heads = {message.recipient_channel: message.seq for message in self.messages}
        return LogState(
            epoch="epoch",
            last_seq=self.last_seq,
            last_timestamp=self.messages[-1].timestamp if self.messages else "",
            bots=list(self.bots.values()),
            channels=[(channel, heads.get(name, 0)) for name, channel in self.channels.items()],
            subscriptions=list(self.subscriptions.values()),
            mailboxes=copy.deepcopy(list(self.mailboxes.values())),
            dead_letters=list(self.dead_letters),
        )

    def apply(self, changes: Sequence[Change]) -> list[Any]:
        return [self._apply(change) for change in changes]

    def _apply(self, change: Change) -> Any:
        match change:
            case AddMessages():
                return [self._add(message, change.timestamp) for message in change.messages]
            case SaveMailbox(state):
                self.mailboxes[state.bot_id] = state
            case AddBot(bot):
                assert bot.id not in self.bots
                assert bot.name not in {other.name for other in self.bots.values()}
                self.bots[bot.id] = bot
                self.mailboxes[bot.id] = MailboxState(bot.id, self.last_seq)
                return self.last_seq
            case SeenBot():
                assert change.bot_id in self.bots
            case AddChannel(channel):
                self.channels.setdefault(channel.name, channel)
            case AddSubscription():
                return self._subscribe(change)
            case RemoveSubscription():
                return self.subscriptions.pop((change.bot_id, change.channel), None) is not None
            case AddDeadLetters(dead_letters):
                self.dead_letters.update({(dead.bot_id, dead.seq): dead for dead in dead_letters})
            case RemoveDeadLetters():
                return [seq for seq in change.seqs if self.dead_letters.pop((change.bot_id, seq), None)]
            case _:
                assert_never(change)
        return None

    def _add(self, message: NewMessage, timestamp: str) -> Added:
        known = self.by_id.get(message.id)
        if known is not None:
            same = known.sender_bot_id == message.sender_bot_id
            return Added(known.seq, duplicate=True) if same else Added(None)
        fields = {name: getattr(message, name) for name in NewMessage.__struct_fields__}
        stored = LogMessage(**fields, seq=self.last_seq + 1, timestamp=timestamp)
        self.messages.append(stored)
        self.by_id[stored.id] = stored
        return Added(stored.seq)

    def _subscribe(self, change: AddSubscription) -> Subscribed:
        assert change.channel in self.channels, "the channel is added in the same transaction"
        key = (change.bot_id, change.channel)
        known = self.subscriptions.get(key)
        if known is not None:
            return Subscribed(known.start_seq, created=False)
        start_seq = self.last_seq if change.start_seq is None else change.start_seq
        self.subscriptions[key] = Subscription(*key, change.subscribed_at, start_seq, change.echo)
        return Subscribed(start_seq, created=True)

    def read_page(self, request: PageRequest) -> Page:
        recalled = [self.messages[seq - 1] for seq in request.seqs]
        wanted = [
            message
            for message in self.messages[: request.through_seq]
            if any(_wants(message, request.bot_id, source) for source in request.sources)
        ]
        messages, size_bytes = [], 0
        for message in wanted[: request.messages_max]:
            if size_bytes >= request.bytes_max:
                break
            messages.append(message)
            size_bytes += len(message.body)
        return Page(recalled, messages, complete=len(messages) == len(wanted))


def _wants(message: LogMessage, bot_id: str, source: tuple[str, int, bool]) -> bool:
    channel, after_seq, skip_own = source
    if message.seq <= after_seq or (skip_own and message.sender_bot_id == bot_id):
        return False
    return message.recipient_channel == channel if channel else message.recipient_bot_id == bot_id
