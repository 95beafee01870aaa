"""How a socket waits for input, on every event loop."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import zmq

from bus.transport import Port, connect_tap

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


async def test_a_tap_is_heard_at_whichever_address_it_is() -> None:
    with zmq.Context() as context:
        socket = context.socket(zmq.XPUB)
        socket.bind("inproc://second")
        sender = Port(socket)
        port = connect_tap(context, ["inproc://first", "inproc://second"])
        try:
            with anyio.fail_after(30):
                port.subscribe(b"news")
                while sender.receive() is None:
                    if not sender.has_input:
                        await sender.wait()
                assert sender.send([b"news", b"1"])
                while (heard := port.receive()) is None:
                    if not port.has_input:
                        await port.wait()
            assert heard == [b"news", b"1"]
        finally:
            port.close()
            sender.close()
