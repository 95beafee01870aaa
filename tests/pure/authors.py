"""What bots of a simulated world publish."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from bus.model.priorities import Priority
from bus.wire.frames import Publication, ToBot, ToChannel

from .simulated_settings import BOTS, is_budgeted

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["any_body", "any_publication"]


def any_publication(world: Simulation) -> Publication:
    """Return a message to a bot or on a channel; now and then a reply, one that expires, or one that waits."""
    chance = world.random
    known = [bot.name for bot in world.core.directory.bots.values()] or BOTS
    to_bot = chance.random() < 0.6
    recipient: ToBot | ToChannel = (
        ToBot(bot=chance.choice(known)) if to_bot else ToChannel(chance.choice(world.channels))
    )
    reply_to = None
    if world.log.messages and chance.random() < 0.3:
        answered = chance.choice(list(world.log.messages.values())[-20:])
        reply_to, recipient = answered.id, ToBot(bot=answered.sender_bot_name)
    publication = Publication(
        id=world.new_id(),
        recipient=recipient,
        body=any_body(chance),
        reply_to=reply_to,
        expects_reply=chance.random() < 0.6,
        ttl=chance.choice([None] * 12 + [2.0, 20.0]),
        delay=chance.choice([None] * 8 + [0.0, 1.0, 8.0]),
    )
    if is_budgeted(world.seed):
        hops, deadline = chance.choice([None, None, 0, 1, 3]), chance.choice([None, None, None, 2.0, 30.0])
        deadline = None if world.keyed.is_one else deadline  # last values end with it
        publication = msgspec.structs.replace(publication, hops=hops, deadline=deadline)
        if reply_to is not None and chance.random() < 0.3:  # it is passed on, to whoever it may be
            bot, channel = ToBot(bot=chance.choice(known)), ToChannel(chance.choice(world.channels))
            recipient = bot if chance.random() < 0.5 else channel
            publication = msgspec.structs.replace(publication, recipient=recipient)
    if world.is_prioritized and isinstance(recipient, ToBot):
        priorities: list[Priority] = ["normal", "normal", "high", "low", "low"]
        publication = msgspec.structs.replace(publication, priority=chance.choice(priorities))
    return world.keyed.publication(publication)


def any_body(chance: random.Random) -> msgspec.Raw:
    """Return a body, short or long."""
    return msgspec.Raw(b'"%s"' % (b"x" * chance.choice([1, 1, 10, 200])))
