"""Errors as statuses of gRPC.

Owns the map code → status, and the details beside it (`google.rpc`). Knows no call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from gai_fast.grpc.limits import LIMITS
from gai_fast.model.errors import Code, Error

STATUSES: Final[Mapping[Code, grpc.StatusCode]] = {
    "invalid_request": grpc.StatusCode.INVALID_ARGUMENT,
    "unauthorized": grpc.StatusCode.UNAUTHENTICATED,
    "forbidden": grpc.StatusCode.PERMISSION_DENIED,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "rate_limited": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "overloaded": grpc.StatusCode.UNAVAILABLE,
    "timeout": grpc.StatusCode.UNAVAILABLE,
    "network": grpc.StatusCode.UNAVAILABLE,
    "provider_unavailable": grpc.StatusCode.UNAVAILABLE,
    "context_length_exceeded": grpc.StatusCode.INVALID_ARGUMENT,
    "content_filtered": grpc.StatusCode.INVALID_ARGUMENT,
    "unsupported": grpc.StatusCode.UNIMPLEMENTED,
    "internal": grpc.StatusCode.INTERNAL,
}
DOMAIN: Final = "gai-fast"
_DETAILS: Final = "grpc-status-details-bin"


class CallEnding(NamedTuple):
    """A status, in the form that grpcio takes."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def status_of(error: Error, request_id: str) -> CallEnding:
    """Returns the status of a call that failed.

    Args:
        error: Why.
        request_id: Of the call.
    """
    code = STATUSES[error.code]
    words = error.message.encode()[: LIMITS.grpc_words].decode(errors="ignore")
    members = {"reason": error.reason, "phase": error.phase, "guard": error.guard, "request_id": request_id}
    info = ErrorInfo(
        reason=error.code.upper(), domain=DOMAIN, metadata={name: value for name, value in members.items() if value}
    )
    details = [_packed(info)]
    if error.retry_after_ms is not None:
        wait = Duration()
        wait.FromMilliseconds(error.retry_after_ms)
        details.append(_packed(RetryInfo(retry_delay=wait)))
    number: int = code.value[0]
    status = Status(code=number, message=words, details=details)
    return CallEnding(code, words, ((_DETAILS, status.SerializeToString()),))


def _packed(detail: ErrorInfo | RetryInfo) -> Packed:
    packed = Packed()
    packed.Pack(detail)
    return packed
