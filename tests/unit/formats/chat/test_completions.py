"""`gai_fast/formats/chat/completions.py`: its passthrough and its errors."""

from __future__ import annotations

import json

from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.providers import get_provider
from tests.unit.formats.streams import context

COMPLETIONS = get_format("completions")


def test_the_upstreams_of_the_legacy_api_speak_it() -> None:
    for name in ("openai:completions", "openai-compatible:completions"):
        assert get_provider(name).dialect == COMPLETIONS.name


def test_ndjson_and_streams_with_ids_are_translated() -> None:
    assert COMPLETIONS.passthrough("sse", context(), whole=False) is not None
    assert COMPLETIONS.passthrough("sse", context(), whole=True) is not None
    assert COMPLETIONS.passthrough("ndjson", context(), whole=False) is None
    assert COMPLETIONS.passthrough("sse", context(ids=True), whole=False) is None


def test_usage_is_asked_for_as_in_the_chat_dialect() -> None:
    assert COMPLETIONS.with_usage({"prompt": "Hi"})["stream_options"] == {"include_usage": True}


def test_an_error_has_openais_shape() -> None:
    body = json.loads(COMPLETIONS.error_body(Error("not_found", "no such model", reason="model"), "r"))
    assert body["error"]["type"] == "invalid_request_error"
    assert set(body["error"]) == {"message", "type", "param", "code"}
