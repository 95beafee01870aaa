"""Whatever bytes a frame has: it is read or refused, and nothing else happens."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import InvalidValue
from bus.wire.calls import decode_call
from bus.wire.codec import decode_request, decode_worker_frame
from bus.wire.frames import Refusal, RequestFrame, Workflow

from .mutations import CLIENT_FRAMES, WORKER_FRAMES, mutated, nonsense, write
from .script import play

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*"))

FRAME_BYTES_MAX = 1024 * 1024

chances = st.integers(0, 2**64).map(random.Random)

OTHER = st.sampled_from([b".", b".", b".", b"-", b"+", b"*", b"!a", b"!b", b"^"])


def read(frame: bytes) -> RequestFrame | Refusal:
    """Read a client's frame as the worker does, and the arguments of a call in it."""
    try:
        request = decode_request(frame, FRAME_BYTES_MAX)
    except Refusal as error:
        return error
    if isinstance(request, Workflow):
        try:
            decode_call(request)
        except InvalidValue:
            return request
    return request


@st.composite
def scripts(draw: st.DrawFn) -> bytes:
    """Draw some lines: most are frames that are nearly right."""
    lines: list[bytes] = []
    for _ in range(draw(st.integers(1, 20))):
        if draw(st.booleans()):
            chance = draw(chances)
            frame = mutated(chance.choice(CLIENT_FRAMES), chance)
            lines.append(chance.choice([b"a", b"b", b"c"]) + frame.replace(b"\n", b" "))
        else:
            lines.append(draw(OTHER))
    return b"\n".join(lines)


@pytest.mark.parametrize("frame", CLIENT_FRAMES, ids=lambda frame: str(frame.get("call") or frame["op"]))
def test_what_the_mutations_begin_with_is_valid(frame: dict[str, Any]) -> None:
    request = read(write(frame))
    assert not isinstance(request, Refusal), request.message
    if isinstance(request, Workflow):
        decode_call(request)


@pytest.mark.parametrize("frame", WORKER_FRAMES, ids=lambda frame: str(frame["op"]))
def test_what_the_mutations_of_the_worker_begin_with_is_valid(frame: dict[str, Any]) -> None:
    assert decode_worker_frame(write(frame)) is not None


def test_the_mutations_begin_with_every_op() -> None:
    ops = {kind.__struct_config__.tag for kind in RequestFrame.__args__}
    assert {frame["op"] for frame in CLIENT_FRAMES} == ops


@settings(max_examples=400)
@given(chances)
def test_a_mutated_frame_of_a_client_is_read_or_refused(chance: random.Random) -> None:
    frame = chance.choice(CLIENT_FRAMES)
    read(mutated(frame, chance))
    read(nonsense(frame, chance))


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(frame: bytes) -> None:
    read(frame)
    decode_worker_frame(frame)


@settings(max_examples=400)
@given(chances)
def test_a_mutated_frame_of_a_worker_is_read_or_ignored(chance: random.Random) -> None:
    frame = chance.choice(WORKER_FRAMES)
    decode_worker_frame(mutated(frame, chance))
    decode_worker_frame(nonsense(frame, chance))


@settings(max_examples=60)
@given(scripts())
def test_no_frames_harm_a_running_core(script: bytes) -> None:
    play(script)


FUZZER = """
import contextlib

def instrument_imports(include):
    return contextlib.nullcontext()

def Setup(arguments, play, custom_mutator):
    global chosen
    chosen = play

def Fuzz():
    chosen(b"+")
"""
"""What the fuzzer's library would do first."""


def test_the_fuzzer_plays_with_a_core_that_is_imported_again(tmp_path: Path) -> None:
    (tmp_path / "atheris.py").write_text(FUZZER)
    command = [sys.executable, "-m", "tests.fuzz", "--inside"]
    ended = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_the_fuzzer_kept_harms_no_core(path: Path) -> None:
    play(path.read_bytes())
