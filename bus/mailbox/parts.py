"""The parts of a mailbox.

Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from .backlog import Backlog
from .dead_letters import DeadLetterBox
from .intake import Intake
from .losses import Losses
from .outstanding import Outstanding
from .sources import Sources

__all__ = ["Parts"]


class Parts(NamedTuple):
    """The parts of one mailbox. Each owns what its module says, and none knows the mailbox."""

    sources: Sources
    intake: Intake
    backlog: Backlog
    outstanding: Outstanding
    dead_letters: DeadLetterBox
    losses: Losses
