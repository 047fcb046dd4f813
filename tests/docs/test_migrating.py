"""docs/migrating.md: its Python answers as the page says. Its configurations are loaded by test_configurations.py."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.docs.pages import blocks, read


async def test_the_starlette_application_of_the_page_answers() -> None:
    [block] = [each for each in blocks(read("docs/migrating.md")) if each.language == "python"]
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(block.text, "docs/migrating.md", "exec"), namespace)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(namespace["app"]), base_url="http://page") as client:
        response = await client.get("/numbers")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text == "".join(f'data: {{"number":{number}}}\n\n' for number in range(3))
