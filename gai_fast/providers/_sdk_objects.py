"""Reads the objects of the providers' SDKs: `shape_of` finds an object's API, and how it becomes the API's JSON.

Source: the chunk types of openai 3.57, anthropic 2.14, google-genai 3.6, mistralai 3.7, cohere 7.3, groq 1.7, ollama
0.6, LiteLLM's `ModelResponseStream` and LangChain's `AIMessageChunk`. None of them is imported: an object is recognised
by its members.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any, Final, NamedTuple

from gai_fast.kernels import encode_json
from gai_fast.model.events import TYPES
from gai_fast.providers._sdk_texts import PATHS, TextPath
from gai_fast.providers.limits import LIMITS

CHAT: Final = "openai"
EVENTS: Final = "python"
"""The API of texts and of events of `gai.events.v1`."""
_LANGCHAIN: Final = "langchain"


class Shape(NamedTuple):
    """How objects of one class are read.

    Attributes:
        api: The API whose chunks they are, or `_LANGCHAIN`.
        wire: Returns the JSON of an object, or None if it says nothing.
        text: The path to the text of an object that is one text and nothing else, or None if there is no such path.
        varies: Whether objects of one class may be chunks of several APIs.
    """

    api: str
    wire: Callable[[Any], str | None]
    text: TextPath | None = None
    varies: bool = False


def shape_of(item: Any, begun: str, messages: Messages | None = None) -> Shape:
    """Returns how objects like this one are read.

    Args:
        item: The object.
        begun: The API of the objects before it; empty if it is the first.
        messages: The messages of LangChain before it, in the same stream.

    Raises:
        TypeError: It is of no known kind.
    """
    if isinstance(item, str):
        return _TEXT
    if isinstance(item, (dict, Mapping)):  # the exact type first: an abstract class takes 300 ns
        if begun in ("", EVENTS) and item.get("type") in TYPES:
            return _EVENT
        api = _api_of(item)
        if api is not None:
            return Shape(api, _json, varies=True)
    if _is_langchain(item):  # before the APIs: it may have a member of Gemini's
        return Shape(_LANGCHAIN, (messages or Messages()).wire)
    is_model = hasattr(item, "model_dump_json")
    if is_model:
        api = _api_of(_members(item))
        if api is not None:
            return Shape(api, _gemini if api == "gemini" else wire_of, PATHS.get(api))
    for name in ("data", "chunk"):  # mistralai, and the helpers of openai and anthropic, put the chunk into an event
        inner = getattr(item, name, None)
        if hasattr(inner, "model_dump_json"):
            api = _api_of(_members(inner))
            if api is not None:
                path = PATHS.get(api)
                return Shape(api, partial(_wire_within, name), None if path is None else path.within(name))
    if is_model and begun:  # the SDKs' helpers add events of their own, which repeat what the chunks say
        return Shape(begun, _nothing)
    raise TypeError(f"from_sdk does not know chunks of the type {type(item).__module__}.{type(item).__name__}")


def chunk_of(item: Any) -> Any:
    """Returns an object without the metadata that LangGraph puts beside it in a pair."""
    is_pair = isinstance(item, tuple) and item and (_is_langchain(item[0]) or _is_tool_message(item[0]))
    return item[0] if is_pair else item


def _nothing(item: object) -> None:
    """Reads an object that says nothing new."""


def _members(item: Any) -> Mapping[str, Any]:
    """Returns the members of a model that are not None, by their names in Python. A dump takes ten times as long."""
    members = {**item.__dict__, **(item.__pydantic_extra__ or {})}
    return {name: value for name, value in members.items() if value is not None}


_ANTHROPIC: Final = ("message_", "content_block_", "ping")
_COHERE: Final = ("message-", "content-", "tool-plan-", "tool-call-", "citation-", "debug")
_GEMINI: Final = frozenset(("candidates", "usageMetadata", "promptFeedback", "usage_metadata", "prompt_feedback"))
"""Members of a chunk, on the wire and in Python."""


def _api_of(members: Mapping[str, Any]) -> str | None:
    """Returns the API that has chunks with these members. None if no known API has."""
    kind = members.get("type")
    if isinstance(kind, str):
        if kind.startswith("response."):
            return "openai:responses"
        if kind.startswith(_ANTHROPIC):
            return "anthropic"
        if kind.startswith(_COHERE):
            return "cohere"
    if "choices" in members or members.get("object") == "chat.completion.chunk":
        return CHAT
    if not _GEMINI.isdisjoint(members):
        return "gemini"
    if "message" in members and "model" in members:
        return "ollama"
    if "response" in members and "model" in members:
        return "ollama:generate"
    return None


def provider_of(api: str, item: object, names: Iterable[str]) -> str:
    """Returns the provider of an object: the one of its library, if that has the API, else the API's own.

    Args:
        api: The API of the object.
        item: The object.
        names: The names of all providers.
    """
    if api == _LANGCHAIN:
        return "openai-compatible"
    named = library_of(item, names)
    if api == CHAT and named is not None:
        return named
    return api


_LIBRARIES: Final = {"google": "gemini", "litellm": "openai-compatible"}
"""The providers of libraries whose names do not begin with the provider's."""


