"""Errors: thirteen stable codes, their HTTP status, and the codes for an upstream's words.

The tree::

    GaiFastError
    └── Error                     one of the thirteen codes; also the content of an `error` event
        ├── InvalidRequest        the caller's fault
        ├── Unauthorized
        ├── Forbidden
        ├── NotFound
        ├── ContextLengthExceeded
        ├── ContentFiltered
        ├── Unsupported
        ├── RateLimited           the remote's state
        ├── Overloaded
        ├── Timeout
        ├── Network
        ├── ProviderUnavailable
        └── Internal              our bug, or an upstream's

Owns the map code → status → temporary (`docs/events.md`) and how an upstream's words become a code. Knows no provider
by name and reads no clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal

from gai_fast.limits import LIMITS

Code = Literal[
    "invalid_request",
    "unauthorized",
    "forbidden",
    "not_found",
    "rate_limited",
    "overloaded",
    "timeout",
    "network",
    "provider_unavailable",
    "context_length_exceeded",
    "content_filtered",
    "unsupported",
    "internal",
]
Phase = Literal["connect", "first_event", "mid_stream"]


class ErrorPayload(dict[str, Any]):
    """The `error` object of an event: a dict with one attribute.

    Attributes:
        details: The upstream's own error object, for encoders of its dialect; no other encoder writes it.
    """

    details: Mapping[str, Any] | None = None


class GaiFastError(Exception):
    """The root of every exception this package defines."""


class Error(GaiFastError):
    """What went wrong: a code, a message, and what a client may do about it.

    Args:
        code: One of the thirteen codes.
        message: For people; names what, where and what to do. Never holds a secret.
        reason: A finer, stable word beside the code (`truncated`, `host`, …).
        temporary: Whether the same request may succeed later; by default the code decides.
        retry_after_ms: Milliseconds to wait, where known; clamped to `limits.retry_after_ms`.
        phase: How far an upstream had got; absent for our own refusals.
        provider: The upstream's provider, where there is one.
        status: The HTTP status where the reason requires another one than the code.
        details: The upstream's own `type`, `param`, `code` and `message`, for clients of the same dialect.

    Raises:
        ValueError: `code` is none of the thirteen.
    """

    code: Code = "internal"
    default_status: ClassVar[int] = 500
    default_temporary: ClassVar[bool] = False

    def __init__(
        self,
        code: Code | None = None,
        message: str = "",
        *,
        reason: str | None = None,
        temporary: bool | None = None,
        retry_after_ms: int | None = None,
        phase: Phase | None = None,
        provider: str | None = None,
        status: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        kind = type(self) if code is None else CLASSES.get(code)
        if kind is None:
            raise ValueError(f"unknown error code {code!r}; known: {', '.join(CLASSES)}")
        self.code = kind.code
        self.message = _shortened(message) or kind.code.replace("_", " ")
        self.reason = reason
        self.temporary = kind.default_temporary if temporary is None else temporary
        self.retry_after_ms = None if retry_after_ms is None else max(0, min(retry_after_ms, LIMITS.retry_after_ms))
        self.phase = phase
        self.provider = provider
        self.status = status or kind.default_status
        self.details = details
        super().__init__(self.message)

    def __new__(cls, code: Code | None = None, *args: Any, **kwargs: Any) -> Error:
        """Makes `Error("rate_limited", …)` a `RateLimited`, so that either class catches it."""
        return super().__new__(CLASSES.get(code, cls) if cls is Error and code is not None else cls)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (dict(self.__dict__),)

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may succeed later."""
        return self.temporary

    def payload(self) -> ErrorPayload:
        """Returns the `error` object of an event, keys in order, without empty ones."""
        said = {
            "code": self.code,
            "message": self.message,
            "temporary": self.temporary,
            "retry_after_ms": self.retry_after_ms,
            "phase": self.phase,
            "reason": self.reason,
        }
        payload = ErrorPayload((key, value) for key, value in said.items() if value is not None)
        payload.details = self.details
        return payload

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any], provider: str | None = None) -> Error:
        """Builds the exception for the object of an `error` event; an unknown code becomes `internal`."""
        code = payload.get("code")
        return cls(
            code if code in CLASSES else "internal",
            str(payload.get("message") or ""),
            reason=payload.get("reason"),
            temporary=payload.get("temporary"),
            retry_after_ms=payload.get("retry_after_ms"),
            phase=payload.get("phase"),
            provider=provider,
            details=payload.details if isinstance(payload, ErrorPayload) else None,
        )


