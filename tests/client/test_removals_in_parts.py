"""Erasing in several requests that are one removal to people."""

from __future__ import annotations

import msgspec
import pytest

from bus.client.ids import chosen_id
from bus.testing import Worker

pytestmark = pytest.mark.anyio


async def test_a_worker_that_does_not_know_of_parts_is_not_told(worker: Worker) -> None:
    command = chosen_id(None)
    async with worker.connect(bot="ann", max_in_flight=0) as ann:
        first, second = [(await ann.send("ann", "x")).seq for _ in range(2)]
        await ann.erase(seqs=[first], part_of=command)
        connection = ann._caller.connection
        assert connection.welcome is not None
        connection.welcome = msgspec.structs.replace(connection.welcome, joins_removals=False)
        erased = await ann.erase(seqs=[second], part_of=command)
        assert erased.seqs == (second,)
        assert [each.part_of for each in await ann.removals()] == [command, None]
