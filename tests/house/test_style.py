"""What no linter says: the length of files, words that mean "later", and files that may never change."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LINES_MAX = 500
"""A file does one thing; one that wants to be longer has a second thing in it."""

FUNCTION_LINES_MAX = 70
"""Of a function, with its docstring: what does not fit on one screen is more than one thing."""

LONGER = {
    "bus/mailbox/mailbox.py": 600,
}
"""Those that are too long already, and how long they may be. Nothing is added here; what was split is taken out."""

LATER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")

BARE_IGNORE = re.compile(r"#\s*(type:\s*ignore(?!\[)|noqa(?!:)|pyright:\s*ignore(?!\[))")

MIGRATIONS = {
    "20261122_0001_initial": "6bdd448792fe091f7af4d6d26a1bc42957ee71957a5653d921aea1096a9c024d",
    "20261122_0002_groups_and_schedules": "5c5ec6c10f0d5958036997599561c0ddce99d4d348dac044930dfb94b862c663",
    "20261122_0003_leases": "247cc3a13903516308d27f44b833504ecf6398392dafcc2195f4275782c1a6d5",
    "20261122_0004_commits": "9a6036fa5217923bbfe1fa4d83fdedd647c4a192ae5546ef8973ab4ec23759e7",
    "20261123_0005_checksums": "96ac9cc3fc190110f31d485c656804cb618fc4d4952e40bf23554f6a0aa9e5bf",
    "20261123_0006_runs": "f584183df9455d8eb302302a02bbc801cef310028ba8298c7fa0f5cecbc4a904",
    "20261130_0007_ids_of_senders": "ec9e0b96543acedf17137a2194ef508e98b0de856b938795ee921761a4e080a6",
    "20261130_0008_keys": "8825efd448ffd28def5fa9c12eb9c970c53e30ed8ce21ce163c5e5f564629549",
    "20261130_0009_run_owners": "95c2c2f348fe4d1f4d4d7c4577a0608d04913e44e9f4662be3ce40bbdbd28dc7",
    "20261130_0010_security_events": "f3bbc84c8e6159988251c60c03a5c95fb1264313b446b0987866c898a392cbbb",
    "20261130_0011_taint": "584ca663b854941ae353ab4caeafe9209a82d6df46d9cad23d174b16d9cd10b3",
    "20261130_0012_order_of_steps": "331790cf6e646a0a865b42111cda6ec0d08c7559ac86afe9e49f6c25f93d5197",
    "20261130_0013_retried_runs": "5ab4525e5a527f73814045472647fc812cb484429200dc376436531dfc07b763",
    "20261130_0014_queue_places": "910e5406eaff315f5cd7932f2dd6488e0b907078b3cf7c5cb1fe10a1a60a5e23",
    "20261130_0015_signals": "cd7b01f9230b55788a80c5cd9cc20a2ccf76dcb30dcbc2d8b35ac80437b5b48f",
    "20261130_0016_keeping_and_schedules": "7c5a72974dc7303088b7f5baae7434cd1832251b612bba491ec3e9337e3b11e3",
    "20261130_0017_ends_of_runs": "a244b5b686b2e6ff8acd4626c466686ff01921c29e0f513f260b625dcef3e4c6",
    "20261130_0018_moving": "c66b9e77c5f03d818e906e654ea094515d7dade73c672ae32cf8c6a3eab21d85",
    "20261130_0019_removals": "dfd351743fb8b928a280f1c3e32fd69e42057aa32a7e707438439505212f0754",
    "20261130_0020_keyed_values": "48a6aaa0aa3d3a1cb2628996e98eaf2b242a7b00f93d8c703c61d2fb2cc3abc2",
    "20261130_0021_patterns": "83718d8582a48bb01e9c4d3ede04b7e0a6ee0f44f9f13de7d2684cd9d03d0f75",
    "20261130_0022_budgets": "922621abb704d9f073c4556ab62d3cde4d28e6af15f9af1bbcdc8fda48fd2916",
    "20261201_0023_priorities": "b0b1e659536d06ace692b8a5660b04b7278792daefbb982cca6da3ee44b1aacc",
    "20261201_0024_earlier_logs": "47642139f961b1238f6e6b2b46ab740c94a5c632cc5f8b8397a3d7f483b6b2f8",
}
"""Every migration that has landed, with the SHA-256 of its text. Lines are added here, and never changed."""

POSTGRESQL_MIGRATIONS = {
    "20261130_0001_messages": "f851bfad20df5d092a1f1c9536ac57fe8172eb023183008f8165a1c4f89afdf3",
    "20261130_0002_workflows": "6651b7f9e33a8a866bd85dad5651f9d08148de4f88af13dda63aaa0305efa029",
    "20261130_0003_moving": "dbb70bec71ae256d9d8b4ae00fa576a47270fe883c6660a9d43d933aadbb0955",
    "20261130_0004_places": "d8061916ce7a64ebf05519dbc8c189dc1ddd05400e9c706459b66cc2d5c31550",
    "20261130_0005_cancellations": "1f7a783eb8e4e0a9fd42397de4d46162549b11860ae4335e7b16399525786850",
    "20261130_0006_leadership": "c35b385b160349ebe7d2f611b4f208f034b29ff7ed0221553c17e1f7b4a5ee65",
    "20261130_0007_removals": "fa126a4d19b4b8ad1543ae4f8f0f253db6c404eb23abfcfa359a158201aaeb0d",
    "20261130_0008_keyed_values": "9a252b8156fd74d4e3810f8f7504abde44c676dbc16c153efb7d9da4123d2b55",
    "20261130_0009_patterns": "658dbc8291cffe3390688f3a5f885addcb33cf22364d7f19bb7511f2f42865cb",
    "20261130_0010_budgets": "661016c0fb26a97bc7fad7e4d7b77222c6037600674f7883fdc31f0ea84009c5",
    "20261201_0011_priorities": "0973f03252d5cd0558bc4ac9c923883f4cb4af69f4f7474c047e308b78c8c11a",
    "20261201_0012_earlier_logs": "290255d38623c5768f98d7ad4f346f32dfbc98b0b430f22a700d3209a2d68765",
}
"""The same of the other backend."""

CLIENT = ROOT / "clients" / "typescript"

SOURCES = [
    ROOT / "worker.py",
    *sorted(
        path
        for folder in ("bus", "store", "tests", "bench", "examples")
        for suffix in ("*.py", "*.sql")
        for path in (ROOT / folder).rglob(suffix)
    ),
    *sorted(
        path
        for place in ("scripts/*.mjs", "src/*.ts", "test/*.ts")
        for path in CLIENT.glob(place)
        if path.name != "wire.ts"  # generated
    ),
]

CODE = [
    path
    for path in SOURCES
    if path.suffix == ".py" and path.relative_to(ROOT).parts[0] not in ("tests", "examples")
]

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").rglob("*.md"), *CLIENT.glob("*.md")]
)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def faults_of(paths: Iterable[Path], look: Callable[[Path, str], list[str]]) -> dict[str, list[str]]:
    """Return what is found in each file, by its name. One test of all files takes less than one of each."""
    found = {_name(path): look(path, path.read_text(encoding="utf-8")) for path in paths}
    return {name: faults for name, faults in found.items() if faults}


# ── The checks ───────────────────────────────────────────────────────────────────────────────────────────


def style_faults(text: str, lines_max: int = LINES_MAX) -> list[str]:
    """Say what is wrong with a source text, line by line."""
    lines = text.splitlines()
    faults = [f"{len(lines)} lines; the most is {lines_max}"] if len(lines) > lines_max else []
    for number, line in enumerate(lines, 1):
        if LATER.search(line):
            faults.append(f"line {number}: do it now, or write it down where it is looked for")
        if BARE_IGNORE.search(line):
            faults.append(f"line {number}: an exemption names what it exempts from")
    return faults


def long_functions(text: str) -> list[str]:
    """Name the functions that are too long."""
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    return [f"{name} has {lines} lines" for name, lines in lengths if lines > FUNCTION_LINES_MAX]


def dead_links(page: Path, text: str) -> list[str]:
    """Name the relative links of a page that lead nowhere."""
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    targets = [link.partition("#")[0] for link in links if "://" not in link]
    return [target for target in targets if target and not (page.parent / target).exists()]


# ── The house ────────────────────────────────────────────────────────────────────────────────────────────


def test_sources_keep_the_style() -> None:
    def faults(path: Path, text: str) -> list[str]:
        return style_faults(text, LONGER.get(_name(path), LINES_MAX))

    assert faults_of(SOURCES, faults) == {}


def test_functions_are_short() -> None:
    assert faults_of(CODE, lambda path, text: long_functions(text)) == {}


def test_links_lead_somewhere() -> None:
    assert faults_of(PAGES, dead_links) == {}


BACKENDS = pytest.mark.parametrize(
    ("backend", "migrations"), [("sqlite", MIGRATIONS), ("postgresql", POSTGRESQL_MIGRATIONS)]
)


@BACKENDS
def test_landed_migrations_never_change(backend: str, migrations: dict[str, str]) -> None:
    folder = ROOT / "store" / backend / "migrations"
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.sql")}
    assert found == migrations


@BACKENDS
def test_migrations_are_named_in_their_order(backend: str, migrations: dict[str, str]) -> None:
    names = sorted(migrations)
    assert all(re.fullmatch(r"\d{8}_\d{4}_[a-z_]+", name) for name in names)
    numbers = [int(name.split("_")[1]) for name in names]
    assert numbers == sorted(set(numbers)), "a number is used once, and a later one has a later date"


# ── The checks themselves can fail ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("x = 1\n" * LINES_MAX, 0),
        ("x = 1\n" * (LINES_MAX + 1), 1),
        ("# TO" + "DO: later", 1),
        ("# FIX" + "ME", 1),
        ("x = 1  # type: " + "ignore", 1),
        ("x = 1  # no" + "qa", 1),
        ("x = 1  # type: ignore[operator]", 0),
        ("x = 1  # noqa: E501", 0),
    ],
)
def test_a_fault_in_style_is_seen(text: str, faults: int) -> None:
    assert len(style_faults(text)) == faults


@pytest.mark.parametrize("begin", ["def f():", "async def f():", "class A:\n  def f(self):"])
def test_a_long_function_is_seen(begin: str) -> None:
    docstring = '    """One.\n\n    Two.\n    """\n'
    body = "    x = 1\n" * (FUNCTION_LINES_MAX - 5)
    assert long_functions(f"{begin}\n{docstring}{body}") == []
    assert long_functions(f"{begin}\n{docstring}{body}    x = 1\n") == ["f has 71 lines"]


def test_a_dead_link_is_seen() -> None:
    text = "[a](README.md) [b](nowhere.md#part) [c](#here) [d](https://example.org/x)\n```\n[e](code.md)\n```"
    assert dead_links(ROOT / "page.md", text) == ["nowhere.md"]