def _rebuilt(state: dict[str, Any]) -> Error:
    error = Error(state["code"], state["message"])
    error.__dict__.update(state)
    return error


class InvalidRequest(Error):
    """The request is wrong; it will not succeed later."""

    code = "invalid_request"
    default_status = 400


class Unauthorized(Error):
    """No valid key."""

    code = "unauthorized"
    default_status = 401


class Forbidden(Error):
    """A valid key that may not do this."""

    code = "forbidden"
    default_status = 403


class NotFound(Error):
    """No such model, route or stream."""

    code = "not_found"
    default_status = 404


class RateLimited(Error):
    """Too many requests; a spent quota is one that is not temporary."""

    code = "rate_limited"
    default_status = 429
    default_temporary = True


class Overloaded(Error):
    """No capacity at the moment."""

    code = "overloaded"
    default_status = 503
    default_temporary = True


class Timeout(Error):
    """The upstream or the client was too slow."""

    code = "timeout"
    default_status = 504
    default_temporary = True


class Network(Error):
    """TCP, DNS, TLS, a cut stream, or bytes that are not HTTP."""

    code = "network"
    default_status = 502
    default_temporary = True


class ProviderUnavailable(Error):
    """The upstream's answer breaks its API, or it refuses our credentials."""

    code = "provider_unavailable"
    default_status = 503
    default_temporary = True


class ContextLengthExceeded(Error):
    """More tokens than the model takes."""

    code = "context_length_exceeded"
    default_status = 400


class ContentFiltered(Error):
    """Refused because of its content."""

    code = "content_filtered"
    default_status = 400


class Unsupported(Error):
    """A valid request for something that is not supported."""

    code = "unsupported"
    default_status = 400


class Internal(Error):
    """A bug: ours, or the upstream's."""

    code = "internal"
    default_status = 500


CLASSES: Final[dict[str, type[Error]]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        RateLimited,
        Overloaded,
        Timeout,
        Network,
        ProviderUnavailable,
        ContextLengthExceeded,
        ContentFiltered,
        Unsupported,
        Internal,
    )
}


class Malformed(GaiFastError, ValueError):
    """A chunk of an upstream that cannot be read; `relay.py` decides about the stream."""


def _shortened(message: str) -> str:
    """Makes a message safe for an event: bounded, and without characters that control terminals or forge log lines."""
    if len(message) > LIMITS.error_message:
        message = message[: LIMITS.error_message - 1] + "…"
    return _CONTROL.sub(" ", message).strip()


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


# ---- an upstream's words → code ----------------------------------------------------------------------------------

_SPECIFIC: Final[dict[str, Code]] = {}
for _code, _words in {
    "invalid_request": "invalid_prompt string_above_max_length unprocessable tool_use_failed json_validate_failed",
    "unauthorized": "authentication_error invalid_api_key unauthenticated api_key_invalid authentication",
    "forbidden": "permission_error permission_denied billing_error payment_required insufficient_balance "
    "failed_precondition unsupported_country_region_territory",
    "not_found": "model_not_found not_found_error not_found deploymentnotfound",
    "rate_limited": "rate_limit_error rate_limit_exceeded rate_limited too_many_requests 1300 resource_exhausted "
    "insufficient_quota ramp_limit_exceeded contract_spend_limit_reached enforced_spend_limit_reached",
    "overloaded": "overloaded_error overloaded engine_overloaded_error server_overloaded capacity_exceeded "
    "no_capacity provider_overloaded unavailable insufficient_system_resource",
    "timeout": "timeout_error deadline_exceeded timeout",
    "provider_unavailable": "service_unavailable provider_unavailable unavailable_error",
    "context_length_exceeded": "context_length_exceeded exceed_context_size_error max_tokens_exceeded "
    "token_limit_exceeded",
    "content_filtered": "content_filter content_policy_violation responsibleaipolicyviolation bio_policy "
    "misalignment_policy_violation refusal",
    "unsupported": "unsupported_parameter unsupported_value unimplemented",
    "internal": "internalservererror internal",
}.items():
    _SPECIFIC.update(dict.fromkeys(_words.split(), _code))  # type: ignore[arg-type]  # the keys are the codes above

