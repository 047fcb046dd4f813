"""A connection that is cut before the reader's eyes, and a running answer in another tab, in real browsers."""

from __future__ import annotations

import json

import pytest

from tests.browser.conftest import HELD, IN_CHROMIUM, PIECES, STORY, Upstream
from tests.browser.driver import Browser, Page
from tests.browser.test_playground import choose, ended, send, text

pytestmark = pytest.mark.asyncio(loop_scope="session")

BEGINNING = f"document.querySelector('#answer')?.textContent === {json.dumps(''.join(PIECES[:HELD]))}"
"""The state of an answer that is held: its `start` and `HELD` pieces have come."""
LAST = HELD + 1
"""The number of its newest event."""
SEAMS = "[...document.querySelectorAll('#seams .seam')]"
NUMBERS = (
    "[...document.querySelectorAll('#log code')].map((each) => JSON.parse(each.textContent).seq)"
    ".filter((seq) => seq !== undefined)"
)


@pytest.mark.parametrize("framing", ["sse", "ndjson", "ws"])
async def test_a_connection_that_is_cut_is_resumed_with_the_next_event(
    page: Page, upstream: tuple[Upstream, int], framing: str
) -> None:
    """The walk: a click breaks the connection, the answer goes on meanwhile, and no event is missing or there twice."""
    asked = len(upstream[0].prompts)
    upstream[0].go_on.clear()
    await choose(page, framing, "gai")
    await send(page, "hold it")
    await page.until(f"{BEGINNING} && !document.querySelector('#wire').hidden")
    assert await text(page, "#cut") == "Cut the connection"
    assert await text(page, "#place") == f"event {LAST}"
    await page.evaluate("document.querySelector('#cut').click()")
    await page.until(f"document.querySelector('#status').textContent === 'Cut after event {LAST}: reconnecting…'")
    assert await page.evaluate("document.querySelector('#cut').disabled")
    assert await page.evaluate(f"{SEAMS}.map((each) => each.dataset.state)") == ["open"]
    upstream[0].go_on.set()  # the model does not wait for a reader
    await page.until(f"{SEAMS}[0].dataset.state === 'whole'")
    words = await page.evaluate(f"[...{SEAMS}[0].children].map((each) => each.textContent)")
    assert (words[0], words[2:]) == (
        f"Cut after event {LAST}",
        [f"Resumed with event {LAST + 1}", "nothing is missing"],
    )
    assert words[1].endswith("s without a connection")
    await ended(page)
    assert await text(page, "#answer") == STORY
    assert await text(page, "#status") == "Complete"
    numbers = await page.evaluate(NUMBERS)
    assert numbers == list(range(1, len(numbers) + 1))
    assert upstream[0].prompts[asked:] == ["hold it"]
    assert await page.evaluate("document.querySelector('#wire').hidden")


async def test_each_cut_has_its_own_numbers_and_they_outlive_a_reload(page: Page) -> None:
    await send(page, "endless")
    for number in (1, 2):
        await page.until("document.querySelector('#wire').hidden === false && !document.querySelector('#cut').disabled")
        await page.evaluate("document.querySelector('#cut').click()")
        await page.until(f"{SEAMS}.length === {number} && {SEAMS}.at(-1).dataset.state === 'whole'")
    await page.evaluate("document.querySelector('#cancel').click()")
    await ended(page)
    shown = await page.evaluate(f"{SEAMS}.map((each) => each.textContent)")
    assert len({each.split(" without")[0] for each in shown}) == 2
    assert all(each.endswith("nothing is missing") for each in shown)
    await page.reload()
    await page.until(f"{SEAMS}.length === 2")
    assert await page.evaluate(f"{SEAMS}.map((each) => each.textContent)") == shown


@IN_CHROMIUM
async def test_what_has_one_connection_cannot_be_cut(page: Page) -> None:
    await choose(page, "sse", "openai")
    await send(page, "endless")
    await page.until("document.querySelector('#answer').textContent.length > 20")
    assert await page.evaluate("document.querySelector('#wire').hidden")
    await page.evaluate("document.querySelector('#cancel').click()")
    await ended(page)


async def test_a_running_answer_is_opened_in_another_tab(
    browser: Browser, page: Page, upstream: tuple[Upstream, int]
) -> None:
    """In a browser that knows nothing of it, by its address alone; nothing is asked again."""
    asked = len(upstream[0].prompts)
    upstream[0].go_on.clear()
    await send(page, "hold this")
    await page.until(f"{BEGINNING} && !document.querySelector('#wire').hidden")
    link = "document.querySelector('#open')"
    assert await page.evaluate(f"[{link}.target, {link}.rel]") == ["_blank", "opener"], "the tab has the key, too"
    address = str(await page.evaluate(f"{link}.href"))
    async with browser.page() as other:
        await other.prepare("location.host && localStorage.setItem('gai-fast.playground', '{\"markdown\": false}')")
        await other.open(address)
        await other.until(BEGINNING)
        assert await other.evaluate("document.querySelector('#question').parentNode.hidden"), "only the server's part"
        upstream[0].go_on.set()
        for each in (page, other):
            await ended(each)
            assert await text(each, "#answer") == STORY
            assert await text(each, "#status") == "Complete"
        assert other.problems == []
    assert upstream[0].prompts[asked:] == ["hold this"]


async def test_a_tab_that_this_one_opens_has_the_whole_conversation(page: Page, upstream: tuple[Upstream, int]) -> None:
    """It has a copy of what this tab keeps; here the same tab opens the address, which comes to that."""
    await send(page, "quick one")
    await ended(page)
    upstream[0].go_on.clear()
    await send(page, "hold two")
    await page.until(f"{BEGINNING} && !document.querySelector('#wire').hidden")
    await page.open(str(await page.evaluate("document.querySelector('#open').href")))
    await page.until(BEGINNING)
    questions = "[...document.querySelectorAll('.question')].map((each) => each.textContent)"
    assert await page.evaluate(questions) == ["quick one", "hold two"]
    upstream[0].go_on.set()
    await ended(page)
    assert await text(page, "#answer") == STORY


@IN_CHROMIUM
async def test_an_address_of_no_stream_is_an_error_on_the_page(page: Page, origin: str) -> None:
    await page.open(f"{origin}/?follow=%3Cimg%20src=x%3E")
    await ended(page)
    assert await text(page, "#status") == "Failed"
    assert await text(page, "#error-code") == "not_found"
    assert await page.evaluate("document.querySelectorAll('main img').length") == 0
    page.problems.clear()  # the 404
