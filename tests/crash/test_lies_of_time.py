"""A worker that is broken in its retention, or to clients that return, is found within so many kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from .detector import assert_found, chosen
from .kills import PAUSES
from .lies_of_time import LIES_OF_TIME

_PAUSES = 0.5
"""For the lie that only a pause brings to light."""

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("lie", chosen(LIES_OF_TIME))
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    pauses = _PAUSES if lie == "pauses_expel" else PAUSES
    assert_found(lie, LIES_OF_TIME[lie], tmp_path, pauses=pauses)
