"""Conversations in the playground in real browsers: several turns, parameters, models side by side, a phone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.browser.chromium import Chromium
from tests.browser.conftest import HELD, IN_CHROMIUM, PIECES, STORY, Upstream
from tests.browser.driver import Browser, Page
from tests.browser.test_playground import choose, copied, ended, output_of, send, text

pytestmark = pytest.mark.asyncio(loop_scope="session")

SHOWN = STORY.replace("\n\n", "")
"""The text of the story's elements: its blank line parts two paragraphs."""


async def enter(page: Page, **values: str) -> None:
    """Enters values by the ids of their fields, `_` for `-`."""
    for name, value in values.items():
        field = f"document.querySelector('#{name.replace('_', '-')}')"
        await page.evaluate(
            f"({field}.value = {json.dumps(value)}, {field}.dispatchEvent(new Event('change', {{bubbles: true}})))"
        )


async def compare(page: Page, *models: str) -> None:
    """Chooses the models that answer beside the first one."""
    for model in models:
        await page.evaluate(f"document.querySelector('#compare input[value={model}]').click()")


async def test_a_conversation_goes_on_until_a_new_one_begins(page: Page, upstream: tuple[Upstream, int]) -> None:
    await enter(page, system="Be brief.", temperature="0.5", max_tokens="77", effort="low")
    assert await text(page, "#more-hint") == "4 set"
    await send(page, "quick one", markdown=True)
    await ended(page)
    assert await page.evaluate("document.querySelector('#prompt').value") == ""
    assert (await text(page, "#question"), await text(page, "#answer")) == ("quick one", SHOWN)
    await send(page, "quick two", markdown=True)
    await ended(page)
    body = upstream[0].bodies[-1]
    said = [(each["role"], each["content"]) for each in body["messages"]]
    assert said == [("system", "Be brief."), ("user", "quick one"), ("assistant", STORY), ("user", "quick two")]
    assert (body["temperature"], body["reasoning_effort"]) == (0.5, "low")
    assert body.get("max_tokens", body.get("max_completion_tokens")) == 77
    turn = "document.querySelector('#turns .turn')"
    assert await page.evaluate(f"{turn}.textContent") == f"quick one{SHOWN}"
    await page.reload()
    await page.until("document.querySelectorAll('#turns .turn').length === 2")
    await page.until("document.querySelector('#model').value === 'fake'")
    assert await page.evaluate("document.querySelector('#system').value") == "Be brief."
    await page.evaluate("document.querySelector('#new').click()")
    assert await text(page, "#turns") == ""
    assert await page.evaluate("document.querySelector('#new').hidden && document.activeElement.id === 'prompt'")
    await enter(page, system="", temperature="", max_tokens="", effort="")
    await send(page, "quick three")
    await ended(page)
    assert [each["content"] for each in upstream[0].bodies[-1]["messages"]] == ["quick three"]
    assert "temperature" not in upstream[0].bodies[-1]


async def test_an_answer_that_failed_is_no_turn_and_its_prompt_comes_back(
    page: Page, upstream: tuple[Upstream, int]
) -> None:
    await send(page, "refuse this", markdown=True)
    await ended(page)
    assert await page.evaluate("document.querySelector('#prompt').value") == "refuse this"
    await send(page, "quick", markdown=True)
    await ended(page)
    assert [each["content"] for each in upstream[0].bodies[-1]["messages"]] == ["quick"]
    asked = len(upstream[0].bodies)
    await page.evaluate("document.querySelector('#composer').requestSubmit()")  # there is no prompt
    assert await text(page, "#status") == "Complete"
    assert len(upstream[0].bodies) == asked


async def test_models_answer_side_by_side_and_each_goes_on_with_its_own_answer(
    page: Page, upstream: tuple[Upstream, int]
) -> None:
    await compare(page, "second", "demo")
    assert await text(page, "#compare-hint") == "with 2"
    await send(page, "quick question", markdown=True)
    await ended(page)
    panes = "[...document.querySelectorAll('#panes > .pane')]"
    names = f"{panes}.map((pane) => pane.querySelector('.figures b').textContent)"
    assert await page.evaluate(names) == ["fake", "second", "demo"]
    answers = await page.evaluate(f"{panes}.map((pane) => pane.querySelector('.answer').textContent)")
    assert answers[:2] == [SHOWN, SHOWN]
    assert answers[2] not in ("", SHOWN)
    figures = await page.evaluate(f"{panes}.map((pane) => pane.querySelector('.figures span').textContent)")
    for each in figures:
        assert each.startswith("stop · first token ")
        assert "tokens/s" in each
    assert await page.evaluate("document.querySelector('#numbers').hidden")
    await compare(page, "second")
    await page.evaluate("document.querySelector('#compare input[value=demo]').click()")
    await send(page, "quick again", markdown=True)
    await ended(page)
    assert [each["content"] for each in upstream[0].bodies[-1]["messages"]] == ["quick question", STORY, "quick again"]
    assert await page.evaluate(f"{panes}.length") == 1
    assert not await page.evaluate("document.querySelector('#numbers').hidden")
    assert await page.evaluate("document.querySelectorAll('#turns .pane').length") == 3


