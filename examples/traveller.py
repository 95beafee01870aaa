"""A client of the Agent2Agent protocol (A2A), to which examples/planner.py is an agent like any other.

    python examples/agency.py & python examples/planner.py &
    posthouse a2a planner --as a2a-planner --type trip --token-file planner.token &
    python examples/traveller.py Lisbon planner.token
    posthouse approve RUN --as ann

Kill the planner, `posthouse a2a` or the worker meanwhile, and start it again: the traveller waits.
Kill the traveller, and start it again: it finds its trip. It needs `pip install 'posthouse[a2a]'`.
"""

import asyncio
import os
import sys
from pathlib import Path

import httpx
from a2a.client import A2AClientError, Client, ClientConfig, create_client
from a2a.types import GetTaskRequest, Message, Part, Role, SendMessageConfiguration, SendMessageRequest, Task
from a2a.types import TaskState as State
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

URL = os.environ.get("AGENT_URL", "http://127.0.0.1:7791/")

ENDED = (State.TASK_STATE_COMPLETED, State.TASK_STATE_FAILED, State.TASK_STATE_CANCELED, State.TASK_STATE_REJECTED)


async def travel(city: str, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
        client = await create_client(URL, ClientConfig(streaming=False, httpx_client=http))
        task, shown = await begin(client, city), ""
        while True:
            if (line := told(task)) != shown:
                print(line, flush=True)
                shown = line
            if task.status.state in ENDED:
                return
            await asyncio.sleep(0.2)
            try:
                task = await client.get_task(GetTaskRequest(id=task.id))
            except A2AClientError:  # nobody is there: later
                await asyncio.sleep(0.5)


async def begin(client: Client, city: str) -> Task:
    # The id is the same each time for this city, so that the trip is one task however often it is sent.
    parts = [Part(data=ParseDict({"city": city}, Value()))]
    message = Message(message_id=f"trip to {city}", role=Role.ROLE_USER, parts=parts)
    at_once = SendMessageConfiguration(return_immediately=True)
    async for answer in client.send_message(SendMessageRequest(message=message, configuration=at_once)):
        return answer.task
    raise RuntimeError("no answer")


def told(task: Task) -> str:
    state = State.Name(task.status.state).removeprefix("TASK_STATE_").lower()
    parts = [part for artifact in task.artifacts for part in artifact.parts] or task.status.message.parts
    return " ".join(
        [state, *(str(MessageToDict(part.data)) if part.HasField("data") else part.text for part in parts)]
    )


if __name__ == "__main__":
    asyncio.run(travel(sys.argv[1], Path(sys.argv[2]).read_text(encoding="ascii").strip()))
