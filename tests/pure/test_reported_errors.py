"""Errors over the wire: what a store raises and what its client raises are the same."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

import bus
import store.errors
from bus import errors
from bus.errors import RequestError, request_error
from bus.wire.codes import RETRY, Code

STORED: list[tuple[RequestError, str]] = [
    (errors.NotFound("run", "r"), "not_found"),
    (errors.Conflict("the same again"), "conflict"),
    (errors.InvalidTransition("run", "r", "failed", "running"), "invalid_transition"),
    (errors.DefinitionInUse("w", 3), "conflict"),
    (errors.RunHeld("r", "ann", "2026-01-01T00:00:00.000000Z"), "conflict"),
    (errors.RunPaused("r", "paused by ann: lunch"), "conflict"),
    (errors.RunGivenUp("r", 6), "conflict"),
    (errors.RunNotDue("r", "2026-01-01T00:00:00.000000Z"), "conflict"),
    (errors.RunEnded("r", "completed"), "conflict"),
    (errors.NotAllowed("ann", "run", "digest", "role member"), "forbidden"),
    (errors.TooManySignals("r", 1000), "busy"),
    (errors.RevisionConflict("settings", "model", 3, 4), "conflict"),
    (errors.ChangesForgotten("settings", 3, 4), "conflict"),
    (errors.TooManyKeys("settings", 1000), "busy"),
    (errors.Fenced("r", 3, "cancelled"), "fenced"),
    (errors.SlotsTaken("r", 2, 5), "busy"),
    (errors.Unapproved("s", "r"), "forbidden"),
    (errors.TooLarge("context", 11, 10), "too_large"),
    (errors.InvalidValue("limit", "must be 0 or more"), "bad_request"),
    (errors.BudgetSpent("m", "2026-01-01T00:00:00.000000Z"), "budget_spent"),
    (errors.BudgetSpent("m", None), "budget_spent"),
    (errors.StorageFull("the disk is full"), "storage_full"),
    (errors.StorageBusy("somebody writes"), "busy"),
]

KINDS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, RequestError)]

LATER: list[dict[str, Any] | None] = [
    None,
    {},
    {"error": "of a later version"},
    {"error": "fenced"},
    {"error": "fenced", "fence": 1},
]


def seen(error: RequestError) -> dict[str, Any]:
    """Return what a program can see of an error."""
    names = ("code", "message", "retry", "retry_after", "details", "hint", *error.attributes)
    return {"text": str(error)} | {name: getattr(error, name) for name in names}


@pytest.mark.parametrize(("error", "code"), STORED, ids=lambda value: type(value).__name__)
def test_an_error_is_the_same_on_the_other_side(error: RequestError, code: str) -> None:
    assert error.code == code
    details = msgspec.json.decode(msgspec.json.encode(error.details))
    again = request_error(error.code, str(error), retry=error.code in RETRY, details=details)
    assert type(again) is type(error)
    assert seen(again) == seen(error)


def test_each_error_that_a_store_raises_for_one_call_is_told() -> None:
    told = {type(error) for error, _ in STORED}
    raised: set[type[RequestError]] = {kind for kind in KINDS if issubclass(kind, errors.StoreError)}
    assert raised - told == {errors.Refused, errors.NotInFlight}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_class_has_a_code_of_the_protocol(kind: type[RequestError]) -> None:
    assert kind.code in set(Code)
    if kind not in (RequestError, errors.Refused):
        assert kind.retry == (kind.code in RETRY)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_without_details_has_all_its_attributes(kind: type[RequestError]) -> None:
    error = kind.received("some_code", "no", retry=True, retry_after=2.0)
    assert isinstance(error, kind)
    assert (error.code, error.message, error.retry, error.retry_after) == ("some_code", "no", True, 2.0)
    assert str(error) == ("no [some_code]" + (f": {kind.hint}" if kind.hint else ""))
    assert all(getattr(error, name) in ("", 0, None) for name in kind.attributes)


@pytest.mark.parametrize("details", LATER)
def test_an_error_that_is_not_known_here_stays_the_workers(details: dict[str, Any] | None) -> None:
    error = request_error("fenced", "no", details=details)
    assert (type(error), str(error), error.details) == (RequestError, "no [fenced]", details)


def test_a_code_alone_says_which_error_it_is() -> None:
    assert type(request_error("not_found", "no")) is bus.NotFound
    assert type(request_error("mailbox_full", "no", retry_after=1.5)) is bus.LimitReached
    assert type(request_error("of_a_later_version", "no")) is RequestError


def test_a_bots_author_meets_bus_errors_alone() -> None:
    for name in store.errors.__all__:
        kind = getattr(store.errors, name)
        if issubclass(kind, errors.StoreError) and kind is not errors.StoreError:
            assert issubclass(kind, bus.BusError) != issubclass(kind, store.errors.StoreFailure)


def test_a_full_disk_takes_more_down_than_one_call() -> None:
    for kind in (errors.StorageFull, errors.StorageBusy, errors.RecordDamaged):
        assert not issubclass(kind, errors.Refused)
