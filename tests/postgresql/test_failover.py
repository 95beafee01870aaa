"""A primary that is killed under load: what was answered is in the log of the standby that was promoted, once."""

from __future__ import annotations

from itertools import count
from typing import Any

import anyio
import pytest

from bus.model.repository import Added, MessageLog

from ..contract.store.samples import add, direct, page, read_page
from .cluster import Node
from .places import PostgresqlPlace
from .promotion import WAITED_FOR, promote

pytestmark = pytest.mark.anyio

SENDERS = ("ann", "bob", "eve")


class Load:
    """Senders that write one message after the other, and repeat none: each waits for its answer."""

    def __init__(self, log: MessageLog) -> None:
        self.answered: dict[str, int] = {}
        self._log = log
        self._counted = anyio.Condition()

    async def send(self, sender: str) -> None:
        for number in count():
            id = f"{sender} {number}"
            [outcome] = await add(self._log, direct(id, sender, "dan"))
            assert isinstance(outcome, Added)
            assert outcome.seq is not None
            assert not outcome.duplicate, "a batch that was carried out twice finds its own messages"
            async with self._counted:
                self.answered[id] = outcome.seq
                self._counted.notify_all()

    async def more(self, messages: int) -> None:
        """Wait until so many more messages are answered."""
        with anyio.fail_after(60):
            async with self._counted:
                wanted = len(self.answered) + messages
                while len(self.answered) < wanted:
                    await self._counted.wait()


async def test_what_was_answered_survives_the_primary(postgresql_quorum: tuple[Node, Node, Node]) -> None:
    primary, *standbys = postgresql_quorum
    for node in postgresql_quorum:
        node.configure(WAITED_FOR)
        node.reload()
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in postgresql_quorum)
    async with PostgresqlPlace(f"postgresql://postgres@{hosts}/postgres").open() as store:
        load = Load(store.log)
        async with anyio.create_task_group() as tasks:
            for sender in SENDERS:
                tasks.start_soon(load.send, sender)
            await load.more(200)
            await anyio.to_thread.run_sync(primary.kill)
            await anyio.to_thread.run_sync(promote, standbys)
            await load.more(200)
            tasks.cancel_scope.cancel()
        stored = await everything(store.log)
    assert [seq for seq, _ in stored] == list(range(1, len(stored) + 1)), "there are no gaps"
    assert len({id for _, id in stored}) == len(stored), "each is there once"
    assert load.answered.items() <= {id: seq for seq, id in stored}.items()


async def everything(log: MessageLog) -> list[tuple[int, str]]:
    found: list[Any] = []
    while True:
        after = found[-1].seq if found else 0
        read = await read_page(log, page("dan", ("", after), messages_max=1000))
        found += read.messages
        if read.complete:
            return [(message.seq, message.id) for message in found]
