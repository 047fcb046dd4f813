"""`useChat` of the AI SDK, unmodified, over the gateway: a reload amid an answer, and what guards do to one."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.conftest import HELD, PIECES, STORY, Site, Upstream, required, serving
from tests.browser.driver import Browser
from tests.node.conftest import PACKAGES
from tests.waiting import SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parent / "pages" / "chat.jsx"
TEXTS = "[...document.querySelectorAll('p')].map(({ className, textContent }) => [className, textContent])"
STATUS = "document.querySelector('main').dataset.status"
VERSIONS = ("5", "7")
GUARDS = """\
[[model]]
name = "refused"
upstream = "up"

[[guard]]
name = "masked"
use = "words"
words = ["world", "quotes"]
models = ["fake"]
on = ["output"]

[[guard]]
name = "stopped"
use = "words"
words = ["onerror"]
models = ["second"]
on = ["output"]
action = "stop"

[[guard]]
name = "asked"
use = "words"
words = ["hold"]
models = ["refused"]
on = ["input"]
action = "stop"
"""


async def bundled(version: str) -> str:
    """Returns the script of the page, with one version of the SDK."""
    program = required(shutil.which(PACKAGES / ".bin" / "esbuild"), "esbuild")
    names = {"ai": f"ai-{version}", "@ai-sdk/react": f"@ai-sdk/react-{version}"}
    process = await asyncio.create_subprocess_exec(
        program,
        str(PAGE),
        "--bundle",
        "--jsx=automatic",
        "--define:process.env.NODE_ENV='production'",
        *(f"--alias:{name}={package}" for name, package in names.items()),
        env={**os.environ, "NODE_PATH": str(PACKAGES)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(SECONDS):
        script, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    return script.decode()


async def page_of(site: Site, version: str) -> str:
    """Returns the path of the page with one version of the SDK."""
    path = f"/chat-{version}"
    if path not in site.files:
        site.files[f"{path}.js"] = await bundled(version), "text/javascript"
        site.files[path] = f'<!doctype html><body><script src="{path}.js"></script>', "text/html"
    return f"{site.origin}{path}"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_page_that_is_reloaded_in_the_middle_shows_the_whole_answer_once(
    browser: Browser, origin: str, site: Site, upstream: tuple[Upstream, int], version: str
) -> None:
    address = await page_of(site, version)
    asked = len(upstream[0].prompts)
    upstream[0].go_on.clear()
    chat_id = f"chat {version} of {type(browser).__name__}?"
    beginning = "".join(PIECES[:HELD])
    async with browser.page() as page:
        await page.open(f"{address}?api={quote(f'{origin}/api/v1/chat')}&id={quote(chat_id)}")
        await page.until("document.querySelector('button')")
        await page.evaluate("document.querySelector('button').click()")
        for load in range(2):
            await page.until(f"document.querySelector('p.assistant')?.textContent === {beginning!r}")
            await page.until(f"{STATUS} === 'streaming'")  # the page shows a text before that
            if load == 0:
                await page.reload()
        upstream[0].go_on.set()
        await page.until(f"{STATUS} === 'ready'")
        assert await page.evaluate(TEXTS) == [["user", "hold"], ["assistant", STORY]]
        (end,) = await page.evaluate("ends")
        assert (end["finish_reason"], end["usage"]["output_tokens"]) == ("stop", 1234)

        await page.reload()  # nothing runs any more: 204
        await page.until(f"{STATUS} === 'ready'")
        assert await page.evaluate(TEXTS) == [["user", "hold"], ["assistant", STORY]]
        assert await page.evaluate("ends.filter(Boolean)") == []  # 5 reports an end without an answer for 204
        assert await page.evaluate("document.querySelector('main').dataset.error ?? null") is None
        assert page.problems == []
    assert len(upstream[0].prompts) == asked + 1


async def test_it_shows_what_guards_let_through(
    browser: Browser, site: Site, upstream: tuple[Upstream, int], tmp_path: Path
) -> None:
    upstream[0].go_on.set()
    shown: dict[str, Any] = {}
    async with serving(tmp_path, upstream[1], f'[server]\ncors_origins = ["{site.origin}"]\n{GUARDS}') as origin:
        for version in VERSIONS:
            address = f"{await page_of(site, version)}?api={quote(f'{origin}/api/v1/chat')}"
            for model in ("fake", "second", "refused"):
                async with browser.page() as page:
                    await page.open(f"{address}&id={model}-{version}&model={model}")
                    await page.until("document.querySelector('button')")
                    await page.evaluate("document.querySelector('button').click()")
                    is_over = "'error'" if model == "refused" else "'ready' && ends.some(Boolean)"
                    await page.until(f"{STATUS} === {is_over}")
                    texts = await page.evaluate(TEXTS)
                    error = await page.evaluate("document.querySelector('main').dataset.error ?? ''")
                    ends = await page.evaluate("ends.filter(Boolean).map((end) => end.finish_reason)")
                    shown[f"{version} {model}"] = texts[1:], ends, "content_filtered" in error
    masked = STORY.replace("world", "[words]").replace("quotes", "[words]")
    for version in VERSIONS:
        assert shown[f"{version} fake"] == ([["assistant", masked]], ["stop"], False)
        before = STORY[: STORY.index("onerror")]
        assert shown[f"{version} second"] == ([["assistant", before]], ["content_filter"], False)
        assert shown[f"{version} refused"] == ([], [], True)
