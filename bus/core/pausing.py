"""Subscriptions whose bot may no longer have them.

Its rules:

- Nothing is delivered by a subscription while a session of its bot is open whose key may not have it. It is not
  removed, and goes on where it was when the right is back.
- A session lends no credit to a group that its key may not join. The group's other members are unaffected.
- What is in flight may be settled, except by a member that lost its group: that goes to other members.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..mailbox.sessions import Session, Sessions
from ..model.repository import Subscription
from .access import Access, wanted
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn

__all__ = ["Pausing"]


class Pausing:
    """See the module."""

    def __init__(
        self, access: Access, directory: Directory, sessions: Sessions, *, dispatch: Dispatch, turn: Turn
    ) -> None:
        self._access = access
        self._directory = directory
        self._sessions = sessions
        self._dispatch = dispatch
        self._turn = turn

    def __repr__(self) -> str:
        return f"<Pausing {self._access}>"

    def look_at_all(self) -> None:
        """Pause and resume the subscriptions of all bots that are connected."""
        for bot_id in dict.fromkeys(session.bot_id for session in self._sessions):
            self.look_at(bot_id)

    def end(self) -> None:
        """Resume everything that was paused by an earlier worker: this one has no keys, and so no rights."""
        for mailbox in self._directory.mailboxes.values():
            for channel in mailbox.sources.paused:
                mailbox.resume(channel, self._dispatch.last_seq)

    def look_at(self, bot_id: str) -> None:
        """Pause and resume the subscriptions of a bot, by the keys of its sessions. Without keys, do nothing."""
        sessions = [
            each for each in self._sessions.of_bot(bot_id) if not each.opening and each.principal is not None
        ]
        if not sessions:
            return
        changed: dict[bool, list[str]] = {True: [], False: []}
        for subscription in list(self._directory.subscriptions_of(bot_id).values()):
            if subscription.group is not None:
                self._lend(subscription, sessions)
                continue
            allowed = all(self._may(session, subscription) for session in sessions)
            mailbox, channel = self._directory.mailboxes[bot_id], subscription.channel
            if mailbox.resume(channel, self._dispatch.last_seq) if allowed else mailbox.pause(channel):
                changed[allowed].append(channel)
                self._dispatch.touch(mailbox)
        for allowed, event in ((False, "subscriptions_paused"), (True, "subscriptions_resumed")):
            if changed[allowed]:
                self._turn.note(event, bot=sessions[0].bot_name, channels=changed[allowed])

    def _lend(self, subscription: Subscription, sessions: Iterable[Session]) -> None:
        """Let the sessions whose keys may join a group receive from it, and no others."""
        mailbox = self._directory.mailbox_for(subscription)
        for session in sessions:
            allowed, lent = self._may(session, subscription), mailbox.id in session.mailbox_ids
            if allowed and not lent:
                self._dispatch.join(session, mailbox)
            elif lent and not allowed:
                self._dispatch.leave(session, mailbox, vanished=False)
            self._dispatch.touch_session(session)

    def _may(self, session: Session, subscription: Subscription) -> bool:
        assert session.principal is not None, "only those with a key are asked"
        return self._access.may(session.principal, *wanted(subscription.channel, subscription.group))