async def test_a_comparison_is_cancelled_as_a_whole_and_followed_after_a_reload(
    page: Page, upstream: tuple[Upstream, int]
) -> None:
    upstream[0].go_on.clear()
    await compare(page, "second")
    await send(page, "hold both", markdown=True)
    beginning = json.dumps("".join(PIECES[:HELD]).rstrip())
    both = "[...document.querySelectorAll('#panes .answer')].map((each) => each.textContent.trim())"
    held = f"JSON.stringify({both}) === JSON.stringify([{beginning}, {beginning}])"
    await page.until(held)
    asked = len(upstream[0].bodies)
    await page.reload()
    await page.until(held)
    upstream[0].go_on.set()
    await ended(page)
    assert await page.evaluate(both) == [SHOWN, SHOWN]
    assert len(upstream[0].bodies) == asked
    await page.until("document.querySelector('#model').value === 'fake'")
    await compare(page, "second")
    await send(page, "endless talk", markdown=True)
    await page.until(f"{both}.every((each) => each.length > 20)")
    await page.evaluate("document.querySelector('#cancel').click()")
    await ended(page)
    assert await text(page, "#status") == "Cancelled"


async def test_without_resumable_a_stream_is_a_plain_one(page: Page) -> None:
    await page.evaluate(
        "(() => { const real = window.fetch; window.sent = []; window.fetch = (url, init) => {"
        " if (init?.body) window.sent.push(JSON.parse(init.body)); return real(url, init); }; })()"
    )
    await send(page, "quick")
    await ended(page)
    await page.evaluate("document.querySelector('#resumable').click()")
    await send(page, "quick")
    await ended(page)
    assert await text(page, "#answer") == STORY
    assert await page.evaluate("window.sent.map((each) => each.resumable ?? false)") == [True, False]


async def test_a_framing_that_resets_the_format_says_why(page: Page) -> None:
    hint = "document.querySelector('#format-hint').textContent"
    await choose(page, "sse", "vercel")
    assert await page.evaluate(hint) == ""
    await page.evaluate("document.querySelector('[name=framing][value=ndjson]').click()")
    assert await page.evaluate(hint) == "vercel is a format of SSE only: the format is gai."
    await page.evaluate("document.querySelector('[name=framing][value=ws]').click()")
    assert await page.evaluate(hint) == "A WebSocket carries native events only: the format is gai."
    await page.evaluate("document.querySelector('[name=framing][value=sse]').click()")
    assert await page.evaluate(hint) == ""


@IN_CHROMIUM
async def test_copied_python_is_the_sdks_and_sends_the_whole_conversation(
    page: Page, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    await enter(page, system='Say "\\n".', temperature="0.5", max_tokens="9", effort="high")
    await send(page, "quick one", markdown=True)
    await ended(page)
    await page.evaluate("document.querySelector('#prompt').value = 'quick two'")
    source = await copied(page, "python")
    assert "from openai import OpenAI" in source
    script = tmp_path / "copied.py"
    script.write_text(source)
    assert await output_of(sys.executable, script) == STORY
    body = upstream[0].bodies[-1]
    said = [each["content"] for each in body["messages"]]
    assert said == ['Say "\\n".', "quick one", STORY, "quick two"]
    assert (body["temperature"], body["reasoning_effort"]) == (0.5, "high")


async def test_code_of_an_answer_is_copied_as_it_is(page: Page) -> None:
    await page.evaluate(
        """import('/playground/markdown.js').then(({ Markdown }) =>
          new Markdown(document.querySelector('#answer')).show('```sh\\necho "<b>"  && ls\\n```'))"""
    )
    assert await copied(page, "code") == 'echo "<b>"  && ls'


@IN_CHROMIUM
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_the_answer_comes_first_with_one_row_of_figures(
    browser: Chromium, origin: str, scheme: str
) -> None:
    async with browser.page(width=390, height=844, mobile=True, scheme=scheme) as page:
        await page.open(f"{origin}/")
        await page.until("document.querySelector('#model').value === 'fake'")
        await send(page, "quick", markdown=True)
        await ended(page)
        top = "(id) => document.getElementById(id).getBoundingClientRect().top"
        tops = [await page.evaluate(f"({top})('{each}')") for each in ("answer", "numbers", "prompt", "send", "log")]
        assert tops == sorted(tops)
        rows = (
            "new Set([...document.querySelectorAll('#numbers > div')].filter((each) => each.offsetParent)"
            ".map((each) => each.getBoundingClientRect().top)).size"
        )
        assert await page.evaluate(rows) == 1
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390


@IN_CHROMIUM
async def test_on_a_small_phone_the_name_is_not_cut_off(browser: Chromium, origin: str) -> None:
    async with browser.page(width=360, mobile=True) as page:
        await page.open(f"{origin}/")
        name = "document.querySelector('h1')"
        assert await page.evaluate(f"{name}.scrollWidth <= {name}.clientWidth")


async def test_links_lead_to_the_other_pages_and_the_focus_goes_from_prompt_to_send(
    browser: Browser, origin: str
) -> None:
    async with browser.page() as page:
        await page.open(f"{origin}/")
        links = "[...document.querySelectorAll('nav a')].map(({ href }) => new URL(href).pathname)"
        assert await page.evaluate(links) == ["/dashboard", "/docs"]
        fields = "[...document.querySelectorAll('#composer :is(textarea, select, input, button)')].map(({ id }) => id)"
        order = await page.evaluate(f"{fields}.filter((id) => ['prompt', 'send', 'model', 'key'].includes(id))")
        assert order == ["prompt", "send", "model", "key"]
        answer = "document.querySelector('#answer')"
        assert await page.evaluate(f"{answer}.getAttribute('aria-live')") == "polite"
