"""The conversations that the playground keeps in its browser: listed, opened, deleted, and brought back."""

from __future__ import annotations

import json

import pytest

from tests.browser.chromium import Chromium, ChromiumPage
from tests.browser.conftest import IN_CHROMIUM, STORY, Upstream
from tests.browser.driver import Browser, Page
from tests.browser.test_conversation import QUESTIONS
from tests.browser.test_playground import CONTRAST, ended, send, text

pytestmark = pytest.mark.asyncio(loop_scope="session")

PREFIX = "gai-fast.playground.chat."
TITLES = "[...document.querySelectorAll('#chat-list span')].map((each) => each.textContent)"
KEPT = f"Object.keys(localStorage).filter((key) => key.startsWith('{PREFIX}')).length"
FULL = """(() => {
  const real = Storage.prototype.setItem;
  window.room = 0;
  Storage.prototype.setItem = function (key, text) {
    if (this === localStorage && text.length > window.room) throw new DOMException("", "QuotaExceededError");
    return real.call(this, key, text);
  };
})()"""
"""A local storage that takes no text of more than `room` characters."""


async def click(page: Page, selector: str) -> None:
    await page.evaluate(f"document.querySelector({selector!r}).click()")


async def say(page: Page, *prompts: str) -> None:
    """Makes a conversation, and leaves it."""
    for prompt in prompts:
        await send(page, prompt)
        await ended(page)
    await click(page, "#new")


def chat(*queries: str, changed: int = 1) -> str:
    """Returns a conversation as the page keeps it."""
    turns = [{"query": query, "answers": [{"model": "fake", "text": "Yes.", "end": "good"}]} for query in queries]
    return json.dumps({"changed": changed, "turns": turns})


async def store(page: Page, origin: str, **chats: str) -> None:
    """Stores texts as conversations, and loads the page."""
    for name, kept in chats.items():
        await page.evaluate(f"localStorage.setItem({PREFIX + name!r}, {json.dumps(kept)})")
    await page.open(f"{origin}/?stored={len(chats)}")
    await page.until("document.querySelector('#model').value === 'fake'")


async def test_a_new_chat_keeps_the_one_before_which_is_opened_and_goes_on(
    page: Page, upstream: tuple[Upstream, int]
) -> None:
    assert await page.evaluate("document.querySelector('#chats-head').hidden")
    await say(page, "quick one", "quick two")
    await say(page, "quick other")
    assert await page.evaluate(TITLES) == ["quick other", "quick one"], "the newest first"
    asked = len(upstream[0].bodies)
    await click(page, "#chat-list li:last-child [data-chat]")
    assert await page.evaluate(QUESTIONS) == ["quick one", "quick two"]
    assert await text(page, "#answer") == STORY
    assert await page.evaluate("document.activeElement.id") == "prompt"
    assert len(upstream[0].bodies) == asked, "nothing is sent before a prompt is"
    await send(page, "quick three")
    await ended(page)
    said = [each["content"] for each in upstream[0].bodies[-1]["messages"]]
    assert said == ["quick one", STORY, "quick two", STORY, "quick three"]
    await click(page, "#new")
    assert await page.evaluate(TITLES) == ["quick one", "quick other"], "the same one, which is now the newest"


async def test_the_list_is_there_after_a_reload_and_in_a_tab_that_has_kept_nothing(page: Page, origin: str) -> None:
    await send(page, "quick one")
    await ended(page)
    await page.reload()
    await page.until("document.querySelectorAll('.turn').length === 1")
    await page.until("document.querySelector('#model').value === 'fake'")
    await say(page, "quick two")
    assert await page.evaluate(TITLES) == ["quick one"], "a reload makes no second one"
    await page.evaluate("sessionStorage.clear()")
    await page.open(f"{origin}/?later")
    assert await page.evaluate(TITLES) == ["quick one"]


async def test_one_and_all_are_deleted_and_brought_back_in_turn(page: Page) -> None:
    for prompt in ("quick one", "quick two", "quick three"):
        await say(page, prompt)
    await click(page, "#chat-list li:nth-child(2) [data-remove]")
    assert await page.evaluate(TITLES) == ["quick three", "quick one"]
    assert await text(page, "#chats-said") == "The conversation is deleted."
    focused = "document.activeElement.ariaLabel ?? document.activeElement.id"
    assert await page.evaluate(focused) == "Delete “quick one”", "the keyboard goes on with the next one"
    await click(page, "#remove-all")
    assert (await page.evaluate(TITLES), await page.evaluate(KEPT)) == ([], 0)
    assert await page.evaluate(focused) == "undo"
    await click(page, "#undo")
    assert await page.evaluate(TITLES) == ["quick three", "quick one"]
    await click(page, "#undo")
    assert await page.evaluate(TITLES) == ["quick three", "quick two", "quick one"]
    assert await page.evaluate("document.querySelector('#undo').hidden")
    assert await page.evaluate("document.activeElement.dataset.chat !== undefined")
    await click(page, "#chat-list li:nth-child(2) [data-chat]")
    assert await text(page, "#answer") == STORY


