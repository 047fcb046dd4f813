"""`gai_fast/net/judges/dialects.py`: judged by the types of OpenAI's and Mistral's own packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest
from mistralai.client.models import ClassificationRequest, ModerationResponse
from openai.types import ModerationCreateParams, ModerationCreateResponse

from gai_fast.guards.verdicts import JudgeVerdict, Question
from gai_fast.net.judges.dialects import (
    NotAVerdict,
    hook_body,
    moderation_body,
    read_json,
    read_moderation,
    read_verdict,
)
from tests.limits import LIMITS

TEXT = 'One "two"\n\n😀 thr\u00e9\u00e9'
ASKED = Question("policy", "output", "text", TEXT, "m", "anna", "s1")
OF_OPENAI = {
    "harassment": False,
    "harassment/threatening": False,
    "sexual": False,
    "hate": False,
    "hate/threatening": False,
    "illicit": False,
    "illicit/violent": False,
    "self-harm/intent": False,
    "self-harm/instructions": False,
    "self-harm": False,
    "sexual/minors": False,
    "violence": False,
    "violence/graphic": False,
}
OF_MISTRAL = {
    "sexual": False,
    "hate_and_discrimination": False,
    "violence_and_threats": False,
    "dangerous_and_criminal_content": False,
    "selfharm": False,
    "health": False,
    "financial": False,
    "law": False,
    "pii": False,
}


def openai_answer(flagged: bool | None = None, **scores: float) -> Any:
    """Returns an answer with these scores; a category is flagged from 0.5."""
    categories = {**OF_OPENAI, **{name: score >= 0.5 for name, score in scores.items()}}
    result = {
        "flagged": any(categories.values()) if flagged is None else flagged,
        "categories": categories,
        "category_scores": {name: scores.get(name, 0.0001) for name in categories},
        "category_applied_input_types": {name: ["text"] for name in categories},
    }
    answer = {"id": "modr-1", "model": "omni-moderation-latest", "results": [result]}
    ModerationCreateResponse.model_validate(answer, strict=True)
    return answer


def mistral_answer(**scores: float) -> Any:
    categories = {**OF_MISTRAL, **{name: score >= 0.5 for name, score in scores.items()}}
    result = {"categories": categories, "category_scores": {name: scores.get(name, 0.01) for name in categories}}
    answer = {"id": "1", "model": "mistral-moderation-2603", "results": [result]}
    ModerationResponse.model_validate(answer)
    return answer


# ---- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, "omni-moderation-latest"])
def test_a_moderation_is_asked_as_openai_has_it(model: str | None) -> None:
    body = json.loads(moderation_body(ASKED, model))
    assert pydantic.TypeAdapter(ModerationCreateParams).validate_python(body) == body
    assert body == {"input": TEXT} | ({} if model is None else {"model": model})


def test_a_moderation_is_asked_as_mistral_has_it() -> None:
    body = json.loads(moderation_body(ASKED, "mistral-moderation-latest"))
    read = ClassificationRequest.model_validate(body)
    assert (read.inputs, read.model) == (TEXT, "mistral-moderation-latest")
    assert read.model_dump(by_alias=True) == body


def test_a_hook_gets_the_text_and_whose_it_is() -> None:
    assert json.loads(hook_body(ASKED)) == {
        "guard": "policy",
        "on": "output",
        "channel": "text",
        "text": TEXT,
        "model": "m",
        "caller": "anna",
        "stream_id": "s1",
    }


def test_half_a_surrogate_pair_keeps_the_places_of_the_others() -> None:
    body = json.loads(hook_body(Question("g", "input", "input", "a\ud83db")))
    assert body["text"] == "a\ufffdb"


# ---- moderations -----------------------------------------------------------------------------------------------------


def test_openais_verdict_is_its_flag() -> None:
    assert read_moderation(openai_answer(), {}) == JudgeVerdict(False)
    assert read_moderation(openai_answer(violence=0.9, hate=0.6), {}) == JudgeVerdict(True, "violence", 0.9)
    assert read_moderation(openai_answer(False, violence=0.9), {}) == JudgeVerdict(False)
    assert read_moderation(openai_answer(True), {}) == JudgeVerdict(True)


def test_mistrals_verdict_is_any_category() -> None:
    assert read_moderation(mistral_answer(), {}) == JudgeVerdict(False)
    assert read_moderation(mistral_answer(pii=0.7), {}) == JudgeVerdict(True, "pii", 0.7)


@pytest.mark.parametrize("answer", [openai_answer, mistral_answer])
def test_a_category_with_a_threshold_counts_by_its_score_alone(answer: Any) -> None:
    assert read_moderation(answer(sexual=0.6), {"sexual": 0.8}) == JudgeVerdict(False)
    assert read_moderation(answer(sexual=0.3), {"sexual": 0.2}) == JudgeVerdict(True, "sexual", 0.3)
    assert read_moderation(answer(sexual=0.8), {"sexual": 0.8}) == JudgeVerdict(True, "sexual", 0.8)


def test_beside_a_threshold_the_others_count_by_their_flags() -> None:
    answer = openai_answer(violence=0.6, hate=0.9)
    assert read_moderation(answer, {"violence": 0.8}) == JudgeVerdict(True, "hate", 0.9)
    assert read_moderation(openai_answer(True), {"violence": 0.8}) == JudgeVerdict(False), "`flagged` has no part in it"


def test_a_category_may_be_null() -> None:
    """`illicit` is, in answers of older models."""
    answer = openai_answer()
    answer["results"][0]["categories"]["illicit"] = None
    ModerationCreateResponse.model_validate(answer, strict=True)
    assert read_moderation(answer, {}) == JudgeVerdict(False)


def test_scores_may_be_missing_where_none_is_needed() -> None:
    answer = {"results": [{"categories": {"a": True, "b": False}}]}
    assert read_moderation(answer, {}) == JudgeVerdict(True, "a")
    assert read_moderation({"results": [{"flagged": True}]}, {}) == JudgeVerdict(True)
    assert read_moderation({"results": [{"flagged": False, "category_scores": None}]}, {}) == JudgeVerdict(False)


def result(**members: Any) -> Any:
    return {"results": [{"categories": {"a": False}, "category_scores": {"a": 0.1}, **members}]}


@pytest.mark.parametrize(
    ("answer", "threshold", "text"),
    [
        ([], {}, "has no `results`"),
        ({}, {}, "has no `results`"),
        ({"results": {}}, {}, "has no `results`"),
        ({"results": []}, {}, "has no `results`"),
        ({"results": [{"flagged": False}, {"flagged": True}]}, {}, "has no `results` with one object"),
        ({"results": ["fine"]}, {}, "has no `results`"),
        ({"results": [{}]}, {}, "has no `categories`"),
        ({"results": [{"categories": {}}]}, {}, "has no `categories`"),
        ({"results": [{"flagged": False, "category_scores": {"a": 0.1}}]}, {"a": 0.5}, "has no `categories`"),
        (result(flagged="yes"), {}, "neither true nor false"),
        (result(flagged=None), {}, "neither true nor false"),
        (result(flagged=1), {}, "neither true nor false"),
        (result(flagged="yes"), {"a": 0.5}, "neither true nor false"),
        (result(categories={"a": "no"}), {}, "`categories` that are neither"),
        (result(categories={"a": 0}), {}, "`categories` that are neither"),
        (result(categories=["a"]), {}, "`categories` that is no object"),
        (result(category_scores=[0.1]), {}, "`category_scores` that is no object"),
        (result(), {"violnce": 0.5}, "has no score for 'violnce'"),
        (result(category_scores={"a": "high"}), {"a": 0.5}, "no number"),
        (result(category_scores={"a": True}), {"a": 0.5}, "no number"),
        (result(category_scores={"a": None}), {"a": 0.5}, "no number"),
        (result(category_scores={"a": 80}), {"a": 0.5}, "between 0 and 1"),
        (result(category_scores={"a": -0.1}), {"a": 0.5}, "between 0 and 1"),
        (result(categories={"x" * 65: True}), {}, "has a category"),
    ],
)
def test_what_is_no_moderation(answer: Any, threshold: dict[str, float], text: str) -> None:
    with pytest.raises(NotAVerdict, match=text):
        read_moderation(answer, threshold)


RECORDED = {
    "openai/chat_text__pydantic-ai__test-openai-test-openai-moderation-stream.sse": ("moderation",),
    "openai/responses_text__pydantic-ai__test-openai-responses-test-openai-responses-moderation-stream.sse": (
        "response",
        "moderation",
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_answers_are_read(corpus: Path, name: str) -> None:
    """OpenAI's moderations of an input and of an output, which came with its answers."""
    found = 0
    for line in (corpus / name).read_text().splitlines():
        answer: Any = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
        for key in RECORDED[name]:
            answer = answer.get(key) or {}
        for side in ("input", "output"):
            if side in answer:
                given = answer[side]
                results = given.get("results", [given])  # of Responses it is the result itself
                moderation = {"id": "", "model": given["model"], "results": results}
                ModerationCreateResponse.model_validate(moderation, strict=True)
                assert read_moderation(moderation, {}) == JudgeVerdict(False)
                assert read_moderation(moderation, {"violence": 0.5}) == JudgeVerdict(False)
                low = read_moderation(moderation, {"violence": 0.0})
                assert low.flagged
                assert low.category == "violence"
                found += 1
    assert found >= 2


