"""Errors: thirteen stable codes, and the HTTP status of each.

The tree::

    GaiFastError
    ├── StoreError                a store that cannot be used (stores/backend.py)
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

Owns the map code → status → temporary (`docs/events.md`). `model/upstream_errors.py` turns an upstream's failure into
one of these errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TypeVar, cast

from gai_fast.model.limits import SHARED

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
    """A failure: its code, a message, and whether a client may try again.

    Args:
        code: One of the thirteen codes.
        message: For people; names the fault, its place and a remedy. Never holds a secret.
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
        self.retry_after_ms = None if retry_after_ms is None else max(0, min(retry_after_ms, SHARED.retry_after_ms))
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
        members = {
            "code": self.code,
            "message": self.message,
            "temporary": self.temporary,
            "retry_after_ms": self.retry_after_ms,
            "phase": self.phase,
            "reason": self.reason,
        }
        payload = ErrorPayload((key, value) for key, value in members.items() if value is not None)
        payload.details = self.details
        return payload

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any], provider: str | None = None) -> Error:
        """Builds the exception for the object of an `error` event.

        An unknown code becomes `internal`; a member of another type is left out.
        """
        code = _of(str, payload.get("code"))
        return cls(
            cast("Code", code) if code in CLASSES else "internal",
            str(payload.get("message") or ""),
            reason=_of(str, payload.get("reason")),
            temporary=_of(bool, payload.get("temporary")),
            retry_after_ms=_of(int, payload.get("retry_after_ms")),
            phase=cast("Phase | None", _of(str, payload.get("phase"))),
            provider=provider,
            details=payload.details if isinstance(payload, ErrorPayload) else None,
        )


_T = TypeVar("_T")


def _of(kind: type[_T], value: object) -> _T | None:
    """Returns a value of exactly this type; `None` in place of any other."""
    return value if type(value) is kind else None


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
    """A chunk of an upstream that cannot be read; `core/relay.py` decides about the stream."""


def _shortened(message: str) -> str:
    """Makes a message safe for an event: bounded, and without characters that control terminals or forge log lines."""
    if len(message) > SHARED.error_message:
        message = message[: SHARED.error_message - 1] + CUT
    return _CONTROL.sub(" ", message).strip()


CUT: Final = "…"
"""Ends a message that was cut."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
