"""What one bot may see: bots, channels, mailboxes and messages.

Its rules (docs/protocol.md, "Rights"):

- A bot sees whom it may send to, and the channels that it may use in any way. What it does not see does not exist,
  as far as it is told.
- It reads what it may by `read`. Its own are its mail, the channels that it may subscribe to, and its groups.
- A message between two bots is hidden if either conversation is denied.

Without a principal everything is seen, as in a worker without keys.

Pure.
"""

from __future__ import annotations

from ..mailbox.mailbox import Mailbox
from ..model.keys import Principal
from ..model.patterns import GROUP_MARK
from ..model.repository import LogMessage, NewMessage, Subscription
from ..model.rights import OWN, Action
from ..settings.rights import CHANNEL_SCOPE, CONVERSATION_SCOPE, READ_ALL
from ..wire.frames import Refusal
from .access import Access
from .directory import Directory

__all__ = ["Sight"]


class Sight:
    """See the module."""

    def __init__(self, access: Access, directory: Directory, principal: Principal | None) -> None:
        self._access = access
        self._directory = directory
        self._principal = principal

    def __repr__(self) -> str:
        return f"<Sight of {'everybody' if self._principal is None else self._principal.bot_name}>"

    @property
    def is_full(self) -> bool:
        """Whether everything is seen, so that nothing has to be left out."""
        return self._principal is None

    def _may(self, action: Action, object: str, *, own: bool = False) -> bool:
        return self._principal is None or self._access.may(self._principal, action, object, own=own)

    @property
    def reads_all(self) -> bool:
        """Whether everything may be read that is not private."""
        return self._may(Action.READ, READ_ALL)

    def unread_audit(self) -> Refusal | None:
        """Return why it may not read security events, or None."""
        if self._principal is None:
            return None
        return self._access.refusal(self._principal, Action.ADMIN, "audit")

    def unerasable(self) -> Refusal | None:
        """Return why it may not search everything and erase, or None."""
        if self._principal is None:
            return None
        return self._access.refusal(self._principal, Action.ADMIN, "erase")

    def unread_removals(self) -> Refusal | None:
        """Return why it may not read who erased or removed what, or None: whoever may do one of them may."""
        return None if self._may(Action.ADMIN, "remove") else self.unerasable()

    # ── Bots ─────────────────────────────────────────────────────────────────────────────────────────────

    def sees_bot(self, name: str) -> bool:
        """Return True if it may know that there is a bot."""
        own = self._principal is None or name == self._principal.bot_name
        return own or self._may(Action.SEND, name) or self.reads_bot(name)

    def reads_bot(self, name: str) -> bool:
        """Return True if it may read a bot's mail, and know how much of it waits."""
        return self._may(Action.READ, CONVERSATION_SCOPE + name)

    def unread_conversation(self, *names: str) -> Refusal | None:
        """Return why it may not read what these bots sent each other, or None."""
        principal = self._principal
        if principal is None:
            return None
        verdicts = [self._access.judge(principal, Action.READ, CONVERSATION_SCOPE + name) for name in names]
        if any(verdict.allowed for verdict in verdicts) and not any(verdict.denied for verdict in verdicts):
            return None
        other = next((name for name, verdict in zip(names, verdicts, strict=True) if verdict.denied), names[-1])
        if other == principal.bot_name:
            other = names[0]
        return self._access.refusal(principal, Action.READ, CONVERSATION_SCOPE + other)

    # ── Channels ─────────────────────────────────────────────────────────────────────────────────────────

    def sees_channel(self, name: str) -> bool:
        """Return True if it may know that there is a channel."""
        if any(self._may(action, name) for action in (Action.SUBSCRIBE, Action.PUBLISH, Action.TAP)):
            return True
        return self.reads_channel(name)

    def reads_channel(self, name: str) -> bool:
        """Return True if it may read a channel's messages."""
        if self._may(Action.READ, CHANNEL_SCOPE + name):
            return True
        subscription = self._subscriptions.get(name)
        group = None if subscription is None else subscription.group
        return group is not None and self._may(Action.GROUP, _group(name, group)) and self._may(Action.READ, OWN)

    def unread_channel(self, name: str) -> Refusal | None:
        """Return why it may not read a channel's messages, or None."""
        if self._principal is None or self.reads_channel(name):
            return None
        return self._access.refusal(self._principal, Action.READ, CHANNEL_SCOPE + name)

    def sees_group(self, channel: str, group: str) -> bool:
        """Return True if it may know that a channel has a group, and how much waits for that."""
        return self._may(Action.GROUP, _group(channel, group)) or self.reads_mailbox_of(channel, group)

    def reads_mailbox_of(self, channel: str, group: str) -> bool:
        """Return True if it may read what a group has given up: it is a member, or reads all, or may retry it."""
        subscription = self._subscriptions.get(channel)
        if subscription is not None and subscription.group == group:
            return self.reads_channel(channel)
        allowed = self.reads_all or self._may(Action.RETRY, _group(channel, group))
        return allowed and self._may(Action.READ, CHANNEL_SCOPE + channel)

    @property
    def _subscriptions(self) -> dict[str, Subscription]:
        return {} if self._principal is None else self._directory.subscriptions_of(self._principal.bot_id)

    # ── Mailboxes and messages ───────────────────────────────────────────────────────────────────────────

    def reads_mailbox(self, mailbox: Mailbox) -> bool:
        """Return True if it may see a mailbox's dead letters, and the states of its messages."""
        if mailbox.group is None:
            return self.reads_bot(self._directory.bots[mailbox.id].name)
        return self.reads_mailbox_of(mailbox.id.split(GROUP_MARK, 1)[0], mailbox.group)

    def reads(self, message: LogMessage | NewMessage) -> bool:
        """Return True if it may read a message."""
        principal = self._principal
        if principal is None:
            return True
        channel = message.recipient_channel
        if channel is not None:
            sent = message.sender_bot_id == principal.bot_id and self._may(Action.READ, OWN)
            return sent or self.reads_channel(channel)
        recipient = self._directory.bots.get(message.recipient_bot_id or "")
        names = [message.sender_bot_name, *([] if recipient is None else [recipient.name])]
        return self.unread_conversation(*names) is None

    def reads_early(self, message: NewMessage) -> bool:
        """Return True if it may read a message that is not due yet: it sent it, or reads all."""
        principal = self._principal
        if principal is None:
            return True
        return self.reads(message) and (message.sender_bot_id == principal.bot_id or self.reads_all)

    def is_sender(self, message: LogMessage) -> bool:
        """Return True if it sent a message, and may know what became of it everywhere."""
        return self._principal is None or message.sender_bot_id == self._principal.bot_id


def _group(channel: str, group: str) -> str:
    return f"{channel}{GROUP_MARK}{group}"