# ---- hooks and functions ---------------------------------------------------------------------------------------------


def test_only_flagged_is_needed() -> None:
    assert read_verdict({"flagged": False}, ASKED) == JudgeVerdict(False)
    assert read_verdict({"flagged": True, "more": [1]}, ASKED) == JudgeVerdict(True)
    assert read_verdict({"flagged": True, "category": None, "score": None, "spans": None}, ASKED) == JudgeVerdict(True)
    assert read_verdict({"flagged": True, "category": ""}, ASKED) == JudgeVerdict(True)


def test_spans_are_in_order_and_do_not_overlap() -> None:
    answer = {"flagged": True, "category": "x", "score": 7, "spans": [[11, 12], [4, 7], (6, 9), [9, 10], [4, 5]]}
    assert read_verdict(answer, ASKED) == JudgeVerdict(True, "x", 7.0, ((4, 9), (9, 10), (11, 12)))
    assert TEXT[11:12] == "😀"
    assert read_verdict({"flagged": True, "spans": [[0, len(TEXT)]]}, ASKED).spans == ((0, len(TEXT)),)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (None, "is no object"),
        ([True], "is no object"),
        (True, "is no object"),
        ({}, "has no `flagged`"),
        ({"flagged": "yes"}, "has no `flagged`"),
        ({"flagged": 1}, "has no `flagged`"),
        ({"flagged": None}, "has no `flagged`"),
        ({"flagged": False, "category": 1}, "has a category"),
        ({"flagged": False, "category": "x" * 65}, "has a category"),
        ({"flagged": False, "category": "a\nb"}, "has a category"),
        ({"flagged": False, "score": "high"}, "no number"),
        ({"flagged": False, "score": True}, "no number"),
        ({"flagged": False, "score": 10**400}, "no number"),
        ({"flagged": False, "score": float("nan")}, "no number"),
        ({"flagged": True, "spans": "all"}, "no list"),
        ({"flagged": True, "spans": {"0": 1}}, "no list"),
        ({"flagged": True, "spans": [[0, 1]] * 1025}, "no list of at most 1024"),
        ({"flagged": True, "spans": ["01"]}, "no pair"),
        ({"flagged": True, "spans": [[0]]}, "no pair"),
        ({"flagged": True, "spans": [[0, 1, 2]]}, "no pair"),
        ({"flagged": True, "spans": [[0, 1.0]]}, "no pair"),
        ({"flagged": True, "spans": [[False, True]]}, "no pair"),
        ({"flagged": True, "spans": [[0, 10**30]]}, "not lie in the text"),
        ({"flagged": True, "spans": [[0, len(TEXT) + 1]]}, "not lie in the text"),
        ({"flagged": True, "spans": [[-2, -1]]}, "not lie in the text"),
        ({"flagged": True, "spans": [[3, 3]]}, "not lie in the text"),
        ({"flagged": True, "spans": [[5, 3]]}, "not lie in the text"),
    ],
)
def test_what_is_no_verdict(answer: Any, text: str) -> None:
    with pytest.raises(NotAVerdict, match=text) as caught:
        read_verdict(answer, ASKED)
    assert "thr" not in str(caught.value)


def test_spans_are_bounded_by_a_limit() -> None:
    assert LIMITS.judge_spans == 1024


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_may_have_a_mark_of_its_order_of_bytes() -> None:
    assert read_json(b'\xef\xbb\xbf{"flagged": true}') == {"flagged": True}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>busy</html>",
        b'{"flagged": fal',
        b'{"flagged": false}{"flagged": true}',
        b'{"flagged": false} \x00',
        b'{"flagged": true, "score": NaN}',
        b'{"flagged": true, "score": -Infinity}',
        '{"flagged": true}'.encode("utf-16"),
        b'{"flagged": true, "category": "\xff"}',
        b"[" * 60_000,
        b'{"flagged": true, "score": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(NotAVerdict, match="is not JSON"):
        read_json(data)


def test_a_name_that_stands_twice_is_no_verdict() -> None:
    with pytest.raises(NotAVerdict, match="has a name twice"):
        read_json(b'{"flagged": true, "flagged": false}')
    with pytest.raises(NotAVerdict, match="has a name twice"):
        read_json(b'{"results": [{"flagged": true, "flagged": false}]}')
