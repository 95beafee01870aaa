"""How bots of a simulated world settle what they hold: alone, by runs that wait, and with a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from bus.model.repository import group_mailbox_id
from bus.wire.frames import Ack, Commit, Extend, Nak, Park, Term

from .authors import any_publication
from .connection import Connection

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["ack", "commit_work", "park_some", "settle_some"]


def settle_some(world: Simulation) -> None:
    """Let a bot ack, return, give up or extend some of what it holds, or forget it."""
    holding = [each for each in world.connections.values() if each.welcomed and each.unsettled]
    connection = world.random.choice(holding) if holding and world.random.random() < 0.5 else world.pick()
    if connection is None or not connection.unsettled:
        return
    count = world.random.randint(1, len(connection.unsettled))
    seqs = world.random.sample(connection.unsettled, count)
    number = world.number() if world.random.random() < 0.4 else None
    how = world.random.choices(["ack", "nak", "release", "term", "extend", "forget"], [10, 3, 2, 1, 1, 1])[0]
    if how != "extend":
        connection.unsettled = [seq for seq in connection.unsettled if seq not in seqs]
    if how == "ack":
        if number is None:
            world.send(connection, Ack(seqs=seqs))
        else:
            ack(world, connection, world.promises.confirming((_key(world, connection, seq), seq) for seq in seqs))
    elif how in ("nak", "release"):
        delay = world.random.choice([None, 0.0, 1.0])
        world.send(connection, Nak(seqs=seqs, delay=delay, release=how == "release", request=number))
    elif how == "term":
        world.send(connection, Term(seqs=seqs, reason="no", request=number))
    elif how == "extend":
        connection.parked.difference_update(seqs)
        world.send(connection, Extend(seqs=seqs, request=number))


def park_some(world: Simulation) -> None:
    """Let runs wait that messages began: nobody is at work on these messages."""
    connection = world.pick()
    if connection is not None and connection.unsettled:
        seqs = world.random.sample(connection.unsettled, world.random.randint(1, len(connection.unsettled)))
        connection.parked.update(seqs)
        world.send(connection, Park(seqs=seqs))


def ack(world: Simulation, connection: Connection, delivered: dict[tuple[str, int], int]) -> None:
    """Ack with confirmation: what the answer does not name must never come again."""
    number = world.number()
    connection.acking[number] = delivered

    def answered(value: Any) -> None:
        del connection.acking[number]
        if value is not None:
            passed_over = {each["seq"] for each in value.get("passed_over", ())}
            world.promises.note_confirmed(
                connection.bot,
                {key: step for key, step in delivered.items() if key[1] not in passed_over},
            )

    connection.answers[number] = answered
    world.send(connection, Ack(seqs=[seq for _, seq in delivered], request=number))


def commit_work(world: Simulation) -> None:
    """Let a bot send on and settle what drove it in one transaction; now and then the same again."""
    connection = world.pick()
    if connection is None or world.core.full:
        return
    if world.commits and world.random.random() < 0.3:
        commit, owner = world.random.choice(list(world.commits.values()))
        if owner != connection.bot_id:
            return
        commit = msgspec.structs.replace(commit, request=world.number())
    else:
        session = world.core.sessions.get(connection.address)
        held = [seq for seq in connection.unsettled if session is not None and seq in session.in_flight]
        acks = world.random.sample(held, min(len(held), world.random.choice([0, 1, 2])))
        acks += [999_999] if world.random.random() < 0.05 else []
        count = world.random.choice([0, 1, 2])
        messages = [world.promises.note_sent(any_publication(world)) for _ in range(count)]
        values = world.keyed.values_of_commit()
        commit = Commit(request=world.number(), id=world.new_id(), messages=messages, acks=acks, values=values)
        world.commits[commit.id] = (commit, connection.bot_id)
        world.budgets.note_sent(connection.bot_id, messages)
        connection.unsettled = [seq for seq in connection.unsettled if seq not in acks]
    delivered = world.promises.confirming(
        (_key(world, connection, seq), seq) for seq in commit.acks if seq in connection.groups
    )

    def answered(value: Any) -> None:
        if value is None:
            return
        world.promises.note_confirmed(connection.bot, delivered)
        for publication, seq in zip(commit.messages, value["seqs"], strict=True):
            world.promises.note_acknowledged(connection.bot_id, publication, seq, scheduled=seq is None)

    connection.answers[commit.request] = answered
    world.send(connection, commit)


def _key(world: Simulation, connection: Connection, seq: int) -> str:
    """Return the key of the mailbox that a delivery came from."""
    group, channel = connection.groups[seq], world.promises.written[seq].recipient_channel
    return connection.bot if group is None else group_mailbox_id(channel or "", group)
