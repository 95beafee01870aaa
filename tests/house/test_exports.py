"""What a module offers stands in its `__all__`, in order, and says what it is."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PATHS = sorted(
    [
        *(path for folder in ("bus", "store", "bench") for path in (ROOT / folder).rglob("*.py")),
        ROOT / "worker.py",
    ]
)

BUS = [
    "DEFAULT_TAP_URL",
    "DEFAULT_URL",
    "AddressError",
    "ApprovalTimedOut",
    "Bot",
    "BotConflict",
    "BotOwner",
    "BudgetSpent",
    "BusError",
    "CatchUp",
    "ChangesForgotten",
    "Claim",
    "ClosedError",
    "CommitReceipt",
    "Conflict",
    "Credentials",
    "CredentialsError",
    "CronTimes",
    "DefinitionInUse",
    "Draft",
    "EventList",
    "FailRun",
    "Fenced",
    "Forbidden",
    "FoundMessage",
    "Gathered",
    "GlobalOwner",
    "HandshakeError",
    "IdConflict",
    "Inquiry",
    "IntervalTimes",
    "InvalidBody",
    "InvalidKey",
    "InvalidTransition",
    "InvalidValue",
    "KeptMessage",
    "KeyAdded",
    "KeyRefused",
    "KeyedChange",
    "KeyedStore",
    "KeyedValue",
    "KeysRequired",
    "KeysRevoked",
    "KeysUnsupported",
    "Lease",
    "LimitReached",
    "ListedBot",
    "ListedChannel",
    "ListedDeadLetter",
    "ListedDelayed",
    "ListedEvent",
    "ListedKey",
    "ListedPattern",
    "ListedSecurityEvent",
    "ListedSession",
    "ListedSubscription",
    "ListedWill",
    "LogReplaced",
    "MailboxContents",
    "MalformedAnswer",
    "MayAnswer",
    "Message",
    "Middleware",
    "NotFound",
    "NotInFlight",
    "Overlap",
    "Receipt",
    "RecordDamaged",
    "Rejected",
    "Reloaded",
    "Reply",
    "ReplyTimeout",
    "RequestError",
    "ResultTimeout",
    "Retry",
    "RetryPolicy",
    "RevisionConflict",
    "Revoked",
    "Run",
    "RunBusy",
    "RunCancelled",
    "RunCount",
    "RunCounts",
    "RunEnded",
    "RunError",
    "RunFailed",
    "RunFilter",
    "RunGivenUp",
    "RunHandle",
    "RunHeld",
    "RunLost",
    "RunNotDue",
    "RunPaused",
    "RunStatus",
    "RunSummary",
    "ScheduleStatus",
    "Sending",
    "Signal",
    "SlotsTaken",
    "StepChanged",
    "StepFailed",
    "StepPage",
    "StepStatus",
    "StepType",
    "StorageBusy",
    "StorageFull",
    "StoredMessage",
    "SubscriptionRemoved",
    "SuccessorDeleted",
    "TooLarge",
    "TooManyKeys",
    "TooManySignals",
    "UnfitBody",
    "UnknownBot",
    "UnknownChannel",
    "UnknownWorkflow",
    "UnsupportedProtocol",
    "WaitTimedOut",
    "WorkerStatus",
    "WorkerUnavailable",
    "WorkflowDefinition",
    "WorkflowRun",
    "WorkflowSchedule",
    "WorkflowStep",
    "WorkflowStepLog",
    "WrongWorker",
    "connect",
    "events",
    "step_threads",
    "sync",
    "timestamp",
]
"""What a bot's author may rely on: a name less is a breach of a promise, a name more is a new one."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# ── The checks ───────────────────────────────────────────────────────────────────────────────────────────


