"""`posthouse events`: what happened before anybody asked."""

from __future__ import annotations

from .terminal import Posthouse, Running
from .test_dead_letters import give_up


def _is_told(posthouse: Posthouse, following: Running) -> bool:
    give_up(posthouse, "gail", 1)
    return any('"mailbox":"gail"' in line for line in following.lines_now())


def test_what_happened_is_shown_and_followed(posthouse: Posthouse) -> None:
    give_up(posthouse, "gail", 2, "no such file")
    shown = posthouse.run("events")
    heading, first, *_, last = shown.stdout.splitlines()
    assert heading.split() == ["time", "what", "happened", "times", "event"]
    assert "the worker began to serve at" in first
    assert "1 dead letter in gail: no such file" in last
    assert last.split()[-2:] == ["2", "dead_letters.added"]
    assert "the worker remembers what happened since the worker's start at 20" in shown.stderr
    assert "opened a session" not in shown.stdout
    assert "gail opened a session" in posthouse.run("events", "--all").stdout
    [one] = posthouse.json("events", "--limit", "1")
    assert (one["message_type"], one["times"], one["body"]["mailbox"]) == ("dead_letters.added", 2, "gail")
    assert "use a larger --limit" in posthouse.run("events", "--limit", "1").stderr
    with posthouse.start("events", "--follow", "--json") as following:
        posthouse.wait_until(lambda: _is_told(posthouse, following))
        following.interrupt()
        assert following.exit_code() == 0
