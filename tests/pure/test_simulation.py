"""The contract, checked after every event of random worlds (docs/contract.md)."""

from __future__ import annotations

import random

import pytest

from bus.core.effects import Locate

from .calm import settle
from .simulation import Simulation, play

WORLDS = 12
WORLDS_WITH_EVENTS = (18, 28)
WORLDS_WITH_VALUES = (20, 31, 42)
"""Where bots share keyed values, and channels have a last value."""
WORLDS_WITH_PRESENCE = (24, 41, 109)
"""Where bots listen to who is there: in the last one, some by a pattern."""
WORLDS_WITH_WILLS = (44, 78, 129, 231)
"""Where bots leave wills: in the third one, new channels match patterns, and in the last one bots are removed."""
WORLDS_WITH_PRIORITIES = (3, 24, 31)
"""Where a mailbox is behind with messages of another priority, which is seldom."""
STEPS = 1500

STATES = {
    "a client that holds what the worker forgot",
    "level",
    "behind",
    "away",
    "arrivals kept aside",
    "overflow while reading",
    "floors",
    "a priority behind",
    "a priority level",
    "delayed",
    "nothing new, because much is delayed",
    "a group with members",
    "a group without members",
    "a backlog being counted",
    "a full mailbox",
    "messages being removed that somebody waits for",
    "a gap",
    "scheduled",
    "an id of several senders",
    "an id of several senders, one of them delayed",
    "full batch",
    "dead letters",
    "a removed bot",
    "a removed channel",
}


@pytest.mark.parametrize("seed", [*range(WORLDS), *WORLDS_WITH_EVENTS])
def test_known_worlds_keep_every_promise(seed: int) -> None:
    assert play(seed, STEPS).deliveries > 60, "a world in which little happens shows little"


@pytest.mark.parametrize("seed", WORLDS_WITH_VALUES)
def test_worlds_with_keyed_values_keep_every_promise(seed: int) -> None:
    world = play(seed, STEPS)
    assert world.keyed.promises.answered > 20, "a world in which little happens shows little"


@pytest.mark.parametrize("seed", WORLDS_WITH_PRESENCE)
def test_worlds_with_presence_keep_every_promise(seed: int) -> None:
    assert play(seed, STEPS).presences.told > 5, "a world in which little happens shows little"


@pytest.mark.parametrize("seed", WORLDS_WITH_WILLS)
def test_worlds_with_wills_keep_every_promise(seed: int) -> None:
    assert play(seed, STEPS).wills.sent > 3, "a world in which little happens shows little"


def test_a_new_world_keeps_every_promise() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"python -m tests.pure.simulation --steps 2000 --seed {seed}")  # noqa: T201
    play(seed, 2000)


def test_a_world_is_the_same_each_time() -> None:
    def trace(seed: int) -> tuple[int, int, dict[str, set[int]]]:
        simulation = play(seed, 800)
        return simulation.deliveries, simulation.log.last_seq, simulation.promises.delivered

    assert trace(5) == trace(5)
    assert trace(5) != trace(6)


def _look(seed: int, steps: int, seen: set[str]) -> None:
    """Note which of the states a world reaches, until all were seen."""
    simulation = Simulation(seed)
    limits = simulation.settings.limits
    for step in range(1, steps + 1):
        simulation.step()
        if any(isinstance(question, Locate) for question, _ in simulation.questions):
            seen.add("a client that holds what the worker forgot")
        for mailbox in simulation.core.directory.mailboxes.values():
            seen.add(repr(mailbox).split()[2])
            if mailbox.intake.aside:
                seen.add("arrivals kept aside")
            if mailbox.intake.overflowed and mailbox.intake.reading:
                seen.add("overflow while reading")
            for lane in mailbox.sources.lanes:
                if lane.waits:
                    seen.add("a priority behind" if lane.behind else "a priority level")
            if mailbox.sources._floors:
                seen.add("floors")
            if mailbox.outstanding._delayed:
                seen.add("delayed")
            if mailbox.intake and mailbox.outstanding.resting >= limits.delayed_per_mailbox_max:
                seen.add("nothing new, because much is delayed")
            if mailbox.group is not None and len(mailbox.sessions) > 1:
                seen.add("a group with members")
            if mailbox.group is not None and not mailbox.sessions:
                seen.add("a group without members")
            if mailbox.backlog.counting:
                seen.add("a backlog being counted")
            if not mailbox.backlog.room("nobody", 1, limits.backlog_messages_max, of_one_max=1):
                seen.add("a full mailbox")
            if mailbox.losses.losing:
                seen.add("messages being removed that somebody waits for")
            if mailbox.losses.gap is not None:
                seen.add("a gap")
        if simulation.log.scheduled:
            seen.add("scheduled")
        if len({id for id, _ in simulation.log.by_id}) < len(simulation.log.by_id):
            seen.add("an id of several senders")
        if {id for id, _ in simulation.log.by_id} & {id for id, _ in simulation.log.scheduled}:
            seen.add("an id of several senders, one of them delayed")
        if simulation.core.full:
            seen.add("full batch")
        if simulation.log.dead_letters:
            seen.add("dead letters")
        if simulation.log.removals:
            seen |= {f"a removed {each.kind}" for each in simulation.log.removals.values()} & STATES
        if step % 1000 == 0:
            settle(simulation)
        if seen == STATES:
            return


@pytest.mark.timeout(600)
def test_the_worlds_reach_every_state() -> None:
    """What never happens in the simulation is not shown by it.

    Long worlds, whose steps cost more and more, are for what is rare.
    """
    seen: set[str] = set()
    for seed in WORLDS_WITH_PRIORITIES:
        _look(seed, STEPS, seen)
    for seed in range(215, 225):
        if seen != STATES:
            _look(seed, 10_000, seen)
    assert seen == STATES
