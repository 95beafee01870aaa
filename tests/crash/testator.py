"""A bot that leaves a last will and ends: a program that is forked for each life of a bot.

`python -m tests.crash.testator URL NAME LIFE ENDING NOTES` leaves the number of this life as a will, and then
vanishes by SIGKILL, says goodbye, or stays until it is killed. It notes what was answered, and after how long.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import anyio

import bus
from bus.wire.frames import Goodbye

__all__ = ["DEATHS", "SAYS_GOODBYE", "SOON_SECONDS", "STAYS", "VANISHES"]

DEATHS = "deaths"
"""The channel of all wills."""

VANISHES, SAYS_GOODBYE, STAYS = "vanishes", "says goodbye", "stays"

SOON_SECONDS = 0.2
_LATER_SECONDS = 3600.0
"""How long a bot may be away: one that stays is always back in time, however slow the machine is."""


async def _live(url: str, name: str, life: str, ending: str, notes: Path) -> None:
    async with bus.connect(url, bot=name, timeout=None) as bot:
        began = time.monotonic()

        def note(what: str) -> None:
            with notes.open("a") as file:
                file.write(f"{what} {time.monotonic() - began}\n")

        delay = _LATER_SECONDS if ending == STAYS else SOON_SECONDS
        await bot.will(bus.Draft(channel=DEATHS, body=life), delay=delay)
        note("left")
        if ending == VANISHES:
            os.kill(os.getpid(), signal.SIGKILL)
        if ending == SAYS_GOODBYE:
            await bot._connection.request(lambda number: Goodbye(request=number))
            note("goodbye")
            os._exit(0)
        await anyio.sleep_forever()


if __name__ == "__main__":
    url, name, life, ending, notes = sys.argv[1:]
    anyio.run(_live, url, name, life, ending, Path(notes))
