"""OpenAI's own client for JavaScript and the responses that are kept, with an upstream of each dialect."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.integration.gateway import Net
from tests.integration.test_kept_responses import gateway_of
from tests.node.conftest import Run


@pytest.mark.parametrize("model", ["m", "claude", "gemini", "native/gpt-x"])
async def test_a_response_is_there_by_its_id(run_node: Run, model: str) -> None:
    async with AsyncExitStack() as stack:
        gateway = await gateway_of(Net(stack), model)
        jobs: list[dict[str, Any]] = [{"url": gateway.url, "model": model, "stream": each} for each in (True, False)]
        for result in await run_node("kept_responses.mjs", jobs):
            # The client adds the text to some of its objects.
            answer, *others = [
                {name: value for name, value in result[each].items() if name != "output_text"}
                for each in ("answer", "found", "cancelled")
            ]
            assert (answer["store"], answer["status"], len(answer["output"])) == (True, "completed", 1)
            assert others == [answer, answer]
            (item,) = result["items"]
            assert (item["role"], item["content"][0]["text"], result["after"]) == ("user", "Hi", 404)
