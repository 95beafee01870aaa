"""The page of the wire names every frame and every code: a client in another language is written from it alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_origin

import pytest

from bus.model.events import EventBody, Noticed, WorkerEvent
from bus.model.security import SECURITY_EVENTS
from bus.wire.calls import CALLS
from bus.wire.codes import Code
from bus.wire.frames import Query, RequestFrame, WorkerFrame

from ..fuzz.mutations import CLIENT_FRAMES, WORKER_FRAMES
from ..schema import ANSWERS

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def ops(frames: object) -> list[str]:
    """Return the `op` of each kind of a union of frames."""
    return sorted(kind.__struct_config__.tag for kind in get_args(frames))


def named_in_tables(page: str) -> set[str]:
    """Return what is written as code in the first cells of tables."""
    return {
        name for cell in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }


def chapter(heading: str) -> str:
    """Return what is under a heading of the page."""
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("op", ops(RequestFrame))
def test_the_page_has_every_op_of_a_client(op: str) -> None:
    assert op in named_in_tables(chapter("Sockets and frames")), "add it to the table of frames of docs/protocol.md"


@pytest.mark.parametrize("op", ops(Query))
def test_the_page_describes_every_query(op: str) -> None:
    assert op in named_in_tables(chapter("Asking")), "add a row to the chapter Asking of docs/protocol.md"


@pytest.mark.parametrize("op", ops(WorkerFrame))
def test_the_page_shows_every_op_of_a_worker(op: str) -> None:
    assert f'"op":"{op}"' in PAGE


@pytest.mark.parametrize("code", Code)
def test_the_page_has_every_code(code: Code) -> None:
    assert code in named_in_tables(PAGE)


@pytest.mark.parametrize("kind", get_args(WorkerEvent))
def test_the_page_has_every_event_and_its_fields(kind: type[EventBody]) -> None:
    rows = [line for line in chapter("Asking").splitlines() if line.startswith(f"| `{kind.message_type}` |")]
    own = set(kind.__struct_fields__) - set(Noticed.__struct_fields__)
    assert [set(re.findall(r"`(\w+)`", row.split("|")[2])) for row in rows] == [own]


def test_the_page_has_every_security_event() -> None:
    [section] = re.findall(r"^### Security events\n(.*?)^### ", PAGE, re.MULTILINE | re.DOTALL)
    assert named_in_tables(section) - {"event"} == set(SECURITY_EVENTS)


def test_the_page_says_which_answers_omit_more() -> None:
    [named] = re.findall(r"The values of ([^.]*) have `\"more\":true` if there are others, and omit", PAGE)
    answers = {op: get_origin(value) or value for op, value in ANSWERS.items()}
    pages = {op: value for op, value in answers.items() if "more" in getattr(value, "__struct_fields__", ())}
    omitting = {op for op, value in pages.items() if value.__struct_config__.omit_defaults}
    assert re.findall(r"`(\w+)`", named) == sorted(omitting)
    assert [*pages.keys() - omitting] == ["history"]
    always = [call.answer for call in CALLS.values() if "more" in getattr(call.answer, "__struct_fields__", ())]
    assert {each.__struct_config__.omit_defaults for each in always} == {False}


def test_there_is_a_frame_of_every_op_to_make_others_of() -> None:
    for frames, kinds in ((CLIENT_FRAMES, RequestFrame), (WORKER_FRAMES, WorkerFrame)):
        differing = {frame["op"] for frame in frames} ^ set(ops(kinds))
        assert differing == set(), "each op has an example in tests/fuzz/mutations.py"


def test_an_op_that_is_only_mentioned_is_not_in_a_table() -> None:
    assert named_in_tables("| `hello`, `ping` | x `pong` |\n`ack`\n| a `nak` | b |") == {"hello", "ping"}