@IN_CHROMIUM
async def test_the_keyboard_opens_deletes_and_undoes(page: ChromiumPage) -> None:
    await say(page, "quick one")
    await page.evaluate("document.querySelector('[data-remove]').focus()")
    for then in ("activeElement.id === 'undo'", "activeElement.dataset.chat", "querySelector('.turn')"):
        await page.command("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r")
        await page.command("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter")
        await page.until(f"document.{then}")


async def test_what_is_kept_is_bounded_and_the_oldest_goes_first(page: Page, origin: str) -> None:
    many = {f"old{at}": chat(f"old {at}", changed=at + 1) for at in range(50)}
    await store(page, origin, **many)
    await say(page, "quick one")
    titles = await page.evaluate(TITLES)
    assert (len(titles), titles[0], titles[-1]) == (50, "quick one", "old 1")
    long = "x" * 450_000
    await page.evaluate("localStorage.clear()")
    await store(page, origin, **{f"old{at}": chat(f"{at}{long}", changed=at + 1) for at in range(5)})
    await say(page, "quick one")
    titles = await page.evaluate(TITLES)
    assert [each[:9] for each in titles] == ["quick one", "4xxxxxxxx", "3xxxxxxxx", "2xxxxxxxx", "1xxxxxxxx"]
    assert all(len(each) <= 200 for each in titles)


async def test_a_full_storage_loses_none_that_it_has_and_a_new_chat_is_undone(page: Page, origin: str) -> None:
    await store(page, origin, a=chat("old"), b=chat("older", changed=0))
    await page.evaluate(FULL)
    await page.evaluate("window.room = 200")  # as much as those that are there have
    await say(page, "quick one")
    assert await page.evaluate(TITLES) == ["old", "older"]
    assert (await text(page, "#chats-said")).startswith("The last one is not kept: ")
    await page.evaluate("window.room = 0")
    await click(page, "#undo")
    assert await page.evaluate(QUESTIONS) == ["quick one"]
    assert await text(page, "#answer") == STORY
    await page.evaluate("window.room = 1e6")
    await say(page, "quick two")
    assert await page.evaluate(TITLES) == ["quick one", "old", "older"]


async def test_what_a_full_storage_does_not_take_back_can_be_brought_back_later(page: Page, origin: str) -> None:
    await store(page, origin, a=chat("old"))
    await page.evaluate(FULL)
    await click(page, "[data-remove]")
    await click(page, "#undo")
    assert await text(page, "#chats-said") == "This browser's storage has no room for it."
    await page.evaluate("window.room = 1e6")
    await click(page, "#undo")
    assert await page.evaluate(TITLES) == ["old"]


async def test_without_storage_a_new_chat_is_undone(page: Page, origin: str) -> None:
    denied = "Object.defineProperty(window, '{}', {{get() {{ throw new DOMException('', 'SecurityError') }}}})"
    await page.prepare(denied.format("localStorage"))
    await page.prepare(denied.format("sessionStorage"))
    await page.open(f"{origin}/?storage=denied")
    await page.until("document.querySelector('#model').value === 'fake'")
    await say(page, "quick one", "quick two")
    assert await page.evaluate(TITLES) == []
    await click(page, "#undo")
    assert await page.evaluate(QUESTIONS) == ["quick one", "quick two"]


@pytest.mark.parametrize(
    "kept",
    [
        *("", "{", "null", "7", "[]", '"text"', '{"turns": 7}', '{"turns": [null, 7, []]}', "[[[["),
        '{"changed": {}, "turns": [{"query": 5, "answers": [{"text": "x"}]}]}',
        '{"changed": 1, "turns": [{"query": "a", "answers": [{"text": 5}, null]}]}',
    ],
)
async def test_what_is_damaged_is_not_listed_and_goes_and_comes_back_with_the_rest(
    page: Page, origin: str, kept: str
) -> None:
    await store(page, origin, damaged=kept, whole=chat("old"))
    assert await page.evaluate(TITLES) == ["old"]
    await click(page, "#remove-all")
    assert await page.evaluate(KEPT) == 0
    await click(page, "#undo")
    assert await page.evaluate(KEPT) == 2
    await page.evaluate("localStorage.clear()")


async def test_one_of_another_form_is_shown_as_far_as_it_is_known(page: Page, origin: str) -> None:
    odd = {
        "text": "Yes <b>",
        "model": 5,
        "notes": "x",
        "calls": [7, {"name": "f", "approval": {"id": "a"}}],
        "seams": [{}, 3],
        "usage": 5,
        "error": "odd",
        "end": "running",
        "total": "many",
        "more": {},
    }
    turns = [{"query": "a <i>", "answers": [odd], "new": 1}, {"query": 5}, 7]
    await store(page, origin, odd=json.dumps({"changed": 1e300, "turns": turns, "version": 9}))
    assert await page.evaluate(TITLES) == ["a <i>"]
    await click(page, "[data-chat]")
    assert await text(page, "#answer") == "Yes <b>"
    assert await page.evaluate("document.querySelector('.ask') === null"), "nobody is asked for a call of a former time"


