"""The playground in a real browser, served by the real server: what a person sees."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gai_fast.formats import FORMATS, get_format
from tests.browser.chromium import Chromium, ChromiumPage
from tests.browser.conftest import BOUND, HELD, IN_CHROMIUM, PIECES, STORY, Upstream, required, serving
from tests.browser.driver import Browser, Page
from tests.faults.proxy import FaultProxy
from tests.unit.formats.every_event import EVERY_EVENT
from tests.unit.formats.streams import context, encoded
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

BOTH = ("gai", "openai", "responses", "anthropic", "simple", "completions")
PAIRS = [*itertools.product(("sse", "ndjson"), BOTH), ("sse", "vercel"), ("sse", "agui"), ("ws", "gai")]
"""Each framing with each format that it has, but for `raw`."""
AWKWARD = "quick it's \"$HOME\" `id` ${x} \\n %s é 👩‍🚀\n</script> 'end"
"""A prompt that breaks every kind of careless quoting."""


RIGHT = "(place => document.querySelector(place).getBoundingClientRect().right)"


async def choose(page: Page, framing: str, format: str) -> None:
    await page.evaluate(
        f"""(() => {{
          document.querySelector('[name=framing][value={framing}]').click();
          const choice = document.querySelector('#format');
          if (choice.querySelector('[value={format}]').disabled) throw new Error('{format} is not offered');
          choice.value = '{format}';
          choice.dispatchEvent(new Event('change', {{bubbles: true}}));
        }})()"""
    )


async def send(page: Page, prompt: str, *, markdown: bool = False) -> None:
    """Writes a prompt and sends it; collects the lengths that the shown answer goes through."""
    await page.evaluate(
        f"""(() => {{
          const isMarkdown = document.querySelector('#markdown');
          if (isMarkdown.checked !== {json.dumps(markdown)}) isMarkdown.click();
          document.querySelector('#prompt').value = {json.dumps(prompt)};
          document.querySelector('#send').click();
          const answer = document.querySelector('#answer');
          window.lengths = [];
          new MutationObserver(() => window.lengths.push(answer.textContent.length))
            .observe(answer, {{subtree: true, childList: true, characterData: true}});
        }})()"""
    )


async def ended(page: Page) -> None:
    await page.until("!document.querySelector('#send').disabled")


async def text(page: Page, selector: str) -> str:
    return str(await page.evaluate(f"document.querySelector({selector!r}).textContent"))


async def test_the_answer_grows_in_steps(page: Page) -> None:
    await send(page, "slowly")
    await ended(page)
    lengths = await page.evaluate("window.lengths.filter((length) => length > 0)")
    assert lengths == sorted(lengths)
    assert len(set(lengths)) >= 3
    assert await text(page, "#answer") == STORY
    assert await text(page, "#status") == "Complete"


@IN_CHROMIUM
async def test_the_numbers_of_a_stream_are_shown(page: Page) -> None:
    await send(page, "slowly")
    await ended(page)
    units = "/^[0-9.,]+ (ms|s)$/"
    assert await page.evaluate(f"{units}.test(document.querySelector('#ttft').textContent)")
    assert await page.evaluate(f"{units}.test(document.querySelector('#total').textContent)")
    assert await text(page, "#rate-label") == "Tokens/s"
    assert await page.evaluate("/^[0-9,.]+$/.test(document.querySelector('#rate').textContent)")
    assert await text(page, "#usage") == "7 → 1,234"
    assert await text(page, "#finish") == "stop"
    assert int(await text(page, "#count")) == await page.evaluate("document.querySelector('#log').childElementCount")


@IN_CHROMIUM
async def test_without_usage_the_rate_counts_deltas_and_says_so(page: Page) -> None:
    await choose(page, "sse", "simple")
    await send(page, "slowly")
    await ended(page)
    assert await text(page, "#rate-label") == "Deltas/s"
    assert await text(page, "#usage-hint") == "not reported"


async def test_the_raw_events_are_listed_as_they_came(page: Page) -> None:
    await send(page, "quick")
    await ended(page)
    rows = "[...document.querySelectorAll('#log > div')]"
    kinds = await page.evaluate(f"{rows}.map((row) => row.querySelector('b').textContent)")
    assert kinds[0] == "start"
    assert set(kinds[1:-2]) == {"text.delta"}
    assert kinds[-2:] == ["finish", "done"]
    events = await page.evaluate(f"{rows}.map((row) => JSON.parse(row.querySelector('code').textContent))")
    assert "".join(event["text"] for event in events if event["type"] == "text.delta") == STORY


@IN_CHROMIUM
async def test_the_list_of_raw_events_is_bounded(page: Page) -> None:
    await send(page, "many")
    await ended(page)
    assert await text(page, "#answer") == "x " * 2500
    await page.until("document.querySelector('#log > div:last-child b')?.textContent === 'done'")
    assert await page.evaluate("document.querySelector('#log').childElementCount") == 2000
    assert "older dropped" in await text(page, "#dropped")


@pytest.mark.parametrize(
    ("framing", "format", "by"),
    [("sse", "gai", "button"), ("ws", "gai", "key"), ("ndjson", "openai", "button"), ("sse", "vercel", "key")],
)
async def test_cancel_stops_the_upstream_and_keeps_the_text(
    page: Page, upstream: tuple[Upstream, int], framing: str, format: str, by: str
) -> None:
    await choose(page, framing, format)
    await send(page, "endless")
    await page.until("document.querySelector('#answer').textContent.length > 20")
    if by == "button":
        await page.evaluate("document.querySelector('#cancel').click()")
    else:
        await page.press("Escape")
    async with asyncio.timeout(BOUND):
        await upstream[0].closed.wait()
    await ended(page)
    assert await text(page, "#status") == "Cancelled"
    assert await text(page, "#finish") == "cancelled"
    assert (await text(page, "#answer")).startswith("on and on and")
    assert await page.evaluate("document.querySelector('#error').hidden")


@pytest.mark.parametrize("width", [390, 1280])
async def test_escape_closes_the_settings_before_it_stops_an_answer(browser: Browser, origin: str, width: int) -> None:
    """Over the conversation, and beside it."""
    async with browser.page(width=width) as page:
        await page.open(f"{origin}/?model=fake")
        await page.until("document.querySelector('#model').value === 'fake'")
        await send(page, "endless")
        await page.until("document.querySelector('#answer').textContent.length > 20")
        await page.evaluate("document.querySelector('#open-settings').click()")
        await page.press("Escape")
        await page.until("!document.querySelector('#settings').open")
        assert await text(page, "#status") == "Streaming"
        await page.press("Escape")
        await ended(page)
        assert await text(page, "#status") == "Cancelled"


async def test_cancel_stops_an_upstream_that_has_not_said_a_word(page: Page, upstream: tuple[Upstream, int]) -> None:
    asked = len(upstream[0].prompts)
    await send(page, "silent")
    await until(lambda: len(upstream[0].prompts) > asked)
    await page.evaluate("document.querySelector('#cancel').click()")
    async with asyncio.timeout(BOUND):
        await upstream[0].closed.wait()
    await ended(page)
    assert await text(page, "#status") == "Cancelled"


@IN_CHROMIUM
async def test_cancel_ends_the_stream_with_its_finish_event(page: Page) -> None:
    """The server is asked first, so that the partial usage is known; the connection is not just dropped."""
    await send(page, "endless")
    await page.until("document.querySelector('#answer').textContent.length > 20")
    await page.evaluate("document.querySelector('#cancel').click()")
    await ended(page)
    await page.until("document.querySelector('#log > div:last-child b').textContent === 'done'")
    assert '"finish_reason":"cancelled"' in await text(page, "#log > div:nth-last-child(2) code")


async def test_every_framing_and_format_shows_the_same_text(page: Page) -> None:
    for framing, name in PAIRS:
        await choose(page, framing, name)
        await send(page, "think")
        await ended(page)
        assert await text(page, "#answer") == STORY, (framing, name)
        assert await text(page, "#status") == "Complete", (framing, name)
        assert await page.evaluate("document.querySelector('#error').hidden")
        finish, usage = await text(page, "#finish"), await text(page, "#usage")
        if name == "simple":
            assert (finish, usage) == ("–", "–")
            assert await page.evaluate("document.querySelector('#finish').closest('div').hidden")
        else:
            words = {"responses": "completed", "anthropic": "end_turn"}
            assert (finish, usage) == (words.get(name, "stop"), "7 → 1,234"), (framing, name)
        reasoning = "" if name in ("simple", "completions") else "Let me see."
        assert await text(page, "#reasoning-text") == reasoning, (framing, name)


@IN_CHROMIUM
@pytest.mark.parametrize("name", ["gai", "openai", "responses", "anthropic", "vercel", "agui"])
async def test_calls_sources_and_warnings_are_noted_in_every_format(page: Page, name: str) -> None:
    """Every event there is, as the format writes it."""
    body = encoded(get_format(name).encoder("sse", context()), EVERY_EVENT).decode()
    result = await page.evaluate(
        f"""Promise.all([import('/client.js'), import('/playground/formats.js')]).then(([client, {{ FORMATS }}]) => {{
          const run = {{
            notes: [], answer: [], reasoning: [], calls: new Map(), called: [],
            note(text) {{ this.notes.push(text) }},
            call(made) {{ this.called.push(made) }},
            fail(error) {{ this.error = error }},
            clear() {{ this.answer = []; }},
          }};
          for (const {{ data }} of new client.SSEParser().feed({json.dumps(body)})) {{
            if (data !== '[DONE]') FORMATS.{name}.read(run, JSON.parse(data));
          }}
          return run;
        }})"""
    )
    assert "".join(result["answer"]) == "Hi youmoreNo"
    assert "".join(result["reasoning"]) == "Hm"
    calls = [(call.get("name"), call.get("input")) for call in result["called"]]
    assert ("weather", '{"city":"Oslo"}') in calls
    assert "Source: A, https://a.example" in result["notes"]
    assert "Warning: malformed_chunk" in result["notes"]
    assert (result["usage"]["input_tokens"], result["usage"]["output_tokens"]) == (10, 20)
    assert "error" not in result


async def test_the_raw_format_shows_the_upstreams_bytes(page: Page) -> None:
    await choose(page, "sse", "raw")
    await send(page, "quick")
    await ended(page)
    assert await text(page, "#status") == "Complete"
    shown = await text(page, "#answer")
    assert shown.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in shown.splitlines() if line.startswith("data: {")]
    assert "".join(one["delta"].get("content", "") for chunk in chunks for one in chunk["choices"]) == STORY


async def test_only_the_formats_of_the_chosen_framing_are_offered(page: Page) -> None:
    offered = "[...document.querySelectorAll('#format option:enabled')].map(({value}) => value)"
    everything = await page.evaluate("[...document.querySelector('#format').options].map(({value}) => value)")
    assert sorted(everything) == sorted(FORMATS)
    await choose(page, "sse", "vercel")
    assert await page.evaluate(offered) == everything
    for framing, formats in (("ndjson", set(BOTH)), ("ws", {"gai"})):
        await page.evaluate(f"document.querySelector('[name=framing][value={framing}]').click()")
        assert set(await page.evaluate(offered)) == formats
        assert await page.evaluate("document.querySelector('#format').value") == "gai"


async def test_a_websocket_alone_carries_the_answer(page: Page) -> None:
    await choose(page, "ws", "gai")
    await send(page, "quick")
    await ended(page)
    assert await text(page, "#answer") == STORY
    assert await page.evaluate(
        "performance.getEntriesByType('resource').every(({name}) => !name.includes('api/v1/stream'))"
    )


@pytest.mark.parametrize("framing", ["sse", "ndjson", "ws"])
async def test_an_answer_goes_on_after_the_page_was_offline(
    browser: Browser, origin: str, upstream: tuple[Upstream, int], framing: str
) -> None:
    asked = len(upstream[0].prompts)
    upstream[0].go_on.clear()
    async with FaultProxy(origin) as proxy, browser.page(width=390, height=844) as page:
        await page.open(f"{proxy.url}/")
        await page.until("document.querySelector('#model').value === 'fake'")
        await choose(page, framing, "gai")
        await send(page, "hold")
        beginning = json.dumps("".join(PIECES[:HELD]))
        await page.until(f"document.querySelector('#answer').textContent === {beginning}")
        await page.set_offline(True)
        proxy.cut()
        assert await page.evaluate("fetch('healthz').then(() => 'online', () => 'offline')") == "offline"
        await page.until("document.querySelector('#status').textContent === 'Connection lost: reconnecting…'")
        assert await page.evaluate(f"{RIGHT}('#cut') <= innerWidth"), "the longest state fits a phone"
        upstream[0].go_on.set()
        await page.set_offline(False)
        await ended(page)
        assert await text(page, "#answer") == STORY
        assert await text(page, "#status") == "Complete"
    assert len(upstream[0].prompts) == asked + 1


@pytest.mark.parametrize("framing", ["sse", "ws"])
async def test_a_reload_in_the_middle_of_an_answer_follows_on(
    page: Page, upstream: tuple[Upstream, int], framing: str
) -> None:
    asked = len(upstream[0].prompts)
    upstream[0].go_on.clear()
    await choose(page, framing, "gai")
    await send(page, "hold it")
    beginning = f"document.querySelector('#answer').textContent === {json.dumps(''.join(PIECES[:HELD]))}"
    await page.until(beginning)
    await page.reload()
    await page.until(beginning)
    assert await text(page, "#question") == "hold it"
    assert await text(page, "#status") == "Streaming"
    assert "loaded again after event 4" in await text(page, "#notes")
    upstream[0].go_on.set()
    await ended(page)
    assert await text(page, "#answer") == STORY
    assert await text(page, "#status") == "Complete"
    assert upstream[0].prompts[asked:] == ["hold it"]
    await page.reload()
    await page.until("document.querySelector('#model').value === 'fake'")
    assert await text(page, "#status") == "Ready"


async def test_a_stream_that_is_followed_after_a_reload_can_be_cancelled(
    page: Page, upstream: tuple[Upstream, int]
) -> None:
    await send(page, "endless")
    await page.until("document.querySelector('#answer').textContent.length > 20")
    await page.reload()
    await page.until("document.querySelector('#answer').textContent.length > 20")
    await page.evaluate("document.querySelector('#cancel').click()")
    async with asyncio.timeout(BOUND):
        await upstream[0].closed.wait()
    await ended(page)
    assert await text(page, "#status") == "Cancelled"


async def test_the_smooth_display_ends_with_the_same_text(page: Page) -> None:
    await page.evaluate("document.querySelector('#smooth').click()")
    await send(page, "quick")
    await ended(page)
    assert await text(page, "#answer") == STORY
    assert len(set(await page.evaluate("window.lengths"))) >= 3


async def test_model_text_is_never_markup(page: Page) -> None:
    await send(page, "quick")
    await ended(page)
    assert await page.evaluate("document.querySelectorAll('#answer *, #log img').length") == 0


@IN_CHROMIUM
async def test_reasoning_is_shown_apart_from_the_answer(page: Page) -> None:
    await send(page, "quick")
    await ended(page)
    assert await page.evaluate("document.querySelector('#reasoning').hidden")
    await send(page, "think")
    await ended(page)
    assert not await page.evaluate("document.querySelector('#reasoning').hidden")
    assert await text(page, "#reasoning-text") == "Let me see."
    assert await text(page, "#answer") == STORY


@pytest.mark.parametrize(
    ("framing", "format"), [("sse", "gai"), ("ndjson", "openai"), ("sse", "vercel"), ("ws", "gai")]
)
async def test_a_refused_request_shows_code_status_message_and_request_id(
    page: Page, framing: str, format: str
) -> None:
    await choose(page, framing, format)
    await send(page, "refuse")
    await ended(page)
    assert await text(page, "#status") == "Failed"
    assert await text(page, "#error-code") == "context_length_exceeded"
    assert "Too long a prompt." in await text(page, "#error-message")
    if framing != "ws":  # where a refusal has no status and no id of its own
        details = await text(page, "#error-details")
        assert "HTTP 400" in details
        assert "request " in details


async def test_an_error_in_the_stream_is_shown_beside_the_text_so_far(page: Page) -> None:
    for framing, name in PAIRS:
        await choose(page, framing, name)
        await send(page, "break")
        await ended(page)
        assert await text(page, "#status") == "Failed", (framing, name)
        assert "overloaded" in await text(page, "#error"), (framing, name)
        assert await text(page, "#answer") == "Grüße, ", (framing, name)
        # Who reads along is at the end of the text.
        assert await page.evaluate("document.querySelector('#answer + #error') !== null")


@IN_CHROMIUM
async def test_a_server_out_of_reach_is_an_error(page: Page) -> None:
    await page.set_offline(True)
    await send(page, "quick")
    await ended(page)
    assert await text(page, "#error-code") == "network"
    assert (await text(page, "#error-message")).startswith("no server answers at http://127.0.0.1:")
    assert await text(page, "#status") == "Failed"


async def test_the_demo_is_shown_as_a_recorded_answer(page: Page) -> None:
    hint = "document.querySelector('#model-hint').textContent"
    assert await page.evaluate(hint) == ""
    for model, shown in (("demo", "demo: a recorded answer, whatever is asked"), ("fake", "")):
        await page.evaluate(
            f"""(() => {{
              document.querySelector('#model').value = '{model}';
              document.querySelector('#model').dispatchEvent(new Event('change', {{bubbles: true}}));
            }})()"""
        )
        assert await page.evaluate(hint) == shown


@IN_CHROMIUM
async def test_an_answer_of_the_demo_says_that_it_is_a_recording(page: Page) -> None:
    for model in ("demo", "fake"):
        await page.evaluate(f"document.querySelector('#model').value = '{model}'")
        await send(page, "quick")
        await ended(page)
        shown = await text(page, "#source")
        assert (shown == "a recording: this story, whatever is asked") is (model == "demo")


async def test_ctrl_enter_sends(page: Page) -> None:
    await page.evaluate("document.querySelector('#prompt').value = 'quick'")
    await page.evaluate("document.querySelector('#prompt').focus()")
    await page.press("Enter", ctrl=True)
    await page.until("document.querySelector('#status').textContent === 'Complete'")
    assert await text(page, "#answer") == STORY.replace("\n\n", "")  # as Markdown: two paragraphs


async def test_the_address_prefills_and_never_sends(page: Page, origin: str, upstream: tuple[Upstream, int]) -> None:
    asked = len(upstream[0].prompts)
    await page.open(f"{origin}/?model=second&q=Tell%20me%20more")
    await page.until("document.querySelector('#model').value === 'second'")
    assert await page.evaluate("document.querySelector('#prompt').value") == "Tell me more"
    assert await text(page, "#status") == "Ready"
    assert len(upstream[0].prompts) == asked


async def test_settings_are_kept_and_the_key_until_the_tab_is_closed(page: Page, origin: str) -> None:
    await choose(page, "ndjson", "openai")
    await page.evaluate("document.querySelector('#smooth').click()")
    await page.evaluate(
        """[['model', 'second'], ['key', 'secret-key']].forEach(([id, value]) => {
          document.getElementById(id).value = value;
          document.getElementById(id).dispatchEvent(new Event('change', {bubbles: true}));
        })"""
    )
    await page.open(f"{origin}/?")
    await page.until("document.querySelector('#model').value === 'second'")
    checked = "[...document.querySelectorAll(':checked')].map((input) => input.value)"
    assert await page.evaluate(checked) == ["second", "", "ndjson", "openai", "on", "on", "on"]
    assert await page.evaluate("document.querySelector('#key').value") == "secret-key"
    assert "secret-key" not in await page.evaluate("JSON.stringify({...localStorage})")
    await page.evaluate(
        """(() => {
          document.querySelector('#key').value = '';
          document.querySelector('#key').dispatchEvent(new Event('change', {bubbles: true}));
        })()"""
    )
    assert "secret-key" not in await page.evaluate("JSON.stringify({...sessionStorage})")


async def test_settings_that_something_else_stored_do_no_harm(page: Page, origin: str) -> None:
    for stored in ("{", "null", "7", '{"framing": 1, "format": "toString", "model": 5, "smooth": "x", "theme": {}}'):
        await page.evaluate(f"localStorage.setItem('gai-fast.playground', {stored!r})")
        await page.evaluate(f"sessionStorage.setItem('gai-fast.playground.running', {stored!r})")
        await page.open(f"{origin}/?{len(stored)}")
        await page.until("document.querySelector('#model').value === 'fake'")
        assert await page.evaluate("document.querySelector('#format').value") == "gai"


@IN_CHROMIUM
async def test_with_keys_the_page_asks_for_one_and_works_with_it(
    browser: Browser, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    key = "sk-playground-0123456789"
    table = f'[[key]]\nname = "someone"\nsecret = "sha256:{sha256(key.encode()).hexdigest()}"\n'
    async with serving(tmp_path, upstream[1], table) as url, browser.page() as page:
        await page.open(f"{url}/")

        async def enter(key: str) -> None:
            await page.evaluate(
                f"""(() => {{
                  document.querySelector('#key').value = '{key}';
                  document.querySelector('#key').dispatchEvent(new Event('change', {{bubbles: true}}));
                }})()"""
            )

        hint = "document.querySelector('#model-hint').textContent"
        await page.until(f"{hint} === 'This server needs an API key: type it in the settings.'")
        await enter("sk-wrong")
        await page.until(f"{hint} === 'This server does not know this API key.'")
        await enter(key)
        await page.until("document.querySelector('#model').value === 'fake'")
        for framing, name in (("sse", "gai"), ("sse", "agui"), ("ws", "gai")):
            await choose(page, framing, name)
            await send(page, "quick")
            await ended(page)
            assert await text(page, "#status") == "Complete"
        await page.open(f"{url}/?")
        await page.until("document.querySelector('#model').value === 'fake'")


@IN_CHROMIUM
async def test_the_first_click_on_send_counts_although_the_key_just_typed_loads_the_models(
    browser: Chromium, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    """The click leaves the key's field, whose models arrive between press and release: nothing may move by then."""
    key = "sk-playground-0123456789"
    table = f'[[key]]\nname = "someone"\nsecret = "sha256:{sha256(key.encode()).hexdigest()}"\n'
    async with serving(tmp_path, upstream[1], table) as url, browser.page() as page:
        await page.open(f"{url}/")
        hint = "document.querySelector('#model-hint').textContent"
        await page.until(f"{hint} === 'This server needs an API key: type it in the settings.'")
        await page.evaluate("document.querySelector('#prompt').value = 'quick'")
        await page.evaluate("document.querySelector('#key').focus()")
        await page.command("Input.insertText", text=key)
        await page.evaluate("document.querySelector('#send').scrollIntoView({block: 'center'})")
        x, y = await page.evaluate(
            "(({x, y, width, height}) => [x + width / 2, y + height - 6])("
            "document.querySelector('#send').getBoundingClientRect())"
        )
        press = {"x": x, "y": y, "button": "left", "clickCount": 1}
        await page.command("Input.dispatchMouseEvent", type="mousePressed", **press)
        await page.until("document.querySelector('#model').value === 'fake'")
        await page.command("Input.dispatchMouseEvent", type="mouseReleased", **press)
        await page.until("document.querySelector('#status').textContent === 'Complete'")
        assert await text(page, "#answer") == STORY.replace("\n\n", "")


