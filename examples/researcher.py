"""An agent as a graph of LangGraph: it looks in three places side by side, asks a person, writes, and remembers it.

    python examples/researcher.py moths        begins, or goes on where it was killed
    python examples/researcher.py moths yes    answers its question

It needs `pip install 'posthouse[langgraph]'`, and a worker. Its model is made up, so that it runs anywhere.
"""

import asyncio
import operator
import os
import sys
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore
from langgraph.types import Command, Send, interrupt

import bus
from bus.integrations.langgraph import Checkpointer, LangGraphStore

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "3"))
"""How long the slow places take, so that there is time to kill it."""

PLACES = {"archive": 0.0, "library": PAUSE_SECONDS, "web": PAUSE_SECONDS}


class State(TypedDict):
    topic: str
    notes: Annotated[list[str], operator.add]
    text: str


class Visit(TypedDict):
    topic: str
    place: str


async def plan(state: State, *, store: BaseStore) -> dict[str, Any]:
    known = [item.key for item in await store.asearch(("topics",))]
    say(f"planning; known so far: {', '.join(known) or 'nothing'}")
    return {}


def visits(state: State) -> list[Send]:
    return [Send("look", Visit(topic=state["topic"], place=place)) for place in PLACES]


async def look(visit: Visit) -> dict[str, Any]:
    await asyncio.sleep(PLACES[visit["place"]])
    say(f"looked in the {visit['place']}")
    return {"notes": [f"the {visit['place']} has {visit['topic']}"]}


async def ask(state: State) -> Command[Any]:
    answer = interrupt(f"write about {state['topic']} from {len(state['notes'])} notes?")
    return Command(goto="write" if answer == "yes" else END)


async def write(state: State, *, store: BaseStore) -> dict[str, Any]:
    text = f"On {state['topic']}: {'; '.join(state['notes'])}."  # here a model would be asked
    await store.aput(("topics",), state["topic"], {"text": text})
    say(text)
    return {"text": text}


builder = StateGraph(State)
builder.add_node("plan", plan)
builder.add_node("look", look)
builder.add_node("ask", ask, destinations=("write", END))
builder.add_node("write", write)
builder.add_edge(START, "plan")
builder.add_conditional_edges("plan", visits, ["look"])
builder.add_edge("look", "ask")
builder.add_edge("write", END)


async def main(topic: str, answer: str | None = None) -> None:
    async with bus.connect(os.environ.get("POSTHOUSE_URL"), bot="researcher", max_in_flight=0) as bot:
        graph = builder.compile(checkpointer=Checkpointer(bot), store=LangGraphStore(bot))
        config: Any = {"configurable": {"thread_id": topic}}
        given: Any = {"topic": topic}
        if answer is not None:
            given = Command(resume=answer)
        elif (await graph.aget_state(config)).next:
            say("going on")
            given = None
        # Each step is on disk before the next one begins.
        found = await graph.ainvoke(given, config, durability="sync")
        for question in found.get("__interrupt__", ()):
            say(f"asks: {question.value} Answer with: python examples/researcher.py {topic} yes")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