def library_of(item: object, names: Iterable[str]) -> str | None:
    """Returns the provider whose library the class of an object is of. None if it is of none.

    Args:
        item: The object.
        names: The names of all providers.
    """
    library = type(item).__module__.partition(".")[0]
    return _LIBRARIES.get(library) or next((name for name in names if library.startswith(name)), None)


def _json(members: Mapping[str, Any]) -> str:
    members = members if type(members) is dict else dict(members)
    text = encode_json(members).decode()
    if "\ufffd" in text:  # perhaps half of a surrogate pair, whose other half is in the next chunk
        with suppress(TypeError):  # an object of another type, which the standard library does not write
            return json.dumps(members)
    return text


def wire_of(item: Any) -> str:
    """Returns the JSON of a model."""
    # Without warnings: an SDK makes models of unknown members without validation, and pydantic warns of each.
    try:
        text: str = item.model_dump_json(by_alias=True, exclude_unset=True, warnings=False)
    except ValueError:  # half of a surrogate pair
        return _json(item.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False))
    return text


def _wire_within(name: str, item: Any) -> str:
    return wire_of(getattr(item, name))


_ADDED_BY_GENAI: Final = {"sdk_http_response", "parsed", "automatic_function_calling_history"}
"""Members that `google-genai` adds to a response."""


def _gemini(item: Any) -> str:
    """Returns a response of `google-genai`, which writes bytes in the alphabet of base64url."""
    members = item.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=_ADDED_BY_GENAI, warnings=False)
    for candidate in members.get("candidates") or ():
        _plain_base64(candidate, "continuationToken")
        for part in (candidate.get("content") or {}).get("parts") or ():
            _plain_base64(part, "thoughtSignature")
            _plain_base64(part.get("inlineData") or {}, "data")
    return _json(members)


def _plain_base64(members: dict[str, Any], name: str) -> None:
    value = members.get(name)
    if isinstance(value, str):
        members[name] = value.replace("-", "+").replace("_", "/")


def _text(text: str) -> str | None:
    return _json({"type": "text.delta", "text": text}) if text else None


_TEXT: Final = Shape(EVENTS, _text)
_EVENT: Final = Shape(EVENTS, _json, varies=True)


def _is_langchain(item: Any) -> bool:
    kind = getattr(item, "type", None)
    return (kind == "AIMessageChunk" and hasattr(item, "tool_call_chunks")) or (
        kind == "ai" and hasattr(item, "response_metadata")
    )


def _is_tool_message(item: Any) -> bool:
    """Returns whether an object is the result of a tool, which LangGraph puts between the chunks of an agent."""
    return getattr(item, "type", None) == "tool" and hasattr(item, "tool_call_id")


