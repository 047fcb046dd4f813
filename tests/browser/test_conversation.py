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
    said_first = "[...document.querySelectorAll('.turn:first-child :is(.question, .answer)')]"
    assert await page.evaluate(f"{said_first}.map((each) => each.textContent)") == ["quick one", SHOWN]
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
    names = f"{panes}.map((pane) => pane.querySelector('.speaker h2').textContent)"
    assert await page.evaluate(names) == ["fake", "second", "demo"]
    answers = await page.evaluate(f"{panes}.map((pane) => pane.querySelector('.answer').textContent)")
    assert answers[:2] == [SHOWN, SHOWN]
    assert answers[2] not in ("", SHOWN)
    figures = await page.evaluate(f"{panes}.map((pane) => pane.querySelector('.numbers').innerText)")
    for each in figures:
        for word in ("First token", "Tokens/s", "Tokens", "Time", "End stop"):
            assert word in each
    ends = f"{panes}.map((pane) => pane.querySelector('.speaker .status').textContent)"
    assert await page.evaluate(ends) == ["Complete"] * 3
    await compare(page, "second")
    await page.evaluate("document.querySelector('#compare input[value=demo]').click()")
    await send(page, "quick again", markdown=True)
    await ended(page)
    assert [each["content"] for each in upstream[0].bodies[-1]["messages"]] == ["quick question", STORY, "quick again"]
    assert await page.evaluate(f"{panes}.length") == 1
    assert await page.evaluate("document.querySelectorAll('.turn:first-child .pane').length") == 3


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
    await send(page, "quick")
    await ended(page)
    await page.evaluate(
        """import('/playground/markdown.js').then(({ Markdown }) =>
          new Markdown(document.querySelector('#answer')).append('```sh\\necho "<b>"  && ls\\n```'))"""
    )
    assert await copied(page, "code") == 'echo "<b>"  && ls'


@IN_CHROMIUM
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_the_prompt_is_below_the_answer_and_within_reach_of_a_thumb(
    browser: Chromium, origin: str, scheme: str
) -> None:
    async with browser.page(width=390, height=844, mobile=True, scheme=scheme) as page:
        await page.open(f"{origin}/")
        await page.until("document.querySelector('#model').value === 'fake'")
        await send(page, "quick", markdown=True)
        await ended(page)
        top = "(id) => document.getElementById(id).getBoundingClientRect().top"
        tops = [await page.evaluate(f"({top})('{each}')") for each in ("answer", "numbers", "log", "prompt", "send")]
        assert tops == sorted(tops)
        assert tops[-1] > 844 / 2
        boxes = "['send', 'model', 'open-settings', 'new'].map((id) => document.getElementById(id).offsetHeight)"
        assert min(await page.evaluate(boxes)) >= 36
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
        order = await page.evaluate(f"{fields}.filter((id) => ['prompt', 'send', 'model', 'cancel'].includes(id))")
        assert order == ["prompt", "model", "send", "cancel"]
        await send(page, "quick")
        await ended(page)
        answer = "document.querySelector('#answer')"
        assert await page.evaluate(f"{answer}.getAttribute('aria-live')") == "polite"


QUESTIONS = "[...document.querySelectorAll('.question')].map((each) => each.textContent)"


async def press(page: Page, turn: int, act: str) -> None:
    """Presses a button of a turn."""
    await page.evaluate(f"document.querySelectorAll('.turn')[{turn}].querySelector('[data-act={act}]').click()")


async def test_a_prompt_is_edited_and_what_follows_it_is_replaced(page: Page, upstream: tuple[Upstream, int]) -> None:
    for prompt in ("quick one", "quick two"):
        await send(page, prompt)
        await ended(page)
    await page.evaluate("document.querySelector('#prompt').value = 'a draft'")
    await press(page, 1, "edit")
    await press(page, 0, "edit")
    assert await page.evaluate("[document.activeElement.id, document.querySelector('#prompt').value]") == [
        "prompt",
        "quick one",
    ]
    await page.press("Escape")
    assert await page.evaluate("document.querySelector('#editing').hidden")
    assert await page.evaluate("document.querySelector('#prompt').value") == "a draft"
    assert await page.evaluate(QUESTIONS) == ["quick one", "quick two"], "nothing is lost before it is sent"
    await press(page, 0, "edit")
    await send(page, "quick three")
    await ended(page)
    assert await page.evaluate(QUESTIONS) == ["quick three"]
    assert await page.evaluate("document.querySelector('#prompt').value") == "a draft"
    assert [each["content"] for each in upstream[0].bodies[-1]["messages"]] == ["quick three"]


