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

from gai_fast.core.json.chunks import objects
from gai_fast.kernels import encode_json
from gai_fast.model.events import TYPES
from gai_fast.providers.sdk.limits import LIMITS
from gai_fast.providers.sdk.texts import PATHS, Text, text_itself

CHAT: Final = "openai"
EVENTS: Final = "python"
"""The API of texts and of events of `gai.events.v1`."""
_LANGCHAIN: Final = "langchain"


class ObjectShape(NamedTuple):
    """The reader of objects of one class.

    Attributes:
        api: The API whose chunks they are, or `_LANGCHAIN`.
        wire: Returns the JSON of an object, or None if it says nothing.
        text: Returns the text of an object that is one text and nothing else, None for any other object; None if there
            is no way to it.
        varies: Whether objects of one class may be chunks of several APIs.
    """

    api: str
    wire: Callable[[Any], str | None]
    text: Callable[[Any], Text | None] | None = None
    varies: bool = False


def shape_of(item: Any, begun: str, messages: SDKMessages | None = None) -> ObjectShape:
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
        api = _api_of(item, begun)
        if api is not None:
            return ObjectShape(api, _json, varies=True)
    if _is_langchain(item):  # before the APIs: it may have a member of Gemini's
        return ObjectShape(_LANGCHAIN, (messages or SDKMessages()).wire)
    if isinstance(item, _Aside) or _is_of_no_model(item):
        return ObjectShape(begun or _LANGCHAIN, _nothing)
    is_model = hasattr(item, "model_dump_json")
    if is_model:
        api = _api_of(_members(item), begun)
        if api is not None:
            return _of_model(api)
    for name in ("data", "chunk"):  # mistralai, and the helpers of openai and anthropic, put the chunk into an event
        inner = getattr(item, name, None)
        if hasattr(inner, "model_dump_json"):
            api = _api_of(_members(inner), begun)
            if api is not None:
                return _of_model(api, name)
    if is_model and begun:  # the SDKs' helpers add events of their own, which repeat what the chunks say
        return ObjectShape(begun, _nothing)
    raise TypeError(f"from_sdk does not know chunks of the type {type(item).__module__}.{type(item).__name__}")


def _of_model(api: str, holder: str = "") -> ObjectShape:
    """Returns the shape of a model. With `holder`, of an event whose member `holder` is the model."""
    wire = partial(_wire_within, holder) if holder else _gemini if api == "gemini" else wire_of
    path = PATHS.get(api)
    return ObjectShape(api, wire, None if path is None else path.within(holder).read)


_OTHER_MODES: Final = frozenset(("checkpoints", "custom", "debug", "tasks", "updates", "values"))


class _Aside:
    """The output of LangGraph's other modes: it repeats the messages, or nodes wrote it."""


def chunk_of(item: Any) -> Any:
    """Returns a message without what LangGraph puts around it; an `_Aside` for what its other modes send.

    A message comes as `(message, metadata)`, with several modes in `(mode, …)`, with subgraphs in `(namespace, …)` or
    `(namespace, mode, …)`, and in version 2 in an object that names these.
    """
    if isinstance(item, dict) and "ns" in item and "data" in item:
        item = item["ns"], item.get("type"), item["data"]
    while isinstance(item, tuple) and item:
        first = item[0]
        if _is_langchain(first) or _is_of_no_model(first):
            return first
        if isinstance(first, str) and first in _OTHER_MODES:
            return _Aside()
        if not isinstance(first, tuple) and first != "messages":
            return item
        item = item[1] if len(item) == 2 else item[1:]
    return item


def _nothing(item: object) -> None:
    """Reads an object that says nothing new."""


def _members(item: Any) -> Mapping[str, Any]:
    """Returns the members of a model that are not None, by their names in Python. A dump takes ten times as long."""
    members = {**item.__dict__, **(item.__pydantic_extra__ or {})}
    return {name: value for name, value in members.items() if value is not None}


_ANTHROPIC: Final = ("message_", "content_block_", "ping")
_COHERE: Final = (
    *("message-", "content-", "tool-plan-", "tool-call-", "citation-", "debug"),
    *("stream-", "text-generation", "tool-calls-", "search-"),
)
_GEMINI: Final = frozenset(("candidates", "usageMetadata", "promptFeedback", "usage_metadata", "prompt_feedback"))
"""Members of a chunk, on the wire and in Python."""


