"""Usage that an upstream has not measured: estimates for single counts, with their `source`.

Owns which counts are not measured (docs/limits.md, "What a stream costs"):

1. A count that is missing, or no whole number from 0 to 2^53. The adapter has left it out.
2. No output beside a text: servers that count nothing fill in zeros (LocalAI with tools, OpenAI in some incomplete
   responses). OpenRouter's zeros for an answer from its cache have a cost of 0 beside them, and are measured.
3. A count that is absurd: more than the model has room for, and more than any text of this length has.

Knows no provider and no account. `core/answer.py` calls it for the few answers that need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gai_fast.core.requests.reading import estimated_tokens
from gai_fast.model.limits import SHARED

_WHOLE: Final = ("input_tokens", "output_tokens", "total_tokens")
_LAST: Final = ("source", "cost")


@dataclass(frozen=True, slots=True)
class Known:
    """The facts about an answer that its usage lacks.

    Args:
        prompt: The characters of the request's text.
        answer: The characters of the answer.
        window: The tokens that the model has room for. None if that is unknown.
        zero_counts: Whether zero output tokens are accepted although there is a text: the provider has named the cost.
    """

    prompt: int
    answer: int
    window: int | None = None
    zero_counts: bool = False


def sum_of(former: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the counts of two answers together, without a cost: amounts of two currencies are never added.

    Args:
        former: The counts of the first one, or of several.
        usage: Those of the other one.
    """
    names = [name for name in dict.fromkeys((*former, *usage)) if name not in _LAST]
    total: dict[str, Any] = {name: former.get(name, 0) + usage.get(name, 0) for name in names}
    source = usage.get("source") or former.get("source")
    return total if source is None else {**total, "source": source}


def rest_of(usage: Mapping[str, Any], former: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a sum without a part of it; the opposite of `sum_of`.

    Args:
        usage: The sum.
        former: The part.
    """
    return {
        name: max(0, value - former.get(name, 0)) if name not in _LAST and name != "cost" else value
        for name, value in usage.items()
    }


def most_tokens(known: Known) -> int:
    """Returns the most tokens of a kind that an answer can have; more are absurd.

    Both bounds must be exceeded: hidden reasoning, pictures and stored conversations have tokens without characters,
    and a new model may have more room than is known.
    """
    window = SHARED.window if known.window is None else known.window
    return max(window, (known.prompt + known.answer) * SHARED.tokens_per_character)


def absurd_count(usage: Mapping[str, Any], most: int) -> int:
    """Returns the largest count of the input and the output that is absurd. 0 if there is none.

    Args:
        usage: The counts.
        most: The result of `most_tokens`.
    """
    largest = 0
    for name in ("input_tokens", "output_tokens"):
        counted = usage.get(name)
        if isinstance(counted, int) and counted > most and counted > largest:
            largest = counted
    return largest


def completed(usage: Mapping[str, Any], known: Known, source: str) -> dict[str, Any]:
    """Returns a usage in which an estimate stands for each count that is not measured.

    Args:
        usage: The counts of an event's `usage`; any may be missing.
        known: What is known of the answer.
        source: The `source` of a usage with an estimate.

    Returns:
        The usage, with all three sums, and with its own members in order; the same if all counts are measured.
    """
    most = most_tokens(known)
    into, out = _measured(usage.get("input_tokens"), most), _measured(usage.get("output_tokens"), most)
    if not out and known.answer and not known.zero_counts:
        into, out = into or None, None
    if into is not None and out is not None and usage.get("total_tokens") == into + out:
        return dict(usage)
    parts = {name: each for name, each in usage.items() if name not in _WHOLE and name not in _LAST}
    for name in parts.copy():
        if not isinstance(parts[name], int) or parts[name] > most:
            del parts[name]
    is_estimated = into is None or out is None
    if out is None:
        out = max(estimated_tokens(known.answer), parts.get("reasoning_tokens", 0))
    if into is None:
        cached = parts.get("cached_input_tokens", 0) + parts.get("cache_write_input_tokens", 0)
        into = max(estimated_tokens(known.prompt), cached)
    result: dict[str, Any] = {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, **parts}
    if is_estimated:
        result["source"] = "partial" if usage.get("source") == "partial" else source
    elif "source" in usage:
        result["source"] = usage["source"]
    if "cost" in usage:
        result["cost"] = usage["cost"]
    return result


def _measured(value: Any, most: int) -> int | None:
    """Returns a count that is plausible. None if it is missing, no count, or absurd."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
    return value if is_count else None
