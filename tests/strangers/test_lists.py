"""Lists of what never ends fit into a frame."""

from __future__ import annotations

from typing import Any

import pytest

from ..integration.wire import Session, to_bot, to_channel
from ..integration.wire_worker import Worker
from .conftest import Serve
from .neighbour import is_served

FRAME_BYTES_MAX = 4096


@pytest.fixture
def small(serve: Serve) -> Worker:
    return serve(f"[limits]\nframe_bytes_max = {FRAME_BYTES_MAX}\nbody_bytes_max = 1000\n")


def pages(session: Session, op: str, name: str, **fields: Any) -> list[list[Any]]:
    """Read all pages of a list, each after the last one's last name."""
    found: list[list[Any]] = []
    after: dict[str, Any] = {}
    while True:
        value = session.value(op, **fields, **after)
        assert len(session.raw) <= FRAME_BYTES_MAX
        [rows] = [rows for rows in value.values() if isinstance(rows, list)]
        found.append([row[name] for row in rows])
        if not value.get("more"):
            return found
        after = {"after": found[-1][-1]}


def joined(lists: list[list[Any]]) -> list[Any]:
    assert len(lists) > 1
    return [each for page in lists for each in page]


def test_bots_and_a_channels_subscriptions_come_in_pages(small: Worker) -> None:
    names = sorted(f"bot-{'x' * 80}-{number:03}" for number in range(60))
    for name in names:
        session = small.session(name)
        session.subscribe("news")
    assert joined(pages(session, "bots", "name")) == names
    assert joined(pages(session, "subscriptions", "bot", channel="news")) == names
    assert is_served(small)


def test_channels_and_a_bots_subscriptions_come_in_pages(small: Worker) -> None:
    session = small.session("eve")
    names = sorted(f"channel-{'x' * 80}-{number:03}" for number in range(60))
    for name in names:
        session.subscribe(name)
    assert joined(pages(session, "channels", "name")) == names
    assert joined(pages(session, "subscriptions", "channel_name")) == names
    session.publish(to_channel(names[0], 1), to_channel(names[0], 2))
    assert session.value("channels")["channels"][0]["messages"] == 2
    assert is_served(small)


def test_dead_letters_come_in_pages(small: Worker) -> None:
    session = small.session("eve")
    seqs = [seq for number in range(30) for seq in session.publish(to_bot("eve", "x" * 900 + str(number)))]
    session.take(30)
    session.settle("term", *seqs)
    found: list[int] = []
    more = True
    while more:
        value = session.value("dead_letters", limit=20, offset=len(found))
        assert len(session.raw) <= FRAME_BYTES_MAX
        found += [dead["seq"] for dead in value["dead_letters"]]
        more = value.get("more", False)
    assert sorted(found) == seqs
