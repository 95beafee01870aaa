"""The page in a browser: each page is opened, each action is done by clicking, and nothing hostile runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import bus

from ..integration.forked_worker import forked_worker
from .browser import TAB, Browser, chromium
from .site import Site

HOSTILE = '<script>document.title="mine"</script><img src=x onerror=alert(1)>"\'\u202egnp\u200b&amp;'
"""A text that would run, end an attribute, and turn around what follows, if it were not shown as it is."""

SEEN = '<script>document.title="mine"</script><img src=x onerror=alert(1)>"\'\\u202egnp\\u200b&amp;'

Connect = Callable[[str], bus.Bot]

PAGES = ["/", "/dead-letters", "/bots", "/bot?name=critic", "/channel?name=jobs"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "worker").mkdir()
    with forked_worker(folder / "worker") as worker, Site(worker, folder / "page") as site:
        site.play(_traffic)
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


async def _traffic(connect: Connect) -> None:
    async with connect("planner") as planner, connect("critic") as critic, connect("worker-1") as worker:
        await critic.subscribe("jobs")
        await worker.subscribe("jobs", group="workers")
        for number in range(5):
            await planner.publish("jobs", {"number": number, "text": HOSTILE}, message_type=HOSTILE)
        for _ in range(5):
            message = await critic.receive()
            await message.term(f"cannot be judged: {HOSTILE}")


def test_a_link_lets_in_once(browser: Browser, site: Site) -> None:
    [cookie] = browser.chrome.get_cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (site.cookie, True, "Strict")
    link = site.link("bob")
    browser.command("Network.clearBrowserCookies")
    browser.open(f"{site.origin}/bots").see("posthouse web link")
    browser.open(link).see("This link lets you in once")  # looking at it does not use it up
    browser.open(link).click("button.main")
    browser.see("bob", "header")
    browser.open(link).click("button.main")
    browser.see("This link was used before")
    browser.open(f"{site.origin}/").click(".who button")
    browser.see("posthouse web link")
    browser.open(f"{site.origin}/").see("posthouse web link")
    assert browser.chrome.get_cookies() == []
    assert [message.partition(" - ")[2][:52] for message in browser.faults()] == [
        "Failed to load resource: the server responded with a"  # 403, for the link that was used before
    ]


def test_now_is_live(browser: Browser, site: Site) -> None:
    browser.live()
    before = _fact(browser, "in the log")

    async def talk(connect: Connect) -> None:
        async with connect("planner") as planner:
            await planner.send("critic", "one more")

    site.play(talk)
    browser.wait(lambda: _fact(browser, "in the log") == before + 1)
    browser.see("5 messages became dead letters within the hour")
    browser.wait(lambda: len(browser.all("svg polyline")) >= 3)
    browser.click(".alarm a")
    browser.see("Dead letters", "h1")


def _fact(browser: Browser, name: str) -> int:
    [found] = [each for each in browser.all(".facts div") if each.text.startswith(f"{name}\n")]
    return int(found.text.partition("\n")[2].replace(",", ""))


def test_channels_and_bots_are_found(browser: Browser, site: Site) -> None:
    browser.click("nav a[href='/bots']")
    browser.see("Channels and bots", "h1")
    assert "away" in browser.row("critic")
    assert "workers" in browser.row("jobs")
    browser.one("input[name=find]").send_keys("crit")
    browser.click(".find button")
    browser.wait(lambda: "planner" not in browser.text())
    browser.click("td a[href='/bot?name=critic']")
    browser.see("Bot critic", "h1")
    assert "jobs" in browser.row("jobs")
    browser.click("td a[href='/channel?name=jobs']")
    browser.see("Channel jobs", "h1")
    assert "workers" in browser.row("worker-1")
    browser.open(f"{site.origin}/bot?name=<b>nobody").see("there is no bot '<b>nobody'")
    browser.faults()  # it is told by a status, too


def test_dead_letters_are_read_and_put_back(browser: Browser, site: Site) -> None:
    browser.click("nav a[href='/dead-letters']")
    browser.live()
    assert SEEN in browser.row("cannot be judged")
    browser.click("td a[href*='seq=1']")
    browser.see("Dead letter 1 of critic", "h1")
    assert SEEN in browser.text("pre:not(.body)")
    assert f'"text": "{SEEN}"'.replace('="', '=\\"').replace('mine"', 'mine\\"').replace(
        '>"', '>\\"'
    ) in browser.text("pre.body")
    assert browser.chrome.title == "Dead letter 1 of critic · posthouse"
    browser.click("button.main")
    browser.see("1 dead letter put back into the mailbox of critic", ".note")
    browser.click("input[value='2']")
    browser.click("input[value='3']")
    browser.live()
    browser.click(".actions button")
    browser.see("2 dead letters put back into the mailbox of critic", ".note")
    assert [each.get_attribute("value") for each in browser.all("input[type=checkbox]")] == ["5", "4"]

    async def takes(connect: Connect) -> list[int]:
        async with connect("critic") as critic:
            return sorted([(await critic.receive()).seq for _ in range(3)])

    assert site.play(takes) == [1, 2, 3]


def test_it_works_without_scripts(browser: Browser, site: Site) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(f"{site.origin}/dead-letters?mailbox=critic").see("read once", "footer")
    browser.click("input[value='4']")
    browser.click(".actions button")
    browser.see("1 dead letter put back", ".note")


def test_who_may_look_changes_nothing(browser: Browser, site: Site) -> None:
    browser.open(site.link("eve", read_only=True)).click("button.main")
    browser.open(f"{site.origin}/dead-letters?mailbox=critic").see("may look", "header")
    assert browser.all("main form button, main input") == []
    assert "cannot be judged" in browser.text()


def test_keys_reach_everything(browser: Browser, site: Site) -> None:
    browser.open(f"{site.origin}/bots")
    browser.press(TAB)
    assert browser.focused() == "Skip to the content"
    seen = []
    for _ in range(12):
        browser.press(TAB)
        seen.append(browser.focused())
        outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", seen
    assert seen[:2] == ["posthouse", "Now"]
    assert "Find" in seen


@pytest.mark.parametrize("path", PAGES)
def test_pages_fit_a_phone(browser: Browser, site: Site, path: str) -> None:
    browser.size(360, 740).open(site.origin + path).live()
    assert browser.script("return document.documentElement.scrollWidth") <= 360


def test_dark_and_light(browser: Browser) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        grounds.add(browser.script("return getComputedStyle(document.documentElement).backgroundColor"))
    browser.command("Emulation.setEmulatedMedia", features=[])
    assert grounds == {"rgb(251, 251, 249)", "rgb(21, 25, 24)"}
