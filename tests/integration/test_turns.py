"""Whoever looks through much gives others their turn in the worker's loop."""

from __future__ import annotations

from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest

from bus.broker.turns import in_turns

from .conftest import BACKENDS

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", [BACKENDS["asyncio"], BACKENDS["uvloop"]], ids=["asyncio", "uvloop"]),
]


async def test_others_have_their_turn_between_portions() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    had = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        await anyio.lowlevel.checkpoint()
        async for portion in in_turns(range(10_000)):
            assert len(portion) <= 1_000
            had.append(turns)
        tasks.cancel_scope.cancel()
    assert all(earlier < later for earlier, later in pairwise(had))


async def test_what_is_removed_meanwhile_does_no_harm() -> None:
    mailboxes = dict.fromkeys(range(2_000))
    seen: list[int] = []
    async for portion in in_turns(mailboxes.keys()):
        seen += portion
        mailboxes.clear()
    assert seen == [*range(2_000)]
