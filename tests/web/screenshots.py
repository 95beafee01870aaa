"""Makes the screenshots of docs/web.md anew: `python -m tests.web.screenshots` (`make screenshots`)."""

from __future__ import annotations

import base64
import sys
import tempfile
import time
from pathlib import Path

from ..integration.forked_worker import forked_worker
from .browser import Browser, chromium
from .png import smaller
from .site import Site
from .team import began, talk, working

SHOTS = Path(__file__).resolve().parents[2] / "docs" / "screenshots"

BYTES_MAX = 60_000

_TEXT = "the 9:40 to <b>Rome</b>"

_MOVING_SECONDS = 25
"""For which there is traffic before the first one, so that the plots show something."""


def main() -> None:
    """Make them all."""
    SHOTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        (folder / "worker").mkdir()
        with (
            forked_worker(folder / "worker") as worker,
            Site(worker, folder / "page") as site,
            working(site, _TEXT),
        ):
            site.play(lambda connect: talk(connect, _TEXT))
            shoot(browser, site)


def shoot(browser: Browser, site: Site) -> None:
    """Play something, and take a picture of each page."""
    trip = site.play(lambda connect: began(connect, "trip", {"city": "Rome"}))
    site.play(lambda connect: began(connect, "flawed", {"city": "Oslo"}))
    until = time.monotonic() + _MOVING_SECONDS
    while time.monotonic() < until:
        site.play(lambda connect: began(connect, "slow", {"city": "Paris"}))
    browser.size(900, 560)
    browser.open(site.link()).click("button.main")
    browser.see("Now", "h1")
    pages = {
        "now": "/",
        "conversation": "/conversation?channel=jobs",
        "mailbox": "/mailbox?name=jobs/workers",
        "dead-letters": "/dead-letters",
        "run": f"/run?id={trip}",
        "approvals": "/approvals",
        "bots": "/bots",
        "settings": "/settings",
    }
    site.worker.session("scout").close()
    browser.see("scout vanished")
    for name, path in pages.items():
        browser.open(site.origin + path).live()
        save(browser, name)
    browser.open(f"{site.origin}/remove?kind=bot&bot=critic").see("Remove for good")
    save(browser, "remove")
    browser.open(f"{site.origin}/conversation?one=author&other=critic").live()
    browser.click(".talk li:last-child a[href*='thread=']")
    browser.see("Thread", "h1")
    save(browser, "thread")
    scheme = {"name": "prefers-color-scheme", "value": "dark"}
    browser.command("Emulation.setEmulatedMedia", features=[scheme])
    browser.size(390, 760).open(f"{site.origin}/").live()
    save(browser, "phone")


def save(browser: Browser, name: str) -> None:
    """Save a picture of the page as it is."""
    shot = browser.command("Page.captureScreenshot", format="png", optimizeForSpeed=False)
    data = smaller(base64.b64decode(shot["data"]))
    if len(data) > BYTES_MAX:
        sys.exit(f"{name}.png has {len(data)} bytes; the most is {BYTES_MAX}")
    (SHOTS / f"{name}.png").write_bytes(data)


if __name__ == "__main__":
    main()