def _api_of(members: Mapping[str, Any], begun: str) -> str | None:
    """Returns the API whose chunks have these members; for an error, `begun`. None if there is no such API."""
    kind = members.get("type") or members.get("event_type")  # Cohere's first version
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
    if (kind == "error" or members.get("error")) and begun not in (EVENTS, _LANGCHAIN):
        return begun or ("openai:responses" if "sequence_number" in members else CHAT)
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


_TEXT: Final = ObjectShape(EVENTS, _text, text_itself)
_EVENT: Final = ObjectShape(EVENTS, _json, text_itself, varies=True)


def _own(item: Any) -> Mapping[str, Any]:
    """Returns the members of an object. `getattr` takes 5 µs for a member that a model of pydantic lacks."""
    members: Mapping[str, Any] = getattr(item, "__dict__", {})
    return members


def _is_langchain(item: Any) -> bool:
    members = _own(item)
    kind = members.get("type")
    return (kind == "AIMessageChunk" and "tool_call_chunks" in members) or (
        kind == "ai" and "response_metadata" in members
    )


def _is_of_no_model(item: Any) -> bool:
    """Returns whether an object is another message of LangChain: the result of a tool, or one of the user.

    LangGraph sends those that its nodes return between the chunks of an agent.
    """
    members = _own(item)
    kind = members.get("type")
    return isinstance(kind, str) and ("tool_call_id" if kind == "tool" else "additional_kwargs") in members


_ALL: Final = ""
"""In place of a message's id: all messages."""
_RUNS: Final = ("lc_run-", "run-")
"""The beginnings of the ids that LangChain gives to answers of models. A message that a node makes has another id."""
_WHOLE_CALLS: Final = 1 << 20
"""The index of the first call of a whole message: so high that it continues no call of chunks with the same id."""


class SDKMessages:
    """Writes the messages of one answer of LangChain: each counts the tokens that those before it have not.

    Chunks have a part of a message. LangGraph also sends whole messages: of models that were not streamed, and of nodes
    that return the message whose chunks came, or another message with its text or its calls.
    """

    def __init__(self) -> None:
        self.is_whole = False
        """Whether no more of the last message can come: it is whole, or this was its last chunk."""
        self._counts: Counter[str] = Counter()
        self._known: set[str] = set()
        """The ids of the messages so far, at most `limits.message_ids`."""
        self._said: dict[str, Any] = {}
        """The digest of the text in the chunks of each message, and in all since the last whole message."""
        self._changed: dict[str, None] = {}
        """The messages whose digest has changed since the last whole message."""
        self._digests: dict[str, bytes] = {}
        """The value of each other digest."""
        self._names: dict[bytes, dict[str, None]] = {}
        """Whose digests have a value."""
        self._called: set[Any] = set()
        """The calls so far, as many at most: the ids of those in chunks, the hashes of whole ones."""
        self._next = _WHOLE_CALLS

    def wire(self, item: Any) -> str:
        """Returns the JSON of a message or a chunk in the chat dialect, without what the message's chunks had."""
        chunk, usage = _langchain(item), getattr(item, "usage_metadata", None)
        choice = chunk["choices"][0]
        delta, identifier = choice["delta"], str(getattr(item, "id", None) or "")
        is_message = item.type == "ai"
        self.is_whole = is_message or getattr(item, "chunk_position", None) == "last"
        if is_message:
            is_own = bool(identifier and usage) or identifier.startswith(_RUNS)
            new = choice["delta"] = self._new(delta, identifier, is_own=is_own)
            if new != delta and self._counts:
                usage = None
            for call in new.get("tool_calls", ()):
                call["index"] = self._next
                self._next += 1
        else:
            self._say(identifier, delta)
        _note(self._known, [identifier] if identifier else ())
        calls = [call for call in delta.get("tool_calls", ()) if call["id"]]
        _note(self._called, [_hash(call) if is_message else call["id"] for call in calls])
        if usage:
            chunk["usage"] = self._added(usage)
        return _json(chunk)

    def _say(self, identifier: str, delta: dict[str, Any]) -> None:
        """Records the text of a chunk."""
        text = _octets(delta)
        for name in {_ALL, identifier}:
            if name in self._said or len(self._said) < LIMITS.message_ids:
                self._said.setdefault(name, sha256()).update(text)
                self._changed[name] = None

    def _new(self, delta: dict[str, Any], identifier: str, *, is_own: bool) -> dict[str, Any]:
        """Returns the new part of a whole message.

        Args:
            delta: Its content.
            identifier: Its id; empty if it has none.
            is_own: Whether a new id begins another answer, whose delta may repeat an earlier one.
        """
        text, calls = _octets(delta), delta.get("tool_calls", ())
        is_said = self._take(sha256(text).digest())
        if identifier in self._known:
            return {}
        if is_own and self._known:
            return delta
        new = [call for call in calls if self._called.isdisjoint((call["id"], _hash(call)))]
        is_repeated = is_said if text else len(new) < len(calls)
        rest = {} if is_repeated else {name: value for name, value in delta.items() if name != "tool_calls"}
        return {**rest, "tool_calls": new} if new else rest

    def _take(self, digest: bytes) -> bool:
        """Returns whether chunks had this text. A second message with it repeats no chunks."""
        for name in self._changed:
            self._forget(name)
            value = self._digests[name] = self._said[name].digest()
            self._names.setdefault(value, {})[name] = None
        self._changed.clear()
        found = [*self._names.get(digest, ())]
        for name in {_ALL, *found}:
            self._forget(name)
            self._said.pop(name, None)
        return bool(found)

    def _forget(self, name: str) -> None:
        """Removes the value of a digest."""
        value = self._digests.pop(name, None)
        if value is not None:
            names = self._names[value]
            del names[name]
            if not names:
                del self._names[value]

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


