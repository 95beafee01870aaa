"""A worker with keys and workflows, whose bots have different rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bus.broker.calls import WorkflowAnswers
from bus.broker.keyed import KeyedAnswers
from bus.broker.waking import RunWaking
from bus.core.effects import Ask
from bus.model.records import (
    BotOwner,
    GlobalOwner,
    Owner,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)
from bus.settings import Limits
from bus.wire.frames import Workflow

from .keyed import Keyed, keyed

__all__ = ["NOW", "House", "opened"]

CONFIGURATION = """
[security.roles.deployer]
read = ["own"]
run = ["deploy-*"]

[security.roles.approver]
approve = ["deploy-*"]

[security.roles.operator]
read = ["own"]
run = ["deploy-*"]
operate = ["deploy-*"]

[security.roles.mender]
operate = ["deploy-*"]

[security.roles.reader]
read = ["own", "kv:config", "kv:$bot.**"]
write = ["$bot.*"]

[security.roles.signaller]
signal = ["deploy-*"]

[security.roles.both]
read = ["own"]
run = ["deploy-*"]
approve = ["deploy-*"]
"""

BOTS = {
    "ann": (),
    "eve": (),
    "ops": ("ops",),
    "deployer": ("deployer",),
    "approver": ("approver",),
    "both": ("both",),
    "operator": ("operator",),
    "partner": ("operator",),
    "mender": ("mender",),
    "signaller": ("signaller",),
    "reader": ("reader",),
}

NOW = "2026-01-01T00:00:00.000000Z"


class House(Keyed):
    """A worker with workflows. `deeds` has what is to be recorded."""

    deeds: list[str]

    def answers(self) -> WorkflowAnswers:
        """Return what answers workflow calls. Nobody here waits for what happens to runs."""
        shell: dict[str, Any] = {"moment": lambda: self.moment, "carry_out": lambda _: None}
        return WorkflowAnswers(
            self.store.workflows,
            self.core.permitting.access,
            limits=Limits(),
            noted=lambda _, deed: self.deeds.append(deed.event),
            waking=RunWaking(self.core, self.store.workflows, self.store.log, **shell),
            keyed=KeyedAnswers(self.core, self.store.keyed, Limits(), **shell),
            large=self.core.large,
            now=lambda: self.moment.now,
        )

    async def call(self, bot: str, name: str, /, **arguments: Any) -> Any:
        """Let a bot make a workflow call; return its value, or the error frame."""
        answers = self.answers()
        principal = self.principal(bot)
        request = Workflow(request=1, call=name, arguments=msgspec.Raw(msgspec.json.encode(arguments)))
        ask = Ask(bot.encode(), principal.bot_id, request, principal)
        frame = await answers.answer(ask, request, answers.begin(ask, request), bot_name=bot)
        decoded = msgspec.json.decode(frame)
        return decoded["value"] if decoded["op"] == "ok" else decoded

    async def refused(self, bot: str, name: str, /, **arguments: Any) -> str:
        """Return the code with which a call is refused."""
        answer = await self.call(bot, name, **arguments)
        assert isinstance(answer, dict), answer
        assert answer.get("op") == "error", answer
        return str(answer["code"])

    async def define(self, name: str, owner: Owner | None = None) -> None:
        definition = WorkflowDefinition(id=f"id-{name}", name=name, owner=owner or GlobalOwner())
        await self.store.workflows.save_definition(definition)

    def run(self, id: str, workflow: str) -> WorkflowRun:
        return WorkflowRun(
            id=id, workflow_id=f"id-{workflow}", workflow_name=workflow, trigger_type="manual", started_at=NOW
        )

    async def held(self, bot: str, id: str, workflow: str) -> int:
        """Let a bot create and claim a run; return the fence."""
        created = await self.call(bot, "create_run", run=self.run(id, workflow))
        assert created["id"] == id, created
        claimed = await self.call(bot, "claim_run", run_id=id)
        return int(claimed["fence"])

    async def waiting(self, bot: str, run: str, fence: int) -> None:
        step = WorkflowStepLog(
            id="s", run_id=run, step_id="ask", step_name="Ask", status=StepStatus.WAITING_APPROVAL
        )
        assert (await self.call(bot, "create_step_log", step=step, fence=fence))["id"] == "s"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[House]:
    """Open the worker, with three workflows."""
    async with keyed(path, CONFIGURATION, BOTS) as keyed_house:
        house = House(keyed_house.core, keyed_house.store, keyed_house.keys)
        house.deeds = []
        for name in ("digest", "deploy-web"):
            await house.define(name)
        await house.define("annals", BotOwner(bot_id=house.principal("ann").bot_id))
        yield house
