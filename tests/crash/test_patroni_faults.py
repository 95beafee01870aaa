"""How long nothing was acknowledged, as a history says it."""

from __future__ import annotations

from collections.abc import Iterator

from .history import Event, Hello, Invoke, Mark, Ok, Publish
from .patroni_faults import BROKE, silences


def acknowledged(*times: float, action: type[Publish | Hello] = Publish) -> Iterator[Event]:
    """Return calls that were answered at these times."""
    for at in times:
        call = round(1000 * at)
        said = Publish("ann", ()) if action is Publish else Hello("ann", 1, "ann")
        yield Invoke(call=call, action=said, at=at, process="ann", incarnation=1)
        yield Ok(call=call, at=at, process="ann", incarnation=1)


def broken(at: float, fault: str) -> Event:
    return Mark(what=BROKE, note=fault, at=at, process="driver", incarnation=1)


def test_a_silence_is_the_longest_time_without_an_acknowledged_message() -> None:
    history = [
        *acknowledged(1.0, 2.0),
        broken(2.5, "switchover"),
        *acknowledged(3.0),
        *acknowledged(4.0, action=Hello),
        *acknowledged(8.0, 8.5),
        broken(9.0, "leader killed"),
        *acknowledged(29.0, 30.0),
        broken(31.0, "switchover"),
        *acknowledged(32.0),
    ]
    assert silences(history) == {"switchover": [5.0, 1.0], "leader killed": [20.0]}
