"""What an import adds beside the messages: bots and channels that are missing, and mailboxes that pass over them.

Owns that imported messages are history, which nobody gets: each mailbox that would get one moves to the end of the
log in the transaction that adds it. That loses nothing if nothing waits in it, which is asked first.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import msgspec

from .changes import AddBot, AddChannel, Change, LogState, MailboxState, SaveMailbox, group_mailbox_id
from .exporting import Exported
from .pages import PageRequest
from .priorities import DIRECT, NORMAL, PRIORITIZED
from .records import WORKER_ID, BotRecord, Channel

__all__ = ["Import", "Seen", "is_importable"]

_PAUSED = "!"
"""Precedes the name of a paused channel in the floors of a mailbox (`MailboxState`)."""


def is_importable(line: Exported) -> bool:
    """Return False for erased messages, and for the worker's own, which tell of another house."""
    return not line.erased and line.sender_bot_id != WORKER_ID


class Seen(msgspec.Struct):
    """Who occurs in a file: bots by their ids, senders by the channels that they sent to first, recipients."""

    bots: dict[str, str] = {}
    channels: dict[str, str] = {}
    recipients: set[str] = set()

    def note(self, line: Exported) -> None:
        """Note who sent a message to whom."""
        self.bots[line.sender_bot_id] = line.sender_bot_name
        if line.recipient_channel is not None:
            self.channels.setdefault(line.recipient_channel, line.sender_bot_id)
        if line.recipient_bot_id is not None:
            self.recipients.add(line.recipient_bot_id)
            if line.recipient_bot_name is not None:
                self.bots[line.recipient_bot_id] = line.recipient_bot_name


class Import:
    """One import of a file into a store with this state."""

    def __init__(self, state: LogState, seen: Seen, at: str) -> None:
        """`at` is the time of the import."""
        self._state = state
        self._at = max(at, state.last_timestamp)
        self._last_seq = state.last_seq
        by_id = {bot.id: bot for bot in state.bots}
        by_name = {bot.name: bot for bot in state.bots}
        self.bots: dict[str, tuple[str, str]] = {}
        """The id and the name here of each bot of the file: one with its id or else its name, or else a new one."""
        self.new_bots: list[BotRecord] = []
        for id, name in seen.bots.items():
            bot = by_id.get(id) or by_name.get(name)
            if bot is None:
                bot = BotRecord(id=id, name=name, created_at=self._at, last_seen_at=self._at)
                by_id[id] = by_name[name] = bot
                self.new_bots.append(bot)
            self.bots[id] = (bot.id, bot.name)
        self._seen = seen
        recipients = {self.bots.get(id, (id, ""))[0] for id in seen.recipients}
        self._mailboxes = dict(self._addressed(recipients, seen.channels.keys()))

    def __repr__(self) -> str:
        return f"<Import bots={len(self.bots)} new={len(self.new_bots)} mailboxes={len(self._mailboxes)}>"

    @property
    def at(self) -> str:
        """The timestamp of what is added."""
        return self._at

    def waiting(self) -> dict[str, PageRequest]:
        """Return, by the names of the mailboxes that messages of the file are addressed to, what waits in them."""
        names = {bot.id: bot.name for bot in self._state.bots}
        return {names.get(id, id): self._waiting(state) for id, state in self._mailboxes.items()}

    def beginning(self) -> list[Change]:
        """Return what is added before the first message; nothing of it is changed if it is there."""
        channels: list[Change] = [
            AddChannel(Channel(name=name, created_at=self._at, created_by_bot_id=self.bots[sender][0]))
            for name, sender in self._seen.channels.items()
        ]
        wanted: list[Change] = [AddBot(bot) for bot in self.new_bots]
        addressed = {self.bots[id][0] for id in self._seen.recipients if id in self.bots}
        self._mailboxes |= {
            bot.id: MailboxState(bot.id, self._last_seq) for bot in self.new_bots if bot.id in addressed
        }
        return wanted + channels

    def passing(self, count: int) -> list[Change]:
        """Return the mailboxes as they are after so many more messages, which they pass over."""
        self._last_seq += count
        return [SaveMailbox(self._passed(state)) for state in self._mailboxes.values()]

    def _passed(self, state: MailboxState) -> MailboxState:
        floors = {source: self._last_seq for source in state.floors if source.startswith(_PAUSED)}
        return msgspec.structs.replace(state, position=self._last_seq, floors=floors, ahead=())

    def _addressed(self, bot_ids: Set[str], channels: Set[str]) -> Iterable[tuple[str, MailboxState]]:
        wanted = set(bot_ids)
        for each in self._state.subscriptions:
            if each.channel in channels and each.group is None:
                wanted.add(each.bot_id)
        wanted |= {
            group_mailbox_id(each.channel, each.name) for each in self._state.groups if each.channel in channels
        }
        return ((state.mailbox_id, state) for state in self._state.mailboxes if state.mailbox_id in wanted)

    def _waiting(self, state: MailboxState) -> PageRequest:
        starts: Mapping[str, tuple[int, bool]] = {
            each.channel: (each.start_seq, not each.echo)
            for each in self._state.subscriptions
            if each.bot_id == state.mailbox_id and each.group is None
        } | {
            each.channel: (each.start_seq, False)
            for each in self._state.groups
            if group_mailbox_id(each.channel, each.name) == state.mailbox_id
        }
        sources = [
            (
                channel,
                max(start, state.floors.get(_PAUSED + channel, max(state.position, state.floors.get(channel, 0)))),
                skips_own,
            )
            for channel, (start, skips_own) in starts.items()
        ]
        if "/" not in state.mailbox_id:
            direct = max(state.position, state.floors.get(DIRECT, 0))
            if state.floors.keys() & {*PRIORITIZED}:
                sources += [(source, state.floors.get(source, direct), False) for source in (NORMAL, *PRIORITIZED)]
            else:
                sources.append((DIRECT, direct, False))
        early = tuple({*state.ahead, *(item.seq for item in state.unsettled)})
        return PageRequest(state.mailbox_id, early, tuple(sources), self._state.last_seq, 1, 1)
