"""A worker for the tests of a client in another language, and bots of the Python client beside it.

Run as `python -m tests.clients.keeper [--keys]`. It writes where the worker listens, as a JSON object. Then it
takes one question a line, an object with an `id` and what to `do`, and answers each with a line, when it is done.
It ends when its input does, and the worker with it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.abc
import anyio.to_thread

import bus
from bus.client.credentials import Credentials, write_credentials
from bus.wire.keys import public_text, secret_text

from ..crash.nursery import shared_nursery
from ..integration.forked_worker import forked_worker
from ..integration.wire_worker import Worker
from ..strangers.keyed_worker import KeyedWorker

__all__: list[str] = []


class Keeper:
    """Answers questions, each in a task of its own."""

    def __init__(self, worker: Worker, tasks: anyio.abc.TaskGroup) -> None:
        self._worker = worker
        self._tasks = tasks
        self._bots: dict[str, bus.Bot] = {}
        self._keys: dict[str, Path] = {}

    async def answer(self, question: dict[str, Any]) -> None:
        """Do what a question says, and write the answer."""
        number, what = question.pop("id"), question.pop("do")
        try:
            say({"id": number, "answer": await self._deeds[what](self, **question)})
        except Exception as error:
            say({"id": number, "error": f"{what}: {error!r}"})

    # ── The worker ───────────────────────────────────────────────────────────────────────────────────────

    async def _kill(self) -> None:
        await anyio.to_thread.run_sync(self._worker.kill)

    async def _start(self) -> None:
        await anyio.to_thread.run_sync(self._worker.start)

    async def _key(self, bot: str) -> dict[str, str]:
        worker = self._worker
        assert isinstance(worker, KeyedWorker), "start it with --keys"
        bearer = await anyio.to_thread.run_sync(worker.add, bot)
        secret, public = secret_text(bearer.secret), public_text(bearer.server)
        path = self._keys[bot] = worker.directory / f"{bot}.creds"
        write_credentials(path, Credentials(url=worker.command, bot=bot, secret=secret, worker=public))
        return {"path": str(path), "secret": secret, "public": bearer.public, "worker": public}

    async def _revoke(self, bot: str) -> None:
        def revoke(worker: KeyedWorker) -> None:
            with worker.admin.session("admin") as admin:
                admin.value("revoke_key", bot=bot)

        assert isinstance(self._worker, KeyedWorker), "start it with --keys"
        await anyio.to_thread.run_sync(revoke, self._worker)

    # ── Bots of the Python client ────────────────────────────────────────────────────────────────────────

    async def _bot(self, name: str) -> bus.Bot:
        """Return a connected bot, the same one for each name."""
        if name not in self._bots:
            self._bots[name] = await self._tasks.start(self._connected, name)
        return self._bots[name]

    async def _connected(self, name: str, *, task_status: anyio.abc.TaskStatus[bus.Bot]) -> None:
        key = self._keys.get(name)
        async with bus.connect(self._worker.command, bot=name, credentials=key) as bot:
            task_status.started(bot)
            await anyio.sleep_forever()

    async def _send(self, bot: str, to: str, body: Any) -> None:
        await (await self._bot(bot)).send(to, body)

    async def _request(self, bot: str, to: str, body: Any) -> Any:
        return (await (await self._bot(bot)).request(to, body)).body

    async def _subscribe(self, bot: str, channel: str) -> None:
        await (await self._bot(bot)).subscribe(channel)

    async def _remove_subscription(self, bot: str, whose: str, channel: str) -> None:
        await (await self._bot(bot)).remove_subscription(whose, channel)

    async def _receive(self, bot: str) -> dict[str, Any]:
        message = await (await self._bot(bot)).receive()
        await message.ack(confirm=True)
        names = ("seq", "id", "sender", "channel", "message_type", "body", "reply_to", "headers", "attempt")
        return {name: getattr(message, name) for name in names}

    async def _echo(self, bot: str) -> None:
        self._tasks.start_soon(self._echoing, await self._bot(bot))

    async def _echoing(self, bot: bus.Bot) -> None:
        async for message in bot.messages():
            async with message:
                await message.reply(message.body)

    async def _put(self, bot: str, kv: str, key: str, value: Any) -> int:
        return await (await self._bot(bot)).kv(kv).put(key, value)

    async def _get(self, bot: str, kv: str, key: str) -> Any:
        found = await (await self._bot(bot)).kv(kv).get(key)
        if found is not None and isinstance(found.value, bytes):
            return [len(found.value), found.value[-1]]
        return None if found is None else found.value

    _deeds: ClassVar[dict[str, Callable[..., Awaitable[Any]]]] = {
        "kill": _kill, "start": _start, "key": _key, "revoke": _revoke, "send": _send, "request": _request,
        "subscribe": _subscribe, "remove_subscription": _remove_subscription, "receive": _receive, "echo": _echo,
        "put": _put, "get": _get,
    }  # fmt: skip


def say(what: dict[str, Any]) -> None:
    """Write a line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def keep(worker: Worker) -> None:
    """Answer until the input ends."""
    async with anyio.create_task_group() as tasks:
        keeper = Keeper(worker, tasks)
        say({"url": worker.command})
        while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            tasks.start_soon(keeper.answer, json.loads(line))
        tasks.cancel_scope.cancel()


def main(arguments: list[str]) -> None:
    """Start a worker, with keys if that is wanted, and keep it."""
    with tempfile.TemporaryDirectory(prefix="posthouse-keeper-") as name:
        folder = Path(name)
        keyed = "--keys" in arguments
        with KeyedWorker(folder, shared_nursery()) if keyed else forked_worker(folder) as worker:
            anyio.run(partial(keep, worker))


if __name__ == "__main__":
    main(sys.argv[1:])
