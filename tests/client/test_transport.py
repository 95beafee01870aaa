"""How a socket waits for input, on every event loop."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import zmq

from bus.transport import Port

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("windows", [False, True])
async def test_a_socket_wakes_who_waits_each_time(windows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if windows:  # whose event loop does not register descriptors

        def refuse(*arguments: Any) -> None:
            raise NotImplementedError

        monkeypatch.setattr("asyncio.selector_events.BaseSelectorEventLoop.add_reader", refuse)
    with zmq.Context() as context:
        receiver = context.socket(zmq.PAIR)
        port = Port(receiver)
        receiver.bind("inproc://pair")
        sender = context.socket(zmq.PAIR)
        sender.connect("inproc://pair")

        async def send(text: bytes) -> None:
            sender.send(text)

        try:
            for text in (b"first", b"second"):
                with anyio.fail_after(30):
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(send, text)
                        while not port.has_input:
                            await port.wait()
                assert port.receive() == [text]
                assert not port.has_input
        finally:
            sender.close(0)
            port.close()