# A pattern in the message and the status have priority over these.
_GENERIC: Final[dict[str, Code]] = {
    "invalid_request_error": "invalid_request",
    "badrequesterror": "invalid_request",
    "invalid_argument": "invalid_request",
    "api_error": "internal",
    "server_error": "internal",
}

# No pattern can backtrack over more than one `.*`, and messages are cut to `limits.error_message` first.
_PATTERNS: Final[tuple[tuple[Code, re.Pattern[str]], ...]] = (
    (
        "context_length_exceeded",
        re.compile(
            r"exceed context limit|this model's maximum context length is|maximum context length is"
            r"|requested token count exceeds the model's maximum context length|model's maximum context limit"
            r"|is longer than the model's context length|input tokens exceed the configured limit"
            r"|`inputs` tokens \+ `max_new_tokens` must be|exceeds the available context size"
            r"|exceeds the maximum number of tokens allowed|too many tokens|total length of all messages is too long"
            r"|current length is.*while limit is|maximum input length is.*tokens"
            r"|input too long:.*input tokens, limit is"
            r"|prompt is too long|exceeded max context length|token limit reached",
            re.S,
        ),
    ),
    ("unauthorized", re.compile(r"incorrect api key|invalid api key|api key not valid")),
    ("content_filtered", re.compile(r"content violates usage guidelines")),
    ("overloaded", re.compile(r"overloaded")),
)
_POLICY: Final = re.compile(r"polic|flagged|violat")
"""Words in OpenAI's message for `invalid_prompt` where the prompt is refused, not malformed."""
_NOT_CONTEXT: Final = re.compile(r"string_above_max_length|invalid 'user'")

_STATUS: Final[dict[int, Code]] = {
    401: "unauthorized",
    402: "forbidden",
    403: "forbidden",
    404: "not_found",
    408: "timeout",
    413: "invalid_request",
    429: "rate_limited",
    498: "overloaded",
    501: "unsupported",
    502: "provider_unavailable",
    503: "provider_unavailable",
    504: "timeout",
    521: "provider_unavailable",
    522: "provider_unavailable",
    523: "provider_unavailable",
    524: "timeout",
    529: "overloaded",
}

_SPENT_WORDS: Final = frozenset(
    "insufficient_quota contract_spend_limit_reached enforced_spend_limit_reached spend_limit_reached".split()
)
_CAPACITY: Final = re.compile(r"overloaded|capacity|loading")


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """A failure in the upstream's own words.

    Args:
        message: For people.
        words: Codes, types, statuses and reasons of the upstream, most specific first.
        status: The HTTP status, of the response or in the body.
        retry_after_ms: The wait in milliseconds, where the body has one.
        details: The error object itself, for clients of the same dialect.
    """

    message: str = ""
    words: tuple[str, ...] = ()
    status: int | None = None
    retry_after_ms: int | None = None
    details: Mapping[str, Any] | None = None


