"""The page in a real browser: a history, what comes next and why, two models, live metrics."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from ensue.recommender import Recommender
from ensue.serving.api import Access, create_app
from ensue.serving.engine import Served
from ensue.serving.experiment import CONTROL, Experiment
from ensue.serving.service import Service

from .conftest import EVIL

playwright = pytest.importorskip("playwright.sync_api", reason="the page's test needs playwright")
expect = playwright.expect
expect.set_options(timeout=20_000)
CHROMIUM = Path("/usr/bin/chromium")
# Pictures of every tab are written to this folder if the variable is set.
PICTURES = "ENSUE_TEST_PICTURES"
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"the page's test needs a browser at {CHROMIUM}")


@pytest.fixture(scope="module")
def address(recommenders: Callable[[str], Recommender]) -> Iterator[str]:
    """A server of two models."""
    variants = {}
    for variant, name in ((CONTROL, "sasrec"), ("test", "markov")):
        run = recommenders(name).run
        assert run is not None
        variants[variant] = Served(variant, run, "abcdef123456")
    service = Service(variants, Experiment("default", {CONTROL: 1.0, "test": 0.0}))
    app = create_app(service, Access(hosts=("127.0.0.1",)))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, which must show no error of the script or of the content policy."""
    settings = getattr(request, "param", {})
    page = browser.new_page(**settings)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: errors.append("a dialog"))
    page.goto(address)
    page.wait_for_selector("#items li")
    yield page
    page.close()
    assert errors == []


def picture(page: Any, name: str) -> None:
    if folder := os.environ.get(PICTURES):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def choose(page: Any, words: str) -> None:
    before = page.locator("#history li").count()
    page.fill("#search", words)
    page.wait_for_selector("#matches button")
    page.press("#search", "Enter")
    expect(page.locator("#history li")).to_have_count(before + 1)


def test_clicks_make_a_history_that_changes_the_list(page: Any) -> None:
    assert page.inner_text("#source") == "the most popular items"
    for words in ("book 9", "book 1", "book 30"):
        before = page.locator("#items .title").all_text_contents()
        choose(page, words)
        expect(page.locator("#items .title")).not_to_have_text(before)
    page.wait_for_selector("#items .why")
    assert page.inner_text("#source") == ""
    page.click("#items li:nth-child(1) [aria-pressed]")
    page.wait_for_selector("#history .influence")
    assert page.locator("#history .influence").count() == 3
    picture(page, "recommend")
    page.click("#items li:nth-child(2) >> text=Similar")
    page.wait_for_selector("#similar-items li")
    assert page.locator("#similar-items li").count() == 10
    picture(page, "similar")
    page.click("#items li:nth-child(1) .title")
    expect(page.locator("#history li")).to_have_count(4)
    page.click("#history li:nth-child(1) button")
    expect(page.locator("#history li")).to_have_count(3)
    page.click("#clear")
    expect(page.locator("#source")).to_have_text("the most popular items")


def test_titles_are_shown_as_text(page: Any) -> None:
    page.fill("#search", "amelie")
    page.wait_for_selector("#matches button")
    assert EVIL in page.inner_text("#matches")
    page.press("#search", "Enter")
    page.wait_for_selector("#history li")
    assert EVIL in page.inner_text("#history")
    assert page.locator("img").count() == 0


def test_everything_can_be_done_with_the_keyboard(page: Any) -> None:
    page.focus("#search")
    page.keyboard.type("book")
    expect(page.locator("#matches button")).to_have_count(8)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    second = page.inner_text("#matches li:nth-child(2)")
    page.keyboard.press("Enter")
    page.wait_for_selector("#history li")
    assert page.inner_text("#history li .text") == second
    page.focus("#tab-next")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#items-b li")
    assert page.evaluate("document.activeElement.id") == "tab-compare"
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#tiles dd")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#items")


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_two_models_are_compared(page: Any) -> None:
    choose(page, "book 9")
    page.click("#tab-compare")
    page.wait_for_selector("#items-b li")
    assert page.inner_text("#items-a") != page.inner_text("#items-b")
    assert "of 10 items are in both lists" in page.inner_text("#overlap")
    picture(page, "compare-dark")
    page.select_option("#model-b", "control")
    expect(page.locator("#overlap")).to_contain_text("10 of 10 items")


def test_live_metrics_follow_the_requests(page: Any) -> None:
    choose(page, "book 9")
    page.click("#tab-live")
    page.wait_for_selector("#tiles dd")
    page.wait_for_selector("#routes >> text=/recommend")
    assert "requests per second" in page.inner_text("#tiles")
    picture(page, "live")


@pytest.mark.parametrize("page", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    choose(page, "book 9")
    page.wait_for_selector("#items .why")
    picture(page, "phone")
    for tab in ("tab-next", "tab-compare", "tab-live"):
        page.click(f"#{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
