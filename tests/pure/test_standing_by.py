"""What a worker that stands by answers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.core.standing_by import closing, elsewhere
from bus.model.leadership import Leader
from bus.wire.codec import encode

LEADER = Leader("bob", 7, "tcp://10.0.0.2:7710", "tcp://10.0.0.2:7711", "2026-11-30T12:00:00.000000Z")


def answer(frame: bytes, leader: Leader | None = LEADER, frame_bytes_max: int = 1000) -> dict[str, Any]:
    return dict(msgspec.json.decode(elsewhere([b"address", frame], leader, frame_bytes_max)))


@pytest.mark.parametrize(
    ("frame", "number"),
    [
        (b'{"op":"hello","request":1,"protocol":1,"bot":"ann"}', 1),
        (b'{"op":"hello","request":1,"protocol":9,"bot":"ann","later":true}', 1),
        (b'{"op":"publish","request":7,"messages":[]}', 7),
        (b'{"op":"later","request":8}', 8),
        (b'{"op":"ping"}', None),
        (b'{"op":"ack","seqs":[1]}', None),
        (b"\xff", None),
        (b"[" * 2000, None),
    ],
)
def test_whatever_is_asked_is_answered_with_where_to_ask(frame: bytes, number: int | None) -> None:
    said = answer(frame)
    assert (said["op"], said["code"], said["retry"]) == ("error", "elsewhere", True)
    assert said.get("request") == number
    assert said["details"] == {"url": "tcp://10.0.0.2:7710", "tap": "tcp://10.0.0.2:7711"}
    assert "another one serves at tcp://10.0.0.2:7710" in said["message"]


def test_an_address_that_is_not_known_is_left_out() -> None:
    assert answer(b'{"op":"ping"}', LEADER._replace(tap=None))["details"] == {"url": "tcp://10.0.0.2:7710"}
    assert "details" not in answer(b'{"op":"ping"}', LEADER._replace(url=None, tap=None))
    nobody = answer(b'{"op":"ping"}', None)
    assert "details" not in nobody
    assert "knows of none that serves now" in nobody["message"]


def test_a_session_that_ends_is_told_where_to_go_on() -> None:
    assert encode(closing(None)) == b'{"op":"closing"}'
    assert encode(closing(LEADER)) == (b'{"op":"closing","url":"tcp://10.0.0.2:7710","tap":"tcp://10.0.0.2:7711"}')