@IN_CHROMIUM
async def test_on_a_phone_the_key_is_typed_over_the_page_and_enter_goes_back_to_it(
    browser: Chromium, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    key = "sk-playground-0123456789"
    table = f'[[key]]\nname = "someone"\nsecret = "sha256:{sha256(key.encode()).hexdigest()}"\n'
    async with serving(tmp_path, upstream[1], table) as url, browser.page(width=390) as page:
        await page.open(f"{url}/")
        await page.until(
            "document.activeElement?.id === 'key' && document.querySelector('#settings').matches(':modal')"
        )
        await page.command("Input.insertText", text=key)
        await page.command("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r")
        await page.until(
            "!document.querySelector('#settings').open && document.querySelector('#model').value === 'fake'"
        )
        await send(page, "quick")
        await ended(page)
        assert await text(page, "#status") == "Complete"


async def test_the_page_works_without_storage(page: Page, origin: str) -> None:
    denied = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('', 'SecurityError') }})"
    await page.prepare(denied)
    await page.open(f"{origin}/?storage=denied")
    await page.until("document.querySelector('#model').value === 'fake'")
    await choose(page, "ndjson", "gai")
    await send(page, "quick")
    await ended(page)
    assert await text(page, "#answer") == STORY


@IN_CHROMIUM
@pytest.mark.parametrize("width", [320, 360, 700, 1000, 1440])
async def test_nothing_scrolls_sideways(browser: Chromium, origin: str, width: int) -> None:
    async with browser.page(width=width, height=740, mobile=width < 500) as page:
        await page.open(f"{origin}/")
        for prompt in ("quick", "refuse"):
            await send(page, prompt)
            await ended(page)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            for pane in ("#reading", "#log", "#composer", "#settings"):
                fits = (
                    f"(({{scrollWidth, clientWidth}}) => scrollWidth <= clientWidth)(document.querySelector('{pane}'))"
                )
                assert await page.evaluate(fits), pane


