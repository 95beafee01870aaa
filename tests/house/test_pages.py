"""What pages point at is there: the headings that links lead to, and the files that are named in code."""

from __future__ import annotations

import re
from pathlib import Path

from .test_style import PAGES, faults_of

ROOT = Path(__file__).parents[2]

NAMED = re.compile(r"`((?:bus|store|tests|bench|config|examples|docs)/[\w./-]+\.\w+)`")
"""A file of the project that is written as code. Patterns and made-up paths have other characters."""

HISTORY = {"CHANGELOG.md"}
"""Pages that name what was there once."""

README_LINES_MAX = 150


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def dead_anchors(page: Path, text: str) -> list[str]:
    """Name the links of a page to headings that are not there."""
    dead: list[str] = []
    for link in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", without_code(text)):
        target, _, anchor = link.partition("#")
        if "://" in link or (target and not target.endswith(".md")):
            continue
        path = (page.parent / target).resolve()
        if target and not path.exists():  # test_style.py says so
            continue
        if anchor not in anchors(path.read_text(encoding="utf-8") if target else text):
            dead.append(link)
    return dead


def missing_files(text: str) -> list[str]:
    """Name the files of the project that a page names, and that are not there."""
    return [name for name in NAMED.findall(text) if not (ROOT / name).exists()]


def links_to_folders(page: Path, text: str) -> list[str]:
    """Name the links of a page to folders: the site has none."""
    links = re.findall(r"\]\(([^)\s#:]+)\)", without_code(text))
    return [link for link in links if (page.parent / link).is_dir()]


def test_links_lead_to_headings() -> None:
    assert faults_of(PAGES, dead_anchors) == {}


def test_links_lead_to_what_a_site_can_have() -> None:
    assert faults_of(PAGES, links_to_folders) == {}


def test_the_site_leads_to_every_page_but_decisions() -> None:
    listed = set(re.findall(r"[\w./-]+\.md", (ROOT / "docs/site/mkdocs.yml").read_text(encoding="utf-8")))
    pages = {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert {page for page in pages - listed if not page.startswith("docs/decisions/0")} == set()


def test_files_that_are_named_exist() -> None:
    pages = [each for each in PAGES if each.relative_to(ROOT).as_posix() not in HISTORY]
    assert faults_of(pages, lambda page, text: missing_files(text)) == {}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES_MAX


def test_a_dead_anchor_is_seen() -> None:
    text = "# One: `two`, *three*\n[a](#one-two-three) [b](#four) [c](README.md#start) [d](README.md#nowhere)\n"
    assert dead_anchors(ROOT / "page.md", text) == ["#four", "README.md#nowhere"]


def test_a_link_to_a_folder_is_seen() -> None:
    text = "[a](docs) [b](docs/) [c](README.md) [d](docs/design.md#x)"
    assert links_to_folders(ROOT / "page.md", text) == ["docs", "docs/"]


def test_a_file_that_is_not_there_is_seen() -> None:
    assert missing_files("`tests/wheel.py` `tests/nothing.py` `tests/crash/lies*.py` `anything/else.py`") == [
        "tests/nothing.py"
    ]