async def test_what_is_kept_has_no_key(page: Page) -> None:
    await page.evaluate("document.querySelector('#key').value = 'secret-key'")
    await say(page, "quick one")
    kept = await page.evaluate("JSON.stringify({...localStorage})")
    assert "quick one" in kept
    assert "secret-key" not in kept


# ---- two tabs --------------------------------------------------------------------------------------------------------


async def second(page: Page, expression: str) -> object:
    """Evaluates an expression in a tab that this one has opened: `other` is its window."""
    return await page.evaluate(f"((other, document) => {expression})(window.other, window.other.document)")


async def opened(page: Page) -> None:
    """Opens the second tab, which has a copy of what the first one keeps."""
    await page.evaluate("(window.other = window.open('./'), null)")
    await page.until("window.other.document.querySelector('#model')?.value === 'fake'")


async def ask(page: Page, prompt: str) -> None:
    """Sends a prompt in the second tab."""
    await second(
        page,
        f"(document.querySelector('#prompt').value = {json.dumps(prompt)}, document.querySelector('#send').click())",
    )
    await page.until("!window.other.document.querySelector('#send').disabled")


@IN_CHROMIUM
async def test_two_tabs_that_go_on_with_one_conversation_otherwise_keep_both(page: Page) -> None:
    await send(page, "quick one")
    await ended(page)
    await opened(page)
    assert await second(page, QUESTIONS) == ["quick one"]
    await ask(page, "quick there")
    await send(page, "quick here")
    await ended(page)
    assert await page.evaluate(KEPT) == 2
    await click(page, "#new")
    await page.until("document.querySelectorAll('#chat-list li').length === 2")
    shown = []
    for at in (1, 2):
        await click(page, f"#chat-list li:nth-child({at}) [data-chat]")
        shown.append(await page.evaluate(QUESTIONS))
        await click(page, "#new")
    assert shown == [["quick one", "quick here"], ["quick one", "quick there"]]
    await page.evaluate("(window.other.close(), null)")


@IN_CHROMIUM
async def test_a_tab_shows_what_another_one_keeps_and_deletes(page: Page) -> None:
    await say(page, "quick one")
    await opened(page)
    assert await second(page, TITLES) == ["quick one"]
    await page.evaluate("document.querySelector('[data-remove]').focus()")
    await ask(page, "quick two")
    await page.until("document.querySelectorAll('#chat-list li').length === 2")
    assert await page.evaluate("document.activeElement.ariaLabel") == "Delete “quick one”", "the focus stays"
    await second(page, "document.querySelector('#new').click()")
    await click(page, "#remove-all")
    await page.until("window.other.document.querySelectorAll('#chat-list li').length === 0")
    await click(page, "#undo")
    await page.until("window.other.document.querySelectorAll('#chat-list li').length === 2")
    await page.evaluate("(window.other.close(), null)")


# ---- for everybody ---------------------------------------------------------------------------------------------------


@IN_CHROMIUM
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_the_list_fits_and_is_readable(browser: Chromium, origin: str, scheme: str, width: int) -> None:
    async with browser.page(width=width, height=844, mobile=width < 500, scheme=scheme) as page:
        await page.open(f"{origin}/")
        await store(page, origin, a=chat("a long prompt that has no end " * 9), b=chat("Ж" * 300), c=chat("c"))
        await click(page, "li:last-child [data-remove]")
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate("(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(reading)")
        heights = "[...document.querySelectorAll('#chat-list button')].map(({ offsetHeight }) => offsetHeight)"
        assert min(await page.evaluate(heights)) >= 44
        places = "['#chat-list span', '#chat-list small', '[data-remove]', '#chats-said', '#undo', '#remove-all']"
        start, end = CONTRAST.index("const selectors = "), CONTRAST.index("  return selectors.map")
        ratios = await page.evaluate(f"{CONTRAST[:start]}const selectors = {places};\n{CONTRAST[end:]}")
        assert [(selector, ratio) for selector, ratio in ratios if ratio < 4.5] == []


@IN_CHROMIUM
async def test_each_control_of_the_list_has_a_name_and_the_list_its_role(page: ChromiumPage, origin: str) -> None:
    await store(page, origin, a=chat("one"), b=chat("two"))
    await page.command("Accessibility.enable")
    tree = (await page.command("Accessibility.getFullAXTree"))["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    for name in ("Delete all", "Delete “one”", "Delete “two”"):
        assert ("button", name) in named
    assert ("region", "Conversations kept in this browser") in named
    assert [role for role, _ in named].count("listitem") == 2
    assert [name for role, name in named if role == "button" and not name] == []


@IN_CHROMIUM
async def test_no_conversation_is_deleted_or_opened_while_an_answer_comes(browser: Browser, origin: str) -> None:
    async with browser.page() as page:
        await page.open(f"{origin}/")
        await store(page, origin, a=chat("old"))
        await send(page, "endless talk")
        assert not await page.evaluate("document.querySelector('#chat-list button').checkVisibility()")
        await click(page, "#cancel")
        await ended(page)
