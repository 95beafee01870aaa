"""Graphs of LangGraph over a worker that is killed while they are at work."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, TypedDict

import pytest

import bus
from bus.testing import Worker

from ..extras import needs

needs("langgraph.graph")

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from bus.integrations.langgraph import Checkpointer

pytestmark = pytest.mark.anyio


class State(TypedDict):
    steps: Annotated[list[str], operator.add]


def extend(before: list[str], writes: list[list[str]]) -> list[str]:
    return [*before, *(each for write in writes for each in write)]


class Deltas(TypedDict):
    steps: Annotated[list[str], DeltaChannel(extend, snapshot_frequency=4)]


@pytest.fixture
async def kept(own_worker: Worker) -> AsyncIterator[Checkpointer]:
    async with own_worker.connect(bot="graphs", max_in_flight=0) as bot:
        yield Checkpointer(bot)


@pytest.fixture
async def shared(bot: bus.Bot, request: pytest.FixtureRequest) -> Checkpointer:
    return Checkpointer(bot, store=request.node.originalname)


def at(thread: str = "t", **configurable: Any) -> Any:
    return {"configurable": {"thread_id": thread, **configurable}}


def restart(worker: Worker) -> None:
    worker.kill()
    worker.start()


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_graph_does_not_notice_a_kill_of_the_worker(
    own_worker: Worker, kept: Checkpointer, durability: Literal["sync", "async", "exit"]
) -> None:
    async def killing(state: State) -> State:
        await asyncio.to_thread(restart, own_worker)
        return {"steps": ["killing"]}

    builder = StateGraph(State)
    builder.add_node("before", lambda state: {"steps": ["before"]})
    builder.add_node("killing", killing)
    builder.add_node("after", lambda state: {"steps": ["after"]})
    builder.add_edge(START, "before")
    builder.add_edge("before", "killing")
    builder.add_edge("killing", "after")
    graph = builder.compile(checkpointer=kept)
    await graph.ainvoke({"steps": ["input"]}, at(), durability=durability)
    restart(own_worker)
    found = await graph.aget_state(at())
    assert found.values == {"steps": ["input", "before", "killing", "after"]}
    assert found.next == ()


async def test_what_side_by_side_tasks_have_done_is_not_done_again(kept: Checkpointer, own_worker: Worker) -> None:
    done: list[str] = []
    broken = True

    async def part(name: str) -> State:
        if name == "b" and broken:
            while "c" not in done:
                await asyncio.sleep(0)
            raise OSError("the network is away")
        done.append(name)
        return {"steps": [name]}

    builder = StateGraph(State)
    builder.add_node("part", part)
    builder.add_conditional_edges(START, lambda state: [Send("part", name) for name in "abc"], ["part"])
    graph = builder.compile(checkpointer=kept)
    with pytest.raises(OSError, match="the network is away"):
        await graph.ainvoke({"steps": []}, at())
    restart(own_worker)
    broken = False
    found = await graph.ainvoke(None, at())
    assert found == {"steps": ["a", "b", "c"]}
    assert done == ["a", "c", "b"]


async def test_a_person_answers_after_a_restart(kept: Checkpointer, own_worker: Worker) -> None:
    asked = 0

    def asking(state: State) -> Command[Any]:
        nonlocal asked
        asked += 1
        return Command(update={"steps": [interrupt("go on?")]}, goto=END)

    builder = StateGraph(State)
    builder.add_node("asking", asking)
    builder.add_edge(START, "asking")
    graph = builder.compile(checkpointer=kept)
    found = await graph.ainvoke({"steps": []}, at())
    assert [each.value for each in found["__interrupt__"]] == ["go on?"]
    restart(own_worker)
    state = await graph.aget_state(at())
    assert [each.value for each in state.interrupts] == ["go on?"]
    assert await graph.ainvoke(Command(resume="yes"), at()) == {"steps": ["yes"]}
    assert asked == 2


async def test_time_travel_and_forks(shared: Checkpointer) -> None:
    builder = StateGraph(State)
    builder.add_sequence([("a", lambda state: {"steps": ["a"]}), ("b", lambda state: {"steps": ["b"]})])
    builder.add_edge(START, "a")
    graph = builder.compile(checkpointer=shared)
    await graph.ainvoke({"steps": ["input"]}, at())
    history = [state async for state in graph.aget_state_history(at())]
    assert [state.next for state in history] == [(), ("b",), ("a",), ("__start__",)]
    fork = await graph.aupdate_state(history[1].config, {"steps": ["edited"]})
    assert await graph.ainvoke(None, fork) == {"steps": ["input", "a", "edited", "b"]}
    before = await graph.aget_state(history[0].config)
    assert before.values == {"steps": ["input", "a", "b"]}


async def test_graphs_within_graphs_have_their_own_checkpoints(shared: Checkpointer) -> None:
    inner = StateGraph(State)
    inner.add_node("asking", lambda state: {"steps": [interrupt("inner?")]})
    inner.add_edge(START, "asking")
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    graph = outer.compile(checkpointer=shared)
    await graph.ainvoke({"steps": ["input"]}, at())
    state = await graph.aget_state(at(), subgraphs=True)
    [task] = state.tasks
    assert task.state is not None
    assert await graph.ainvoke(Command(resume="answered"), at()) == {"steps": ["input", "input", "answered"]}
    namespaces = {each.config["configurable"]["checkpoint_ns"] async for each in shared.alist(at())}
    assert len(namespaces) == 2
    await shared.adelete_thread("t")
    assert await shared.kv.list() == []


async def test_deltas_are_put_together(shared: Checkpointer) -> None:
    builder = StateGraph(Deltas)
    builder.add_node("step", lambda state: {"steps": [str(len(state["steps"]))]})
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: END if len(state["steps"]) > 9 else "step", ["step", END])
    graph = builder.compile(checkpointer=shared)
    await graph.ainvoke({"steps": ["input"]}, at())
    expected = {"steps": ["input", *map(str, range(1, 10))]}
    assert (await graph.aget_state(at())).values == expected
    await shared.aprune(["t"])
    assert (await graph.aget_state(at())).values == expected
    found = await graph.ainvoke({"steps": ["more"]}, at())
    assert found == {"steps": [*expected["steps"], "more", "11"]}


async def test_programs_without_a_loop_invoke_graphs(worker: Worker) -> None:
    builder = StateGraph(State)
    builder.add_node("part", lambda name: {"steps": [name]})
    builder.add_conditional_edges(START, lambda state: [Send("part", name) for name in "abc"], ["part"])

    def program() -> list[Any]:
        opened: dict[str, Any] = {"tap_url": worker.tap_url, "context": worker.context, "store": "without-a-loop"}
        with Checkpointer.from_conn_string(worker.url, **opened) as kept:
            graph = builder.compile(checkpointer=kept)
            graph.invoke({"steps": ["input"]}, at())
            graph.update_state(at(), {"steps": ["edited"]}, as_node="part")
            return [state.values.get("steps") for state in graph.get_state_history(at())]

    found = await asyncio.to_thread(program)
    assert found == [["input", "a", "b", "c", "edited"], ["input", "a", "b", "c"], ["input"], []]


class Killed(Exception):
    """The program has ended here."""


@pytest.mark.parametrize("puts", [1, 2, 3, None])
async def test_a_thread_goes_on_by_the_recipe_of_the_page_wherever_it_was_killed(
    shared: Checkpointer, puts: int | None
) -> None:
    visited: list[str] = []

    class Dying(Checkpointer):
        left = puts

        async def aput(self, *args: Any) -> Any:
            if self.left == 0:
                raise Killed
            if self.left is not None:
                self.left -= 1
            return await super().aput(*args)

    def node(name: str) -> Any:
        def visit(state: State) -> State:
            visited.append(name)
            return {"steps": [name]}

        return visit

    builder = StateGraph(State)
    for name in ("first", "second"):
        builder.add_node(name, node(name))
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")

    async def handle(checkpointer: Checkpointer, thread: str) -> Any:
        graph = builder.compile(checkpointer=checkpointer)
        begun = await graph.aget_state(at(thread))
        given: Any = {"steps": ["asked"]} if begun.created_at is None else None
        return await graph.ainvoke(given, at(thread), durability="sync")

    thread = f"{puts}"
    if puts is not None:
        with pytest.raises(Killed):
            await handle(Dying(shared.bot, store=shared.kv.name), thread)
    for _ in range(2):
        checkpointer = Checkpointer(shared.bot, store=shared.kv.name)
        assert await handle(checkpointer, thread) == {"steps": ["asked", "first", "second"]}
    assert visited == ["first", "second"]
