"""Numbers, spans and times on the command line: a wrong one is refused in one sentence that says what to write."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from bus.cli.program import main
from bus.model.security import SECURITY_EVENTS

SPANS = [
    ["send", "ann", "x", "--as", "bob", "--ttl"],
    ["send", "ann", "x", "--as", "bob", "--delay"],
    ["status", "--timeout"],
    ["top", "--every"],
    ["kv", "put", "s", "k", "1", "--ttl"],
    ["dead-letters", "discard", "--older-than"],
    ["keys", "invite", "ann", "--ttl"],
    ["schedules", "add", "daily", "report", "--every"],
]
TIMES = [
    ["prune", "--older-than"],
    ["runs", "--since"],
    ["export", "-", "--until"],
    ["audit", "--since"],
    ["history", "--channel", "a", "--since"],
]
WHOLE = [["runs", "--limit"], ["history", "--before"], ["prune", "--keep"], ["bot", "app:bot", "--workers"]]


def refusal(arguments: list[str]) -> str:
    ended = CliRunner().invoke(main, arguments, env={"POSTHOUSE_URL": "tcp://127.0.0.1:1", "COLUMNS": "300"})
    assert (ended.exit_code, ended.stdout) == (2, "")
    return ended.stderr


@pytest.mark.parametrize("value", ["-1d", "", "nan", "inf", "1e99", "0", "-5", "1.5h", "99999d"])
@pytest.mark.parametrize("command", SPANS, ids=" ".join)
def test_a_span_that_is_none(command: list[str], value: str) -> None:
    text = (
        f"{value!r} is not a span of time of more than 0 seconds, and at most 3,660 days: write 90s, 30m, 1h or 7d"
    )
    assert text in refusal([*command, value])


def test_a_grace_may_be_nothing_but_not_less() -> None:
    assert "'-1' is not a span of time of 0 seconds or more" in refusal(["keys", "rotate", "x", "--grace", "-1"])


@pytest.mark.parametrize("value", ["-1d", "", "nan", "yesterday", "2026-01-01", "999999999d"])
@pytest.mark.parametrize("command", TIMES, ids=" ".join)
def test_a_time_that_is_none(command: list[str], value: str) -> None:
    text = refusal([*command, value])
    assert (
        f"{value!r} is neither a span of time before now, as 90s, 30m, 1h or 7d, nor a time with its zone" in text
    )
    assert "isoformat" not in text


@pytest.mark.parametrize("value", ["-1", "", "nan", "1e3", "2.5", "x", str(2**63)])
@pytest.mark.parametrize("command", WHOLE, ids=" ".join)
def test_a_whole_number_that_is_none(command: list[str], value: str) -> None:
    assert f"{value!r} is not a whole number from " in refusal([*command, value])


def commands(command: click.Command = main, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, f"{path} {name}")
    yield path.strip(), command


def test_no_command_takes_numbers_in_another_way() -> None:
    """The errors of these types are the library's: "x is not in the range 0<x<=1"."""
    numbers = (click.IntRange, click.FloatRange, type(click.INT), type(click.FLOAT))
    known = [(path, each) for path, command in commands() for each in command.params]
    assert [(path, each.name) for path, each in known if isinstance(each.type, numbers)] == []


def test_a_pattern_is_told_from_a_name() -> None:
    text = refusal(["history", "--channel", "papers.*"])
    assert "'papers.*' is a pattern, and this takes one name: 'posthouse channels' lists" in text


def test_a_pattern_that_is_none_is_told_what_one_is() -> None:
    text = refusal(["listen", "--as", "ann", "--channel", "papers.**.new"])
    assert "'papers.**.new' is not a valid pattern: " in text
    assert "as in orders.* and orders.**" in text


def test_a_security_event_that_does_not_exist_is_told_what_is_like_it() -> None:
    assert "no event is named 'forbiden': did you mean forbidden?" in refusal(["audit", "--event", "forbiden"])
    unlike = refusal(["audit", "--event", "xyzzy"])
    assert "no event is named 'xyzzy': the names are " in unlike
    assert all(name in unlike for name in SECURITY_EVENTS)
