"""The commands and a bot as on a system without POSIX modules, without uvloop and without signal handlers.

Its arguments are those of `posthouse`, or `run URL NAME`, which serves a bot until it is sent something.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from typing import Any

for hidden in ("fcntl", "resource", "pwd", "grp", "termios", "uvloop"):
    sys.modules[hidden] = None  # type: ignore[assignment]
del signal.SIGHUP
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it


def refuse(self: Any, *args: Any) -> None:
    """Do what an event loop does on Windows."""
    raise NotImplementedError


vars(sys.modules[asyncio.SelectorEventLoop.__module__])["_UnixSelectorEventLoop"].add_signal_handler = refuse


def serve(url: str, name: str) -> None:
    """Serve until something comes."""
    import bus

    bot = bus.Bot(name, url)

    @bot.on_message()
    async def handle(message: bus.Message) -> None:
        print("handled", message.body, flush=True)  # noqa: T201
        if message.body == "stop":
            bot.stop()

    bot.run()
    print("stopped", flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1] == "run":
        serve(*sys.argv[2:])
    elif sys.argv[1] == "thread":
        thread = threading.Thread(target=serve, args=sys.argv[2:])
        thread.start()
        thread.join()
    else:
        from worker import main

        main()
