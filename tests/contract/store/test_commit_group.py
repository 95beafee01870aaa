"""A commit shares its transaction with what is written beside it, whatever becomes of that."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bus.errors import NotFound
from bus.model.repository import (
    AddBot,
    Appended,
    Committed,
    CommitWork,
    lots_of,
)

from ..conftest import StorePlace
from .samples import at, bot, channel, to_channel

pytestmark = pytest.mark.anyio


def work(id: str) -> CommitWork:
    """Make a commit that sends a message on a channel which comes into being by it."""
    return CommitWork(
        id=id,
        bot_id="ann",
        digest="d",
        run_id=None,
        fence=None,
        steps=(),
        status=None,
        error=None,
        context=None,
        lots=lots_of([to_channel(f"message of {id}", "ann", f"channel of {id}")]),
        channels=(channel(f"channel of {id}"),),
        known_only=False,
        timestamp=at(1),
        number=1,
    )


async def test_a_commit_beside_a_refused_write_is_told_as_new(store_place: StorePlace) -> None:
    """The group is tried a second time: what the first try did must be undone, or it is taken for a repeat."""
    answers: list[Any] = []
    async with store_place.open() as store:
        await store.log.apply([AddBot(bot("ann"))])

        async def commit() -> None:
            answers.extend((await store.log.apply([work("c")])).answers)

        async def refused() -> None:
            with pytest.raises(NotFound):
                await store.workflows.release_run("nowhere", 1)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(commit)
                tasks.start_soon(refused)
    [answer] = answers
    assert isinstance(answer, Committed)
    assert answer.added is not None, "the commit was taken for one that was carried out before"
    assert answer.added == [Appended(1)]
    assert answer.seqs == [1]
