"""What judges are asked, and how their answers are read. Sans-IO.

An answer is a verdict only if all that is read of it has the right form: a judge that is misunderstood must not let
through what it flags. No message repeats a part of an answer, which may quote the text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from gai_fast.guards.verdicts import JudgeVerdict, Question
from gai_fast.kernels import encode_json
from gai_fast.net.limits import LIMITS


class NotAVerdict(ValueError):
    """An answer that is no verdict; the text goes on after "its answer"."""


def hook_body(question: Question) -> bytes:
    """Returns the body of a request to a web hook."""
    return encode_json(question.members())


def moderation_body(question: Question, model: str | None) -> bytes:
    """Returns the body of a request for a moderation: OpenAI's `ModerationCreateParams`, Mistral's
    `ClassificationRequest`.

    Args:
        question: The text.
        model: The moderation's model. None if the request names none.
    """
    return encode_json({"input": question.text} if model is None else {"model": model, "input": question.text})


def read_json(data: bytes) -> Any:
    """Reads the body of an answer.

    Raises:
        NotAVerdict: It is not JSON, or has a name twice: the two could mean different verdicts.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_members, parse_constant=_constant)
    except NotAVerdict:
        raise
    except (ValueError, RecursionError):
        raise NotAVerdict("is not JSON") from None


def read_verdict(answer: Any, question: Question) -> JudgeVerdict:
    """Reads the answer of a web hook or a function.

    Args:
        answer: `{flagged, category, score, spans}`, of which only `flagged` is needed.
        question: What was asked.

    Raises:
        NotAVerdict: The answer has another form.
    """
    if not isinstance(answer, Mapping):
        raise NotAVerdict("is no object")
    flagged = answer.get("flagged")
    if type(flagged) is not bool:
        raise NotAVerdict("has no `flagged` that is true or false")
    score = answer.get("score")
    return JudgeVerdict(
        flagged,
        _category(answer.get("category")),
        None if score is None else _number(score, "`score`"),
        _spans(answer.get("spans"), len(question.text)),
    )


def read_moderation(answer: Any, threshold: Mapping[str, float]) -> JudgeVerdict:
    """Reads the answer of a moderation.

    Args:
        answer: OpenAI's `ModerationCreateResponse`, or Mistral's `ModerationResponse`, for one text.
        threshold: The least score that counts, by category. Other categories count by their flags.

    Raises:
        NotAVerdict: The answer has another form.
    """
    results = answer.get("results") if isinstance(answer, Mapping) else None
    if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], Mapping):
        raise NotAVerdict("has no `results` with one object")
    result: Mapping[str, Any] = results[0]
    flagged = result.get("flagged")
    if "flagged" in result and type(flagged) is not bool:
        raise NotAVerdict("has a `flagged` that is neither true nor false")
    scores, categories = _object(result, "category_scores"), _object(result, "categories")
    if not all(value is None or type(value) is bool for value in categories.values()):
        raise NotAVerdict("has `categories` that are neither true nor false")
    if not categories and (threshold or flagged is None):
        raise NotAVerdict("has no `categories`")
    found: list[tuple[float, str]] = []
    for name, least in threshold.items():
        if name not in scores:
            raise NotAVerdict(f"has no score for {name!r}, which `threshold` names")
        score = _score(scores[name])
        if score >= least:
            found.append((score, name))
    for name, is_flagged in categories.items():
        if is_flagged and name not in threshold:
            found.append((_score(scores[name]) if name in scores else 0.0, name))
    if not threshold and flagged is not None:
        if not flagged:
            return JudgeVerdict(False)
    elif not found:
        return JudgeVerdict(False)
    if not found:
        return JudgeVerdict(True)
    score, name = max(found)
    return JudgeVerdict(True, _category(name), score if name in scores else None)


# ---- parts of an answer ----------------------------------------------------------------------------------------------

_NONE: Final[Mapping[str, Any]] = {}


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise NotAVerdict("has a name twice")
    return members


def _constant(name: str) -> NoReturn:
    """Refuses NaN and infinities, which are not JSON."""
    raise NotAVerdict("is not JSON")


def _object(result: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = result.get(name)
    if value is None:
        return _NONE
    if not isinstance(value, Mapping):
        raise NotAVerdict(f"has a `{name}` that is no object")
    return value


def _category(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LIMITS.judge_category or not value.isprintable():
        raise NotAVerdict(f"has a category that is no text of at most {LIMITS.judge_category} printable characters")
    return value or None


def _number(value: Any, name: str) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise NotAVerdict(f"has a {name} that is no number")


def _score(value: Any) -> float:
    score = _number(value, "score of a category")
    if not 0 <= score <= 1:
        raise NotAVerdict("has a score of a category that is not between 0 and 1")
    return score


def _spans(value: Any, length: int) -> tuple[tuple[int, int], ...]:
    """Returns spans in order, those that overlap as one."""
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > LIMITS.judge_spans:
        raise NotAVerdict(f"has `spans` that are no list of at most {LIMITS.judge_spans}")
    spans: list[tuple[int, int]] = []
    for span in value:
        if not isinstance(span, (list, tuple)) or len(span) != 2 or not all(type(each) is int for each in span):
            raise NotAVerdict("has a span that is no pair of whole numbers")
        begin, end = span
        if not 0 <= begin < end <= length:
            raise NotAVerdict("has a span that does not lie in the text")
        spans.append((begin, end))
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if merged and begin < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    return tuple(merged)
