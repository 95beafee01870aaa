"""The writer of a team: an agent of Pydantic AI, whose memory is the log of what was published. See docs/team.md.

It needs `pip install 'posthouse[pydantic-ai]'`. Its model is made up, so that it runs anywhere.
"""

import json

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import bus
from bus.integrations.pydantic_ai import RunDurability, add_agent

bot = bus.Bot("writer")


async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    parts = [part for message in messages for part in message.parts]
    earlier = [part.content for part in parts if isinstance(part, ToolReturnPart)]
    if not earlier:
        say("the model asks what was written before")
        return ModelResponse(parts=[ToolCallPart("earlier_topics", {})])
    say("the model writes")
    [prompt] = [part.content for part in parts if isinstance(part, UserPromptPart)]
    asked = json.loads(str(prompt))
    before = f" After {', '.join(map(str, earlier[0]))}." if earlier[0] else ""
    return ModelResponse(parts=[TextPart(f"{'; '.join(asked['notes'])}. ({asked['wish']}){before}")])


agent = Agent(FunctionModel(model), name="writer", capabilities=[RunDurability()])


@agent.tool_plain
async def earlier_topics(count: int = 3) -> list[str]:
    """Return what was written about lately, the newest first."""
    try:
        return [message.body["topic"] for message in await bot.history(channel="reports", limit=count)]
    except bus.UnknownChannel:
        return []  # nothing was published yet


add_agent(bot, agent, message_type="assignment")


def say(line: str) -> None:
    print(line, flush=True)
