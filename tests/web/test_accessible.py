"""Every page for everybody: axe-core finds nothing in light, dark and at a phone's width, and none is wider than it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.viewer.browser import chromium
from tests.web import rows, site
from tests.web.site import Site

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing: pip install -e '.[test]'")
pytestmark = [pytest.mark.viewer, pytest.mark.timeout(600)]

PHONE = {"width": 375, "height": 740}
DESK = {"width": 1366, "height": 900}
LOOKS = {"light": ("light", DESK), "dark": ("dark", DESK), "phone": ("light", PHONE), "phone-dark": ("dark", PHONE)}
ADDRESSES = (
    *("/login", "/", "/queue", "/queue?stage=rejected", "/queue?stage=waiting", "/study", "/quality", "/system"),
    *("/queue?stage=for-study", "/system/card/0", "/no-such-page"),
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with rows.opened(tmp_path_factory.mktemp("accessible")) as found:
        yield found


@pytest.fixture(scope="module", params=LOOKS)
def browser(page: Site, request: pytest.FixtureRequest) -> Iterator[Any]:
    scheme, size = LOOKS[request.param]
    with chromium() as started:
        context = started.new_context(color_scheme=scheme, viewport=size)
        tab = context.new_page()
        complaints: list[str] = []
        tab.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(f"{page.address}/login")
        yield tab
        assert not [each for each in complaints if "404" not in each], "the policy holds, and no script fails"


def violations(tab: Any) -> list[str]:
    found = axe.Axe().run(tab).response["violations"]
    return [f"{each['id']}: {node['html'][:160]}" for each in found for node in each["nodes"]]


def log_in(tab: Any, page: Site, name: str = "olga") -> None:
    if tab.get_by_role("button", name="Log out").count():
        return
    tab.goto(f"{page.address}/login")
    tab.get_by_label("Name").fill(name)
    tab.get_by_label("Password").fill(site.PASSWORDS[name])
    tab.get_by_role("button", name="Log in").click()
    tab.get_by_role("heading", name="Today").wait_for()


def test_no_page_has_a_violation_or_is_wider_than_the_window(browser: Any, page: Site) -> None:
    found = {}
    for address in ADDRESSES:
        if address != "/login":
            log_in(browser, page)
        browser.goto(f"{page.address}{address}")
        wide = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        found[address] = violations(browser) + ([f"{wide} px too wide"] if wide > 0 else [])
    assert not [f"{address}: {fault}" for address, faults in found.items() for fault in faults]


def test_a_study_and_what_was_done_there_have_none(browser: Any, page: Site) -> None:
    log_in(browser, page)
    browser.goto(f"{page.address}/study")
    browser.get_by_label("Accession Number").fill("1.2.1")
    browser.get_by_role("button", name="Find").click()
    browser.get_by_role("heading", name="Time line").wait_for()
    assert not violations(browser)
    assert "1.2.1" not in browser.url
    browser.get_by_role("button", name="Send again").click()
    browser.get_by_role("status").wait_for()
    assert not violations(browser)
    assert browser.evaluate("document.activeElement.id") == "said", "a screen reader hears what was done"


def test_a_report_of_a_study_has_none(browser: Any, page: Site) -> None:
    log_in(browser, page)
    browser.goto(f"{page.address}/study")
    browser.get_by_label("Accession Number").fill("1.2.10")
    browser.get_by_role("button", name="Find").click()
    browser.get_by_role("heading", name="Report 1").wait_for()
    assert not violations(browser)


def test_a_refresh_takes_neither_focus_nor_place(browser: Any, page: Site) -> None:
    log_in(browser, page)
    browser.goto(f"{page.address}/")
    browser.evaluate("document.querySelector('h2#profiles').dataset.mark = 'old'")
    link = browser.get_by_role("link", name="DEAD")
    link.focus()
    browser.evaluate("window.scrollTo(0, 300)")
    at = browser.evaluate("window.scrollY")
    with browser.expect_response(lambda answer: "hx-request" in answer.request.headers):
        pass
    browser.wait_for_function("!document.querySelector('h2#profiles').dataset.mark")
    assert browser.evaluate("document.activeElement.id") == "state-DEAD"
    assert browser.evaluate("window.scrollY") == at


def test_a_button_acts_in_place_and_by_keyboard(browser: Any, page: Site) -> None:
    log_in(browser, page)
    browser.goto(f"{page.address}/queue?stage=dead")
    for name in ("hold", "release"):
        button = browser.get_by_role("button", name=name.capitalize(), exact=False).filter(has_not_text="gone").last
        button.focus()
        browser.keyboard.press("Enter")
        browser.locator("#said").wait_for()
        assert not violations(browser)
    assert browser.url.endswith("/queue?stage=dead")
