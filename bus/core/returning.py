"""Returning clients: what one held in an earlier session stays in flight for it in the next.

Owns what a hello may say about an earlier session. Its rules:

- A client proves by its token that an earlier session was its own. The new session replaces that one, so that
  neither the break nor the return counts as a failure, whichever side noticed the break first.
- A message that a client says it holds is put in flight for it only if it is for its bot, is not settled, and is
  not in flight for another session. Messages that were sent to it and that it does not hold are redelivered.
- A reply on its way to the earlier session goes to the new one, and to no other.

Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Asked, Session
from ..model.repository import Surveyed
from ..settings import Limits
from ..wire.frames import Hello
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn

__all__ = ["Returning"]


class Returning:
    """See the module."""

    def __init__(self, directory: Directory, dispatch: Dispatch, turn: Turn, limits: Limits, *, epoch: str) -> None:
        self._directory = directory
        self._dispatch = dispatch
        self._turn = turn
        self._limits = limits
        self._epoch = epoch

    def __repr__(self) -> str:
        return f"<Returning epoch={self._epoch}>"

    def unknown(self, session: Session, hello: Hello) -> tuple[int, ...]:
        """Return the messages held by a client that must be looked up in the log, after a restart of the worker.

        Because state is saved only now and then, no mailbox of its bot may know that it delivered them; and none
        knows by which channel they came.
        """
        mailboxes = self._directory.mailboxes_of(session.bot_id)
        seqs = {seq for seq in self._holds(hello) if seq <= self._dispatch.last_seq}
        waiting = set().union(*(mailbox.claims.may_wait(seqs) for mailbox in mailboxes))
        unknown = {seq for seq in waiting if not any(mailbox.has(seq) for mailbox in mailboxes)}
        return tuple(sorted(unknown.union(*(mailbox.claims.unknown_sources(seqs) for mailbox in mailboxes))))

    def keep(
        self, session: Session, hello: Hello, earlier: Session | None, located: Sequence[Surveyed]
    ) -> list[int]:
        """Put in flight for a session what its client holds; return the seqs that it cannot keep."""
        now = self._turn.moment.now
        is_of = _came_by(hello)
        mailboxes = self._directory.mailboxes_of(session.bot_id)
        self._come_back(session, self._mailboxes_awaiting(session))
        forgotten: defaultdict[Mailbox, list[Surveyed]] = defaultdict(list)
        for message in located:
            for mailbox in mailboxes:
                mailbox.claims.note_source(message)
            at = self._mailbox_of(session, message)
            if at is None or not is_of(message.seq, at):
                continue
            if not any(mailbox.has(message.seq) and is_of(message.seq, mailbox) for mailbox in mailboxes):
                forgotten[at].append(message)
        for mailbox, messages in forgotten.items():
            mailbox.claims.remember(messages)
        kept: set[int] = set()
        holds = self._holds(hello)
        for mailbox in mailboxes:
            seqs = [seq for seq in holds if mailbox.has(seq) and is_of(seq, mailbox) and seq not in kept]
            if seqs:
                kept.update(mailbox.claims.keep(session, seqs, now, earlier=earlier))
                self._dispatch.touch(mailbox)
        self._dispatch.park(session, [seq for seq in hello.parked if seq in kept])
        return [seq for seq in dict.fromkeys((*hello.holds, *hello.parked)) if seq not in kept]

    def _mailboxes_awaiting(self, session: Session) -> Iterable[Mailbox]:
        """Return its bot's mailboxes, and those of groups it may have left, where its failures are undone too."""
        return dict.fromkeys((*self._directory.mailboxes_of(session.bot_id), *self._dispatch.groups_awaiting))

    def postpone(self, session: Session, client: str | None) -> None:
        """Keep a client's messages from being given up while the log is asked what it holds."""
        if client is not None:
            for mailbox in self._mailboxes_awaiting(session):
                mailbox.outstanding.postpone(client)

    def take_over(self, session: Session, hello: Hello, earlier: Session | None) -> None:
        """Let a session await the replies that its client awaits; resend those on their way to its earlier one."""
        most = self._limits.expected_replies_max
        known = {} if earlier is None else earlier.expecting
        session.expect(known | {id: known.get(id, Asked()) for id in hello.awaits}, most)
        if earlier is None:
            return
        for seq in sorted(earlier.express):
            self._dispatch.hand_over(seq, earlier, session)

    def heard(self, session: Session, *, cut_off: bool) -> None:
        """Undo a client's failures if it was silent for longer than a heartbeat; otherwise keep them."""
        session.doubted = False
        if cut_off:
            self._come_back(session, self._directory.mailboxes_lent_to(session))
        elif session.client is not None:
            for mailbox in self._directory.mailboxes_lent_to(session):
                mailbox.outstanding.confirm(session.client)
                self._dispatch.touch(mailbox)

    def _come_back(self, session: Session, mailboxes: Iterable[Mailbox]) -> None:
        if session.client is None:
            return
        for mailbox in mailboxes:
            if mailbox.outstanding.come_back(session.client):
                self._dispatch.touch(mailbox)

    def _holds(self, hello: Hello) -> list[int]:
        return list(dict.fromkeys((*hello.holds, *hello.parked))) if hello.epoch == self._epoch else []

    def _mailbox_of(self, session: Session, message: Surveyed) -> Mailbox | None:
        """Return the mailbox of a session's bot that a message is for."""
        channel = message.recipient_channel
        if channel is None:
            return self._directory.mailboxes[session.bot_id] if message.recipient_bot_id == session.bot_id else None
        subscription = self._directory.subscriptions_of(session.bot_id).get(channel)
        return None if subscription is None else self._directory.mailbox_for(subscription)


def _came_by(hello: Hello) -> Callable[[int, Mailbox], bool]:
    """Return what tells whether a mailbox may have delivered a message that a client holds.

    The bot may have left that group, and have joined another one of the channel, in which the message waits.
    """
    if hello.held_groups is None:
        return lambda seq, mailbox: True
    groups = {seq: group for group, seqs in hello.held_groups.items() for seq in seqs}
    return lambda seq, mailbox: groups.get(seq) == mailbox.group
