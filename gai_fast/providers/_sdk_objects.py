"""Reads the objects of the providers' SDKs: `shape_of` finds an object's API, and how it becomes the API's JSON.

Source: the chunk types of openai 3.57, anthropic 2.14, google-genai 3.6, mistralai 3.7, cohere 7.3, groq 1.7, ollama
0.6, LiteLLM's `ModelResponseStream` and LangChain's `AIMessageChunk`. None of them is imported: an object is recognised
by its members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from gai_fast.kernels import encode_json, escape
from gai_fast.model.events import TYPES

CHAT: Final = "openai"
EVENTS: Final = "python"
"""The API of texts and of events of `gai.events.v1`."""
_LANGCHAIN: Final = "langchain"


class Shape(NamedTuple):
    """How objects of one class are read.

    Attributes:
        api: The API whose chunks they are, or `_LANGCHAIN`.
        wire: Returns the JSON of an object, or None if it says nothing.
        delta: Returns the JSON of an object that is a delta of text and nothing else, or None if it is more. A dump
            takes four times as long.
        varies: Whether objects of one class may be chunks of several APIs.
    """

    api: str
    wire: Callable[[Any], str | None]
    delta: Callable[[Any], str | None] | None = None
    varies: bool = False


def shape_of(item: Any, begun: str) -> Shape:
    """Returns how objects like this one are read.

    Args:
        item: The object.
        begun: The API of the objects before it; empty if it is the first.

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
    if isinstance(item, tuple) and item and _is_langchain(item[0]):  # LangGraph adds its metadata
        return Shape(_LANGCHAIN, lambda pair: _langchain(pair[0]), varies=True)
    is_model = hasattr(item, "model_dump_json")
    if is_model:
        api = _api_of(_members(item))
        if api is not None:
            delta = _anthropic_delta if item.__dict__.get("type") == "content_block_delta" else _DELTAS.get(api)
            return Shape(api, _gemini if api == "gemini" else _wire, delta)
    if _is_langchain(item):
        return Shape(_LANGCHAIN, _langchain)
    for name in ("data", "chunk"):  # mistralai, and the helpers of openai and anthropic, put the chunk into an event
        inner = getattr(item, name, None)
        if hasattr(inner, "model_dump_json"):
            api = _api_of(_members(inner))
            if api is not None:
                return Shape(api, partial(_wire_within, name))
    if is_model and begun:  # the SDKs' helpers add events of their own, which repeat what the chunks say
        return Shape(begun, _nothing)
    raise TypeError(f"from_sdk does not know chunks of the type {type(item).__module__}.{type(item).__name__}")


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
    return encode_json(members if type(members) is dict else dict(members)).decode()


def _wire(item: Any) -> str:
    # Without warnings: an SDK makes models of unknown members without validation, and pydantic warns of each.
    text: str = item.model_dump_json(by_alias=True, exclude_unset=True, warnings=False)
    return text


def _wire_within(name: str, item: Any) -> str:
    return _wire(getattr(item, name))


_UNSAID: Final = frozenset(("obfuscation",))
"""Unknown members that do not affect the answer."""


def _chat_delta(chunk: Any) -> str | None:
    try:
        members, extra = chunk.__dict__, chunk.__pydantic_extra__
        (choice,) = members["choices"]
        fields = choice.__dict__
        index, delta = fields["index"], fields["delta"]
        parts = delta.__dict__
        text = parts["content"]
        extras = choice.__pydantic_extra__ or delta.__pydantic_extra__
    except (AttributeError, KeyError, TypeError, ValueError):  # of another shape
        return None
    if extras or (extra and not _UNSAID.issuperset(extra)) or type(text) is not str or type(index) is not int:
        return None
    said = [*filter(None, parts.values())]
    if len(said) > 1 and (len(said) > 2 or not parts.get("role")):
        return None
    if fields.get("finish_reason") or fields.get("logprobs") or members.get("usage"):
        return None
    return f'{{"choices":[{{"index":{index},"delta":{{"content":{escape(text).decode()}}}}}]}}'


def _anthropic_delta(event: Any) -> str | None:
    delta = event.delta
    text = delta.__dict__.get("text")
    if delta.type != "text_delta" or not isinstance(text, str) or delta.__pydantic_extra__ or event.__pydantic_extra__:
        return None
    plain = {"type": "content_block_delta", "index": event.index, "delta": {"type": "text_delta", "text": text}}
    return _json(plain)


def _responses_delta(event: Any) -> str | None:
    extra = event.__pydantic_extra__
    is_more = event.__dict__.get("logprobs") or (extra and not _UNSAID.issuperset(extra))
    if is_more or event.type != "response.output_text.delta":
        return None
    return _json(
        {
            "type": event.type,
            "item_id": event.item_id,
            "output_index": event.output_index,
            "content_index": event.content_index,
            "delta": event.delta,
            "sequence_number": event.sequence_number,
        }
    )


_ADDED_BY_GENAI: Final = {"sdk_http_response", "parsed", "automatic_function_calling_history"}
"""Members that `google-genai` adds to a response."""


def _gemini(item: Any) -> str:
    """Returns a response of `google-genai`, which writes bytes in the alphabet of base64url."""
    members = item.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=_ADDED_BY_GENAI, warnings=False)
    for candidate in members.get("candidates") or ():
        for part in (candidate.get("content") or {}).get("parts") or ():
            _plain_base64(part, "thoughtSignature")
            _plain_base64(part.get("inlineData") or {}, "data")
    return _json(members)


_DELTAS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    CHAT: _chat_delta,
    "openai:responses": _responses_delta,
}


def _plain_base64(members: dict[str, Any], name: str) -> None:
    value = members.get(name)
    if isinstance(value, str):
        members[name] = value.replace("-", "+").replace("_", "/")


def _text(text: str) -> str | None:
    return _json({"type": "text.delta", "text": text}) if text else None


_TEXT: Final = Shape(EVENTS, _text)
_EVENT: Final = Shape(EVENTS, _json, varies=True)


def _is_langchain(item: Any) -> bool:
    return getattr(item, "type", None) == "AIMessageChunk" and hasattr(item, "tool_call_chunks")


def _langchain(item: Any) -> str | None:
    """Returns a message chunk of LangChain in the chat dialect."""
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
        for at, call in enumerate(item.tool_call_chunks or ())
    ]
    if calls:
        delta["tool_calls"] = calls
    details = item.response_metadata or {}
    word = details.get("finish_reason") or details.get("stop_reason") or details.get("done_reason")
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": word}]}
    model = details.get("model_name") or details.get("model")
    if model:
        chunk["model"] = model
    usage = getattr(item, "usage_metadata", None)
    if usage:
        inputs, outputs = usage.get("input_token_details") or {}, usage.get("output_token_details") or {}
        chunk["usage"] = {
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
            "total_tokens": usage.get("total_tokens"),
            "prompt_tokens_details": {"cached_tokens": inputs.get("cache_read")},
            "completion_tokens_details": {"reasoning_tokens": outputs.get("reasoning")},
        }
    return _json(chunk)


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
