"""Parts of OpenAI's chat answers: error bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gai_fast.model.errors import CLASSES, Error
from tests.unit.formats.chat_reader import (
    OPENAI,
)


@pytest.mark.parametrize("code", CLASSES)
def test_every_code_has_an_error_body(code: Any) -> None:
    body = json.loads(OPENAI.error_body(Error(code, "no"), "req_1"))
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["code"] == code
    assert body["error"]["type"].endswith("_error")


def test_the_upstreams_own_words_are_passed_on_unchanged() -> None:
    own = {"message": "The model `x` …", "type": "NotFoundError", "param": "model", "code": 404, "extra": 1}
    body = json.loads(OPENAI.error_body(Error("not_found", "ours", details=own), "req_1"))
    assert body == {"error": {"message": "The model `x` …", "type": "NotFoundError", "param": "model", "code": 404}}


def test_an_upstream_that_said_no_words_gets_ours() -> None:
    body = json.loads(OPENAI.error_body(Error("timeout", "too slow", details={"code": 1}), "req_1"))
    assert body["error"]["message"] == "too slow"
