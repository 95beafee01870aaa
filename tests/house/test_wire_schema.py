"""The JSON Schema of the wire, docs/wire.schema.json, is that of the structs, and true of what is sent."""

from __future__ import annotations

import json
from typing import Any

from bus.wire.frames import RequestFrame

from ..fuzz.mutations import CLIENT_FRAMES, WORKER_FRAMES
from ..schema import ANSWERS, PATH, WITHOUT_VALUE, written
from .test_protocol_page import ops

SCHEMA = json.loads(PATH.read_text(encoding="utf-8"))


def test_the_file_is_that_of_the_structs() -> None:
    assert PATH.read_text(encoding="utf-8") == written(), "a frame has changed: run `make schema`"


def test_every_op_has_its_answer() -> None:
    assert sorted([*ANSWERS, *WITHOUT_VALUE]) == ops(RequestFrame), "name the answer in tests/schema.py"


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = SCHEMA["$defs"][name]
    return found


def frames(name: str) -> dict[str, dict[str, Any]]:
    """Return the definitions of a union of frames, by their ops."""
    mapping = definition(name)["discriminator"]["mapping"]
    return {op: definition(reference.removeprefix("#/$defs/")) for op, reference in mapping.items()}


def test_examples_of_frames_have_the_properties_that_it_names() -> None:
    for name, examples in (("ClientFrame", CLIENT_FRAMES), ("WorkerFrame", WORKER_FRAMES)):
        kinds = frames(name)
        for example in examples:
            kind = kinds[example["op"]]
            assert example.keys() <= kind["properties"].keys(), example
            assert example.keys() >= set(kind["required"]), example


def test_clients_send_nothing_else_and_workers_may() -> None:
    assert all(kind["additionalProperties"] is False for kind in frames("ClientFrame").values())
    assert not any("additionalProperties" in kind for kind in frames("WorkerFrame").values())


def test_patterns_are_those_of_json_schema() -> None:
    assert "\\\\Z" not in PATH.read_text(encoding="utf-8")
