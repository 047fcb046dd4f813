"""The sentences of schemas and the examples of requests, for readers of the API.

Owns what a reader gets in place of a docstring: those are for readers of the code, and never reach the document. The
model `demo` answers the examples; `tests/browser/test_docs_page.py` runs them as they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

ABOUT: Final[Mapping[str, str]] = {
    "Answer": "A whole answer, in the format that was asked for: a `Result` for `gai`.",
    "AnthropicError": "An error, as Anthropic's API writes it.",
    "AnthropicMessage": "A whole answer, as Anthropic's Messages API writes it.",
    "AssistantMessage": "An earlier answer of the model; the `message` of a `Result` is one.",
    "AudioPart": "Audio in base64.",
    "Cache": "How the prompt is cached: a key that requests with equal beginnings share, and the least time.",
    "CacheMark": "The end of a part of the prompt that is cached, with the least time that it is kept.",
    "Change": "One change of the configuration.",
    "ChatCompletion": "A whole answer, as OpenAI's Chat Completions API writes it.",
    "ChatCompletionRequest": "A request of OpenAI's Chat Completions API. Members that are not here are passed on.",
    "ChatRequest": "What `useChat` of the AI SDK sends.",
    "Completion": "A whole answer, as OpenAI's Completions API writes it.",
    "CompletionRequest": "A request of OpenAI's Completions API. Members that are not here are passed on.",
    "Error": "An error.",
    "ErrorObject": "What went wrong: a stable `code`, a `message` for people, and whether it is `temporary`.",
    "Event": "One event of a stream, `gai.events.v1`.",
    "FilePart": "A document in base64.",
    "Health": "Whether the server runs and takes streams.",
    "ImagePart": "An image: a `url` that only the provider fetches, or base64 `data` with its `media_type`.",
    "Key": "A key and what it has spent, without its secret.",
    "KeyChange": "What a key may use from now on; `null` takes a limit away.",
    "Keys": "The keys of callers, without their secrets.",
    "MadeKey": "A key with its secret, which is shown this once.",
    "MessagesRequest": "A request of Anthropic's Messages API. Members that are not here are passed on.",
    "Model": "One model, with the members that both SDKs read.",
    "Models": "The models that the caller may use.",
    "NamedTool": "The one tool that must be called.",
    "NewKey": "A key to make: its name, and what it may use.",
    "NotReady": "Why the server takes no streams.",
    "OpenAIError": "An error, as OpenAI's API writes it.",
    "PassedRequest": "A request that is passed on; only `model` is read.",
    "Probe": "One event of the probe.",
    "ProviderBlockPart": "A part of an earlier answer that only its provider reads, sent back as it came.",
    "Reasoning": "The requested amount of reasoning, and whether the answer shows it.",
    "ReasoningPart": "Reasoning of an earlier turn, sent back with its signature; `redacted`: only the signature.",
    "RecentRequest": "A request that has ended. No text of the conversation.",
    "History": "The figures of the last hour.",
    "HistorySlot": "Those of half a minute.",
    "RecentRequests": "The newest requests that have ended.",
    "Reloaded": "What a new configuration has changed, and what needs a restart.",
    "Request": "A native request: `query`, `messages`, or both. `query` is the last message of the user.",
    "Response": "A whole answer, as OpenAI's Responses API writes it.",
    "ResponseFormat": "Plain text, any JSON, or JSON that follows a schema.",
    "ResponsesRequest": "A request of OpenAI's Responses API. Members that are not here are passed on.",
    "Result": "A whole answer.",
    "RevokedKey": "A key that is revoked.",
    "Rotation": "For how many seconds the former secret stays valid.",
    "RunningStream": "A stream that runs. No text of the conversation.",
    "RunningStreams": "The streams that run.",
    "Sample": "The figures of the server at one moment.",
    "Spend": "What was spent.",
    "StartRequest": "A native request for a stream that is followed later.",
    "Started": "The stream that was started, and where it is followed.",
    "StreamState": "A durable stream: whether it runs, and how it has ended.",
    "SystemMessage": "Instructions.",
    "Target": "Where a model's requests may go: the model, the upstream and its id there.",
    "TargetState": "A target, and whether it takes requests.",
    "Targets": "The targets of all models.",
    "TextPart": "Text in a message of any role.",
    "TokenCount": "The number of tokens of a prompt.",
    "Tool": "A function that the model may call; `parameters` is a JSON Schema.",
    "ToolCallPart": "A call of a tool by the model.",
    "ToolMessage": "The result of a tool call.",
    "UserMessage": "A message of the user.",
    "Version": "The release, and what it runs on.",
}
"""The sentences, in Markdown, by the name of the schema. A schema without one has no description."""

_HELLO: Final = [{"role": "user", "content": "Say hello"}]
_CHAT: Final = {"role": "user", "parts": [{"type": "text", "text": "Say hello"}]}
_TARGET: Final = {"model": "demo", "upstream": "demo", "id": "demo"}
EXAMPLES: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("POST", "/api/v1/stream"): {"model": "demo", "query": "Tell me a story"},
    ("POST", "/api/v1/streams"): {"model": "demo", "query": "Tell me a story"},
    ("POST", "/api/v1/chat"): {"id": "c1", "model": "demo", "messages": [_CHAT]},
    ("POST", "/v1/chat/completions"): {"model": "demo", "messages": _HELLO, "stream": True},
    ("POST", "/v1/completions"): {"model": "demo", "prompt": "Say hello", "stream": True},
    ("POST", "/v1/responses"): {"model": "demo", "input": "Say hello", "stream": True},
    ("POST", "/v1/messages"): {"model": "demo", "max_tokens": 100, "messages": _HELLO, "stream": True},
    ("POST", "/v1/messages/count_tokens"): {"model": "demo", "messages": _HELLO},
    ("POST", "/v1/responses/input_tokens"): {"model": "demo", "input": "Say hello"},
    ("POST", "/v1/responses/compact"): {"model": "your-model", "input": "Say hello"},
    ("POST", "/v1/embeddings"): {"model": "your-model", "input": "A text"},
    ("POST", "/v1/moderations"): {"model": "your-model", "input": "A text"},
    ("POST", "/v1/rerank"): {"model": "your-model", "query": "fruit", "documents": ["an apple", "a stone"]},
    ("POST", "/v1/images/generations"): {"model": "your-model", "prompt": "A lighthouse"},
    ("POST", "/v1/audio/speech"): {"model": "your-model", "input": "Hello", "voice": "alloy"},
    ("POST", "/admin/v1/targets/drain"): _TARGET,
    ("POST", "/admin/v1/targets/restore"): _TARGET,
    ("POST", "/admin/v1/keys"): {"name": "website", "requests_per_minute": 60},
    ("PATCH", "/admin/v1/keys/"): {"requests_per_minute": 30},
    ("POST", "/admin/v1/keys/rotate"): {"grace": 3600},
}
"""A body by method and path of the route. What is passed through needs an upstream that has it, named `your-model`."""

NAMED: Final[Mapping[str, str]] = {
    "/v1/models/": "demo",
    "/docs/": "docs.js",
    "/dashboard/": "dashboard.js",
    "/playground/": "app.js",
    "/api/v1/chat/": "c1",
    "/p/": "your-upstream",
    "/admin/v1/keys/": "website",
}
"""The value of a path's parameter in an example. A stream's id comes from a request before it."""
