"""Commits are part of the transaction of their batch: all of it is on disk together, or none of it."""

from __future__ import annotations

import pytest

from store.errors import Conflict
from store.repository import AddBot, CommitWork, MessageLog

from .samples import at, bot, to_channel

pytestmark = pytest.mark.anyio


def work(id: str, message_id: str) -> CommitWork:
    messages = [to_channel(message_id, "ann", "news")]
    run = (None, None, (), None, None, None)
    return CommitWork(id, "ann", "digest", *run, messages, (), known_only=False, timestamp=at(1), number=1)


async def test_a_commit_is_not_on_disk_before_what_follows_it_in_its_batch(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    with pytest.raises(Conflict):
        await log.apply([work("c", "m"), AddBot(bot("ann"))])
    assert await log.find("m") is None
    await log.apply([work("c", "m")])
    assert await log.find("m") is not None
