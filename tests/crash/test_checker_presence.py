"""The checker on what a bot was told of who is there: each test is a history with one thing wrong, or none."""

from __future__ import annotations

from typing import Any

from .checker import check
from .history import Event, Final, Hello, Invoke, Ok, Presence, Present, Subscribe

_WATCHER: Any = {"bot": "eve", "session": "s-eve"}


def _opened(call: int, bot: str) -> list[Event]:
    now: Any = {"at": float(call), "process": bot, "incarnation": 1}
    return [Invoke(call=call, action=Hello(bot), **now), Ok(call=call, session=f"s-{bot}", last_seq=0, **now)]


def _watching() -> list[Event]:
    now: Any = {"at": 3.0, "process": "eve", "incarnation": 1}
    subscribe = Subscribe("eve", "posthouse.presence")
    asked: list[Event] = [
        Invoke(call=3, action=subscribe, **now),
        Ok(call=3, start_seq=0, created=True, **now),
        Present(bots=("eve",), **_WATCHER, **now),
    ]
    return [*_opened(1, "eve"), *asked, *_opened(2, "ann")]


def _told(seq: int, what: str, sessions: int, of: str = "s-ann") -> Presence:
    now: Any = {"at": float(seq), "process": "eve", "incarnation": 1}
    return Presence(seq=seq, what=f"presence.{what}", about="ann", sessions=sessions, of=of, **_WATCHER, **now)


def _found(*told: Presence, present: tuple[str, ...] = ("eve",)) -> list[str]:
    final = Final(subscriptions={"eve": ("posthouse.presence",)}, present=present)
    return [violation.text for violation in check([*_watching(), *told], final).violations]


def test_a_bot_comes_and_goes() -> None:
    assert _found(_told(1, "connected", 1), _told(2, "vanished", 0)) == []
    assert _found(_told(1, "connected", 1), present=("ann", "eve")) == []


def test_a_bot_is_shown_for_ever() -> None:
    [text] = _found(_told(1, "connected", 1))
    assert "['ann', 'eve'] are there" in text


def test_a_session_was_never_opened() -> None:
    [text] = _found(_told(1, "ended", 0, of="another"))
    assert "opened no session another" in text


def test_a_change_is_told_twice() -> None:
    [text] = _found(_told(1, "ended", 0), _told(2, "ended", 0))
    assert "told before" in text


def test_a_delivery_that_is_repeated_is_no_change() -> None:
    assert _found(_told(1, "ended", 0), _told(1, "ended", 0)) == []


def test_a_session_comes_after_it_went() -> None:
    [text] = _found(_told(1, "ended", 0), _told(2, "connected", 1), present=("ann", "eve"))
    assert "after it had gone" in text
