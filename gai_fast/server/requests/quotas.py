"""The limits of a caller's key: what a request may use of them, and the remaining limits in response headers.

Owns the estimates of a request's tokens and cost, and the headers. The ledger decides which requests are refused, and
the gate `admission` asks it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gai_fast.core.requests.reading import estimated_tokens
from gai_fast.ledger import NO_DEMAND, Demand, LimitStatus, RateStatus, Reservation, SpendStatus
from gai_fast.model.money import cost_of, dearest_output, decimal_text
from gai_fast.model.request import Request
from gai_fast.model.settings import RATE_LIMITS, KeySettings
from gai_fast.net.attempts.spec import StreamSpec
from gai_fast.net.engine.engine import Engine
from gai_fast.server.http.replies import Headers
from gai_fast.server.requests.incoming import Incoming

_BYTES_PER_TOKEN: Final = 4
_LIMIT_MEMBERS: Final[tuple[str, ...]] = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""The members that limit the output tokens in the dialects' requests."""
_RAW_LIMITS: Final = (*_LIMIT_MEMBERS, "maxOutputTokens", "num_predict")
"""The members that limit the output tokens in an upstream's request."""
_RAW_COUNTS: Final = ("candidateCount",)
"""The members of an upstream's request that ask for several answers, besides `n`, which may not be a raw member."""
_MINUTE_MS: Final = 60_000


class Quotas:
    """Estimates the use of one server's requests, and reports the remaining limits.

    Args:
        engine: The engine with the ledger and the streams.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def estimate(self, incoming: Incoming, spec: StreamSpec, size: int = 0) -> Demand:
        """Returns the estimate of what a request may use.

        The output is the most that its answers may have, or the model's usual output for each if the request does not
        limit it. Tokens: a quarter of its bytes, and the output. Spend: its text and the output, at the price of
        the dearest of `Settings.may_answer`.

        Args:
            incoming: The request, with its body.
            spec: What it asks for.
            size: The bytes of its body with the whole conversation; 0 for a body that is whole.
        """
        key = incoming.http.key
        if key is None or (key.limits.spend is None and not key.limits.of_tokens):
            return NO_DEMAND
        answers = answers_of(spec.request)
        most = _max_output_tokens(spec) * answers
        expected = 0 if most else self._engine.ledger.usual_output(spec.model.name, incoming.http.caller) * answers
        size = size or len(incoming.http.body) or len(incoming.http.target)
        output = most or expected
        reservation = NO_DEMAND.reservation if key.limits.spend is None else self._reservation(spec, size, output)
        return Demand(size // _BYTES_PER_TOKEN + output, reservation, expected=expected)

    def _reservation(self, spec: StreamSpec, size: int, output: int) -> Reservation:
        ledger, settings = self._engine.ledger, self._engine.settings
        price = settings.price(spec.model)
        prices = [settings.price(model) for model in settings.may_answer(spec.model)]
        counted = [each for each in prices if each is not None and each.currency == ledger.currency]
        if not counted:  # it counts for no limit
            return NO_DEMAND.reservation
        prompt = size if spec.prompt_characters is None else spec.prompt_characters
        tokens = {"input_tokens": estimated_tokens(prompt)}
        least = cost_of(tokens, price) + price.request if price is not None and price in counted else 0
        most_cost = max([cost_of({**tokens, **dearest_output(output, each)}, each) + each.request for each in counted])
        return Reservation(least, most_cost)

    def headers(self, key: KeySettings) -> Headers:
        """Returns the response headers with the remaining limits over a time and the remaining spend of a key.

        Args:
            key: The caller's key.
        """
        status = self._engine.ledger.limit_status(key)
        return () if status is None else limit_headers(status)


def _max_output_tokens(spec: StreamSpec) -> int:
    request = spec.request
    if not isinstance(request, Request):
        return max([0, *[_whole(request.get(name)) for name in _LIMIT_MEMBERS]])
    return max(_whole(request.max_tokens), _most_raw(request, _RAW_LIMITS))


def _most_raw(request: Request, names: Sequence[str]) -> int:
    """Returns the highest number among raw members with these names: they replace the request's own."""
    raw = [request.extra, *request.provider_options.values()]
    raw += [inner for options in raw for inner in options.values() if isinstance(inner, dict)]
    return max([0, *[_whole(members.get(name)) for members in raw for name in names]])


def answers_of(request: Request | Mapping[str, Any]) -> int:
    """Returns the number of answers that a request wants.

    A legacy completion has `n` answers to each of its prompts, chosen from `best_of`, which all cost tokens.
    """
    if isinstance(request, Request):
        return max(1, _most_raw(request, _RAW_COUNTS))
    count = max(1, _whole(request.get("n")), _whole(request.get("best_of")))
    prompts = request.get("prompt")
    if isinstance(prompts, list) and any(isinstance(each, (str, list)) for each in prompts):
        return count * len(prompts)
    return count


def _whole(value: object) -> int:
    """Returns a number of a client's request; upstreams read `4.0` as 4. 0 if it is no whole number."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else 0


def limit_headers(status: LimitStatus) -> Headers:
    """Returns the headers with the remaining limits: `x-ratelimit-*`, and draft-ietf-httpapi-ratelimit-headers.

    Args:
        status: The remaining limits.
    """
    headers: list[tuple[str, str]] = []
    fields: list[str] = []
    policies: list[str] = []
    for rate in status.rates:
        kind = RATE_LIMITS[rate.place]
        headers += _headers_of(kind.header, rate)
        fields.append(f'"{kind.header}";r={rate.remaining};t={math.ceil(rate.reset)}')
        policies.append(f'"{kind.header}";q={rate.limit};w={kind.window:.0f}')
    if fields:
        headers += [("ratelimit", ", ".join(fields)), ("ratelimit-policy", ", ".join(policies))]
    if status.spend is not None:
        headers += _spend_headers(status.spend)
    return headers


def _spend_headers(spend: SpendStatus) -> list[tuple[str, str]]:
    headers = [
        ("x-gai-spend-limit", decimal_text(spend.limit)),
        ("x-gai-spend-remaining", decimal_text(spend.remaining)),
    ]
    if spend.reset is not None:
        headers.append(("x-gai-spend-reset", str(math.ceil(spend.reset))))
    return headers


def _headers_of(name: str, rate: RateStatus) -> Headers:
    return (
        (f"x-ratelimit-limit-{name}", str(rate.limit)),
        (f"x-ratelimit-remaining-{name}", str(rate.remaining)),
        (f"x-ratelimit-reset-{name}", duration(rate.reset)),
    )


def duration(seconds: float) -> str:
    """Formats a time as in OpenAI's headers: `6m0s`, `1s` or `20ms`.

    Args:
        seconds: The time; rounded up to milliseconds.
    """
    milliseconds = math.ceil(seconds * 1e3)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, _MINUTE_MS)
    whole, part = divmod(rest, 1000)
    text = f"{whole}.{part:03}".rstrip("0") if part else str(whole)
    return f"{minutes}m{text}s" if minutes else f"{text}s"
