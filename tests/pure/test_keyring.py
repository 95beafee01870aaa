"""Keys in the core: who a connection is, what it may say about keys, and how keys and their sessions end."""

from __future__ import annotations

import pytest

from bus.wire.frames import AddKeyFrame, Enrol, Hello, Keys, RequestFrame, RevokeKeyFrame

from .worker import Worker


@pytest.mark.parametrize(
    "request_frame",
    [
        Keys(request=2),
        AddKeyFrame(request=2, bot="bob", public_key="php_x"),
        RevokeKeyFrame(request=2, bot="bob"),
        Enrol(request=2, public_key="php_x"),
    ],
)
def test_without_keys_what_is_said_about_them_is_refused_with_the_way_to_have_them(
    request_frame: RequestFrame,
) -> None:
    worker = Worker()
    worker.hello("ann")
    [answer] = worker.say(b"ann", request_frame)
    assert (answer["code"], answer["request"]) == ("forbidden", 2)
    assert "posthouse keys adopt" in answer["message"]


def test_without_keys_a_hello_must_name_its_bot() -> None:
    worker = Worker()
    [answer] = worker.say(b"ann", Hello(request=1, protocol=1))
    assert answer["code"] == "bad_request"
    assert "must name your bot" in answer["message"]
