"""What is measured: each workload takes a system that was started fresh, and gives its figures of one round.

Owns the order of each, and the check that nothing was lost: what was acknowledged is what came, to every receiver,
and otherwise there are no figures but LostMessages. Knows no system.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from . import names
from .figures import latency
from .links import ASKER
from .machine import Watched
from .processes import BenchFailed, Client
from .roles import Answered, Order, Paced, Receiver, Sender, Taken, Wanted
from .systems import System

__all__ = [
    "MEANING",
    "WORKLOADS",
    "Figures",
    "LostMessages",
    "Scale",
    "Workload",
    "ask_many",
    "ask_one",
    "drain",
    "fan_out",
    "half_rate",
    "one_to_one",
    "pairs",
    "publish_many",
    "publish_one",
]

_ANSWER_SECONDS = 900.0

_WARM = Order(count=50, window=50, portion=10)

_CHANNEL = "news"

_MIB = 2**20

_SEED = 1
"""The pairs are random, and the same in every run."""


class LostMessages(BenchFailed):
    """Something that was acknowledged did not come."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured in one round."""

    seconds: float
    """How long messages are sent."""
    latency_seconds: float
    """How long one after another is sent."""
    messages: int = 1 << 60
    """The most that each sender sends."""
    deliveries: int
    """The most that a channel's messages come to, however fast they are sent: what waits takes its time, too."""
    asks: int = 256
    """Questions without a reply at a time, where many are asked."""
    pairs: int = 50
    catch_up_seconds: float = 120.0
    """How long what is still on its way is waited for: a message that comes later counts as lost."""


Figures = dict[str, float]
"""Figures by their name: `rate` a second; latencies in milliseconds, which end with `_ms`."""

Workload = Callable[[System, Scale], Figures]


def publish_one(system: System, scale: Scale) -> Figures:
    """One sender, which waits for each acknowledgement before it sends on."""
    system.register(["reader"])
    producer = system.produce([Sender(bot="writer", number=1, to="reader")])
    warm = _answered(producer, _WARM)
    found = _answered(producer, Order(seconds=scale.latency_seconds, count=scale.messages))
    _check_stored(system, [warm, found])
    return _rate(found) | _latencies(found.latencies)


def publish_many(system: System, scale: Scale, *, portion: int) -> Figures:
    """Two senders in a process each, with as much unanswered as the system likes, so many published at once."""
    system.register(["reader"])
    producers = [system.produce([Sender(bot=f"writer-{each}", number=each, to="reader")]) for each in (1, 2)]
    warm = [_answered(producer, _WARM) for producer in producers]
    for producer in producers:
        producer.tell(_fast(system, scale, portion))
    found = [_awaited(producer) for producer in producers]
    _check_stored(system, [*warm, *found])
    began, ended = min(each.began for each in found), max(each.ended for each in found)
    acknowledged = sum(sum(each.counts) for each in found)
    return {"rate": acknowledged / (ended - began) * 1e9, "acknowledged": acknowledged}


def one_to_one(system: System, scale: Scale, *, portion: int = 100) -> Figures:
    """One sender and one receiver: the time ends when all is received and settled for good."""
    consumer = system.consume([Receiver(bot="reader")])
    producer = system.produce([Sender(bot="writer", number=1, to="reader")])
    return _run(system, scale, _Flow(producer, [consumer], lambda sent: [sent]), portion=portion)


