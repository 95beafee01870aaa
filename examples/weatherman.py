"""An agent of Pydantic AI as a bot: it asks a model, looks up the weather of two cities side by side, and answers.

    python examples/weatherman.py
    posthouse request weatherman "How is the weather in Paris and Oslo?" --as ada

Kill it while it looks things up, and start it again: the model is not asked again. It needs
`pip install 'posthouse[pydantic-ai]'`, and a worker. Its model is made up, so that it runs anywhere.
"""

import asyncio
import os

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import bus
from bus.integrations.pydantic_ai import RunDurability, add_agent

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "3"))
"""How long the weather of Oslo takes, so that there is time to kill it."""


async def model(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    found = [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    if found:
        say("the model answers")
        return ModelResponse(parts=[TextPart(" ".join(map(str, found)))])
    say("the model asks for the weather")
    return ModelResponse(parts=[ToolCallPart("weather", {"city": city}) for city in ("Paris", "Oslo")])


agent = Agent(FunctionModel(model), name="weatherman", capabilities=[RunDurability()])


@agent.tool_plain
async def weather(city: str) -> str:
    await asyncio.sleep(PAUSE_SECONDS if city == "Oslo" else 0)
    say(f"looked out of the window in {city}")
    return f"It rains in {city}."


def say(line: str) -> None:
    print(line, flush=True)


bot = bus.Bot("weatherman", url=os.environ.get("POSTHOUSE_URL"))
add_agent(bot, agent)

if __name__ == "__main__":
    bot.run(stop_timeout=0)
