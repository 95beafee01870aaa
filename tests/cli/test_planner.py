"""The planner of examples/: whatever becomes of a trip, and wherever its bot is killed, nothing is booked twice."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from .terminal import Posthouse, Running

PARTS = ["flight", "hotel", "museum"]

ENDS = {
    "agreed": ["approve"],
    "refused": ["reject"],
    "cancelled": ["cancel"],
    "no answer": [],
}


def until(program: Running, beginning: str) -> str:
    while not (line := program.line()).startswith(beginning):
        pass
    return line


class Trip:
    """One trip, and the planner that plans it."""

    def __init__(self, posthouse: Posthouse, stack: ExitStack, end: str, city: str) -> None:
        self.posthouse = posthouse
        self.city = city
        self._stack = stack
        self._environment = {"TIMEOUT_SECONDS": "3" if end == "no answer" else "600", "LEASE_SECONDS": "1"}
        self.planner = self._start()
        posthouse.answer("bots", "--as", "planner")
        sent = posthouse.json("send", "planner", json.dumps({"city": city}), "--type", "trip", "--as", "ada")
        self.id = str(sent["id"])

    def _start(self) -> Running:
        return self._stack.enter_context(self.posthouse.example("planner.py", **self._environment))

    def kill(self) -> None:
        """Kill the planner, and start another one."""
        self.planner.kill()
        self.planner = self._start()

    def answer(self, *command: str) -> None:
        if command:
            arguments = [*command, self.id, *(["agree"] if command[0] != "cancel" else []), "--as", "ada"]
            self.posthouse.answer(*arguments)

    def status(self) -> str:
        shown = self.posthouse.run("run", self.id, "--json").stdout  # and on standard error how it could go on
        return str(json.loads(shown)["run"]["status"])


@pytest.mark.parametrize(
    ("end", "point"), [("agreed", "the plan"), *((end, point) for end in ENDS for point in ("booked", "last"))]
)
def test_a_trip_ends_once_wherever_its_planner_is_killed(impatient: Posthouse, end: str, point: str) -> None:
    with ExitStack() as stack:
        agency = stack.enter_context(impatient.example("agency.py"))
        trip = Trip(impatient, stack, end, f"{end} {point}")
        until(trip.planner, "the plan")
        if point == "the plan":
            trip.kill()
        until(trip.planner, "booked")
        if point == "booked":
            trip.kill()
            until(trip.planner, "booked")
        trip.answer(*ENDS[end])
        if point == "last":
            until(trip.planner, "a person has agreed" if end == "agreed" else "giving back")
            trip.kill()  # perhaps after all was done
        status = {"agreed": "completed", "cancelled": "cancelled"}.get(end, "failed")
        impatient.wait_until(lambda: trip.status() == status)
        trip.planner.interrupt()
        agency.interrupt()
        assert agency.exit_code() == 0
        said = sorted(agency.lines_now())
    place = f"of {trip.id[:8]}"
    booked = [f"booked {part} {place}" for part in PARTS]
    assert said == booked + ([] if end == "agreed" else [f"given back {part} {place}" for part in PARTS])
    shown = impatient.run("history", "--channel", "trips", "--json").stdout  # nothing before the first announcement
    trips = [message["body"]["city"] for message in json.loads(shown or "[]")]
    assert trips.count(trip.city) == (end == "agreed")
