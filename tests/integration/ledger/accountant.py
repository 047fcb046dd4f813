"""An accountant who never looks into the gateway: what its upstreams have sent costs this much.

Its own reading of each API's counts, its own estimates, its own arithmetic: nothing of `gai_fast` computes here. The
rules are those of docs/limits.md, "What a stream costs".
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

UNIT = 10**12
MOST_TOKENS = 1_048_576
"""The room of a model that nothing is known of."""
INVALID = (True, False, -1, 2.5, 2**53, 2**70, "many", None)
"""Values that are no counts."""


@dataclass
class Prices:
    """Prices in 10^-12 of a dollar: a million tokens of each kind, and each request."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    reasoning: int
    request: int


@dataclass
class Sent:
    """What an upstream has sent in one attempt.

    Args:
        dialect: `chat`, `messages`, `responses`, `ollama` or `embeddings`.
        prompt: The text that it was asked with.
        text: The text that it has answered with.
        usage: The counts that it has sent, in its own dialect. None if it has sent none.
        is_final: Whether its finish reason came with the counts.
        has_failed: Whether it has answered with an error, or with nothing at all.
        is_left: Whether its client has left.
    """

    dialect: str
    prompt: str
    text: str = ""
    usage: Mapping[str, Any] | None = None
    is_final: bool = False
    has_failed: bool = False
    is_left: bool = False


@dataclass
class Books:
    """The charges of all upstreams."""

    prices: Mapping[str, Prices]
    sent: dict[str, list[Sent]] = field(default_factory=dict)

    def note(self, upstream: str, sent: Sent) -> Sent:
        self.sent.setdefault(upstream, []).append(sent)
        return sent

    def charges(self, upstream: str) -> list[int]:
        charged = [charge(sent, self.prices[upstream]) for sent in self.sent.get(upstream, ())]
        return [amount for amount in charged if amount is not None]


@dataclass
class Tokens:
    """The tokens of an attempt, and whether any of them is an estimate."""

    into: int
    out: int
    cached: int
    written: int
    reasoning: int
    is_estimated: bool
    own_cost: Any = None


def charge(sent: Sent, prices: Prices) -> int | None:
    """Returns what an attempt costs. None if nothing."""
    tokens = tokens_of(sent)
    if tokens is None:
        return None
    if tokens.own_cost is not None:
        return half_even(Fraction(Decimal(repr(tokens.own_cost))) * UNIT)
    cached = min(tokens.cached, tokens.into)
    written = min(tokens.written, tokens.into - cached)
    reasoning = min(tokens.reasoning, tokens.out)
    total = Fraction(
        (tokens.into - cached - written) * prices.input
        + cached * prices.cached_input
        + written * prices.cache_write
        + (tokens.out - reasoning) * prices.output
        + reasoning * prices.reasoning,
        10**6,
    )
    return half_even(total) + prices.request


