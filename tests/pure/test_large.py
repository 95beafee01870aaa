"""What is larger than a frame: what is kept of it, for how long, and who makes room."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.core.access import Access
from bus.core.large import LargeFrames
from bus.core.shares import Shares
from bus.mailbox.sessions import Session, Sessions
from bus.settings import Limits, Settings, Workflows
from bus.wire.codec import encode
from bus.wire.frames import Code, Commit, Goodbye, Hello, Publication, Refusal, ToChannel
from bus.wire.parts_frames import PartFrame, ReadPart, WholeFrame

from .ruled import RuledWorker
from .worker import ID, Worker

MIB = 1024 * 1024

SETTINGS = Settings(
    limits=Limits(parts_bytes_max=100 * MIB, parts_per_bot_bytes_max=60 * MIB),
    workflows=Workflows(output_bytes_max=16 * MIB),
)


def parts() -> LargeFrames:
    return LargeFrames(Sessions(), Shares(Access(SETTINGS.security), SETTINGS.limits), SETTINGS)


def session(bot: str, address: bytes | None = None) -> Session:
    session = Session(address or bot.encode(), "s", 0.0, credit=1, in_flight_bytes_max=1)
    session.bot_id = bot
    return session


def part(number: int, offset: int, data: bytes, size: int) -> PartFrame:
    return PartFrame(request=1, upload=ID % number, offset=offset, total=size, data=data)


def whole(number: int) -> WholeFrame:
    return WholeFrame(request=2, upload=ID % number)


def code(error: pytest.ExceptionInfo[Refusal]) -> tuple[Code, object]:
    return error.value.code, error.value.details


def test_a_frame_is_whole_when_all_its_parts_have_come() -> None:
    kept, ann = parts(), session("ann")
    assert kept.put(ann, part(1, 0, b"ab", 5), 0.0) == 2
    with pytest.raises(Refusal, match="only 2 of the frame's 5 bytes"):
        kept.take(ann, whole(1))
    assert kept.put(ann, part(1, 0, b"ab", 5), 0.0) == 2, "a part may come again"
    assert kept.put(ann, part(1, 1, b"bcde", 5), 0.0) == 5
    assert kept.take(ann, whole(1)) == b"abcde"
    with pytest.raises(Refusal) as error:
        kept.take(ann, whole(1))
    assert code(error) == (Code.NOT_FOUND, {"parts": "unknown"})


@pytest.mark.parametrize(
    ("offset", "data", "size"),
    [(3, b"de", 5), (2, b"cdef", 5), (2, b"c", 6)],
    ids=["gap", "too long", "another size"],
)
def test_a_part_that_does_not_fit_is_refused(offset: int, data: bytes, size: int) -> None:
    kept, ann = parts(), session("ann")
    kept.put(ann, part(1, 0, b"ab", 5), 0.0)
    with pytest.raises(Refusal, match="does not follow the 2 bytes"):
        kept.put(ann, part(1, offset, data, size), 0.0)
    assert kept.put(ann, part(1, 2, b"cde", 5), 0.0) == 5


def test_a_later_part_of_what_is_not_known_begins_again() -> None:
    with pytest.raises(Refusal) as error:
        parts().put(session("ann"), part(1, 2, b"cd", 5), 0.0)
    assert code(error) == (Code.NOT_FOUND, {"parts": "unknown"})


def test_a_session_sends_one_frame_at_a_time() -> None:
    kept, ann, other = parts(), session("ann"), session("ann", b"other")
    kept.put(ann, part(1, 0, b"ab", 5), 0.0)
    kept.put(other, part(1, 0, b"xy", 2), 0.0)
    kept.put(ann, part(2, 0, b"cd", 2), 0.0)
    assert kept.take(ann, whole(2)) == b"cd"
    assert kept.take(other, whole(1)) == b"xy", "an id is that of its session"
    with pytest.raises(Refusal):
        kept.put(ann, part(1, 2, b"cde", 5), 0.0)


def test_a_frame_that_is_too_large_is_refused_with_its_first_part() -> None:
    most = SETTINGS.whole_bytes_max
    with pytest.raises(Refusal, match=f"has {most + 1} bytes; the maximum, in parts, is {most}") as error:
        parts().put(session("ann"), part(1, 0, b"a", most + 1), 0.0)
    assert error.value.code == Code.TOO_LARGE


def test_an_answer_is_read_in_parts_and_then_forgotten() -> None:
    kept, ann = parts(), session("ann")
    frame = bytes(range(256)) * 8192
    kept.keep(ann, 7, frame, 0.0)
    found = b""
    while len(found) < len(frame):
        read = ReadPart(request=8, of=7, offset=len(found))
        part = kept.read(ann, read, 0.0)
        assert len(found + part) == len(frame) or kept.read(ann, read, 0.0) == part, "a part may be read again"
        found += part
    assert found == frame
    with pytest.raises(Refusal) as error:
        kept.read(ann, ReadPart(request=8, of=7, offset=0), 0.0)
    assert code(error) == (Code.NOT_FOUND, {"parts": "unknown"})


def test_what_ends_with_its_session_or_is_not_touched_is_forgotten() -> None:
    kept, ann, bob = parts(), session("ann"), session("bob")
    for each in (ann, bob):
        kept.put(each, part(1, 0, b"ab", 5), 0.0)
        kept.keep(each, 7, b"answer", 0.0)
    kept.forget(ann.address)
    for end in (
        lambda: kept.put(ann, part(1, 2, b"cde", 5), 1.0),
        lambda: kept.read(ann, ReadPart(request=8, of=7, offset=0), 1.0),
    ):
        with pytest.raises(Refusal):
            end()
    idle = SETTINGS.delivery.session_timeout_seconds
    kept.put(bob, part(1, 2, b"c", 5), idle)
    kept.expire(idle + 1)
    assert kept.put(bob, part(1, 3, b"de", 5), idle + 1) == 5
    with pytest.raises(Refusal):
        kept.read(bob, ReadPart(request=8, of=7, offset=0), idle + 1)


def test_no_bot_has_more_than_its_share_and_whoever_has_most_makes_room() -> None:
    kept = parts()
    for number in (1, 2):
        kept.keep(session("ann", b"%d" % number), number, bytes(28 * MIB), 0.0)
    with pytest.raises(Refusal, match="bytes of this bot") as error:
        kept.put(session("ann"), part(1, 0, b"a", 28 * MIB), 0.0)
    assert error.value.code == Code.BUSY
    kept.keep(session("bob"), 1, bytes(28 * MIB), 0.0)
    kept.keep(session("cat"), 1, bytes(28 * MIB), 0.0)  # ann's first makes room
    with pytest.raises(Refusal):
        kept.read(session("ann", b"1"), ReadPart(request=9, of=1, offset=0), 0.0)
    assert len(kept.read(session("ann", b"2"), ReadPart(request=9, of=2, offset=0), 0.0)) > 0
    kept.keep(session("dan"), 1, bytes(16 * MIB), 0.0)
    with pytest.raises(Refusal, match="bytes of all bots") as error:
        kept.keep(session("eve"), 1, bytes(28 * MIB), 0.0)
    assert error.value.code == Code.BUSY


# ── In the core ──────────────────────────────────────────────────────────────────────────────────────────

MUTE = """
[security.roles.mute]
read = ["own"]
"""


def in_parts(worker: Worker, address: bytes, frame: msgspec.Struct) -> list[dict[str, Any]]:
    """Send a frame in two parts, and return the answers."""
    data, upload = encode(frame), ID % 0xF0
    middle = len(data) // 2
    said = []
    for offset, some in ((0, data[:middle]), (middle, data[middle:])):
        said += worker.say(address, PartFrame(request=1, upload=upload, offset=offset, total=len(data), data=some))
    assert [answer["value"]["received"] for answer in said] == [middle, len(data)]
    return worker.say(address, WholeFrame(request=2, upload=upload))


def commit(number: int) -> Commit:
    message = Publication(id=ID % number, recipient=ToChannel("news"), body=msgspec.Raw(b"1"))
    return Commit(request=77, id=ID % (number + 1), messages=[message])


def test_a_frame_in_parts_is_the_frame_with_the_number_of_the_last_request() -> None:
    worker = Worker()
    worker.say(b"ann", Hello(request=1, protocol=1, bot="ann"))
    worker.commit()
    assert in_parts(worker, b"ann", commit(0xC0)) == []
    [answer] = [frame for frame in worker.commit() if frame["op"] == "ok"]
    assert answer["request"] == 2
    assert len(answer["value"]["seqs"]) == 1


def test_what_a_bot_may_not_do_it_may_not_do_in_parts() -> None:
    worker = RuledWorker(MUTE, {"ann": ("mute",), "bob": ()})
    for bot in ("ann", "bob"):
        worker.say(bot.encode(), Hello(request=1, protocol=1, bot=bot))
    answers = {}
    for bot in ("ann", "bob"):
        said = in_parts(worker, bot.encode(), commit(0xC0))
        while worker.core.has_batch(worker.moment):
            said += worker.commit()
        [answers[bot]] = [frame for frame in said if frame.get("request") == 2]
    assert (answers["ann"]["op"], answers["ann"]["code"]) == ("error", "forbidden")
    assert answers["bob"]["op"] == "ok"


def test_the_parts_of_a_session_end_with_it() -> None:
    worker = Worker()
    worker.say(b"ann", Hello(request=1, protocol=1, bot="ann"))
    worker.commit()
    worker.say(b"ann", part(1, 0, b"ab", 5))
    assert "with 5 bytes" in repr(worker.core.large)
    worker.say(b"ann", Goodbye(request=3))
    assert "with 0 bytes" in repr(worker.core.large)