async def test_an_answer_is_asked_for_again_and_a_draft_stays(page: Page, upstream: tuple[Upstream, int]) -> None:
    for prompt in ("quick one", "refuse two"):
        await send(page, prompt)
        await ended(page)
    await page.evaluate("document.querySelector('#prompt').value = 'a draft'")
    asked = len(upstream[0].bodies)
    await press(page, 1, "retry")
    await ended(page)
    assert len(upstream[0].bodies) > asked
    assert await page.evaluate(QUESTIONS) == ["quick one", "refuse two"]
    assert await page.evaluate("document.querySelector('#prompt').value") == "a draft"
    await press(page, 0, "retry")
    await ended(page)
    assert await page.evaluate(QUESTIONS) == ["quick one"]
    assert await text(page, "#answer") == STORY


async def test_each_turn_keeps_its_reasoning_and_figures_also_over_a_reload(page: Page) -> None:
    for prompt in ("think one", "quick two"):
        await send(page, prompt, markdown=True)
        await ended(page)
    parts = (".question", ".reasoning .text", ".reasoning summary", ".answer", ".numbers", ".speaker h2")
    shown = f"[...document.querySelectorAll('.turn')].map((turn) => {json.dumps(parts)}.map((part) =>"
    shown += " turn.querySelector(part).textContent))"
    before = await page.evaluate(shown)
    assert before[0][1] == "Let me see."
    assert before[0][2].startswith("Thought for ")
    assert ["7 → 1,234" in turn[4] for turn in before] == [True, True]
    hidden = "[...document.querySelectorAll('.reasoning')].map((each) => each.hidden)"
    assert await page.evaluate(hidden) == [False, True]
    await page.reload()
    await page.until("document.querySelectorAll('.turn').length === 2")
    assert await page.evaluate(shown) == before
    assert await page.evaluate(hidden) == [False, True]


@IN_CHROMIUM
async def test_thinking_is_timed_while_it_goes_on(page: Page) -> None:
    """By the parts of the page, with a record as a run has it after four seconds."""
    shown = await page.evaluate(
        """import('/playground/pane.js').then(({ Pane }) => {
          const pane = new Pane(true);
          const record = { model: 'm', source: '', activity: '', end: 'running', hasReasoning: true, first: 0,
            total: 1, rate: '–', unit: '', events: 1, usage: null, finish: '', error: null, notes: [], calls: [],
            seams: [] };
          const summary = () => pane.root.querySelector('.reasoning summary').textContent;
          pane.show({ ...record, isThinking: true, thought: 4000 });
          const thinking = summary();
          pane.show({ ...record, isThinking: false, thought: 4600 });
          return [thinking, summary()];
        })"""
    )
    assert shown == ["Thinking 4 s", "Thought for 5 s"]


@IN_CHROMIUM
async def test_calls_of_tools_and_costs_stand_in_their_turn_as_text(page: Page) -> None:
    shown = await page.evaluate(
        """import('/playground/pane.js').then(({ Pane }) => {
          const pane = new Pane(true);
          const hostile = '<img src=x onerror=alert(1)>';
          pane.restore({ model: hostile, source: hostile, end: 'bad', text: 'x', reasoning: hostile, hasReasoning: true,
            first: 1, total: 1, rate: '1', unit: hostile, events: 1, finish: hostile, notes: [hostile], seams: [],
            usage: { input_tokens: 1, output_tokens: 2, source: 'estimated', cost: { amount: 0.00125, currency: 'USD' }
            },
            error: { code: hostile, message: hostile, reason: hostile },
            calls: [{ id: 'c', name: hostile, input: hostile, output: hostile, state: hostile }] });
          const text = (place) => pane.root.querySelector(place).textContent;
          const part = (name) => text(`[data-part=${name}]`);
          return [text('.call code'), part('cost'), part('usage-hint'), part('end'),
            pane.root.querySelectorAll('img').length];
        })"""
    )
    assert shown == ["<img src=x onerror=alert(1)>", "0.00125 USD", "estimated", "Failed", 0]


