"""The index of the decisions names every one of them, in order, by its own title and status."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"

STATUS = re.compile(r"accepted|superseded by \d+")


def index_faults(index: str, pages: dict[str, str]) -> list[str]:
    """Return what is wrong with an index, beside the pages of the folder by their names."""
    rows = re.findall(r"^\| \[(\d+)\]\((\S+)\) \| (.+?) \| (.+?) \| (.+?) \|$", index, re.MULTILINE)
    named = [name for _, name, _, _, _ in rows]
    faults = [] if named == sorted(pages) else [f"rows {named}, pages {sorted(pages)}"]
    for number, name, title, status, _ in rows:
        page = pages.get(name, "")
        if int(name.partition("-")[0]) != int(number) or not page.startswith(f"# {number}. {title}\n"):
            faults.append(f"{name}: its number or title is not {number}. {title}")
        own = re.search(r"^\*\*Status:\*\* (.+)$", page, re.MULTILINE)
        if not STATUS.fullmatch(status) or (own is not None and own[1] != status):
            faults.append(f"{name}: its status is not {status}")
    return faults


def test_the_index_of_decisions_is_complete() -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("0*.md")}
    assert index_faults((FOLDER / "README.md").read_text(encoding="utf-8"), pages) == []


def test_numbers_of_decisions_are_used_once() -> None:
    numbers = [path.name.partition("-")[0] for path in FOLDER.glob("0*.md")]
    assert len(numbers) == len(set(numbers))


def test_a_fault_in_the_index_is_seen() -> None:
    pages = {"0001-a.md": "# 1. A\n", "0002-b.md": "# 2. B\n\n**Status:** superseded by 3\n"}
    first, second = "| [1](0001-a.md) | A | accepted | x |\n", "| [2](0002-b.md) | B | superseded by 3 | y |\n"
    assert index_faults(first + second, pages) == []
    assert len(index_faults(first, pages)) == 1
    assert len(index_faults(second + first, pages)) == 1
    assert len(index_faults(first.replace("A", "Other") + second, pages)) == 1
    assert len(index_faults(first + second.replace("superseded by 3", "accepted"), pages)) == 1
    assert len(index_faults(first.replace("accepted", "perhaps") + second, pages)) == 1
