"""Who is told that a subscription of a bot has ended."""

from __future__ import annotations

from typing import Any

import pytest

from bus.wire.frames import RemoveFrame, Subscribe, ToChannel, Unsubscribe
from bus.wire.removing_frames import ChannelOf, GroupOf, Removable, SubscriptionOf

from .worker import Worker, published


def house(*channels: str, group: str | None = None) -> Worker:
    """Return a worker with a bot that has these subscriptions, and follows them; and an operator."""
    worker = Worker()
    worker.hello("ann")
    worker.hello("eve")
    worker.say(b"eve", published(ToChannel("eu.paris"), ToChannel("eu.rome")))
    worker.commit()
    for channel in channels:
        worker.say(b"ann", Subscribe(request=2, channel=channel, group=group))
        worker.commit()
    follow(worker)
    return worker


def follow(worker: Worker) -> None:
    session = worker.core.sessions.get(b"ann")
    assert session is not None
    session.follows = True


def told(worker: Worker, address: bytes, frame: Any) -> int:
    """Return how often somebody is told until a request is answered."""
    said = worker.say(address, frame)
    while not any(each.get("request") == frame.request for each in said):
        said += worker.commit()
    assert all(each["op"] != "error" for each in said), said
    return sum(each["op"] == "subscription_ended" for each in said)


def remove(worker: Worker, what: Removable) -> int:
    return told(worker, b"eve", RemoveFrame(request=4, id=worker.new_id(), what=what, force=True))


@pytest.mark.parametrize(
    ("channel", "group", "what"),
    [
        ("news", None, SubscriptionOf("ann", "news")),
        ("news", None, ChannelOf("news")),
        ("news", "team", GroupOf("news", "team")),
        ("eu.*", None, SubscriptionOf("ann", "eu.*")),
        ("us.*", None, SubscriptionOf("ann", "us.*")),
    ],
)
def test_a_removal_is_told_once_until_the_bot_asks_again(channel: str, group: str | None, what: Removable) -> None:
    worker = house(channel, "other", group=group)
    assert remove(worker, what) == 1
    assert remove(worker, SubscriptionOf("ann", "other")) == 0


def test_who_asks_again_is_told_again() -> None:
    worker = house("news", "other")
    assert remove(worker, SubscriptionOf("ann", "news")) == 1
    follow(worker)
    assert remove(worker, SubscriptionOf("ann", "news")) == 0, "there was none"
    assert remove(worker, SubscriptionOf("ann", "other")) == 1


def test_another_session_of_the_bot_is_told_of_an_unsubscription() -> None:
    worker = house("news", "us.*")
    assert told(worker, b"ann", Unsubscribe(request=5, channel="news")) == 1
    follow(worker)
    assert told(worker, b"ann", Unsubscribe(request=6, channel="us.*")) == 1