@pytest.mark.parametrize("name", ["gai", "openai", "completions", "responses", "anthropic", "vercel", "agui"])
@IN_CHROMIUM
async def test_tokens_that_were_estimated_are_called_so_in_every_format(page: Page, name: str) -> None:
    """The recorded answer of `demo` comes without counts."""
    await enter(page, model="demo", max_tokens="3")
    await choose(page, "sse", name)
    await send(page, "anything")
    await ended(page)
    assert "estimated" in await text(page, "#usage-hint")
    assert await text(page, "#status") == "Complete"


async def test_each_model_of_a_comparison_has_its_own_end(page: Page, upstream: tuple[Upstream, int]) -> None:
    await compare(page, "demo")
    await send(page, "refuse this", markdown=True)
    await ended(page)
    panes = "[...document.querySelectorAll('#panes > .pane')]"
    ends = f"{panes}.map((pane) => pane.querySelector('.speaker .status').textContent)"
    assert await page.evaluate(ends) == ["Failed", "Complete"]
    assert await text(page, "#status") == "1 complete, 1 failed"
    await page.reload()
    await page.until(f"{panes}.length === 2")
    assert await page.evaluate(ends) == ["Failed", "Complete"]
    await page.until("document.querySelector('#model').value === 'fake'")
    await compare(page, "demo")
    await send(page, "endless talk", markdown=True)
    await page.until(f"{panes}[0]?.querySelector('.answer').textContent.length > 20")
    await page.evaluate(f"{panes}[0].querySelector('[data-act=stop]').click()")
    await ended(page)
    assert await page.evaluate(ends) == ["Cancelled", "Complete"]


async def test_what_people_and_models_write_has_the_direction_of_its_letters(page: Page) -> None:
    await send(page, "quick", markdown=True)
    await ended(page)
    found = await page.evaluate(
        """import('/playground/markdown.js').then(({ Markdown }) => {
          const place = document.querySelector('#answer');
          const table = '| א | b |\\n|--|--|\\n| 1 | 2 |';
          const blocks = ['# שלום', 'hello', '- مرحبا\\n- x', '> سلام', table, '```\\nשלום\\n```'];
          new Markdown(place).append(blocks.join('\\n\\n'));
          return [...place.children].map((each) => getComputedStyle(each).direction);
        })"""
    )
    assert found == ["rtl", "ltr", "rtl", "rtl", "rtl", "ltr"]
    for place in ("#prompt", "#system", "#question", "#answer", "#reasoning-text", "#error-message", "#speaker"):
        assert await page.evaluate(f"document.querySelector('{place}').dir") == "auto", place


async def test_a_wide_table_scrolls_and_breaks_no_word(browser: Browser, origin: str) -> None:
    async with browser.page(width=390) as page:
        await page.open(f"{origin}/")
        await page.until("document.querySelector('#model').value === 'fake'")
        await send(page, "quick", markdown=True)
        await ended(page)
        found = await page.evaluate(
            """import('/playground/markdown.js').then(({ Markdown }) => {
              const place = document.querySelector('#answer');
              const word = 'Donaudampfschifffahrtsgesellschaft';
              const cells = [word, word, 'some words of a sentence that is long', word].join(' | ');
              new Markdown(place).append(`${cells}\\n--|--|--|--\\n${cells}`);
              const wide = place.querySelector('.wide');
              const heights = [...place.querySelectorAll('td')].filter((each) => each.textContent === word)
                .map((each) => { const range = document.createRange(); range.selectNodeContents(each);
                  return range.getClientRects().length; });
              const [table] = place.getElementsByTagName('table');
              const doesScroll = wide.scrollWidth > wide.clientWidth;
              return [doesScroll, Math.max(...heights), wide.tabIndex, table.tHead.rows.length];
            })"""
        )
        assert found == [True, 1, 0, 1]
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390


@IN_CHROMIUM
async def test_a_screen_reader_finds_the_speakers_and_hears_an_answer_once(page: Page) -> None:
    for prompt in ("quick one", "quick two"):
        await send(page, prompt, markdown=True)
        await ended(page)
    headings = "[...document.querySelectorAll('main .turn h2')].map((each) => each.textContent)"
    assert await page.evaluate(headings) == ["You", "fake"] * 2
    assert await page.evaluate("document.querySelectorAll('main [aria-live=polite]').length") == 1
    assert await page.evaluate("document.querySelector('#answer').ariaBusy") == "false"
    assert await page.evaluate("new Set([...document.querySelectorAll('[id]')].map(({ id }) => id)).size") == (
        await page.evaluate("document.querySelectorAll('[id]').length")
    )
