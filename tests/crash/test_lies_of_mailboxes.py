"""A worker that is broken in its credit, replies, dead letters or failures is found within so many kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from .detector import assert_found, chosen
from .lies_of_mailboxes import LIES_OF_MAILBOXES

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("lie", chosen(LIES_OF_MAILBOXES))
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    assert_found(lie, LIES_OF_MAILBOXES[lie], tmp_path)