BOXES = """Object.fromEntries(['reading', 'turns', 'composer', 'prompt', 'send'].map((id) => {
  const { left, right, top, bottom } = document.getElementById(id).getBoundingClientRect();
  return [id, { left, right, top, bottom }];
}))"""


@pytest.mark.parametrize("width", [390, 1280])
async def test_the_conversation_has_the_page_and_all_else_is_out_of_its_way(
    browser: Browser, origin: str, width: int
) -> None:
    """On a phone and on a desktop: the prompt is below, the settings are in a drawer, the raw events are folded."""
    is_shown = "document.querySelector('{}').checkVisibility()"
    async with browser.page(width=width, height=800) as page:
        await page.open(f"{origin}/")
        await page.until("document.querySelector('#model').value === 'fake'")
        for prompt in ("", "quick", "slowly"):
            if prompt:
                await send(page, prompt)
                await ended(page)
            boxes = await page.evaluate(BOXES)
            reading, composer = boxes["reading"], boxes["composer"]
            column = boxes["turns"]
            assert reading["right"] - reading["left"] > 0.9 * width
            assert abs(column["left"] + column["right"] - width) <= 20  # a scroll bar may stand at the right
            assert column["right"] - column["left"] > (0.85 if width < 500 else 0.5) * width
            assert reading["bottom"] <= composer["top"] < boxes["prompt"]["bottom"] <= composer["bottom"] <= 800
            assert boxes["send"]["bottom"] <= 800
            assert await page.evaluate("document.documentElement.scrollHeight") <= 800
            assert await page.evaluate("document.querySelector('#settings').open") is False
            assert not await page.evaluate(is_shown.format("#key"))
            assert not await page.evaluate(is_shown.format("#log"))
        await page.evaluate("document.querySelector('#events summary').click()")
        assert await page.evaluate(is_shown.format("#log > div"))
        await page.evaluate("document.querySelector('#open-settings').click()")
        assert await page.evaluate(is_shown.format("#key"))
        drawer = await page.evaluate("document.querySelector('#settings').getBoundingClientRect().toJSON()")
        assert drawer["right"] == width
        assert drawer["width"] < (width + 1 if width < 500 else width / 2)


