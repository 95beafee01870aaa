"""What pages cost the worker: so many questions, whatever the number of bots, channels and people who look."""

from __future__ import annotations

import http.client
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import bus
from bus.model.records import EVENTS_CHANNEL
from bus.web.app import bound, serving
from bus.web.sharing import Shared
from bus.web.tickets import Login, Tickets
from bus.wire.frames import History

from ..crash.nursery import ForkedWorker
from ..integration.forked_worker import forked_worker
from ..integration.wire import TIMEOUT_SECONDS

BOTS, CHANNELS, VIEWERS = 150, 150, 15

MOST = {
    "/": 8,
    "/bots": 2,
    "/bot?name=bot-7": 3,
    "/channel?name=channel-7": 2,
    "/conversations": 2,
    "/conversation?channel=channel-7": 2,
    "/message?seq=1": 2,
    "/mailboxes": 2,
    "/mailbox?name=bot-7": 1,
    "/delayed": 1,
    "/dead-letters": 2,
    "/runs": 2,
    "/approvals": 1,
    "/settings": 1,
    "/removals": 2,
}
"""How often the worker is asked for a page that many people load at the same time."""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedWorker]:
    with forked_worker(tmp_path_factory.mktemp("crowded")) as worker:
        anyio.run(_fill, worker)
        yield worker


async def _fill(worker: ForkedWorker) -> None:
    limit = anyio.CapacityLimiter(20)

    async def come(name: str) -> None:
        async with limit, bus.connect(worker.command, bot=name):
            pass

    async with anyio.create_task_group() as tasks:
        for number in range(BOTS):
            tasks.start_soon(come, f"bot-{number}")
    async with bus.connect(worker.command, bot="author") as author:
        await author.send_all([bus.Draft(channel=f"channel-{number}", body=number) for number in range(CHANNELS)])


class Counted:
    """Makes the page's bot, and counts what it asks its worker."""

    def __init__(self, worker: ForkedWorker) -> None:
        self.asked: Counter[str] = Counter()
        self._worker = worker

    def __call__(self) -> bus.Bot:
        bot = bus.connect(
            self._worker.command, bot="web", max_in_flight=0, tap_url=self._worker.tap, timeout=TIMEOUT_SECONDS
        )
        connection = bot._connection
        request = connection.request

        async def counted(make: Callable[[int], Any], **how: Any) -> Any:
            frame = make(0)
            if not (
                isinstance(frame, History) and frame.channel == EVENTS_CHANNEL
            ):  # as the watch asks, at any time
                self.asked[type(frame).__name__] += 1
            return await request(make, **how)

        connection.request = counted  # type: ignore[method-assign]
        return bot


def test_many_people_are_one_question(
    crowded: ForkedWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What one of them was told counts for the others, as if all came at the same moment.
    monkeypatch.setattr("bus.web.site.Shared", lambda: Shared(lambda: 0.0))
    monkeypatch.setattr("bus.web.sampling._EVERY_SECONDS", 3600.0)
    costs = anyio.run(_look, crowded, tmp_path / "page")
    assert {path: cost for path, cost in costs.items() if cost > MOST[path]} == {}
    assert set(costs) == set(MOST)


async def _look(worker: ForkedWorker, folder: Path) -> dict[str, int]:
    counted, tickets = Counted(worker), Tickets(folder)
    listener = bound("127.0.0.1", 0)
    port = listener.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    secret = tickets.issue(Login(person="ann", **tickets.times(timedelta(hours=1))))
    headers = {"Cookie": f"posthouse-127001{port}={secret}"}
    costs: dict[str, int] = {}

    def get(path: str) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.request("GET", path, None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text

    with anyio.fail_after(2 * TIMEOUT_SECONDS):
        async with serving(listener, tickets, [origin], own=counted, of_token=lambda token: counted()):
            while not counted.asked["Status"]:  # it is connected, and has taken its first sample
                await anyio.sleep(0.01)
            for path in MOST:
                before = counted.asked.total()
                async with anyio.create_task_group() as tasks:
                    for _ in range(VIEWERS):
                        tasks.start_soon(partial(anyio.to_thread.run_sync, get, path))
                costs[path] = counted.asked.total() - before
    return costs


def test_a_page_asks_for_what_it_shows(crowded: ForkedWorker) -> None:
    async def look() -> tuple[int, int, int]:
        async with bus.connect(crowded.command, bot="author") as author:
            bots = await author.bots(part="bot-", limit=101)
            channels = await author.channels(part="channel-", after="channel-149", limit=101)
            named = await author.bots(only=[each.id for each in bots[:3]])
            return len(bots), len(channels), len(named)

    later = [name for name in (f"channel-{number}" for number in range(CHANNELS)) if name > "channel-149"]
    assert anyio.run(look) == (101, len(later), 3)
