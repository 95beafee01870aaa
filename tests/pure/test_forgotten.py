"""When a bot's author is told that messages were forgotten: once, until all that is held is somebody's again."""

from __future__ import annotations

from bus.client.forgotten import Forgotten
from bus.wire.frames import StoredMessage


def stored(seq: int) -> StoredMessage:
    return StoredMessage(
        seq=seq,
        id=f"id-{seq}",
        sender_bot_id="s",
        sender_bot_name="s",
        recipient={"type": "channel", "name": "news"},
        message_type="message",
        body=None,
        reply_to=None,
        headers={},
        timestamp="2026-01-01T00:00:00.000000Z",
    )


def test_what_was_forgotten_is_told_once_and_again_after_it_was_settled() -> None:
    forgotten, held = Forgotten(), {1: stored(1)}
    warning = forgotten.look(held.values(), 0.0, messages_max=1)
    assert warning is not None
    assert "message 1)" in warning
    for now in range(1, 10):
        assert forgotten.look(held.values(), float(now), messages_max=1) is None
    held.clear()
    assert forgotten.look(held.values(), 10.0, messages_max=1) is None
    held[2] = stored(2)
    warning = forgotten.look(held.values(), 11.0, messages_max=1)
    assert warning is not None
    assert "message 2)" in warning


def test_what_somebody_still_has_is_not_forgotten() -> None:
    kept = stored(1)
    held = {1: kept}
    assert Forgotten().look(held.values(), 0.0, messages_max=1) is None
    held[2] = stored(2)
    assert Forgotten().look(held.values(), 0.0, messages_max=3) is None, "there is credit left"
    warning = Forgotten().look(held.values(), 0.0, messages_max=2)
    assert warning is not None
    assert "1 of the 2" in warning


def test_it_is_due_at_once_and_then_after_a_second() -> None:
    forgotten = Forgotten()
    assert forgotten.is_due(0.0)
    assert forgotten.look([], 0.0, messages_max=1) is None
    assert not forgotten.is_due(0.9)
    assert forgotten.is_due(1.0)
