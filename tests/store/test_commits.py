"""Commits in the log: what goes to the disk with them does so in the same transaction."""

from __future__ import annotations

import pytest

from store.errors import Conflict
from store.repository import AddBot, Committed, CommitWork, MailboxState, MessageLog, SaveMailbox, UnsettledState

from .samples import at, bot, direct

pytestmark = pytest.mark.anyio


def work(id: str, *, known_only: bool = False) -> CommitWork:
    """A commit of a message, for no run."""
    return CommitWork(
        id,
        "ann",
        digest="what it holds",
        run_id=None,
        fence=None,
        steps=[],
        status=None,
        error=None,
        context=None,
        messages=[direct("m", "ann", "ann")],
        channels=[],
        known_only=known_only,
        timestamp=at(1),
        number=1,
    )


async def test_a_commit_that_is_alone_goes_to_the_disk_with_what_follows_it(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    with pytest.raises(Conflict):
        await log.apply([work("c"), AddBot(bot("ann"))])
    assert (await log.load()).last_seq == 0
    assert await log.apply([work("c", known_only=True)]) == [None], "the commit did not happen without the rest"


async def test_a_commit_settles_in_its_own_transaction(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    state = MailboxState("ann", 0, (UnsettledState(7, 1, 0),))
    answers = await log.apply([work("c"), SaveMailbox(state, {1: [7]})])
    assert isinstance(answers[0], Committed)
    [mailbox] = (await log.load()).mailboxes
    assert mailbox.unsettled == ()
