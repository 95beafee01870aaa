"""Bots that elect one of them: whoever has put its name under a key is in charge, until that expires.

Start it several times, with different names, and stop the one in charge:

    python examples/election.py ann
"""

from __future__ import annotations

import sys

import anyio

import bus

LEASE_SECONDS = 3.0


async def main(name: str) -> None:
    """Try to be in charge, and stay so."""
    async with bus.connect(bot=name, max_in_flight=0) as bot:
        election = bot.kv("election")
        expected = 0
        while True:
            try:
                expected = await election.put("leader", name, expected=expected, ttl=LEASE_SECONDS)
                print(f"{name} is in charge (revision {expected})")
            except bus.RevisionConflict:
                expected = 0
            await anyio.sleep(LEASE_SECONDS / 3)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else "ann")
