"""What a worker that failed exits with, however deep in groups the error is: service managers decide by it."""

from __future__ import annotations

import pytest

from bus.cli.exit_codes import exit_codes
from bus.errors import BindError, DatabaseDamaged, DatabaseInUse, OwnershipLost, StoreFailed
from bus.settings import SettingsError

ERRORS = [
    (SettingsError("listen.command"), 78),
    (BindError("ipc:///nowhere/x", "no such folder", in_use=False), 78),
    (BindError("tcp://127.0.0.1:1", "in use", in_use=True), 75),
    (DatabaseInUse("posthouse.db", 1), 75),
    (OwnershipLost("another worker serves this database"), 75),
    (DatabaseDamaged("posthouse.db", "torn"), 65),
    (StoreFailed("posthouse.db: disk I/O error"), 74),
]


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_has_its_code_in_groups_too(
    error: Exception, code: int, depth: int, capsys: pytest.CaptureFixture[str]
) -> None:
    raised = error
    for _ in range(depth):
        raised = ExceptionGroup("tasks", [raised])
    with pytest.raises(SystemExit) as ended, exit_codes():
        raise raised
    assert ended.value.code == code
    assert capsys.readouterr().err == f"posthouse: {error}\n"


def test_a_store_that_failed_counts_whatever_else_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, exit_codes():
        raise BaseExceptionGroup("tasks", [KeyboardInterrupt(), RuntimeError("a fault"), StoreFailed("I/O error")])
    assert ended.value.code == 74
    assert "I/O error" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError), exit_codes():
        raise RuntimeError("a fault")
