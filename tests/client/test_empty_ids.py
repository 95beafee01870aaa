"""An id that is empty, like a variable that was not set, is refused: it would count as none, and repeat nothing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import bus
from bus.errors import InvalidValue
from bus.model.records import GlobalOwner, WorkflowDefinition, WorkflowRun
from bus.testing import Worker

pytestmark = pytest.mark.anyio

POLL = WorkflowDefinition(id="poll", name="poll", owner=GlobalOwner())

CALLS: dict[str, Callable[[bus.Bot], Awaitable[Any]]] = {
    "send": lambda bot: bot.send("b", 1, id=""),
    "publish": lambda bot: bot.publish("news", 1, id=""),
    "request": lambda bot: bot.request("b", 1, id=""),
    "draft": lambda bot: bot.send_all([bus.Draft(to="b", body=1, id="")]),
    "commit": lambda bot: bot.workflows.commit(id=""),
    "message of a commit": lambda bot: bot.workflows.commit(id="c", messages=[bus.Draft(to="b", body=1, id="")]),
    "start": lambda bot: bot.workflows.start("poll", id=""),
    "claim": lambda bot: bot.workflows.claim_run("r", "b", claim_id=""),
    "signal": lambda bot: bot.workflows.handle("r").signal("go", id=""),
    "send_signal": lambda bot: bot.workflows.send_signal("r", "go", id=""),
    "emit": lambda bot: bot.workflows.emit_run("r", 1, id=""),
}


async def test_an_empty_id_is_refused(worker: Worker) -> None:
    said = dict.fromkeys(CALLS, "nothing")
    async with worker.connect(bot="b") as bot:
        await bot.workflows.start("poll", id="r", definition=POLL)
        for name, call in CALLS.items():
            try:
                await call(bot)
            except ValueError as error:
                said[name] = str(error)
    assert {name: text for name, text in said.items() if not re.search(r"empty|must have 1 to", text)} == {}


async def test_a_run_without_an_id_is_not_stored(worker: Worker) -> None:
    nameless = WorkflowRun(id="", workflow_id="poll", workflow_name="poll", trigger_type="x", started_at="")
    async with worker.connect(bot="b") as bot:
        await bot.workflows.start("poll", id="r", definition=POLL)
        with pytest.raises(InvalidValue, match="must not be empty"):
            await bot.workflows.create_run(nameless)
        with pytest.raises(InvalidValue, match="must not be empty"):
            await bot.workflows.fork_run("r", "")