CONTRAST = """(() => {
  const channels = (colour) => {
    const pixel = new OffscreenCanvas(1, 1).getContext('2d');
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const colour = channels(getComputedStyle(element).backgroundColor);
    return colour[3] === 255 || !element.parentElement ? colour.slice(0, 3) : ground(element.parentElement);
  };
  const selectors = ['h1', 'h1 span', '#theme', '#prompt', '#model', '.hint', '#answer',
    '.segments input:checked + span', '.segments input:not(:checked) + span', '#send', '#status', '.copies button',
    '#numbers dt', '#numbers dd', '#question', 'nav a', '#speaker', '#source', '#usage-hint', '#events summary',
    'legend', 'legend small', '#new', '#open-settings', '#compare-hint', '.tools button', '.wire a',
    '#log time', '#log b', '#log code', '#error-code', '#error-message', '#error-details'];
  return selectors.map((selector) => {
    const element = document.querySelector(selector);
    const [light, dark] = [channels(getComputedStyle(element).color).slice(0, 3), ground(element)].map(luminance)
      .sort((a, b) => b - a);
    return [selector, (light + 0.05) / (dark + 0.05)];
  });
})()"""


@IN_CHROMIUM
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("prompt", ["quick", "break"])
async def test_text_is_readable_in_both_schemes(browser: Chromium, origin: str, scheme: str, prompt: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of at least 4.5."""
    async with browser.page(scheme=scheme) as page:
        await page.open(f"{origin}/")
        await page.until("document.querySelector('#model').value === 'fake'")
        await send(page, prompt)
        await ended(page)
        await page.until("document.querySelector('#log b')")
        assert [(selector, ratio) for selector, ratio in await page.evaluate(CONTRAST) if ratio < 4.5] == []


@IN_CHROMIUM
async def test_the_theme_button_overrules_the_system(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    system = await page.evaluate(ground)
    seen = []
    for _ in range(3):
        await page.evaluate("document.querySelector('#theme').click()")
        seen.append((await text(page, "#theme"), await page.evaluate(ground) == system))
    assert seen == [("Theme: light", True), ("Theme: dark", False), ("Theme: auto", True)]


@IN_CHROMIUM
async def test_every_control_has_a_name(page: ChromiumPage) -> None:
    await send(page, "think")
    await ended(page)
    await page.evaluate("document.querySelector('#open-settings').click()")
    await page.command("Accessibility.enable")
    tree = await page.command("Accessibility.getFullAXTree")
    controls = {"button", "textbox", "combobox", "radio", "switch", "link", "log", "region", "form"}
    nodes = [node for node in tree["nodes"] if not node["ignored"] and node["role"]["value"] in controls]
    assert len(nodes) > 15
    assert [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value")] == []


async def test_the_page_runs_under_a_strict_policy(page: Page, origin: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{origin}/") as answer:
        policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert await page.evaluate("performance.getEntriesByType('resource').every(({name}) => name.startsWith(origin))")


# ---- the parsers of the page ----------------------------------------------------------------------------------------

STREAM = (
    ": ping\r\nevent: a\r\nid: 7\ndata: one\rdata:two\r\n\r\ndata\n\nevent: lost\r\r"
    "retry: 5\ndata:  three ü👩‍🚀\nignored: x\n\n: ping\n\ndata: [DONE]\r\n\rdata: unfinished\n"
)
EVENTS = [
    {"type": "a", "data": "one\ntwo", "id": "7"},
    {"type": "message", "data": "", "id": "7"},
    {"type": "message", "data": " three ü👩‍🚀", "id": "7", "retry": 5},
    {"type": "message", "data": "[DONE]", "id": "7"},
]


@pytest.mark.parametrize(
    ("parser", "source", "expected"),
    [
        ("SSEParser", STREAM, EVENTS),
        (
            "NDJSONParser",
            '{"a":1}\r\n\n  \n{"b":"ü"}\r{"c":3}\n{"cut',
            [{"data": d} for d in ('{"a":1}', '{"b":"ü"}', '{"c":3}')],
        ),
    ],
)
async def test_the_parsers_read_the_same_however_the_text_is_cut(
    page: Page, parser: str, source: str, expected: list[dict[str, str]]
) -> None:
    results = await page.evaluate(
        f"""import('/client.js').then(({{{parser}}}) => {{
          const text = {json.dumps(source)};
          const read = (pieces) => {{
            const parser = new {parser}();
            return JSON.stringify(pieces.flatMap((piece) => parser.feed(piece)));
          }};
          const results = new Set([read([text]), read(text.split(''))]);
          for (let at = 0; at <= text.length; at += 1) results.add(read([text.slice(0, at), '', text.slice(at)]));
          return [...results];
        }})"""
    )
    assert [json.loads(result) for result in results] == [expected]


# ---- code to copy ---------------------------------------------------------------------------------------------------


async def pasted(page: Page) -> str:
    """Returns the text of the clipboard. Firefox refuses to read while what was written is on its way to it."""
    read = "navigator.clipboard.readText().then((text) => { window.pasted = text; return true; }, () => false)"
    await page.until(f"await {read}")
    return str(await page.evaluate("window.pasted"))


async def copied(page: Page, kind: str) -> str:
    button = f"document.querySelector('[data-copy={kind}]')"
    await page.bring_to_front()
    await page.evaluate(f"{button}.click()")
    await page.until(f"{button}.textContent === 'Copied'")
    return await pasted(page)


RUN = [
    ("curl", "ndjson", "simple"),
    ("python", "ws", "gai"),
    *(("javascript", "ndjson" if name in BOTH else "sse", name) for name in FORMATS),
]
"""The code that is run as it was copied: the kind of code, the framing and the format."""


async def output_of(program: str, script: Path) -> str:
    """Returns the output of copied code."""
    process = await asyncio.create_subprocess_exec(
        program, str(script), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(BOUND):
            output, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, complaints.decode()
    return output.decode()


@IN_CHROMIUM
async def test_copied_code_sends_the_prompt_and_prints_the_answer(
    page: Page, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    required(shutil.which("curl"), "curl")
    programs = {"curl": "/bin/sh", "python": sys.executable, "javascript": required(shutil.which("node"), "Node.js")}
    asked = len(upstream[0].prompts)
    await page.evaluate(f"document.querySelector('#prompt').value = {json.dumps(AWKWARD)}")
    running = []
    for kind, framing, name in RUN:
        await choose(page, framing, name)
        script = tmp_path / f"{kind}-{name}.mjs"
        script.write_text(await copied(page, kind))
        running.append(output_of(programs[kind], script))
    for (kind, framing, name), shown in zip(RUN, await asyncio.gather(*running), strict=True):
        if kind == "curl":
            assert "".join(json.loads(line)["content"] for line in shown.splitlines()) == STORY
        elif name == "raw":
            assert "w" * 400 in shown
            assert shown.endswith("data: [DONE]\n\n")
        else:
            assert shown == STORY, (kind, framing, name)
    assert upstream[0].prompts[asked:] == [AWKWARD] * len(RUN)


async def test_copied_code_names_the_key_and_never_holds_it(page: Page) -> None:
    await page.evaluate("document.querySelector('#key').value = 'secret-key'")
    for pair in (("sse", "gai"), ("ndjson", "simple"), ("sse", "openai"), ("sse", "raw"), ("ws", "gai")):
        await choose(page, *pair)
        for kind in ("curl", "python", "javascript"):
            source = await copied(page, kind)
            assert "GAI_API_KEY" in source
            assert "secret-key" not in source


async def test_the_answer_can_be_copied_where_there_is_no_clipboard_api(page: Page) -> None:
    await send(page, "quick")
    await ended(page)
    await page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined, configurable: true})")
    await page.evaluate("document.querySelector('[data-copy=answer]').click()")
    await page.until("document.querySelector('[data-copy=answer]').textContent === 'Copied'")
    await page.evaluate("delete navigator.clipboard")
    assert await pasted(page) == STORY


async def test_a_run_shows_its_steps_calls_and_results(browser: Browser, origin: str) -> None:
    """A turn that is void takes its own text and calls away, and nothing of the turns before it."""
    call = {"type": "tool.call", "step": 1, "call_id": "a", "tool_call": {"name": "pay", "input": {"euros": 7}}}
    of_a = {"step": 1, "call_id": "a"}
    events: list[dict[str, Any]] = [
        {"type": "step.start", "step": 1},
        {"type": "text.delta", "text": "Look. "},
        {**call, "executed_by": "gateway"},
        {"type": "approval.required", **of_a, "approval": {"id": "s-1", "tool": "pay", "input": {}, "digest": "d"}},
        {"type": "approval.decided", **of_a, "approval": {"id": "s-1", "decision": "approve"}},
        {"type": "tool.progress", **of_a, "progress": 1, "text": "half"},
        {"type": "tool.result", **of_a, "tool_result": {"paid": 7}, "duration_ms": 12},
        {"type": "step.end", "step": 1},
        {"type": "step.start", "step": 2},
        {"type": "text.delta", "text": "Lost"},
        {**call, "step": 2, "call_id": "b", "executed_by": "gateway"},
        {"type": "step.reset", "step": 2, "reason": "network"},
        {"type": "step.start", "step": 2},
        {"type": "text.delta", "text": "Paid."},
    ]
    async with browser.page() as page:
        await page.open(f"{origin}/")
        seen = await page.evaluate(f"""(async () => {{
          const [{{ FORMATS }}, {{ Run }}] = await Promise.all(
            ["formats", "run"].map((name) => import(`${{location.origin}}/playground/${{name}}.js`)));
          const text = () => ({{ text: "", get length() {{ return this.text.length; }},
            push(more) {{ this.text += more; }}, clear() {{ this.text = ""; }} }});
          const run = new Run({{ answer: text(), reasoning: text() }}, {{}});
          const states = [];
          for (const event of {json.dumps(events)}) {{
            FORMATS.gai.read(run, event);
            states.push(run.called[0]?.state);
          }}
          return JSON.stringify([run.answer.text, run.called, [...new Set(states)]]);
        }})()""")
    text, calls, states = json.loads(seen)
    assert text == "Look. Paid."
    [shown] = calls
    assert (shown["name"], shown["input"], shown["output"]) == ("pay", '{"euros":7}', '{"paid":7}')
    assert states == [
        None, "step 1, by the gateway", "step 1, waits for an approval", "step 1, approved", "step 1, half",
        "step 1, done in 12 ms",
    ]  # fmt: skip


TOOLS = """
paid = []


def pay(to: str) -> str:
    with open("paid.txt", "a") as file:
        file.write(to)
    return "paid"


async def model(request):
    last = request["messages"][-1]
    if last["role"] == "tool":
        yield f"It says: {last['content']}"
        return
    given = {"to": "<b>Ada</b>\\u202e"}
    yield {"type": "tool.call", "call_id": "c1", "tool_call": {"name": "pay", "input": given}}
"""
WITH_TOOLS = """
[[tool]]
name = "pay"
python = "my_tools:pay"
approve = true
[[upstream]]
name = "mine"
provider = "python"
python = "my_tools:model"
[[model]]
name = "helper"
upstream = "mine"
tools = ["pay"]
"""


async def test_a_person_decides_about_a_call(browser: Browser, upstream: tuple[Upstream, int], tmp_path: Path) -> None:
    """What is shown is text whose characters are all seen, and nothing is made before the decision."""
    (tmp_path / "my_tools.py").write_text(TOOLS.replace("paid.txt", str(tmp_path / "paid.txt")))
    asks = "document.querySelectorAll('.ask button')"
    async with serving(tmp_path, upstream[1], WITH_TOOLS) as url, browser.page() as page:
        await page.open(f"{url}/")
        await page.until("document.querySelector('#model').value === 'fake'")
        await page.evaluate(
            "(choice => { choice.value = 'helper'; choice.dispatchEvent(new Event('change')); })"
            "(document.querySelector('#model'))"
        )
        for framing, decision, said in (
            ("sse", "Deny", "It says: the call was denied"), ("ws", "Approve", "It says: paid"),
        ):  # fmt: skip
            await choose(page, framing, "gai")
            await send(page, "Pay Ada")
            await page.until(f"{asks}.length === 2")
            assert await text(page, ".ask code") == 'pay { "to": "<b>Ada</b>\\u202e" }'
            assert not (tmp_path / "paid.txt").exists()
            await page.evaluate(f"[...{asks}].find((each) => each.textContent === '{decision}').click()")
            await ended(page)
            assert (await text(page, "#answer"), await page.evaluate(f"{asks}.length")) == (said, 0)
        assert (tmp_path / "paid.txt").read_text() == "<b>Ada</b>\u202e"
        assert page.problems == []
