"""The order in which replies are recorded in their task: that in which the bot sent them.

Owns what a reply waits for: several endpoints may take replies to one message at the same time, and a reply with a
higher priority comes before others.
"""

from __future__ import annotations

from typing import Any

from a2a.types import Task

from ...bot import Bot
from ...client.message import Message
from ...errors import RequestError

__all__ = ["is_next"]

_MESSAGES_AT_ONCE = 5
"""Usually the message before a reply is the one that it answers, or a reply that is recorded."""

_STILL_TO_COME = ("waiting", "in_flight", "returned")


async def is_next(bot: Bot, task: Task, reply: Message[Any]) -> bool:
    """Return True if all earlier replies to the same message are recorded, or never will be."""
    recorded = {artifact.artifact_id for artifact in task.artifacts} | {each.message_id for each in task.history}
    recorded.add(task.status.message.message_id)
    before = reply.seq
    while part := await bot.history(thread=reply.reply_to, before_seq=before, limit=_MESSAGES_AT_ONCE):
        for each in part:
            if each.id == reply.reply_to or each.id in recorded:
                return True
            is_reply = each.reply_to == reply.reply_to and each.sender_bot_id == reply.sender_id
            if is_reply and await _is_to_come(bot, each.id, reply.sender_id):
                return False
        before = part[-1].seq
    return True


async def _is_to_come(bot: Bot, id: str, sender: str) -> bool:
    try:
        found = await bot.find(id, sender=sender)
    except RequestError:  # retention has removed it
        return False
    return any(fate.bot == bot.name and fate.state in _STILL_TO_COME for fate in found.mailboxes)
