"""The fastest and most trustworthy way to put an LLM's stream on a wire.

Encoders and parsers for SSE and NDJSON, decoders for what providers send, and `gai-fast serve`, the streaming gateway
that is built from them. Everything named here is public; everything else may change.
"""

from gai_fast._impl import (
    IMPLEMENTATION,
    NDJSONEncoder,
    NDJSONParser,
    SSEEncoder,
    SSEEvent,
    SSEParser,
    encode_ndjson,
    encode_sse,
)
from gai_fast._version import __version__
from gai_fast.decoding import adecode, decode, read_events
from gai_fast.errors import (
    ContentFiltered,
    ContextLengthExceeded,
    Error,
    Forbidden,
    GaiFastError,
    Internal,
    InvalidRequest,
    Network,
    NotFound,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    Timeout,
    Unauthorized,
    Unsupported,
)
from gai_fast.events import Event
from gai_fast.result import Result, acollect, collect

__all__ = [
    "IMPLEMENTATION",
    "ContentFiltered",
    "ContextLengthExceeded",
    "Error",
    "Event",
    "Forbidden",
    "GaiFastError",
    "Internal",
    "InvalidRequest",
    "NDJSONEncoder",
    "NDJSONParser",
    "Network",
    "NotFound",
    "Overloaded",
    "ProviderUnavailable",
    "RateLimited",
    "Result",
    "SSEEncoder",
    "SSEEvent",
    "SSEParser",
    "Timeout",
    "Unauthorized",
    "Unsupported",
    "__version__",
    "acollect",
    "adecode",
    "collect",
    "decode",
    "encode_ndjson",
    "encode_sse",
    "read_events",
]
