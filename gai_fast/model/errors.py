"""Errors: thirteen stable codes, each with an HTTP status.

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
    """The `error` object of an event: a dict with two attributes.

    Attributes:
        details: The upstream's own error object; only encoders of its dialect write it.
        status: The error's HTTP status; only a response that is not sent yet has it.
    """

    details: Mapping[str, Any] | None = None
    status: int | None = None


class GaiFastError(Exception):
    """The root of all exceptions of this package."""


class SetupError(GaiFastError, ValueError):
    """A part of a gateway cannot be used; the text names it."""


class ToolError(SetupError):
    """A tool cannot be used: its name, its signature, its schema."""


_OF_LOG: Final = ("store", "store_sealed", "log_damaged", "log_behind", "gap")
"""Reasons of failures to read the log of a stream."""


class Error(GaiFastError):
    """A failure: its code, a message, and whether a client may retry.

    Args:
        code: One of the thirteen codes.
        message: For people; names the fault, its place and a remedy. Never holds a secret.
        reason: A stable word that is more specific than the code (`truncated`, `host`, …).
        temporary: Whether the request may succeed later; by default the code decides.
        retry_after_ms: Milliseconds to wait, if known; clamped to `limits.retry_after_ms`.
        phase: How far the upstream's response had got; absent if the gateway refused the request itself.
        provider: The upstream's provider, if there is one.
        status: The HTTP status, if the reason requires another status than the code.
        details: The upstream's own `type`, `param`, `code` and `message`, for clients of the upstream's dialect.
        param: The path of the client's member that the upstream refuses, if it is known.
        guard: The name of the guard that refuses, or that failed.

    Raises:
        ValueError: `code` is not one of the thirteen.
    """

    code: Code = "internal"
    upstream_status: int | None = None
    """The HTTP status with which an upstream refused the request, even if `status` differs; None if none did."""
    quotes: bool = False
    """Whether the message is an upstream's own."""
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
        param: str | None = None,
        guard: str | None = None,
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
        self.param = param
        self.guard = guard
        super().__init__(self.message)

    def __new__(cls, code: Code | None = None, *args: Any, **kwargs: Any) -> Error:
        """Makes `Error("rate_limited", …)` a `RateLimited`, so that either class catches it."""
        return super().__new__(CLASSES.get(code, cls) if cls is Error and code is not None else cls)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (dict(self.__dict__),)

    @property
    def is_temporary(self) -> bool:
        """Whether the request may succeed later."""
        return self.temporary

    @property
    def own_message(self) -> Any:
        """The message of `details`, with the reason that other members of it tell (`providers/answers/failures.py`)."""
        own = (self.details or {}).get("message")
        return self.message if isinstance(own, str) and self.message.startswith(own) else own

    @property
    def is_of_log(self) -> bool:
        """Whether the log of a stream cannot be read. The stream itself may have finished."""
        return self.reason in _OF_LOG

    def payload(self) -> ErrorPayload:
        """Returns the `error` object of an event: its keys in order, without empty values."""
        members = {
            "code": self.code,
            "message": self.message,
            "temporary": self.temporary,
            "retry_after_ms": self.retry_after_ms,
            "phase": self.phase,
            "reason": self.reason,
            "param": self.param,
            "guard": self.guard,
        }
        payload = ErrorPayload((key, value) for key, value in members.items() if value is not None)
        payload.details = self.details
        payload.status = self.status
        return payload

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any], provider: str | None = None) -> Error:
        """Builds the exception from the object of an `error` event.

        An unknown code becomes `internal`; a member of a wrong type is left out.
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
            param=_of(str, payload.get("param")),
            guard=_of(str, payload.get("guard")),
        )


_T = TypeVar("_T")


def _of(kind: type[_T], value: object) -> _T | None:
    """Returns the value if it has exactly this type, else None."""
    return value if type(value) is kind else None


def _rebuilt(state: dict[str, Any]) -> Error:
    error = Error(state["code"], state["message"])
    error.__dict__.update(state)
    return error


class InvalidRequest(Error):
    """The request is invalid; it will not succeed later."""

    code = "invalid_request"
    default_status = 400


class Unauthorized(Error):
    """No valid key."""

    code = "unauthorized"
    default_status = 401


class Forbidden(Error):
    """A valid key without permission for the request."""

    code = "forbidden"
    default_status = 403


class NotFound(Error):
    """No such model, route or stream."""

    code = "not_found"
    default_status = 404


class RateLimited(Error):
    """Too many requests. A spent quota is a rate limit that is not temporary."""

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
    """The upstream's response breaks its API, or the upstream refuses our credentials."""

    code = "provider_unavailable"
    default_status = 503
    default_temporary = True


class ContextLengthExceeded(Error):
    """More tokens than the model accepts."""

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
    """An upstream chunk that cannot be read; `core/relay.py` decides whether the stream continues."""


def _shortened(message: str) -> str:
    """Returns a message safe for an event: cut, and without characters that control terminals or forge log lines."""
    if len(message) > SHARED.error_message:
        message = message[: SHARED.error_message - 1] + CUT
    return _CONTROL.sub(" ", message).strip()


CUT: Final = "…"
"""The end of a message that was cut."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
