"""The researcher of a team: a graph of LangGraph that remembers what it has looked up. See docs/team.md.

It needs `pip install 'posthouse[langgraph]'`.
"""

import asyncio
import os
from functools import cache
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore

import bus
from bus.integrations.langgraph import Checkpointer, LangGraphStore

PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "5"))
"""How long it looks something up, so that there is time to kill it."""

bot = bus.Bot("researcher")


class State(TypedDict, total=False):
    topic: str
    question: str
    note: str


async def recall(state: State, *, store: BaseStore) -> State:
    known = await store.aget(("notes", state["topic"]), state["question"])
    return State() if known is None else State(note=known.value["note"])


async def look_up(state: State, *, store: BaseStore) -> State:
    await asyncio.sleep(PAUSE_SECONDS)  # here a model would be asked, and tools called
    note = f"{state['topic']}: {state['question']}, as found"
    await store.aput(("notes", state["topic"]), state["question"], {"note": note})
    say(f"looked up {state['question']}")
    return State(note=note)


builder = StateGraph(State)
builder.add_node("recall", recall)
builder.add_node("look_up", look_up)
builder.add_edge(START, "recall")
builder.add_conditional_edges("recall", lambda state: END if "note" in state else "look_up", ["look_up", END])
builder.add_edge("look_up", END)


@cache
def graph() -> Any:  # first called in the bot's event loop, which these need
    return builder.compile(
        checkpointer=Checkpointer(bot, store="researcher.threads"),
        store=LangGraphStore(bot, store="researcher.memory"),
    )


@bot.on_message("question")
async def answer(message: bus.Message) -> str:
    thread = {"configurable": {"thread_id": message.id}}
    begun = await graph().aget_state(thread)
    given = message.body if begun.created_at is None else None  # None: go on, or return what was found
    found = await graph().ainvoke(given, thread, durability="sync")
    return str(found["note"])


def say(line: str) -> None:
    print(line, flush=True)
