"""A team of AutoGen as a bot: a writer and a critic take turns, and a person lets their article be published.

    python examples/editors.py
    posthouse send editors '"moths in relays"' --type article --as ada
    posthouse approvals
    posthouse approve RUN --as ann

Kill it after a turn, and start it again: the team goes on, and no turn that is recorded is taken again.
It needs `pip install 'posthouse[autogen]'`. Its model is made up, so that it runs anywhere.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    RequestUsage,
    SystemMessage,
)

import bus

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "3"))
"""How long a turn takes, so that there is time to kill it."""

TURNS_MAX = 10

ARTICLE = bus.WorkflowDefinition(id="article", name="article", owner=bus.GlobalOwner())

bot = bus.Bot("editors", url=os.environ.get("POSTHOUSE_URL"))


class Model(ChatCompletionClient):
    """A model that writes two drafts, and likes the second one."""

    async def create(self, messages: Sequence[LLMMessage], **options: Any) -> CreateResult:
        await asyncio.sleep(PAUSE_SECONDS)
        [role] = [message.content for message in messages if isinstance(message, SystemMessage)]
        drafts = sum("Draft" in str(message.content) for message in messages)
        if role == "You write.":
            says = f"Draft {drafts + 1} about {messages[1].content}."
        else:
            says = "Shorter, please." if drafts == 1 else "ENOUGH"
        usage = RequestUsage(prompt_tokens=0, completion_tokens=0)
        return CreateResult(finish_reason="stop", content=says, usage=usage, cached=False)

    async def create_stream(
        self, messages: Sequence[LLMMessage], **options: Any
    ) -> AsyncGenerator[str | CreateResult, None]:
        yield await self.create(messages, **options)

    async def close(self) -> None:
        pass

    def actual_usage(self) -> RequestUsage:
        return RequestUsage(prompt_tokens=0, completion_tokens=0)

    def total_usage(self) -> RequestUsage:
        return self.actual_usage()

    def count_tokens(self, messages: Sequence[LLMMessage], **options: Any) -> int:
        return 0

    def remaining_tokens(self, messages: Sequence[LLMMessage], **options: Any) -> int:
        return 1000

    @property
    def capabilities(self) -> ModelInfo:
        return self.model_info

    @property
    def model_info(self) -> ModelInfo:
        return ModelInfo(
            vision=False,
            function_calling=False,
            json_output=False,
            family=ModelFamily.UNKNOWN,
            structured_output=False,
        )


def make_team() -> RoundRobinGroupChat:
    """Return the team, which stops after each turn."""
    model = Model()
    writer = AssistantAgent("writer", model, description="writes", system_message="You write.")
    critic = AssistantAgent("critic", model, description="criticizes", system_message="You criticize.")
    return RoundRobinGroupChat([writer, critic], max_turns=1)


async def take_turn(task: str | None, state: Mapping[str, Any] | None) -> dict[str, Any]:
    """Let the next of the team speak, and return what was said, and the team's state."""
    team = make_team()
    if state is not None:
        await team.load_state(state)
    found = await team.run(task=task)
    last = found.messages[-1]
    say(f"{last.source}: {last.to_text()}")
    return {"state": await team.save_state(), "by": last.source, "says": last.to_text()}


@bot.on_message("article")
async def article(message: bus.Message[str]) -> None:
    async with bot.workflows.run("article", id=message.id, input=message.body, definition=ARTICLE) as run:
        task, state, draft = run.input, None, ""
        for _ in range(TURNS_MAX):
            turn = await run.step("turn", take_turn, task, state, input=task)
            task, state = None, turn["state"]
            if turn["by"] == "writer":
                draft = turn["says"]
            elif "ENOUGH" in turn["says"]:
                break
        say(f"may it be published? {draft}")
        await run.approval("publish", {"article": draft})
        async with run.commit("announce") as tx:
            tx.publish("articles", draft)
            tx.reply(message, draft)
            tx.ack(message)
            tx.complete(result=draft)
        say("published")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    bot.run(stop_timeout=0)
