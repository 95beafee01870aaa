"""Every error of the house crosses a process boundary, and can be copied, without losing what it says."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import bus
from bus.errors import NotFound, Portable, RequestError

ROOT = Path(__file__).parents[2]

SAMPLES: dict[str, Any] = {"str": "x", "int": 3, "float": 1.5, "bool": True, "bytes": b"x", "Code": "busy"}


def kinds() -> Iterator[type[Exception]]:
    for folder in ("bus", "store"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for kind in vars(importlib.import_module(name)).values():
                if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == name:
                    yield kind


KINDS = sorted(kinds(), key=lambda kind: (kind.__module__, kind.__name__))


def example(kind: type[Exception]) -> Exception:
    """Return an error of a kind, with something for everything that it takes."""
    if not inspect.isfunction(kind.__init__):  # that of Exception, of ValueError
        return kind("what happened")
    args: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in inspect.signature(kind).parameters.values():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            sample = SAMPLES.get(str(parameter.annotation).partition(" | ")[0], ValueError("wrong"))
            if "dict" in str(parameter.annotation) or parameter.annotation == "Any":
                sample = {"n": [1, None]}
            if parameter.kind is parameter.KEYWORD_ONLY:
                named[parameter.name] = sample
            else:
                args.append(sample)
    return kind(*args, **named)


def pickled(error: Exception) -> Exception:
    found: Exception = pickle.loads(pickle.dumps(error))
    return found


def told(error: BaseException | None) -> Any:
    """Return what can be seen of an error, in a form that can be compared."""
    if error is None:
        return None
    attributes = {name: repr(value) for name, value in vars(error).items()}
    return type(error), str(error), error.args, attributes, told(error.__cause__)


@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_an_error_is_the_same_after(kind: type[Exception], again: Callable[[Exception], Exception]) -> None:
    error = example(kind)
    error.add_note("a note")
    assert told(again(error)) == told(error)


def test_every_error_of_the_tree_goes_by_one_place() -> None:
    """Whichever module defines it: that is how it is pickled, and shown in a traceback."""
    tree = [kind for kind in KINDS if kind.__module__.startswith("bus.errors")]
    assert len(tree) > 40
    assert {kind.__module__ for kind in tree} == {"bus.errors"}
    assert [kind for kind in tree if kind.__name__ not in bus.errors.__all__] == []


def test_the_walk_found_the_errors() -> None:
    assert {bus.StepFailed, bus.UnknownBot, NotFound} <= set(KINDS)


@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_the_cause_comes_along(again: Callable[[Exception], Exception]) -> None:
    error = bus.StepFailed("run", "fetch", 3, "NotFound: no run 'x'")
    error.__cause__ = NotFound("run", "x")
    error.__cause__.__cause__ = ValueError("first")
    assert told(again(error)) == told(error)
    assert again(error).__suppress_context__


def test_a_long_chain_of_causes_is_pickled_in_short_time() -> None:
    """Each is written once: twice a link would be a billion times at the end of this chain."""
    error: Portable = bus.ClosedError("0")
    for number in range(1, 31):
        after = bus.ClosedError(str(number))
        after.__context__ = after.__cause__ = error
        error = after
    assert told(pickled(error)) == told(error)


class Stubborn(Exception):
    """An author's error that can be written, and not read back."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


@pytest.mark.parametrize("cause", [Stubborn("a", "b"), ValueError(threading.Lock())], ids=["reading", "writing"])
def test_a_cause_that_cannot_be_pickled_does_not_keep_the_error_back(cause: Exception) -> None:
    error = bus.StepFailed("run", "fetch", 3, "Stubborn: ab")
    error.__cause__ = cause
    found = pickled(error)
    assert (str(found), found.__cause__) == (str(error), None)
    assert copy.copy(error).__cause__ is cause


def refuse() -> None:
    raise bus.UnknownBot("no bot named 'x'") from NotFound("bot", "x")


def test_an_error_comes_out_of_a_process_pool() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(bus.UnknownBot, match="no bot named 'x'") as refused,
    ):
        pool.submit(refuse).result(timeout=60)
    assert refused.value.code == "unknown_bot"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if issubclass(kind, RequestError) and not kind.attributes])
def test_a_refusal_can_be_made_of_a_code_and_a_message(kind: type[RequestError]) -> None:
    """As a program's own tests do that play a worker."""
    error = kind("busy", "what happened", retry=True, retry_after=2.0, details={"n": 1})
    assert str(error).startswith("what happened [busy]")
    assert (error.code, error.message, error.retry_after, error.details) == ("busy", "what happened", 2.0, {"n": 1})
    copied = pickled(error)
    assert (str(copied), vars(copied)) == (str(error), vars(error))
