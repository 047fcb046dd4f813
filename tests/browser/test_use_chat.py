"""`useChat` of the AI SDK, unmodified, over the gateway: its page is reloaded in the middle of an answer."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.browser.conftest import HELD, PIECES, STORY, Site, Upstream, required
from tests.browser.driver import Browser
from tests.node.conftest import PACKAGES
from tests.waiting import SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = Path(__file__).parent / "pages" / "chat.jsx"


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


@pytest.mark.parametrize("version", ["5", "7"])
async def test_a_page_that_is_reloaded_in_the_middle_shows_the_whole_answer_once(
    browser: Browser, origin: str, site: Site, upstream: tuple[Upstream, int], version: str
) -> None:
    path = f"/chat-{version}"
    if path not in site.files:
        site.files[f"{path}.js"] = await bundled(version), "text/javascript"
        site.files[path] = f'<!doctype html><body><script src="{path}.js"></script>', "text/html"
    asked = len(upstream[0].prompts)
    upstream[0].go_on.clear()
    chat_id = f"chat {version} of {type(browser).__name__}?"
    texts = "[...document.querySelectorAll('p')].map(({ className, textContent }) => [className, textContent])"
    status = "document.querySelector('main').dataset.status"
    beginning = "".join(PIECES[:HELD])
    async with browser.page() as page:
        await page.open(f"{site.origin}{path}?api={quote(f'{origin}/api/v1/chat')}&id={quote(chat_id)}")
        await page.until("document.querySelector('button')")
        await page.evaluate("document.querySelector('button').click()")
        for load in range(2):
            await page.until(f"document.querySelector('p.assistant')?.textContent === {beginning!r}")
            await page.until(f"{status} === 'streaming'")  # the page shows a text before that
            if load == 0:
                await page.reload()
        upstream[0].go_on.set()
        await page.until(f"{status} === 'ready'")
        assert await page.evaluate(texts) == [["user", "hold"], ["assistant", STORY]]
        (end,) = await page.evaluate("ends")
        assert (end["finish_reason"], end["usage"]["output_tokens"]) == ("stop", 1234)

        await page.reload()  # nothing runs any more: 204
        await page.until(f"{status} === 'ready'")
        assert await page.evaluate(texts) == [["user", "hold"], ["assistant", STORY]]
        assert await page.evaluate("ends.filter(Boolean)") == []  # 5 reports an end without an answer for 204
        assert await page.evaluate("document.querySelector('main').dataset.error ?? null") is None
        assert page.problems == []
    assert len(upstream[0].prompts) == asked + 1
