"""Bots and programs that are connected while their house moves notice nothing but a pause."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import anyio
import pytest

import bus
from bus.testing import Worker
from store import site_of
from store.moving.mover import move

from ..client.test_bot import bodies
from ..contract.samples import definition

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 900.0
"""Longer than the moves of a test take on a busy machine."""


async def digest(text: str) -> str:
    return text.upper()


@pytest.mark.timeout(300)
async def test_bots_and_programs_stay_while_their_house_moves(tmp_path: Path, postgresql_url: str) -> None:
    places = [str(tmp_path / "posthouse.db"), postgresql_url, str(tmp_path / "back.db")]
    with Worker(places[0]) as worker:
        async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
            await b.subscribe("news")
            await a.workflows.save_definition(definition("digest"))
            async with a.workflows.run("digest", lease_seconds=LEASE_SECONDS) as run:
                assert await run.step("before", digest, "a") == "A"
                sent = [await a.send("b", "before")]
                for source, target in pairwise(places):
                    sent.append(await a.send("b", target))
                    with anyio.fail_after(60):
                        held = await b.receive()
                    await anyio.to_thread.run_sync(worker.stop)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(a.publish, "news", target)
                        await move(site_of(source), site_of(target), lambda reached: None)
                        worker.store_url = target
                        await anyio.to_thread.run_sync(worker.start)
                    await b.bots()  # it is back
                    await held.ack(confirm=True)
                    assert await run.step(f"at {target}", digest, target) == target.upper()
                sent.append(await a.send("b", "after"))
                run_id = run.id
            assert await bodies(b, 4) == [places[1], places[2], places[2], "after"]
            assert [receipt.seq for receipt in sent] == [1, 2, 4, 6], "seqs go on"
            ended = await a.workflows.get_run(run_id)
            assert ended is not None
            assert ended.status is bus.RunStatus.COMPLETED