def classify(message: str, words: Iterable[str], status: int | None) -> Code:
    """Returns the code for an upstream's failure.

    Order: a specific word, a pattern in the message, the status, a generic word, else `internal`.

    Args:
        message: The upstream's message.
        words: Its codes and types, most specific first; compared without regard to case.
        status: The HTTP status, or the one in the body; below 400 it is ignored.
    """
    lowered = [word.lower() for word in words]
    text = message[: LIMITS.error_message].lower()
    for word in lowered:
        if word in _SPECIFIC:
            return "content_filtered" if word == "invalid_prompt" and _POLICY.search(text) else _SPECIFIC[word]
    for code, pattern in _PATTERNS:
        if pattern.search(text) and not (code == "context_length_exceeded" and _NOT_CONTEXT.search(text)):
            return code
    if status == 413 and "token" in text:
        return "context_length_exceeded"
    if status == 503 and _CAPACITY.search(text):
        return "overloaded"
    if status in _STATUS:
        return _STATUS[status]
    for word in lowered:
        if word in _GENERIC:
            return _GENERIC[word]
    return "invalid_request" if status is not None and 400 <= status < 500 and status != 499 else "internal"


def is_spent(words: Iterable[str]) -> bool:
    """Whether a rate limit is a spent quota, so that waiting does not help."""
    return any(word.lower() in _SPENT_WORDS for word in words)


def from_upstream(said: UpstreamFailure, *, phase: Phase, provider: str, retry_after_ms: int | None = None) -> Error:
    """Builds the error for an upstream's failure, with the provider's meaning."""
    code = classify(said.message, said.words, said.status)
    temporary = CLASSES[code].default_temporary and not is_spent(said.words)
    wait = said.retry_after_ms if retry_after_ms is None else retry_after_ms
    return Error(
        code,
        said.message or f"{provider} failed without saying why",
        reason=next((word for word in said.words if _STABLE.fullmatch(word)), None),
        temporary=temporary,
        # Every answer has rate limit headers; where waiting does not help, clients must not be told to wait.
        retry_after_ms=wait if temporary else None,
        phase=phase,
        provider=provider,
        status=said.status if said.status in _OWN_STATUSES.get(code, ()) else None,
        details=said.details,
    )


_OWN_STATUSES: Final[Mapping[Code, frozenset[int]]] = {
    "invalid_request": frozenset({400, 405, 406, 409, 411, 413, 414, 415, 417, 422, 426, 431, 505}),
    "forbidden": frozenset({402}),
}
"""The statuses of an upstream that are kept: those that `invalid_request` may have, since SDKs choose their
exception class by them, and the one that says "billing" whatever the words beside it, for `for_client`."""


def for_client(error: Error, upstream: str, *, keep_details: bool = False) -> Error:
    """Returns an upstream's error as a client of the server may see it.

    `unauthorized` means the caller's key only. Where the upstream refuses *our* credentials or account, the caller can
    do nothing about it, and the upstream's words (which may quote the key) belong in the operator's log.

    Args:
        error: With the provider's meaning.
        upstream: The configured name of the upstream.
        keep_details: The client speaks the upstream's dialect and may see its own error object.
    """
    if not keep_details:
        error.details = None
    if error.code not in ("unauthorized", "forbidden") or error.phase == "connect":
        return error
    words = f"{error.reason or ''} {error.message}".lower().replace("_", " ")
    billing = error.code == "forbidden" and (error.status == 402 or _BILLING.search(words) is not None)
    if error.code == "forbidden" and not billing and _OTHER_REFUSAL.search(words):
        return error
    what, setting = ("account", "its billing") if billing else ("credentials", "`api_key`")
    return ProviderUnavailable(
        message=f"upstream {upstream!r} refuses our {what}: the operator should check {setting} of this [[upstream]]",
        reason="upstream_billing" if billing else "upstream_credentials",
        temporary=False,
        phase=error.phase,
        provider=error.provider,
        status=502,
    )


_BILLING: Final = re.compile(r"\b(?:billing|payments?|balance|credits?|funds?)\b")
_OTHER_REFUSAL: Final = re.compile(
    r"\b(?:content|polic|moderat|flagged|safety|region|countr|territor|location|model|guideline)"
)

_STABLE: Final = re.compile(r"[a-z][a-z0-9_]{1,63}")
"""Only words that look like identifiers become a reason."""


