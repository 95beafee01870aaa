"""A bot that takes its mail for ever, as a process that can be stopped: `python -m tests.crash.reader URL NAME`.

It works a moment on each message, acks it and waits for the confirmation. It writes one line of JSON for each
message that it was handed, and one for each that was confirmed.
"""

from __future__ import annotations

import json
import sys

import anyio

import bus

__all__: list[str] = []

_WORK_SECONDS = 0.02
_CREDIT = 20


def _write(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _read(url: str, name: str) -> None:
    async with bus.connect(url, bot=name, max_in_flight=_CREDIT) as bot:
        _write(ready=name)
        async for message in bot.messages():
            _write(got=message.seq, attempt=message.attempt)
            await anyio.sleep(_WORK_SECONDS)
            try:
                await message.ack(confirm=True)
            except bus.WorkerUnavailable:
                _write(unconfirmed=message.seq)
            else:
                _write(acked=message.seq)


if __name__ == "__main__":
    anyio.run(_read, sys.argv[1], sys.argv[2])
