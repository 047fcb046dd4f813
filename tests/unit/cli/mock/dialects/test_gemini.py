"""`cli/dialects/gemini.py`: the path says what other APIs have in the body."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gai_fast.cli.mock.dialects import DIALECTS
from tests.unit.cli.mock.dialects.answers import chunks


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1beta/models/m-1:streamGenerateContent", {"model": "m-1", "verb": "streamGenerateContent"}),
        ("/v1/publishers/google/models/m:generateContent", {"model": "m", "verb": "generateContent"}),
        ("/m:generateContent", {"model": "m", "verb": "generateContent"}),
        ("/v1beta/models/m:countTokens", None),
        ("/v1/chat/completions", None),
        ("/v1beta/models/m:xstreamGenerateContent", None),
        ("/v1beta/models/:generateContent", None),
    ],
)
async def test_the_route_names_the_model_and_the_verb(path: str, found: dict[str, str] | None) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise NotImplementedError

    app = web.Application()
    app.router.add_post(DIALECTS["gemini"].route, handler)
    matched = await app.router.resolve(make_mocked_request("POST", path))
    parts = {name: matched[name] for name in ("model", "verb") if name in matched}
    assert (parts or None) == found


def test_gemini_reads_the_model_and_whether_it_streams_from_the_path() -> None:
    gemini = DIALECTS["gemini"]
    body = {"contents": [], "generationConfig": {"maxOutputTokens": 3}}
    asked = gemini.asked(body, {"model": "m-1", "verb": "streamGenerateContent"})
    assert asked == {**body, "model": "m-1", "stream": True, "max_tokens": 3}
    whole = gemini.asked({}, {"model": "m", "verb": "generateContent"})
    assert whole == {"model": "m", "stream": False, "max_tokens": None}
    answer = gemini(asked, 1)
    [last] = chunks(answer.closing(3, True)[-1])
    assert last["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert last["usageMetadata"]["candidatesTokenCount"] == 3
    assert answer.error(429, "x") == {"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}
