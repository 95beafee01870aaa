"""What the process does that executes runs with Restate's Python SDK; the server is a process of its own.

The service is served by Hypercorn over HTTP/2, as Restate's documentation has it, and in the same process are the
callers: each writes its requests to the server's ingress by hand, which costs less than any client of HTTP. So all
that Python does is in one process on one loop, as it is for the other systems.
"""

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import anyio
import msgspec
from anyio.from_thread import start_blocking_portal

from ..peers.programs import HOST, free_port, is_open
from .loads import Lane, Run, serve

__all__ = ["carry_out", "execute"]

Step = Callable[[], Awaitable[Any]]

_ATTEMPTS_MAX = 10

_UNLIMITED = 2**31 - 1

_REQUEST = (
    b"POST /bench/run HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
)


def execute(pipe: Connection, admin_url: str, ingress_port: int) -> None:
    """Serve one handler, register it, and call it for each run."""
    runs: dict[str, Run] = {}
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(_serving(_service(runs))) as service_port,
    ):
        _register(admin_url, service_port)
        facts = {"versions": {name: version(name) for name in ("restate-sdk", "hypercorn")}}
        serve(pipe, facts, partial(portal.call, _call_all, ingress_port, runs))


def _service(runs: dict[str, Run]) -> Any:
    # The SDK reads the annotations of a handler, so that in this module they are no strings.
    import restate
    from restate.serde import Serde

    class Json(Serde[Any]):  # type: ignore[misc]
        """The faster of two encoders for the same JSON."""

        def serialize(self, obj: Any) -> bytes:
            return msgspec.json.encode(obj)

        def deserialize(self, buf: bytes) -> Any:
            return msgspec.json.decode(buf)

    options: restate.RunOptions[Any] = restate.RunOptions(serde=Json())
    # As shipped it tries again for an hour and then pauses: a caller would wait for ever, and not be told why.
    policy = restate.InvocationRetryPolicy(max_attempts=_ATTEMPTS_MAX, on_max_attempts="kill")
    service = restate.Service("bench", invocation_retry_policy=policy)

    @service.handler("run")  # type: ignore[untyped-decorator]
    async def execute_run(context: restate.Context, id: str) -> str:
        await carry_out(runs[id], lambda step: context.run_typed("step", step, options))
        return id

    return restate.app([service])


async def carry_out(run: Run, record: Callable[[Step], Awaitable[Any]]) -> None:
    """Carry out the steps of a run; `record` gives what is recorded of one, or carries it out.

    Restate calls a handler again when its connection was lost, and the handler has to take the same path then. So
    what is recorded decides, and neither the clock nor what was done in an earlier call.
    """
    steps, more = 0, True

    async def step() -> Any:
        run.steps = steps
        return run()

    while more:
        more = (await record(step))["more"]
        steps += 1
    run.steps = steps


@asynccontextmanager
async def _serving(app: Any) -> AsyncIterator[int]:
    import hypercorn.asyncio

    config = hypercorn.Config()
    port = free_port()
    config.bind = [f"{HOST}:{port}"]
    # As Restate's documentation has it for production: as shipped, Hypercorn closes a connection after a thousand
    # requests, with all calls that are under way on it.
    config.h2_max_concurrent_streams = config.keep_alive_max_requests = config.keep_alive_timeout = _UNLIMITED
    config.loglevel = "ERROR"  # without a warning that the app has no lifespan
    over = asyncio.Event()
    server = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=over.wait))
    try:
        while not is_open(port):  # noqa: ASYNC110 # it does not say when it listens
            await anyio.sleep(0.05)
        yield port
    finally:
        over.set()
        await server


def _register(admin_url: str, service_port: int) -> None:
    request = urllib.request.Request(
        f"{admin_url}/deployments",
        data=msgspec.json.encode({"uri": f"http://{HOST}:{service_port}"}),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request):
        pass


async def _call_all(port: int, runs: dict[str, Run], lanes: list[Lane]) -> None:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        for lane in lanes:
            reader, writer = await asyncio.open_connection(HOST, port)
            stack.callback(writer.close)
            tasks.start_soon(_call, reader, writer, runs, lane)


async def _call(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, runs: dict[str, Run], lane: Lane
) -> None:
    for run in lane:
        runs[run.id] = run
        body = msgspec.json.encode(run.id)
        writer.write(_REQUEST % (len(body), body))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if answer != body:
            raise RuntimeError(f"restate answered {head!r} {answer!r}")
        del runs[run.id]
