"""Bots of a simulated world subscribe to channels and patterns, and end that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bus.model.repository import Subscription
from bus.wire.frames import StartAt, Subscribe, Unsubscribe

from .simulated_settings import GROUPS

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["subscribe", "subscribe_to_pattern", "unsubscribe", "unsubscribe_from_pattern"]


def subscribe(world: Simulation) -> None:
    connection = world.pick()
    if connection is None:
        return
    channel = world.random.choice(world.channels)
    seq = world.random.randint(1, world.log.last_seq + world.random.choice([3, 3, 100]))
    starts: list[Literal["new", "all"] | StartAt] = ["new", "new", "all", StartAt(seq=seq)]
    start = world.random.choice(starts)
    echo = world.random.random() < 0.3
    group = world.random.choice([None, None, *GROUPS]) if channel != "idle" else None
    number = world.number()
    key = (connection.bot, channel)
    wish = world.wishes.get(key, 0)
    retained = world.keyed.is_one and world.random.random() < 0.5

    def answered(value: Any) -> None:
        if value is not None and retained and value["created"] and start == "new" and group is None:
            told = value.get("retained")
            seq = None if told is None else told["seq"]
            world.keyed.promises.check_subscribed(channel, value["start_seq"], seq)
        stands = connection.bot_id in world.log.bots and world.promises.is_subscribed(*key)
        if value is not None and world.wishes.get(key, 0) == wish and stands:
            start_seq = value["start_seq"]
            world.promises.subscribed[key] = Subscription(*key, "", start_seq, echo, value.get("group"))

    connection.answers[number] = answered
    request = Subscribe(request=number, channel=channel, start=start, echo=echo, group=group, retained=retained)
    world.send(connection, request)


def unsubscribe(world: Simulation) -> None:
    connection = world.pick()
    if connection is not None:
        channel = world.random.choice(world.channels)
        key = (connection.bot, channel)
        world.wishes[key] = world.wishes.get(key, 0) + 1
        world.promises.subscribed.pop(key, None)
        world.send(connection, Unsubscribe(request=world.number(), channel=channel))


def subscribe_to_pattern(world: Simulation) -> None:
    connection = world.pick()
    if connection is None:
        return
    seq = world.random.randint(1, world.log.last_seq + 5)
    starts: list[Literal["new", "all"] | StartAt] = ["new", "new", "all", StartAt(seq=seq)]
    request = Subscribe(
        request=world.number(),
        channel=world.random.choice(world.patterns),
        start=world.random.choice(starts),
        echo=world.random.random() < 0.3,
        group=world.random.choice([None, None, GROUPS[0]]),
    )

    key = (connection.bot, request.channel)
    wish = world.wishes.get(key, 0)

    def answered(value: Any) -> None:
        stands = (connection.bot_id, request.channel) in world.log.patterns
        if value is not None and world.wishes.get(key, 0) == wish and stands:
            world.promises.patterns.add(key)

    connection.answers[request.request] = answered
    world.send(connection, request)


def unsubscribe_from_pattern(world: Simulation) -> None:
    connection = world.pick()
    if connection is not None:
        key = (connection.bot, world.random.choice(world.patterns))
        world.wishes[key] = world.wishes.get(key, 0) + 1
        world.promises.patterns.discard(key)
        world.send(connection, Unsubscribe(request=world.number(), channel=key[1]))
