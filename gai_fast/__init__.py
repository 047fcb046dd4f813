"""The fastest and most trustworthy way to put an LLM's stream on a wire.

Encoders and parsers for SSE and NDJSON, decoders for what providers send, and `gai-fast serve`, the streaming gateway
that is built from them. Everything named here is public; everything else may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gai_fast.core.result import Result
from gai_fast.kernels import (
    IMPLEMENTATION,
    BufferTooSmall,
    NDJSONEncoder,
    NDJSONParser,
    NotJSON,
    SSEEncoder,
    SSEEvent,
    SSEParser,
    encode_ndjson,
    encode_sse,
)
from gai_fast.library.collecting import acollect, collect
from gai_fast.library.decoding import adecode, decode, read_events
from gai_fast.model.errors import (
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
from gai_fast.model.events import Event
from gai_fast.model.version import __version__

if TYPE_CHECKING:
    from gai_fast.core.callbacks import EventManager
    from gai_fast.library.gateway import Gateway
    from gai_fast.library.pipeline import StreamEventProcessor
    from gai_fast.library.remote import connect
    from gai_fast.library.sdk_streams import from_sdk
    from gai_fast.library.stream import Stream
    from gai_fast.model.metrics import MetricsSink, StreamMetrics
    from gai_fast.model.tool_functions import ToolMeta, tool
    from gai_fast.processors.json_stream import JSONStreamProcessor
    from gai_fast.processors.usage import UsageAggregator

__all__ = [
    "IMPLEMENTATION",
    "BufferTooSmall",
    "ContentFiltered",
    "ContextLengthExceeded",
    "Error",
    "Event",
    "EventManager",
    "Forbidden",
    "GaiFastError",
    "Gateway",
    "Internal",
    "InvalidRequest",
    "JSONStreamProcessor",
    "MetricsSink",
    "NDJSONEncoder",
    "NDJSONParser",
    "Network",
    "NotFound",
    "NotJSON",
    "Overloaded",
    "ProviderUnavailable",
    "RateLimited",
    "Result",
    "SSEEncoder",
    "SSEEvent",
    "SSEParser",
    "Stream",
    "StreamEventProcessor",
    "StreamMetrics",
    "Timeout",
    "ToolMeta",
    "Unauthorized",
    "Unsupported",
    "UsageAggregator",
    "__version__",
    "acollect",
    "adecode",
    "collect",
    "connect",
    "decode",
    "encode_ndjson",
    "encode_sse",
    "from_sdk",
    "read_events",
    "tool",
]

# Loaded at the first access: programs that only encode or decode need no asyncio, no configuration and no HTTP client.
_LATER = {
    "EventManager": "gai_fast.core.callbacks",
    "Gateway": "gai_fast.library.gateway",
    "JSONStreamProcessor": "gai_fast.processors.json_stream",
    "MetricsSink": "gai_fast.model.metrics",
    "Stream": "gai_fast.library.stream",
    "StreamEventProcessor": "gai_fast.library.pipeline",
    "StreamMetrics": "gai_fast.model.metrics",
    "ToolMeta": "gai_fast.model.tool_functions",
    "UsageAggregator": "gai_fast.processors.usage",
    "connect": "gai_fast.library.remote",
    "from_sdk": "gai_fast.library.sdk_streams",
    "tool": "gai_fast.model.tool_functions",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