def fan_out(subscribers: int) -> Workload:
    """Give the workload of one sender and so many subscribers of a channel, in two processes."""

    def work(system: System, scale: Scale) -> Figures:
        bots = [Receiver(bot=f"reader-{each}", channel=_CHANNEL) for each in range(subscribers)]
        parts = [bots[::2], bots[1::2]]
        consumers = [system.consume(part) for part in parts]
        producer = system.produce([Sender(bot="writer", number=1, to=_CHANNEL, is_channel=True)])
        flow = _Flow(producer, consumers, lambda sent: [sent * len(part) for part in parts])
        return _run(system, scale, flow, most=max(1, scale.deliveries // subscribers))

    return work


def pairs(system: System, scale: Scale) -> Figures:
    """Bots in random pairs, each of which sends to its partner and receives from it."""
    bots = list(range(1, 2 * scale.pairs + 1))
    random.Random(_SEED).shuffle(bots)
    partners = dict(zip(bots, [*bots[scale.pairs :], *bots[: scale.pairs]], strict=True))
    consumer = system.consume([Receiver(bot=f"bot-{partners[bot]}") for bot in bots])
    producer = system.produce([Sender(bot=f"bot-{bot}", number=bot, to=f"bot-{partners[bot]}") for bot in bots])
    return _run(system, scale, _Flow(producer, [consumer], lambda sent: [sent]), senders=len(bots))


def drain(system: System, scale: Scale) -> Figures:
    """What two senders stored while the receiver was away, received and settled: the time begins with the first.

    One sender may not fill a mailbox of posthouse alone.
    """
    system.register(["reader"])
    producer = system.produce([Sender(bot=f"writer-{number}", number=number, to="reader") for number in (1, 2)])
    order = _fast(system, scale)
    order = msgspec.structs.replace(order, count=order.count // 2, window=max(order.portion, order.window // 2))
    stored = _answered(producer, order)
    system.release(producer)
    memory = system.memory_bytes
    consumer = system.consume([Receiver(bot="reader")])
    with Watched(lambda: system.memory_bytes) as watched:
        [taken] = _take([consumer], [[sum(stored.counts)]], scale)
    return {
        "rate": sum(taken.counts) / (taken.ended - taken.began) * 1e9,
        "stored": sum(stored.counts),
        "memory_before_mib": memory / _MIB,
        "memory_most_mib": max(memory, watched.most) / _MIB,
    }


def ask_one(system: System, scale: Scale) -> Figures:
    """One question at a time: the time from the question to its reply, both of them stored."""
    return _ask(system, Order(seconds=scale.latency_seconds, count=scale.messages))


def ask_many(system: System, scale: Scale) -> Figures:
    """Many questions at a time, of one bot to one other."""
    return _ask(system, Order(seconds=scale.seconds, count=scale.messages, window=scale.asks))


def half_rate(rate: float) -> Workload:
    """Give the workload of one sender that is on time, at half of a rate, and one receiver."""

    def work(system: System, scale: Scale) -> Figures:
        consumer = system.consume([Receiver(bot="reader")])
        producer = system.produce([Sender(bot="writer", number=1, to="reader")])
        _warm_up(_Flow(producer, [consumer], lambda sent: [sent]), scale)
        sent = _answered(producer, Paced(rate=rate / 2, seconds=scale.seconds))
        [taken] = _take([consumer], [sent.counts], scale)
        late = latency(sent.late)
        return _latencies(taken.latencies) | {"asked_rate": rate / 2, "late_p99_ms": late.p99_ms} | _rate(sent)

    return work


WORKLOADS: dict[str, Workload] = {
    names.PUBLISH_ONE: publish_one,
    names.PUBLISH_SINGLES: partial(publish_many, portion=1),
    names.PUBLISH_100: partial(publish_many, portion=100),
    names.PUBLISH_1000: partial(publish_many, portion=1000),
    names.ONE_TO_ONE_SINGLES: partial(one_to_one, portion=1),
    names.ONE_TO_ONE_100: partial(one_to_one, portion=100),
    names.ONE_TO_ONE_1000: partial(one_to_one, portion=1000),
    names.ONE_TO_TEN: fan_out(10),
    "one to a hundred": fan_out(100),
    names.PAIRS: pairs,
    "draining a backlog": drain,
    "request and reply, 1 at a time": ask_one,
    names.ASK_MANY: ask_many,
}

_TWO = "two clients publish to one bot, 4,000 messages unanswered each (RabbitMQ: 1,000)"
_FEWER = "posthouse, frames: 1,900 unanswered"
_PAIR = "one client publishes, another receives and settles"
MEANING: dict[str, str] = {
    names.PUBLISH_ONE: "one client, one message at a time; afterwards, as many must be stored as were acknowledged",
    names.PUBLISH_SINGLES: f"{_TWO}, each published and acknowledged separately ({_FEWER}); stored as above",
    names.PUBLISH_100: f"{_TWO}, 100 in a call; stored as above",
    names.PUBLISH_1000: f"{_TWO}, 1,000 in a call; stored as above",
    names.ONE_TO_ONE_SINGLES: f"{_PAIR}, each message published separately ({_FEWER}); all must arrive",
    names.ONE_TO_ONE_100: f"{_PAIR}, 100 in a call; all must arrive",
    names.ONE_TO_ONE_1000: f"{_PAIR}, 1,000 in a call; all must arrive",
    names.ONE_TO_TEN: "one client publishes on a channel, 100 in a call; ten subscribers in two processes",
    "one to a hundred": "the same with a hundred subscribers",
    names.PAIRS: "a hundred bots in two processes, 10 messages in a call",
    "draining a backlog": "one client receives and settles what two others published before",
    "request and reply, 1 at a time": "one client asks, another answers; both messages stored",
    names.ASK_MANY: "the same, many questions at once",
}
"""What each workload does, for the page: how many clients, and how many messages at once."""


# ── What they have in common ─────────────────────────────────────────────────────────────────────────────


def _fast(system: System, scale: Scale, portion: int | None = None) -> Order:
    portion = portion or system.portion
    return Order(seconds=scale.seconds, count=scale.messages, window=system.window, portion=portion)


class _Flow(msgspec.Struct, frozen=True):
    """Who sends and who receives. `due` gives what the receivers of each process are due, of what was sent."""

    producer: Client
    consumers: Sequence[Client]
    due: Callable[[list[int]], list[list[int]]]


def _run(
    system: System,
    scale: Scale,
    flow: _Flow,
    *,
    senders: int = 1,
    most: int = 1 << 60,
    portion: int | None = None,
) -> Figures:
    """Send as fast as is acknowledged, receive and settle: the rate is that of deliveries, all of them settled."""
    _warm_up(flow, scale)
    order = _fast(system, scale, portion)
    order = msgspec.structs.replace(order, count=min(most, order.count))
    if senders > 1:
        portion = max(1, order.portion // 10)
        window, count = max(portion, order.window // senders), max(1, order.count // senders)
        order = msgspec.structs.replace(order, window=window, portion=portion, count=count)
    sent = _answered(flow.producer, order)
    taken = _take(flow.consumers, flow.due(sent.counts), scale)
    delivered = sum(sum(each.counts) for each in taken)
    ended = max(each.ended for each in taken)
    found = latency(elapsed for each in taken for elapsed in each.latencies)
    return {
        "rate": delivered / (ended - sent.began) * 1e9,
        "sent_rate": sum(sent.counts) / (sent.ended - sent.began) * 1e9,
        "p50_ms": found.p50_ms,
        "p99_ms": found.p99_ms,
        "repeated": sum(each.repeated for each in taken),
        "out_of_order": sum(each.out_of_order for each in taken),
    }


def _warm_up(flow: _Flow, scale: Scale) -> None:
    sent = _answered(flow.producer, _WARM)
    _take(flow.consumers, flow.due(sent.counts), scale)


def _ask(system: System, order: Order) -> Figures:
    system.answer([Receiver(bot="answerer")])
    asker = system.ask([Sender(bot=ASKER, number=1, to="answerer")])
    _answered(asker, _WARM)
    found = _answered(asker, order)
    if len(found.latencies) != sum(found.counts):
        raise LostMessages(f"{sum(found.counts)} questions were asked, {len(found.latencies)} were answered")
    return _rate(found) | _latencies(found.latencies)


def _answered(client: Client, order: Order | Paced) -> Answered:
    client.tell(order)
    return _awaited(client)


def _awaited(client: Client) -> Answered:
    found: Answered = client.answer(_ANSWER_SECONDS)
    return found


def _take(clients: Sequence[Client], counts: Sequence[Sequence[int]], scale: Scale) -> list[Taken]:
    deadline = time.monotonic_ns() + int(scale.catch_up_seconds * 1e9)
    for client, wanted in zip(clients, counts, strict=True):
        client.tell(Wanted(counts=list(wanted), deadline=deadline))
    taken: list[Taken] = [client.answer(_ANSWER_SECONDS) for client in clients]
    for found, wanted in zip(taken, counts, strict=True):
        if found.counts != list(wanted):
            raise LostMessages(f"{sum(wanted)} messages were due, {sum(found.counts)} came")
    return taken


def _check_stored(system: System, sent: Sequence[Answered]) -> None:
    due, stored = sum(sum(each.counts) for each in sent), system.waiting("reader")
    if stored != due:
        raise LostMessages(f"{due} messages were acknowledged, {stored} are stored")


def _rate(found: Answered) -> Figures:
    return {"rate": sum(found.counts) / (found.ended - found.began) * 1e9}


def _latencies(samples: Sequence[int]) -> Figures:
    found = latency(samples)
    return {"p50_ms": found.p50_ms, "p99_ms": found.p99_ms}