_WORDS: Final = ("finish_reason", "stop_reason", "done_reason", "stopReason")
"""Members with the finish reason; the last one is Bedrock's."""
_PLACES: Final = {"text": "content", "refusal": "refusal"} | dict.fromkeys(
    ("reasoning", "thinking", "reasoning_content"), "reasoning_content"
)
"""The member of the chat dialect for each type of block with text."""
_NAMES: Final = ("text", "thinking", "reasoning", "refusal")
"""Members of a block with its text."""


def _octets(delta: dict[str, Any]) -> bytes:
    return str(delta.get("content", "")).encode(errors="surrogatepass")


def _hash(call: dict[str, Any]) -> int:
    return hash((call["id"], *call["function"].values()))


def _note(known: set[Any], values: Iterable[Any]) -> None:
    if len(known) < LIMITS.message_ids:
        known.update(values)


def _langchain(item: Any) -> dict[str, Any]:
    """Returns a message, or a chunk of one, in the chat dialect, without its usage."""
    delta: dict[str, Any] = {**_langchain_texts(item)}
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
    word = next((details[name] for name in _WORDS if details.get(name)), None)
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
    whole = [{**call, "args": encode_json(call.get("args") or {}).decode(), "index": None} for call in calls]
    return [*whole, *(getattr(item, "invalid_tool_calls", None) or ())]  # the latter have arguments that are not JSON


def _langchain_texts(item: Any) -> dict[str, str]:
    """Returns the texts of a message or a chunk, by their members in the chat dialect."""
    more, content = item.additional_kwargs or {}, item.content
    texts = dict.fromkeys(("content", "reasoning_content", "refusal"), "")
    for block in [content] if isinstance(content, str) else content or ():
        if isinstance(block, str):
            texts["content"] += block
        elif isinstance(block, Mapping):
            name = _PLACES.get(str(block.get("type")))
            if name is not None:
                texts[name] += _text_of(block)
    for name in ("reasoning_content", "refusal"):
        other = str(more.get(name) or "")
        texts[name] = texts[name] if texts[name] == other else other + texts[name]  # some say it in both places
    return {name: text for name, text in texts.items() if text}


def _text_of(block: Mapping[str, Any]) -> str:
    """Returns the text of a block. Bedrock's reasoning and the summaries of Responses are one level deeper."""
    text = next((block[name] for name in _NAMES if isinstance(block.get(name), str)), None)
    if text is not None:
        return str(text)
    return "".join(map(_text_of, objects([block.get("reasoning_content")]) + objects(block.get("summary"))))
