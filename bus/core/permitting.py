"""What bots may send.

Owns the right to reply: whoever holds a message may send its sender one message that replies to it, whatever the
rules say. Whether something is allowed by a rule is decided in `access`. Nothing is asked of a session without a
principal: a worker without keys knows nobody.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Session
from ..model.repository import Lot
from ..model.rights import Action
from ..settings.rights import CONVERSATION_SCOPE
from ..wire.frames import Code, Refusal, ToBot, ToChannel
from .access import Access
from .directory import Directory

__all__ = ["Permitting", "unknown_id"]


class Permitting:
    """See the module."""

    def __init__(self, access: Access, directory: Directory) -> None:
        self.access = access
        self._directory = directory
        self._held: dict[tuple[str, str], tuple[Mailbox, int]] | None = None
        """The messages that the sender of the current frame holds, by sender and id, once that was asked."""

    def __repr__(self) -> str:
        return f"<Permitting {self.access}>"

    def begin(self) -> None:
        """Begin with another frame: what its sender holds is looked up anew."""
        self._held = None

    def unknown_bot(self, session: Session, given: ToBot, text: str) -> Refusal:
        """Return the refusal of a message to a bot that does not exist.

        If the sender might not send to a bot of that name anyway, it is not told whether there is one.
        """
        principal = session.principal
        if principal is not None and given.bot is not None:
            forbidden = self.access.refusal(principal, Action.SEND, given.bot)
            if forbidden is None and self.access.is_external(principal):
                forbidden = self.access.refusal_if_tainted(principal, Action.SEND, given.bot)
            if forbidden is not None:
                return forbidden
        return Refusal(Code.UNKNOWN_BOT, text)

    def refusals(self, session: Session, recipient: ToBot | ToChannel, lot: Lot) -> Sequence[Refusal | None] | None:
        """Return why each message of a lot may not be sent, or None; None instead if all of them may."""
        principal = session.principal
        if principal is None:
            return None
        if isinstance(recipient, ToChannel):
            refusal = self.access.refusal(principal, Action.PUBLISH, recipient.name)
            return None if refusal is None else [refusal] * len(lot)
        bot = self._directory.bots[lot.recipient_bot_id or ""]
        refusal = self.access.refusal(principal, Action.SEND, bot.name)
        if refusal is None:
            return None
        if recipient.bot is None and not self.access.may(principal, Action.READ, CONVERSATION_SCOPE + bot.name):
            refusal = Refusal(Code.UNKNOWN_BOT, unknown_id(bot.id))  # its name is not told for its id
        if lot.reply_tos is None:
            return [refusal] * len(lot)
        return [
            None if self._may_reply(session, bot.id, reply_to, id) else refusal
            for reply_to, id in zip(lot.reply_tos, lot.ids, strict=True)
        ]

    def is_external(self, session: Session) -> bool:
        """Return True if what a session sends comes from outside."""
        return session.principal is not None and self.access.is_external(session.principal)

    def refusal_if_tainted(self, session: Session, lot: Lot) -> Refusal | None:
        """Return why the messages of a lot may not be sent if they are tainted, or None."""
        if session.principal is None:
            return None
        if lot.recipient_channel is not None:
            return self.access.refusal_if_tainted(session.principal, Action.PUBLISH, lot.recipient_channel)
        name = self._directory.bots[lot.recipient_bot_id or ""].name
        return self.access.refusal_if_tainted(session.principal, Action.SEND, name)

    def _may_reply(self, session: Session, bot_id: str, reply_to: str, id: str) -> bool:
        """Return True if a session holds a message of a bot, to which this right was not used for another reply."""
        if self._held is None:
            self._held = {}
            for seq, mailbox_id in session.in_flight.items():
                mailbox = self._directory.mailboxes[mailbox_id]
                held = mailbox.outstanding.identity(seq)
                if held is not None:
                    self._held[held] = (mailbox, seq)
        found = self._held.get((bot_id, reply_to))
        return found is not None and found[0].outstanding.use_reply(found[1], id)


def unknown_id(bot_id: str) -> str:
    """Return the text for a bot id that nobody has, or that is not to be known."""
    return f"no bot with id {bot_id[:64]!r}"
