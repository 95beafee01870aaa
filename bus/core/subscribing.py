"""Subscriptions on their way to the disk and back: one change of each at a time.

Owns where a subscription starts, and the order of changes. A subscription counts from the moment at which its
transaction returned.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..mailbox.sessions import Session, Sessions
from ..model.records import Channel, parse_timestamp, timestamp
from ..model.repository import AddSubscription, RemoveSubscription, Subscribed, Subscription
from ..wire.frames import Code, Rejected, StartAt, Subscribe, Unsubscribe
from .batches import Batches, Done, Failed, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import FindStart, Turn

__all__ = ["Subscribing"]


class Subscribing:
    """See the module."""

    def __init__(
        self,
        directory: Directory,
        sessions: Sessions,
        *,
        batches: Batches,
        dispatch: Dispatch,
        turn: Turn,
        held_max: int,
    ) -> None:
        self._directory = directory
        self._sessions = sessions
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn
        self._held_max = held_max
        self._changing: dict[tuple[str, str], deque[Callable[[], None]]] = {}

    def __repr__(self) -> str:
        return f"<Subscribing changing={len(self._changing)}>"

    def request(self, session: Session, subscribe: Subscribe) -> None:
        """Handle a subscribe frame; a start by time is looked up first."""
        start = subscribe.start
        if not isinstance(start, StartAt):
            self.subscribe(session, subscribe, 0 if start == "all" else None)
            return
        if (start.seq is None) == (start.time is None):
            raise Rejected(Code.BAD_REQUEST, "'start' has either 'seq' or 'time'")
        if start.time is None:
            self.subscribe(session, subscribe, max(0, (start.seq or 0) - 1))
            return
        try:
            time = timestamp(parse_timestamp(start.time))
        except (ValueError, OverflowError) as error:
            raise Rejected(Code.BAD_REQUEST, f"'time' of 'start': {error}") from None
        self._turn.add(FindStart(session.address, session.id, subscribe, time))

    def subscribe(self, session: Session, subscribe: Subscribe, start_seq: int | None) -> None:
        """Write a subscription that starts after a seq; None is the log's end."""
        key = (session.bot_id, subscribe.channel)
        if key in self._changing:
            self._wait(key, session, subscribe.request, lambda: self.subscribe(session, subscribe, start_seq))
            return
        mailbox = self._directory.mailboxes[session.bot_id]
        # A group's mailbox is opened at its start by the log itself; a bot's own goes back to it.
        own = subscribe.group is None and subscribe.channel not in self._directory.subscriptions_of(session.bot_id)
        if own and start_seq is not None:
            mailbox.prepare(subscribe.channel, start_seq)
        wall = self._turn.moment.wall

        def done(answers: Sequence[Any]) -> None:
            subscribed: Subscribed = answers[0]
            if subscribed.created:
                self._enter(
                    Subscription(*key, wall, subscribed.start_seq, subscribe.echo, subscribe.group),
                    self._sessions.of_bot(session.bot_id),
                )
            mailbox.dismiss(subscribe.channel)
            self._dispatch.touch(mailbox)
            self._answer(session, subscribe, subscribed)

        finished, failed = self._one_at_a_time(key, session.address, subscribe.request, done)

        def refused(code: Code, message: str) -> None:
            mailbox.dismiss(subscribe.channel)
            failed(code, message)

        self._batches.add(
            Job(
                finished,
                refused,
                changes=[AddSubscription(*key, wall, start_seq, subscribe.echo, subscribe.group)],
                channels=[Channel(name=subscribe.channel, created_at=wall, created_by_bot_id=session.bot_id)],
                mailboxes=[mailbox] if own else [],
            )
        )

    def _enter(self, subscription: Subscription, sessions: Sequence[Session]) -> None:
        mailbox = self._directory.subscribe(subscription, last_seq=self._dispatch.last_seq)
        for session in sessions:
            if mailbox.id not in session.mailbox_ids and not session.opening:
                self._dispatch.join(session, mailbox)
            self._dispatch.touch_session(session)

    def _answer(self, session: Session, subscribe: Subscribe, subscribed: Subscribed) -> None:
        if subscribed.group != subscribe.group:
            text = (
                f"bot {session.bot_name!r} is subscribed to {subscribe.channel!r} {_manner(subscribed.group)},"
                f" and cannot be {_manner(subscribe.group)} as well: unsubscribe first"
            )
            self._turn.refuse(session.address, Code.CONFLICT, text, subscribe.request)
            return
        value = {"channel": subscribe.channel, "start_seq": subscribed.start_seq, "created": subscribed.created}
        if subscribed.group is not None:
            value["group"] = subscribed.group
        self._turn.answer(session.address, subscribe.request, value)

    def unsubscribe(self, session: Session, unsubscribe: Unsubscribe) -> None:
        """Write the end of a subscription."""
        key = (session.bot_id, unsubscribe.channel)
        if key in self._changing:
            self._wait(key, session, unsubscribe.request, lambda: self.unsubscribe(session, unsubscribe))
            return

        def done(answers: Sequence[Any]) -> None:
            if answers[0]:
                self._leave(*key)
            self._turn.answer(session.address, unsubscribe.request, {"removed": answers[0]})

        finished, failed = self._one_at_a_time(key, session.address, unsubscribe.request, done)
        self._batches.add(Job(finished, failed, changes=[RemoveSubscription(*key)]))

    def _leave(self, bot_id: str, channel: str) -> None:
        mailbox = self._directory.unsubscribe(bot_id, channel)
        self._dispatch.touch(mailbox)  # what it dropped is to be saved
        if mailbox.group is not None:
            for session in self._sessions.of_bot(bot_id):
                if mailbox.id in session.mailbox_ids:
                    self._dispatch.leave(session, mailbox, vanished=False)
                    self._dispatch.touch_session(session)

    def _wait(self, key: tuple[str, str], session: Session, number: int, change: Callable[[], None]) -> None:
        """Let a change wait for the one before it; no more of them than may be held for a bot anyway."""
        if len(self._changing[key]) < self._held_max:
            self._changing[key].append(change)
        else:
            text = f"{self._held_max} changes of the subscription to {key[1]!r} wait already; wait for one"
            self._turn.refuse(session.address, Code.BUSY, text, number)

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
            self._turn.refuse(address, code, message, number)
            proceed()

        return finished, failed


def _manner(group: str | None) -> str:
    return "by itself" if group is None else f"in the group {group!r}"