class Messages:
    """Writes the messages of one answer of LangChain: each counts the tokens that those before it have not.

    Chunks have a part of a message. LangGraph also sends whole messages: of models that were not streamed, and of nodes
    that return the message whose chunks came.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._known: set[str] = set()
        """The ids of the messages and of their calls so far, at most `limits.message_ids`."""
        self._said = sha256()
        """The digest of the text since the last whole message."""

    def wire(self, item: Any) -> str:
        """Returns the JSON of a message or a chunk in the chat dialect, without what the message's chunks had."""
        chunk, usage = _langchain(item), getattr(item, "usage_metadata", None)
        choice = chunk["choices"][0]
        if self._is_repeated(item, choice["delta"]):
            choice["delta"], usage = {}, None if self._counts else usage
        if usage:
            chunk["usage"] = self._added(usage)
        return _json(chunk)

    def _is_repeated(self, item: Any, delta: Mapping[str, Any]) -> bool:
        """Returns whether an object is a whole message whose chunks have come. Any other object is recorded."""
        text = str(delta.get("content", "")).encode(errors="surrogatepass")
        ids = [getattr(item, "id", None), *(call["id"] for call in delta.get("tool_calls", ()))]
        if item.type == "ai":
            before, self._said = self._said.digest(), sha256()
            if not self._known.isdisjoint(ids) or (text and before == sha256(text).digest()):
                return True
        else:
            self._said.update(text)
        if len(self._known) < LIMITS.message_ids:
            self._known.update(identifier for identifier in ids if identifier)
        return False

    def _added(self, usage: Mapping[str, Any]) -> dict[str, Any]:
        inputs, outputs = usage.get("input_token_details") or {}, usage.get("output_token_details") or {}
        counts = self._counts
        for name, count in {**usage, "cached": inputs.get("cache_read"), "thought": outputs.get("reasoning")}.items():
            if isinstance(count, int):
                counts[name] += count
        return {
            "prompt_tokens": counts["input_tokens"],
            "completion_tokens": counts["output_tokens"],
            "total_tokens": counts["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": counts["cached"]},
            "completion_tokens_details": {"reasoning_tokens": counts["thought"]},
        }


def _langchain(item: Any) -> dict[str, Any]:
    """Returns a message, or a chunk of one, in the chat dialect, without its usage."""
    delta: dict[str, Any] = {}
    text, reasoning = _langchain_texts(item)
    if text:
        delta["content"] = text
    if reasoning:
        delta["reasoning_content"] = reasoning
    calls = [
        {
            "index": call.get("index") if isinstance(call.get("index"), int) else at,
            "id": call.get("id"),
            "type": "function",
            "function": {"name": call.get("name"), "arguments": call.get("args") or ""},
        }
        for at, call in enumerate(_langchain_calls(item))
    ]
    if calls:
        delta["tool_calls"] = calls
    details = item.response_metadata or {}
    word = details.get("finish_reason") or details.get("stop_reason") or details.get("done_reason")
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": word}]}
    model = details.get("model_name") or details.get("model")
    if model:
        chunk["model"] = model
    return chunk


def _langchain_calls(item: Any) -> list[Mapping[str, Any]]:
    """Returns the pieces of calls in a message chunk, and the calls of a whole message in their form."""
    if item.type != "ai":
        return [*(item.tool_call_chunks or ())]
    calls = getattr(item, "tool_calls", None) or ()
    return [{**call, "args": encode_json(call.get("args") or {}).decode(), "index": None} for call in calls]


def _langchain_texts(item: Any) -> tuple[str, str]:
    """Returns the text and the reasoning of a message chunk."""
    content = item.content
    reasoning = [str((item.additional_kwargs or {}).get("reasoning_content") or "")]
    if isinstance(content, str):
        return content, reasoning[0]
    texts = []
    for block in content or ():
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, Mapping):
            kind = block.get("type")
            if kind == "text":
                texts.append(str(block.get("text") or ""))
            elif kind in ("reasoning", "thinking"):
                reasoning.append(str(block.get("thinking") or block.get("reasoning") or ""))
    return "".join(texts), "".join(reasoning)
