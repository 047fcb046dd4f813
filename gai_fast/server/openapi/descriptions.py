"""The sentences of schemas, for readers of the API.

Owns what a reader gets in place of a docstring: those are for readers of the code, and never reach the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ABOUT: Final[Mapping[str, str]] = {
    "Answer": "A whole answer, in the format that was asked for: a `Result` for `gai`.",
    "AnthropicError": "An error, as Anthropic's API writes it.",
    "AnthropicMessage": "A whole answer, as Anthropic's Messages API writes it.",
    "AssistantMessage": "An earlier answer of the model; the `message` of a `Result` is one.",
    "AudioPart": "Audio in base64.",
    "Cache": "How the prompt is cached: a key that requests with equal beginnings share, and the least time.",
    "CacheMark": "The end of a part of the prompt that is cached, with the least time that it is kept.",
    "ChatCompletion": "A whole answer, as OpenAI's Chat Completions API writes it.",
    "ChatCompletionRequest": "A request of OpenAI's Chat Completions API. Members that are not here are passed on.",
    "ChatRequest": "What `useChat` of the AI SDK sends.",
    "Completion": "A whole answer, as OpenAI's Completions API writes it.",
    "CompletionRequest": "A request of OpenAI's Completions API. Members that are not here are passed on.",
    "Decided": "The decision that counts.",
    "Decision": "Whether a call is made, and the `digest` of the call that was seen.",
    "Error": "An error.",
    "ErrorObject": "What went wrong: a stable `code`, a `message` for people, and whether it is `temporary`.",
    "Event": "One event of a stream, `gai.events.v1`.",
    "FilePart": "A document in base64.",
    "Health": "Whether the server runs and takes streams.",
    "ImagePart": "An image: a `url` that only the provider fetches, or base64 `data` with its `media_type`.",
    "KeyChange": "What a key may use from now on; `null` takes a limit away.",
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
    "Request": "A native request: `query`, `messages`, or both. `query` is the last message of the user.",
    "Response": "A whole answer, as OpenAI's Responses API writes it.",
    "ResponseFormat": "Plain text, any JSON, or JSON that follows a schema.",
    "ResponsesRequest": "A request of OpenAI's Responses API. Members that are not here are passed on.",
    "Result": "A whole answer.",
    "StartRequest": "A native request for a stream that is followed later.",
    "Started": "The stream that was started, and where it is followed.",
    "StreamState": "A durable stream: whether it runs, and how it has ended.",
    "SystemMessage": "Instructions.",
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
