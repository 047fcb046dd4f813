"""Additions of Mistral to the chat dialect."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.providers import Target, get_provider
from tests.unit.providers.answer_reading import between, body, call, calls_of, chunk, read, request


def test_content_may_be_typed_parts() -> None:
    parts: list[dict[str, Any]] = [
        {
            "type": "thinking",
            "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}],
            "closed": True,
        },
        {"type": "text", "text": "Blue"},
        {"type": "reference", "reference_ids": [1, "b", 1]},
    ]
    assert between(read("mistral", chunk({"content": parts}))) == [
        {"type": "reasoning.delta", "text": "hm"},
        {"type": "text.delta", "text": "Blue"},
        {"type": "citations", "citations": [{"uri": "1", "start": 4, "end": 4}, {"uri": "b", "start": 4, "end": 4}]},
    ]


def test_null_is_no_id_and_an_empty_name_is_no_name() -> None:
    deltas = [call("", id="x1", index=0, name="f"), call('{"n":1}', id="null", index=0, name="")]
    assert calls_of(read("mistral", *map(chunk, deltas))) == [("x1", "f", '{"n":1}')]
    assert calls_of(read("mistral", chunk(call("{}", id="null", name="f")))) == [("call_0", "f", "{}")]


def test_whole_calls_side_by_side_may_all_be_number_zero() -> None:
    both = {"tool_calls": [call({"n": i}, id=f"x{i}", index=0, name="f")["tool_calls"][0] for i in (1, 2)]}
    assert calls_of(read("mistral", chunk(both))) == [("x1", "f", '{"n":1}'), ("x2", "f", '{"n":2}')]


@pytest.mark.parametrize(("word", "reason"), [("model_length", "length"), ("stop", "stop")])
def test_its_finish_words(word: str, reason: str) -> None:
    assert read("mistral", chunk(finish=word))[-1]["finish_reason"] == reason


def test_its_word_error_is_an_error() -> None:
    with pytest.raises(Error) as failed:
        read("mistral", chunk({"content": "a"}), chunk(finish="error"))
    assert failed.value.code == "internal"


def test_cached_tokens_have_two_names_and_stay_as_they_are() -> None:
    for result in ({"num_cached_tokens": 64}, {"prompt_tokens_details": {"cached_tokens": 64}}):
        usage = read("mistral", chunk(finish="stop", usage={"prompt_tokens": 9, "completion_tokens": 1, **result}))[-1][
            "usage"
        ]
        assert (usage["input_tokens"], usage["cached_input_tokens"]) == (9, 64)


@pytest.mark.parametrize(
    ("status", "said", "code", "message"),
    [
        (429, {"object": "error", "message": "slow", "type": "rate_limited", "code": "1300"}, "rate_limited", "slow"),
        (401, {"message": "Unauthorized", "request_id": "r"}, "unauthorized", "Unauthorized"),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "bad", "type": "t"}]}, "invalid_request", "body.n: bad"),
        (400, {"object": "error", "message": {"detail": [{"loc": ["n"], "msg": "bad"}]}}, "invalid_request", "n: bad"),
    ],
)
def test_its_errors_have_three_shapes(status: int, said: Any, code: str, message: str) -> None:
    error = get_provider("mistral").decode_error(status, {}, json.dumps(said).encode())
    assert (error.code, error.message) == (code, message)


def test_no_stream_options_are_sent_and_the_seed_has_another_name() -> None:
    sent = body("mistral", seed=1, max_tokens=5)
    assert "stream_options" not in sent
    assert "seed" not in sent
    assert (sent["random_seed"], sent["max_tokens"]) == (1, 5)
    passed = get_provider("mistral").build_passthrough(
        {"stream_options": {"include_usage": True}, "n": 1}, Target("m1")
    )
    assert json.loads(passed.body) == {"n": 1, "model": "m1"}
    assert request("mistral").path == "/v1/chat/completions"


def test_its_reasoning_goes_back_as_a_part_of_the_content() -> None:
    parts = [
        {"type": "reasoning", "text": "hm", "signature": "s", "provider": "mistral"},
        {"type": "reasoning", "text": "not its own", "provider": "anthropic"},
        {"type": "text", "text": "Blue"},
    ]
    assert body("mistral", messages=[{"role": "assistant", "content": parts}])["messages"][0]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s"},
        {"type": "text", "text": "Blue"},
    ]
    only_text = [{"type": "reasoning", "text": ""}, {"type": "text", "text": "Blue"}]
    assert body("mistral", messages=[{"role": "assistant", "content": only_text}])["messages"][0]["content"] == "Blue"


def test_one_of_the_tools_must_be_called_is_any() -> None:
    assert body("mistral", tools=[{"name": "f"}], tool_choice="required")["tool_choice"] == "any"
    assert body("mistral", tools=[{"name": "f"}], tool_choice="auto")["tool_choice"] == "auto"
    assert body("mistral", tools=[{"name": "f"}], tool_choice={"name": "f"})["tool_choice"]["function"] == {"name": "f"}


def test_ids_of_calls_have_nine_letters_and_digits_and_stay_together() -> None:
    ids = ["call_1", "toolu_01A09q90qw90lq917835lq9", "abcDEF123"]
    calls = [{"type": "tool_call", "call_id": one, "name": "f"} for one in ids]
    results = [{"role": "tool", "call_id": one, "content": "4"} for one in ids]
    said, *answered = body("mistral", messages=[{"role": "assistant", "content": calls}, *results])["messages"]
    sent = [one["id"] for one in said["tool_calls"]]
    assert [one["tool_call_id"] for one in answered] == sent
    assert all(re.fullmatch("[A-Za-z0-9]{9}", one) for one in sent)
    assert (len(set(sent)), sent[2]) == (3, "abcDEF123")


def test_audio_and_documents_have_shapes_of_their_own() -> None:
    parts = [
        {"type": "audio", "data": "AA", "media_type": "audio/flac"},
        {"type": "file", "data": "BB", "media_type": "application/pdf", "filename": "a.pdf"},
        {"type": "file", "data": "CC", "media_type": "application/pdf"},
        {"type": "image", "url": "https://x"},
    ]
    assert body("mistral", messages=[{"role": "user", "content": parts}])["messages"][0]["content"] == [
        {"type": "input_audio", "input_audio": "AA"},
        {"type": "document_url", "document_url": "data:application/pdf;base64,BB", "document_name": "a.pdf"},
        {"type": "document_url", "document_url": "data:application/pdf;base64,CC"},
        {"type": "image_url", "image_url": {"url": "https://x"}},
    ]
    image = [{"type": "image", "url": "https://x"}]
    assert body("mistral", messages=[{"role": "tool", "call_id": "a", "content": image}])["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "https://x"}}
    ]


def test_metadata_are_passed_on() -> None:
    assert body("mistral", metadata={"team": "a"})["metadata"] == {"team": "a"}


def test_a_result_that_is_empty_keeps_its_call() -> None:
    asked = [{"role": "user", "content": "Hi"}, {**call("{}", id="a", name="f"), "role": "assistant"}]
    sent = {"messages": [*asked, {"role": "tool", "tool_call_id": "a", "content": []}]}
    for policy in ("drop", "error"):
        target = Target("m", "k", policy)
        messages = json.loads(get_provider("mistral").build_passthrough(sent, target).body)["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
        assert messages[-1]["content"] == ""
        assert not target.changes


SYSTEM = {"role": "system", "content": "S"}
CALL = {"role": "assistant", "content": [{"type": "tool_call", "call_id": "abcdefgh1", "name": "f", "input": {}}]}
RESULT = {"role": "tool", "call_id": "abcdefgh1", "content": "1"}
ANSWERED = [{"role": "assistant", "content": "A"}, SYSTEM, {"role": "user", "content": "b"}]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ([CALL, SYSTEM, RESULT], ["user", "user", "assistant", "tool"]),
        ([CALL, RESULT, SYSTEM], ["user", "assistant", "tool", "assistant", "user"]),
        (ANSWERED, ["user", "assistant", "user", "user"]),
        ([SYSTEM], ["user", "user"]),
        ([SYSTEM, {"role": "user", "content": "b"}], ["user", "system", "user"]),
    ],
)
def test_instructions_stand_only_where_mistral_takes_them(messages: list[Any], roles: list[str]) -> None:
    sent = body("mistral", messages=[{"role": "user", "content": "a"}, *messages])
    assert [message["role"] for message in sent["messages"]] == roles


def test_a_model_that_does_not_think_gets_no_thoughts() -> None:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    said = {"type": "text", "text": "a"}
    own = {"messages": [{"role": "assistant", "content": [thought, said]}]}
    native = [{"role": "assistant", "content": [{"type": "reasoning", "text": "hm"}, said]}]
    for model, kept in (("mistral-large-latest", [said]), ("mistral-medium-latest", [thought, said])):
        sent = json.loads(get_provider("mistral").build_passthrough(own, Target(model)).body)
        assert sent["messages"][0]["content"] == kept
        content = json.loads(request("mistral", model=model, messages=native).body)["messages"][0]["content"]
        assert content == (kept if thought in kept else "a")
