"""The parts that OpenAI's dialects share: error bodies, functions, and the arguments of a call as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.formats._openai import annotation, argument_text, declared_function, note_warning
from gai_fast.model.errors import CLASSES, Error, InvalidRequest
from gai_fast.model.events import JSONText
from tests.limits import LIMITS
from tests.unit.formats.chat_reader import OPENAI


@pytest.mark.parametrize("code", CLASSES)
def test_every_code_has_an_error_body(code: Any) -> None:
    body = json.loads(OPENAI.error_body(Error(code, "no"), "req_1"))
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["code"] == code
    assert body["error"]["type"].endswith("_error")


def test_a_function_is_declared_with_its_name_and_the_members_that_it_has() -> None:
    function = {"name": "now", "description": None, "parameters": {}, "strict": False}
    assert declared_function(function, "$.tools[0]") == {"name": "now", "parameters": {}, "strict": False}
    with pytest.raises(InvalidRequest, match="required field `name`"):
        declared_function({}, "$.tools[0]")


def test_the_upstreams_own_words_are_passed_on_unchanged() -> None:
    own = {"message": "The model `x` …", "type": "NotFoundError", "param": "model", "code": 404, "extra": 1}
    body = json.loads(OPENAI.error_body(Error("not_found", "ours", details=own), "req_1"))
    assert body == {"error": {"message": "The model `x` …", "type": "NotFoundError", "param": "model", "code": 404}}


def test_the_reason_behind_the_upstreams_own_words_is_shown() -> None:
    own = {"message": "Provider returned error", "code": 429, "metadata": {"raw": "why"}}
    body = json.loads(OPENAI.error_body(Error("rate_limited", "Provider returned error: why", details=own), "req_1"))
    assert body["error"] == {"message": "Provider returned error: why", "type": None, "param": None, "code": 429}


def test_an_upstream_that_said_no_words_gets_ours() -> None:
    body = json.loads(OPENAI.error_body(Error("timeout", "too slow", details={"code": 1}), "req_1"))
    assert body["error"]["message"] == "too slow"


def test_arguments_stay_the_text_that_they_were() -> None:
    assert argument_text(JSONText('{"id":12345678901234567890}', {})) == '{"id":12345678901234567890}'
    assert argument_text("no JSON") == "no JSON"
    assert argument_text({"city": "Oslo"}) == '{"city":"Oslo"}'


def test_a_citation_without_a_place_stands_at_the_end_of_the_text() -> None:
    assert annotation({"uri": "u"}, 7)["url_citation"] == {"url": "u", "title": "", "start_index": 7, "end_index": 7}


def test_warnings_are_bounded() -> None:
    kept: list[dict[str, Any]] = []
    for _ in range(LIMITS.warnings + 1):
        note_warning(kept, {"type": "warning", "reason": "malformed_chunk"})
    assert kept == [{"reason": "malformed_chunk"}] * LIMITS.warnings