def tokens_of(sent: Sent) -> Tokens | None:
    """Returns the tokens that an attempt is charged for. None if it costs nothing."""
    if sent.has_failed or not (sent.text or sent.is_left or sent.is_final or sent.dialect == "embeddings"):
        return None
    prompt, text = -(-len(sent.prompt) // 4), -(-len(sent.text) // 4)
    usage = sent.usage if sent.usage is not None and sent.is_final else {}
    into, out, total, cached, written, reasoning = READERS[sent.dialect](usage)
    own = usage.get("cost") if sent.dialect == "chat" else None
    if total is not None and into is None and out is not None and total >= out:
        into = total - out
    if total is not None and out is None and into is not None and total >= into:
        out = total - into
    room = max(MOST_TOKENS, 8 * (len(sent.prompt) + len(sent.text)))
    into, out = (None if each is not None and each > room else each for each in (into, out))
    if not out and sent.text and own is None:
        into, out = into or None, None
    is_estimated = into is None or out is None
    into = max(prompt, cached + written) if into is None else into
    out = max(text, reasoning) if out is None else out
    return Tokens(into, out, cached, written, reasoning, is_estimated, own)


def half_even(amount: Fraction) -> int:
    return round(amount)


def number(value: Any) -> int | None:
    """Returns a count. None if the value is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return None
    return int(value) if 0 <= value < 2**53 else None


Counts = tuple[int | None, int | None, int | None, int, int, int]


def read_chat(usage: Mapping[str, Any]) -> Counts:
    into, out, total = (number(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    cached = number(usage.get("prompt_tokens_details", {}).get("cached_tokens")) or 0
    return into, out, total, cached, 0, number(usage.get("completion_tokens_details", {}).get("reasoning_tokens")) or 0


def read_messages(usage: Mapping[str, Any]) -> Counts:
    into, out = number(usage.get("input_tokens")), number(usage.get("output_tokens"))
    cached = number(usage.get("cache_read_input_tokens")) or 0
    written = number(usage.get("cache_creation_input_tokens")) or 0
    return None if into is None else into + cached + written, out, None, cached, written, 0


def read_responses(usage: Mapping[str, Any]) -> Counts:
    into, out, total = (number(usage.get(f"{name}_tokens")) for name in ("input", "output", "total"))
    cached = number(usage.get("input_tokens_details", {}).get("cached_tokens")) or 0
    return into, out, total, cached, 0, number(usage.get("output_tokens_details", {}).get("reasoning_tokens")) or 0


def read_ollama(usage: Mapping[str, Any]) -> Counts:
    return number(usage.get("prompt_eval_count")), number(usage.get("eval_count")), None, 0, 0, 0


def read_embeddings(usage: Mapping[str, Any]) -> Counts:
    into = number(usage.get("prompt_tokens")) or None  # a count of zero is none
    return into, 0, None, 0, 0, 0


READERS = {
    "chat": read_chat,
    "messages": read_messages,
    "responses": read_responses,
    "ollama": read_ollama,
    "embeddings": read_embeddings,
}


def some_usage(dialect: str, chance: random.Random) -> dict[str, Any] | None:
    """Returns counts of a random shape, as an upstream of a dialect may send them. None for none."""
    if chance.random() < 0.15:
        return None
    into, out = chance.randrange(5000), chance.randrange(1, 3000)
    cached, reasoning = chance.randrange(into + 1), chance.randrange(out + 1)
    parts = chance.random() < 0.5
    counts: dict[str, Any]
    match dialect:
        case "chat":
            counts = {"prompt_tokens": into, "completion_tokens": out, "total_tokens": into + out}
            names = ["prompt_tokens", "completion_tokens"]
            if parts:
                counts["prompt_tokens_details"] = {"cached_tokens": cached}
                counts["completion_tokens_details"] = {"reasoning_tokens": reasoning}
            if chance.random() < 0.2:
                counts["cost"] = chance.choice([0, 0.25, 0.1 + 0.2, 1e-7, chance.random()])
        case "messages":
            counts = {"input_tokens": into, "output_tokens": out}
            names = ["input_tokens", "output_tokens"]
            if parts:
                counts |= {"cache_read_input_tokens": cached, "cache_creation_input_tokens": chance.randrange(300)}
        case "responses":
            counts = {"input_tokens": into, "output_tokens": out, "total_tokens": into + out}
            names = ["input_tokens", "output_tokens"]
            if parts:
                counts["input_tokens_details"] = {"cached_tokens": cached}
                counts["output_tokens_details"] = {"reasoning_tokens": reasoning}
        case "ollama":
            counts = {"prompt_eval_count": into, "eval_count": out}
            names = [*counts]
        case _:
            counts = {"prompt_tokens": into, "total_tokens": into}
            names = []
    for name in names:
        match chance.randrange(12):
            case 0 | 1:
                del counts[name]
            case 2:
                counts[name] = chance.choice(INVALID)
            case 3:
                counts[name] = chance.choice([2**32 - 1, 2**50])
            case 4:
                counts[name] = 0
            case 5:
                counts[name] = float(counts[name])
    if chance.random() < 0.3:
        counts.pop("total_tokens", None)
    return counts