def exported(tree: ast.Module) -> list[str] | None:
    """Give `__all__` as it is written; None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return None


def in_order(names: list[str]) -> list[str]:
    """Sort as the linter does: constants, then classes, then everything else."""
    return sorted(set(names), key=lambda name: (0 if name.isupper() else 1 if name[0].isupper() else 2, name))


def export_faults(tree: ast.Module) -> list[str]:
    """Say what is wrong with what a module exports, and with what it does not."""
    names = exported(tree)
    if names is None:
        return ["there is no __all__"]
    faults: list[str] = []
    if names != in_order(names):
        faults.append(f"__all__ should be {in_order(names)}")
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if node.name not in names and not _is_command(node):
            faults.append(f"{node.name} is not in __all__; export it, or begin its name with an underscore")
    return faults


def docstring_faults(tree: ast.Module) -> list[str]:
    """Name what is public and has no docstring: the module, its functions and classes, and their methods."""
    faults = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            faults.append(node.name)
        if isinstance(node, ast.ClassDef):
            faults += [
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, Definition)
                and not inner.name.startswith("_")
                and not ast.get_docstring(inner)
                and not _is_overload_or_setter(inner)
            ]
    return faults


def _is_command(node: Definition) -> bool:
    """Tell whether a function is public on the command line instead."""
    return any(
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr in ("command", "group")
        for decorator in node.decorator_list
    )


def _is_overload_or_setter(node: Definition) -> bool:
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(decorators & {"overload", "setter"})


# ── The house ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    """All modules by name, but for an `__init__` that is the docstring of a room: it offers nothing."""
    parsed = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PATHS}
    return {_name(path): tree for path, tree in parsed.items() if path.name != "__init__.py" or len(tree.body) > 1}


def test_exports_are_complete_and_in_order(modules: dict[str, ast.Module]) -> None:
    assert {name: faults for name, tree in modules.items() if (faults := export_faults(tree))} == {}


def may_be_missing(name: str) -> bool:
    """Return True for a module whose library is not installed, unless everything has to be, as for `.ci/run`."""
    if not name.startswith("bus.integrations.") or "POSTHOUSE_NEEDS_EXTRAS" in os.environ:
        return False
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return True
    return False


def test_exported_names_exist(modules: dict[str, ast.Module]) -> None:
    imported = [importlib.import_module(name) for name in modules if not may_be_missing(name)]
    missing = {(each.__name__, name) for each in imported for name in each.__all__ if not hasattr(each, name)}
    assert missing == set()


def test_what_is_public_is_described(modules: dict[str, ast.Module]) -> None:
    assert {name: faults for name, tree in modules.items() if (faults := docstring_faults(tree))} == {}


def test_bus_exports_what_is_promised() -> None:
    assert importlib.import_module("bus").__all__ == BUS


def test_bus_loads_what_is_used_and_no_more() -> None:
    script = (
        "import sys, bus\n"
        "def loaded(): return {name for name in sys.modules if name.startswith('bus.')}\n"
        "assert set(bus.__all__) <= set(dir(bus)) and loaded() == set(), loaded()\n"
        "assert bus.Conflict is bus.errors.Conflict\n"
        "assert all(name.startswith('bus.errors') for name in loaded()), loaded()\n"
        "bus.Bot\n"
        "assert 'bus.bot' in loaded() and not {name for name in loaded() if name.startswith('bus.broker')}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_the_guide_names_everything_that_bus_exports() -> None:
    guide = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bbus\.([A-Za-z_]+)", guide)) - {"testing", "errors", "__version__"}
    assert named == set(BUS), "what docs/python.md names is in bus/__init__.py, and in BUS above"


# ── The checks themselves can fail ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("x = 1", 1),
        ("__all__ = ['b', 'a']", 1),
        ("__all__ = ['a', 'B']", 1),
        ("__all__ = ['Bot', 'CODE']", 1),
        ("__all__ = ['a', 'a']", 1),
        ("__all__ = []\ndef shown(): ...", 1),
        ("__all__ = []\nclass Shown: ...", 1),
        ("__all__ = []\nasync def shown(): ...", 1),
        ("__all__ = []\ndef _hidden(): ...\nclass _Hidden: ...", 0),
        ("__all__ = []\n@main.command()\ndef serve(): ...", 0),
        ("__all__ = ['CODE', 'AddBot', 'Added', 'a', 'b']", 0),
    ],
)
def test_a_fault_in_exports_is_seen(source: str, faults: int) -> None:
    assert len(export_faults(ast.parse(source))) == faults


def test_a_missing_docstring_is_seen() -> None:
    source = """
def shown(): ...
def _hidden(): ...
class Shown:
    def method(self): ...
    def __repr__(self): ...
    async def waits(self):
        'Described.'
"""
    assert docstring_faults(ast.parse(source)) == ["the module", "shown", "Shown", "Shown.method"]
