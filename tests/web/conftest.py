"""A page at a worker with traffic, and a browser in which a person is logged in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..integration.forked_worker import forked_worker
from .browser import Browser, chromium
from .site import Site
from .team import talk, working


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "worker").mkdir()
    with forked_worker(folder / "worker") as worker:
        site = Site(worker, folder / "page")
        site.play(talk)  # before the page listens, so that no event is between the messages
        with site, working(site):
            yield site


@pytest.fixture(scope="module")
def _window() -> Iterator[Browser]:
    with chromium() as window:
        yield window


@pytest.fixture
def browser(_window: Browser, site: Site) -> Iterator[Browser]:
    """A browser in which ann is logged in. Afterwards, it must not have complained."""
    _window.command("Network.clearBrowserCookies")
    _window.size().faults()
    _window.open(site.link()).click("button.main")
    _window.see("Now", "h1")
    yield _window
    _window.command("Emulation.setScriptExecutionDisabled", value=False)
    assert _window.faults() == []
