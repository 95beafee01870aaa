"""The editors of examples/: killed after a turn, together with their worker, they do not take that turn again.

AutoGen is not among what `.ci/run` installs, as it takes protobuf 5.29 only: `make autogen` runs this.
"""

from __future__ import annotations

import pytest

from ...cli.terminal import Posthouse, Running
from ...crash.nursery import ForkedWorker

pytest.importorskip("autogen_agentchat", reason="AutoGen is not installed: 'make autogen' runs this test")

BOUND_SECONDS = 90


def editors(posthouse: Posthouse, pause_seconds: float) -> Running:
    return posthouse.example("editors.py", PAUSE_SECONDS=str(pause_seconds))


def turns(posthouse: Posthouse, run: str) -> list[str]:
    steps = posthouse.json("run", run, "--as", "ada")["steps"]
    return [
        step["output"]["says"] for step in steps if step["step_name"] == "turn" and step["status"] == "completed"
    ]


def test_a_team_goes_on_after_its_last_turn(impatient: ForkedWorker) -> None:
    posthouse = Posthouse(impatient.command)
    posthouse.answer("bots", "--as", "editors")
    sent = posthouse.json("send", "editors", '"moths"', "--type", "article", "--as", "ada")
    with editors(posthouse, 1) as first:
        assert first.line(BOUND_SECONDS) == "writer: Draft 1 about moths."
        posthouse.wait_until(lambda: turns(posthouse, sent["id"]) == ["Draft 1 about moths."])
        first.kill()
    impatient.kill()
    impatient.start()
    with editors(posthouse, 0) as second:
        said = [second.line(BOUND_SECONDS) for _ in range(4)]
        assert said == [
            "critic: Shorter, please.",
            "writer: Draft 2 about moths.",
            "critic: ENOUGH",
            "may it be published? Draft 2 about moths.",
        ]
        posthouse.wait_until(lambda: bool(posthouse.json("approvals", "--as", "ann")))
        posthouse.answer("approve", sent["id"], "publish", "--as", "ann")
        assert second.line(BOUND_SECONDS) == "published"
    [published] = posthouse.json("history", "--channel", "articles", "--as", "ada")
    assert published["body"] == "Draft 2 about moths."
