"""Last wills as they are shown: which bots have one, to whom it is, and when it is sent."""

from __future__ import annotations

from ..core.core import Core
from ..core.effects import Moment
from ..model.lots import NewMessage
from ..model.records import later
from ..model.repository import FindRequest
from ..wire.answers import ListedWill
from ..wire.frames import ToBot
from .turns import in_turns

__all__ = ["find_will", "listed_will"]


def listed_will(core: Core, bot_id: str, moment: Moment) -> ListedWill | None:
    """Return the last will that a bot has left; None if it has none."""
    left = core.wills.get(bot_id)
    if left is None:
        return None
    recipient = {"type": "channel", "name": getattr(left.message.recipient, "name", "")}
    if isinstance(left.message.recipient, ToBot):
        asked = left.message.recipient.bot or left.message.recipient.bot_id or ""
        bot = core.directory.find_bot(asked)
        recipient = {"type": "direct", "bot": asked if bot is None else bot.name}
    due_at = None if left.due is None else later(moment.wall, left.due - moment.now)
    return ListedWill(left.message.id, recipient, left.delay_seconds, due_at)


async def find_will(core: Core, asked: FindRequest) -> NewMessage | None:
    """Return the message of a last will that was not sent yet, by its id, as it would be sent now."""
    bots = [asked.sender_bot_id] if asked.sender_bot_id is not None else core.wills.bots
    async for portion in in_turns(bots):
        for bot_id in portion:
            if (found := core.wills.message(bot_id, asked.id)) is not None:
                return found
    return None
