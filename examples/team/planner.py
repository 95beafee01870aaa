"""The planner of a team: asks the researcher and a person, lets the writer write, publishes. See docs/team.md."""

import os
import uuid
from typing import Any

import anyio

import bus

LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", "15"))
"""How long a report stays with a planner that died."""

REPORT = bus.WorkflowDefinition(id="report", name="report", owner=bus.GlobalOwner())

PATIENT = bus.Retry(max_attempts=10, delay=1)
"""The others may be away for a while: no reason to fail the report."""

bot = bus.Bot("planner")
memory = bot.kv("planner.memory")


@bot.on_message("report")
async def report(message: bus.Message) -> None:
    async with bot.workflows.run(
        "report", id=message.id, input=message.body, definition=REPORT, lease_seconds=LEASE_SECONDS
    ) as run:
        topic = run.input["topic"]
        plan = await run.step("plan", make_plan, topic, message.sender)
        say(f"planned: {', '.join(plan['questions'])}")

        notes: dict[str, str] = {}
        async with anyio.create_task_group() as tasks:
            for question in plan["questions"]:
                tasks.start_soon(research, run.branch(question), topic, question, notes)
        say(f"the researcher has found {len(notes)} notes")

        answer = await run.approval("agree", {"prompt": f"Write about {topic}?", "notes": notes})
        wish = answer.get("comment") or plan["wish"]
        say(f"{answer['by']} agreed, and wishes: {wish}")

        assignment = {"topic": topic, "notes": [notes[question] for question in plan["questions"]], "wish": wish}
        text = await run.step("write", ask, "writer", "assignment", assignment, f"{run.id}/write", retry=PATIENT)

        # One transaction: what is remembered, published and answered, and the end of the run and of its message.
        async with run.commit("publish") as tx:
            tx.put("planner.memory", f"wishes/{message.sender}", wish)
            tx.publish("reports", {"topic": topic, "text": text})
            tx.reply(message, text)
            tx.ack(message)
            tx.complete(result=text)
        say(f"published: {text}")


async def make_plan(topic: str, person: str) -> dict[str, Any]:
    # This is where a model would be asked. What it said is recorded, and so is what was remembered then.
    wish = await memory.get(f"wishes/{person}")
    questions = ["where they live", "what they eat"]
    return {"questions": questions, "wish": "a plain text" if wish is None else wish.value}


async def research(run: bus.Run, topic: str, question: str, notes: dict[str, str]) -> None:
    body = {"topic": topic, "question": question}
    notes[question] = await run.step(
        "ask", ask, "researcher", "question", body, f"{run.id}/{question}", retry=PATIENT
    )


async def ask(whom: str, what: str, body: Any, key: str) -> Any:
    # The same id whenever the step is carried out: the question is sent once, and its first reply counts.
    id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"posthouse:{key}"))
    reply = await bot.request(whom, body, message_type=what, id=id, timeout=120)
    return reply.body


@bot.on_message()
async def late(message: bus.Message) -> None:
    """Do nothing with replies to a planner that is gone: the run goes on by itself, and finds them."""


def say(line: str) -> None:
    print(line, flush=True)