def retry_after_ms(
    headers: Mapping[str, str], message: str, now_ms: int | None, told_ms: int | None = None
) -> int | None:
    """Returns the wait that an upstream asks for, in milliseconds.

    Order: `retry-after-ms`, `retry-after` (seconds or an HTTP date), the body, the message ("try again
    in 5.289s", "retry after 7 seconds"), the longest of `x-ratelimit-reset-*` and its like (a Go duration, an RFC 3339
    time, seconds from now or since the epoch). Garbage and negative values are ignored.

    Args:
        headers: Lower-case names.
        message: The upstream's message.
        now_ms: Milliseconds since the epoch; `None`: points in time are ignored.
        told_ms: The wait in milliseconds, where the body has one.
    """
    after = headers.get("retry-after", "")
    resets = [_reset_ms(value, now_ms) for name, value in headers.items() if "reset" in name.partition("ratelimit")[2]]
    found = (
        _number(headers.get("retry-after-ms", "")),
        _number(after, 1000),
        _until(_http_date_ms(after), now_ms),
        told_ms,
        _again_ms(message[: LIMITS.error_message].lower()),
        max((wait for wait in resets if wait is not None), default=None),
    )
    wait = next((wait for wait in found if wait is not None), None)
    return None if wait is None else max(0, min(int(wait), LIMITS.retry_after_ms))


_DECIMAL: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_WORDED: Final = r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|milliseconds?|h|hours?|m|minutes?|s|seconds?)(?![a-z])"
_TRY_AGAIN: Final = re.compile(rf"(?:try again|retry) (?:in|after) ((?:{_WORDED}[ ,]{{0,2}}){{1,4}})")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|h|m|s|µs|us|ns)")
_UNIT_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1, "µs": 1e-3, "us": 1e-3, "ns": 1e-6}
_EPOCH_S: Final = 10**9
"""From this number of seconds on (2001) a number is a point in time; from a thousand times it on, in milliseconds."""


def _number(text: str, factor: int = 1) -> float | None:
    return float(text) * factor if _DECIMAL.fullmatch(text) else None


def _until(moment_ms: float | None, now_ms: int | None) -> float | None:
    return None if moment_ms is None or now_ms is None else moment_ms - now_ms


def _duration_ms(text: str) -> float | None:
    """A duration as Go prints it (`6m0s`, `12ms`, `2m59.56s`), in milliseconds."""
    total, at = 0.0, 0
    for part in _DURATION.finditer(text):
        if part.start() != at:
            return None
        total += float(part[1]) * _UNIT_MS[part[2]]
        at = part.end()
    return total if at == len(text) and at else None


def _again_ms(text: str) -> float | None:
    """Returns the wait in a lower-case message: a Go duration, or numbers with their units in words."""
    again = _TRY_AGAIN.search(text)
    if again is None:
        return None
    return sum(
        float(number) * _UNIT_MS["ms" if unit == "ms" or unit.startswith("milli") else unit[0]]
        for number, unit in re.findall(_WORDED, again[1])
    )


def _reset_ms(text: str, now_ms: int | None) -> float | None:
    """Returns the wait for a reset header."""
    number = _number(text)
    if number is None:
        duration = _duration_ms(text)
        return _until(_rfc3339_ms(text), now_ms) if duration is None else duration
    if number < _EPOCH_S:
        return number * 1000
    return _until(number if number >= _EPOCH_S * 1000 else number * 1000, now_ms)


def _rfc3339_ms(text: str) -> float | None:
    try:
        return _timestamp_ms(datetime.fromisoformat(text))
    except ValueError:
        return None


def _http_date_ms(text: str) -> float | None:
    if not text or _DECIMAL.fullmatch(text):
        return None
    from email.utils import parsedate_to_datetime  # imported late: 9 ms, and few upstreams send dates

    try:
        return _timestamp_ms(parsedate_to_datetime(text))
    except (ValueError, OverflowError):  # the second of a year or a zone that no date can have
        return None


def _timestamp_ms(moment: datetime) -> float:
    # A date without a zone (the asctime form of RFC 9110 §5.6.7) is in UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
