"""Reads requests of OpenAI's Chat Completions as native requests.

Owns the mapping of fields to those of a native request; `core/requests/dialects.py` has those that are known. Accepts
all fields of the gateway's own answers in this format (reasoning, signatures). Knows no provider and no route.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast.core.requests.dialects import CHAT, known_members
from gai_fast.core.requests.shapes import CACHE_MARKS
from gai_fast.core.requests.signatures import open_signature
from gai_fast.formats._members import (
    DialectReader,
    cache_mark,
    data_url,
    invalid,
    mark_last,
    member,
    require_type,
    required,
    unknown_members,
    unserved_members,
)
from gai_fast.formats._openai import AUDIO_TYPES, EFFORTS, declared_function, openai_cache
from gai_fast.formats._signatures import author_by_detail_format, author_of, detail_format_of, signs_texts
from gai_fast.model.request import Request

# Fields that a native request has too; the native request checks them.
_SAME: Final = frozenset(CHAT.same.split())

WITHOUT_EFFECT: Final = frozenset(CHAT.without_effect.split())
"""Members that do not change the answer; a native request lacks them."""

KNOWN: Final = known_members(CHAT)
"""The members of a request that are read, or have no effect."""
_TAKEN: Final = KNOWN - WITHOUT_EFFECT

# Values that ask for the default.
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "modalities": (["text"],),
    "store": (False,),
}

_PUBLIC: Final = ("https://", "http://")

_THINKS: Final = "medium"
"""The effort of a request that asks for reasoning, and not for how much: OpenRouter's."""

_CHOICES: Final[Mapping[str, str]] = {"any": "required"}
"""Mistral's words for a choice of tools."""

_INSTRUCTIONS: Final = ("system", "developer")
_OF_MESSAGE: Final = ("role", "content", *CACHE_MARKS)
_OF_RESULT: Final = ("role", "content", "tool_call_id", "name", *CACHE_MARKS)
_ANTHROPIC: Final = "anthropic"
"""The dialect of `thinking_blocks`."""

_RESPONSES: Final = "-responses-v1"
"""The suffix after the provider's name in OpenRouter's names of authors."""
_OURS: Final = "gai-"
"""The prefix of an author's name if OpenRouter has no name for the author."""
_VERSION: Final = "-v1"


def read_chat_request(body: dict[str, Any]) -> tuple[Request, list[str]]:
    """Translates a chat request into a native one; see `Format.parse_request`.

    Raises:
        InvalidRequest: The text names the member by its path.
    """
    return _ChatReader().request(body)


class _ChatReader(DialectReader):
    """Reads one request of the dialect."""

    def __init__(self) -> None:
        super().__init__()
        self._functions: dict[str, str] = {}
        self._sent: list[dict[str, Any]] = []

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the native request's JSON object."""
        native: dict[str, Any] = {key: value for key, value in body.items() if key in _SAME and value is not None}
        native["stream"] = member(body, "stream", "$", bool) or False
        messages = member(body, "messages", "$", list)
        if not messages:
            raise invalid("`messages` must hold at least one message", "$.messages")
        native["messages"] = sent = self._sent
        for at, message in enumerate(messages):
            sent.append(self._message(message, f"$.messages[{at}]"))

        if (member(body, "n", "$", int) or 1) > 1:
            self.lost.append("n")
        stop = member(body, "stop", "$", str, list)
        if stop is not None:
            native["stop"] = [stop] if isinstance(stop, str) else stop
        for key in ("max_tokens", "max_completion_tokens"):
            limit = member(body, key, "$", int)
            if limit is not None:
                native["max_tokens"] = limit
                self.moved["$.max_tokens"] = f"$.{key}"
        reasoning = self._wanted_reasoning(body)
        if reasoning:
            native["reasoning"] = reasoning
        response_format = member(body, "response_format", "$", dict)
        if response_format is not None:
            native["response_format"] = self._response_format(response_format)
        native |= openai_cache(body)
        native["tools"] = self._tools(body)
        choice = self._tool_choice(body)
        if choice is not None:
            native["tool_choice"] = choice

        self.lost += unserved_members(body, _TAKEN, _NEUTRAL)
        return native

    def _wanted_reasoning(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the native `reasoning`: of `reasoning_effort`, OpenRouter's `reasoning`, and DeepSeek's `thinking`.

        `thinking` may hold Anthropic's budget: LiteLLM's clients send it so.
        """
        wanted: dict[str, Any] = {}
        if "reasoning" not in body and "reasoning_effort" not in body and "thinking" not in body:
            return wanted  # most requests: `isdisjoint` costs 700 instructions more
        path = "$.reasoning"
        asked = member(body, "reasoning", "$", dict) or {}
        self.lost += unknown_members(asked, path, ("effort", "max_tokens", "exclude", "enabled", "summary"))
        for holder, key, at in ((body, "reasoning_effort", "$"), (asked, "effort", path)):
            effort = member(holder, key, at, str)
            if effort in EFFORTS:
                wanted["effort"] = effort
            elif effort is not None:
                self.lost.append(f"{at}.{key}"[2:])
        for key in ("max_tokens", "summary"):
            if asked.get(key) is not None:
                wanted[key] = asked[key]  # the native request checks it
        enabled = member(asked, "enabled", path, bool)
        if enabled is not None and not {"effort", "max_tokens"} & wanted.keys():
            wanted["effort"] = _THINKS if enabled else "none"
        if member(asked, "exclude", path, bool):
            wanted["summary"] = "none"
        thinking = member(body, "thinking", "$", dict) or {}
        self.lost += unknown_members(thinking, "$.thinking", ("type", "budget_tokens"))
        kind = member(thinking, "type", "$.thinking", str)
        budget = member(thinking, "budget_tokens", "$.thinking", int)
        if kind == "disabled":
            wanted["effort"] = "none"
        elif kind in ("enabled", "adaptive"):
            if budget is not None:
                self.moved["$.reasoning.max_tokens"] = "$.thinking.budget_tokens"
                wanted["max_tokens"] = budget
            elif not {"effort", "max_tokens"} & wanted.keys():
                wanted["effort"] = _THINKS
        elif kind is not None:
            self.lost.append("thinking.type")
        return wanted

    # -- messages --

    def _message(self, message: Any, path: str) -> dict[str, Any]:
        require_type(message, path, dict)
        role = required(message, "role", path, str)
        if role in _INSTRUCTIONS:
            self.lost += unknown_members(message, path, _OF_MESSAGE)
            return {"role": "system", "content": self._content(message, path)}
        if role == "user":
            self.lost += unknown_members(message, path, _OF_MESSAGE)
            return {"role": "user", "content": self._content(message, path)}
        if role == "assistant":
            return self._assistant(message, path)
        if role == "tool":
            self.lost += unknown_members(message, path, _OF_RESULT)
            call_id = required(message, "tool_call_id", path, str)
            return {"role": "tool", "call_id": call_id, "content": self._content(message, path)}
        if role == "function":
            self.lost += unknown_members(message, path, ("role", "content", "name", *CACHE_MARKS))
            name = required(message, "name", path, str)
            if name not in self._functions:
                raise invalid("No `function_call` of this name came before", f"{path}.name")
            return {"role": "tool", "call_id": self._functions[name], "content": self._content(message, path)}
        raise invalid("The role is not one of system, developer, user, assistant, tool, function", f"{path}.role")

    def _content(self, message: dict[str, Any], path: str) -> str | list[dict[str, Any]]:
        content: str | list[Any] | None = member(message, "content", path, str, list)
        if content is None:
            if message.get("role") not in _INSTRUCTIONS:
                raise invalid("Object missing required field `content`", path)
            content = []  # it says nothing
        mark = cache_mark(message, path)
        if isinstance(content, list):
            content = self._parts(content, f"{path}.content")
        if mark:
            if isinstance(content, str) and content:
                return [{"type": "text", "text": content, **mark}]
            if isinstance(content, str) or not mark_last(content, mark):
                self.late_mark = len(self._sent), mark
        return content

    def _parts(self, content: list[Any], path: str) -> list[dict[str, Any]]:
        parts = (self._part(part, f"{path}[{at}]") for at, part in enumerate(content))
        return [part for part in parts if part is not None]

    def _part(self, part: Any, path: str) -> dict[str, Any] | None:
        require_type(part, path, dict)
        kind = required(part, "type", path, str)
        if kind in ("text", "refusal"):
            self.lost += unknown_members(part, path, ("type", kind, *CACHE_MARKS))
            return {"type": "text", "text": required(part, kind, path, str), **cache_mark(part, path)}
        if kind == "image_url":
            self.lost += unknown_members(part, path, ("type", kind, *CACHE_MARKS))
            image = required(part, kind, path, dict)
            # `detail` affects cost, not content.
            self.lost += unknown_members(image, f"{path}.{kind}", ("url", "detail"))
            url = required(image, "url", f"{path}.{kind}", str)
            place = {"url": url} if not url.startswith("data:") else data_url(url, f"{path}.{kind}.url")
            return {"type": "image", **place, **cache_mark(part, path)}
        if kind == "input_audio":
            self.lost += unknown_members(part, path, ("type", kind))
            audio = required(part, kind, path, dict)
            form = required(audio, "format", f"{path}.{kind}", str)
            data = required(audio, "data", f"{path}.{kind}", str)
            return {"type": "audio", "data": data, "media_type": AUDIO_TYPES.get(form, f"audio/{form}")}
        if kind == "file":
            return self._file(part, path)
        self.lost.append(path[2:])
        return None

    def _file(self, part: dict[str, Any], path: str) -> dict[str, Any] | None:
        file = required(part, "file", path, dict)
        data = member(file, "file_data", f"{path}.file", str)
        if data is None:  # a `file_id` names a file stored at OpenAI
            self.lost.append(path[2:])
            return None
        self.lost += unknown_members(part, path, ("type", "file", *CACHE_MARKS))
        # OpenRouter's clients send addresses, too.
        place = {"url": data} if data.startswith(_PUBLIC) else data_url(data, f"{path}.file.file_data")
        native = {"type": "file", **place, **cache_mark(part, path)}
        filename = member(file, "filename", f"{path}.file", str)
        return native if filename is None else {**native, "filename": filename}

    def _assistant(self, message: dict[str, Any], path: str) -> dict[str, Any]:
        # Clients send earlier answers back unchanged. `annotations` are ignored: a model does not need them.
        self.lost += unknown_members(
            message,
            path,
            "role content refusal tool_calls function_call reasoning_content reasoning reasoning_details "
            "thinking_blocks annotations prompt_cache_breakpoint cache_control provider_specific_fields".split(),
        )
        reasoning = self._reasoning(message, path)
        parts = [part for part in reasoning if not _signs_text(part)]
        content = member(message, "content", path, str, list)
        if isinstance(content, list):
            parts += self._parts(content, f"{path}.content")
        elif content:
            parts.append({"type": "text", "text": content})
        refusal = member(message, "refusal", path, str)
        if refusal:
            parts.append({"type": "text", "text": refusal})
        mark = cache_mark(message, path)
        if mark and not mark_last(parts, mark):
            self.late_mark = len(self._sent), mark
        parts += filter(_signs_text, reasoning)
        for at, call in enumerate(member(message, "tool_calls", path, list) or ()):
            part = self._tool_call(call, f"{path}.tool_calls[{at}]")
            if part is not None:
                parts.append(part)
        legacy = member(message, "function_call", path, dict)
        if legacy is not None:
            call_id = f"call_{len(self._functions)}"
            part = self._function(legacy, f"{path}.function_call", call_id)
            self._functions[part["name"]] = call_id
            parts.append(part)
        return {"role": "assistant", "content": parts}

    def _reasoning(self, message: dict[str, Any], path: str) -> list[dict[str, Any]]:
        text = member(message, "reasoning_content", path, str) or member(message, "reasoning", path, str)
        parts: list[dict[str, Any]] = []
        texts: list[list[str]] = []  # the pieces of each part's text; joined at the end, since `+=` copies the text
        index: Any = None
        for at, detail in enumerate(member(message, "reasoning_details", path, list) or ()):
            here = f"{path}.reasoning_details[{at}]"
            part = self._reasoning_detail(detail, here)
            # A client that stored the deltas sends a block in pieces with one index.
            is_piece = parts and index is not None and detail.get("index") == index
            if is_piece and "signature" not in parts[-1] and "redacted" not in part:
                parts[-1].update(part)
                texts[-1].append(part["text"])
            else:
                parts.append(part)
                texts.append([part["text"]])
            index = detail.get("index")
        if not parts:
            for at, block in enumerate(member(message, "thinking_blocks", path, list) or ()):
                part = _thinking_block(block, f"{path}.thinking_blocks[{at}]")
                parts.append(part)
                texts.append([part["text"]])
        for part, pieces in zip(parts, texts, strict=True):
            part["text"] = "".join(pieces)
        # The details also have the text of blocks after a signature. The rest of the text belongs to the first block.
        known = "".join(part["text"] for part in parts)
        rest = text.removesuffix(known) if text and text.endswith(known) else ""
        if not rest:
            return parts
        for part in parts:
            if not part["text"] and "redacted" not in part and not _signs_text(part):
                part["text"] = rest
                return parts
        return [{"type": "reasoning", "text": rest}, *parts]

    def _reasoning_detail(self, detail: Any, path: str) -> dict[str, Any]:
        require_type(detail, path, dict)
        author = member(detail, "format", path, str)
        provider = _author(author)
        part: dict[str, Any] = {"type": "reasoning", "text": ""}
        if provider is not None:
            part["provider"] = provider
        kind = required(detail, "type", path, str)
        if kind == "reasoning.encrypted":
            part["signature"] = required(detail, "data", path, str)
            if author is not None and author.endswith(_RESPONSES):
                # The entry has a summary if the client has merged the entries of a block.
                return {**part, "text": member(detail, "text", path, str) or ""}
            return {**part, "redacted": True}
        part["text"] = member(detail, "summary" if kind == "reasoning.summary" else "text", path, str) or ""
        signature = member(detail, "signature", path, str)
        return {**part, "signature": signature} if signature else part

    def _tool_call(self, call: Any, path: str) -> dict[str, Any] | None:
        require_type(call, path, dict)
        kind = member(call, "type", path, str) or "function"
        if kind == "custom":
            custom = required(call, "custom", path, dict)
            name = required(custom, "name", f"{path}.custom", str)
            given = member(custom, "input", f"{path}.custom", str) or ""
            return {"type": "tool_call", "call_id": required(call, "id", path, str), "name": name, "input": given}
        if kind != "function":
            self.lost.append(path[2:])
            return None
        self.lost += unknown_members(
            call, path, ("id", "type", "index", "function", "extra_content", "provider_specific_fields")
        )
        function = required(call, "function", path, dict)
        part = self._function(function, f"{path}.function", required(call, "id", path, str))
        extra = member(call, "extra_content", path, dict) or {}
        google = member(extra, "google", f"{path}.extra_content", dict) or {}
        signature = member(google, "thought_signature", f"{path}.extra_content.google", str)
        for holder, where in ((call, path), (function, f"{path}.function")):
            if not signature and "provider_specific_fields" in holder:  # LiteLLM's place
                fields = member(holder, "provider_specific_fields", where, dict) or {}
                signature = member(fields, "thought_signature", f"{where}.provider_specific_fields", str)
        return {**part, "signature": signature} if signature else part

    def _function(self, function: dict[str, Any], path: str, call_id: str) -> dict[str, Any]:
        return {
            "type": "tool_call",
            "call_id": call_id,
            "name": required(function, "name", path, str),
            "input": self.inputs.read(member(function, "arguments", path, str) or ""),
        }

    # -- tools and format --

    def _tools(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = []
        for at, tool in enumerate(member(body, "tools", "$", list) or ()):
            path = f"$.tools[{at}]"
            require_type(tool, path, dict)
            kind = member(tool, "type", path, str) or "function"
            if kind == "custom":
                self.moved[f"$.tools[{len(tools)}]"] = f"{path}.custom"
                tools.append(self._custom_tool(required(tool, "custom", path, dict), f"{path}.custom"))
                continue
            if kind != "function":
                self.lost.append(path[2:])
                continue
            self.lost += unknown_members(tool, path, ("type", "function", *CACHE_MARKS))
            self.moved[f"$.tools[{len(tools)}]"] = f"{path}.function"
            native = self._tool(required(tool, "function", path, dict), f"{path}.function")
            tools.append(native | cache_mark(tool, path))
        for at, function in enumerate(member(body, "functions", "$", list) or ()):
            require_type(function, f"$.functions[{at}]", dict)
            self.moved[f"$.tools[{len(tools)}]"] = f"$.functions[{at}]"
            tools.append(self._tool(function, f"$.functions[{at}]"))
        search = member(body, "web_search_options", "$", dict)
        if search is not None:
            options_at, own = f"$.tools[{len(tools)}].options", "$.web_search_options"
            self.moved[f"{options_at}.context_size"] = f"{own}.search_context_size"
            self.moved[f"{options_at}.user_location"] = f"{own}.user_location.approximate"
            self.moved[f"$.tools[{len(tools)}]"] = own
            self.lost += unknown_members(search, "$.web_search_options", ("search_context_size", "user_location"))
            size = search.get("search_context_size")
            options = {} if size in (None, "medium") else {"context_size": size}
            place = member(search, "user_location", "$.web_search_options", dict) or {}
            inner = member(place, "approximate", "$.web_search_options.user_location", dict)
            tools.append({"type": "web_search", "options": options | ({"user_location": inner} if inner else {})})
        return tools

    def _custom_tool(self, custom: dict[str, Any], path: str) -> dict[str, Any]:
        self.lost += unknown_members(custom, path, ("name", "description", "format"))
        form = member(custom, "format", path, dict) or {}
        grammar = member(form, "grammar", f"{path}.format", dict)
        if grammar is not None:  # the Responses API has it in one object
            form = {"type": "grammar", **grammar}
        described = member(custom, "description", path, str)
        tool = {"type": "custom", "name": required(custom, "name", path, str), "description": described, "format": form}
        return {key: value for key, value in tool.items() if value}

    def _tool(self, function: dict[str, Any], path: str) -> dict[str, Any]:
        # Clients of LiteLLM mark the tool or its function.
        self.lost += unknown_members(function, path, ("name", "description", "parameters", "strict", *CACHE_MARKS))
        return declared_function(function, path) | cache_mark(function, path)

    def _tool_choice(self, body: dict[str, Any]) -> str | dict[str, Any] | None:
        choice = member(body, "tool_choice", "$", str, dict)
        if isinstance(choice, dict):
            kind = member(choice, "type", "$.tool_choice", str) or "function"
            if kind not in ("function", "custom"):
                self.lost.append("tool_choice")
                return None
            named = required(choice, kind, "$.tool_choice", dict)
            return {"name": required(named, "name", f"$.tool_choice.{kind}", str)}
        if choice is not None:
            return _CHOICES.get(choice) or str(choice)
        legacy: str | dict[str, Any] | None = member(body, "function_call", "$", str, dict)
        if isinstance(legacy, dict):
            return {"name": required(legacy, "name", "$.function_call", str)}
        return legacy

    def _response_format(self, asked: dict[str, Any]) -> dict[str, Any]:
        path = "$.response_format"
        kind = required(asked, "type", path, str)
        self.lost += unknown_members(asked, path, ("type", "json_schema"))
        if kind != "json_schema":
            return {"type": "json" if kind == "json_object" else kind}
        given = required(asked, "json_schema", path, dict)
        path += ".json_schema"
        self.lost += unknown_members(given, path, ("name", "description", "schema", "strict"))
        schema = member(given, "schema", path, dict)
        description = member(given, "description", path, str)
        if schema is not None and description is not None:
            schema = {"description": description, **schema}
        native = {
            "type": kind,
            "name": member(given, "name", path, str),
            "schema": schema,
            "strict": member(given, "strict", path, bool),
        }
        return {key: value for key, value in native.items() if value is not None}


def _thinking_block(block: Any, path: str) -> dict[str, Any]:
    """Returns one of Anthropic's blocks of reasoning, which LiteLLM's answers have in `thinking_blocks`.

    Args:
        block: The block.
        path: Its path.
    """
    require_type(block, path, dict)
    is_redacted = required(block, "type", path, str) == "redacted_thinking"
    name = "data" if is_redacted else "signature"
    signature = member(block, name, path, str)
    part: dict[str, Any] = {"type": "reasoning", "text": member(block, "thinking", path, str) or ""}
    if signature:
        signed = open_signature(signature, f"{path}.{name}", author_of(_ANTHROPIC))
        part |= {key: signed[key] for key in ("signature", "provider") if key in signed}
        if is_redacted:
            part["redacted"] = True
    return part


def detail_format(provider: str | None, *, is_encrypted: bool) -> str | None:
    """Returns the name for the author of a signature: OpenRouter's, else one of ours. None if the author is unknown.

    Args:
        provider: The provider's name in events.
        is_encrypted: The signature is the whole reasoning, encrypted.
    """
    if not provider:
        return None
    known = detail_format_of(provider)
    if known is not None:
        return known
    return f"{provider}{_RESPONSES}" if is_encrypted else f"{_OURS}{provider}{_VERSION}"


def _author(detail_format: str | None) -> str | None:
    """Returns the provider for OpenRouter's name of an author, or None if the name is unknown."""
    if not detail_format:
        return None
    if detail_format.startswith(_OURS):
        return detail_format.removeprefix(_OURS).removesuffix(_VERSION) or None
    known = author_by_detail_format(detail_format)
    if known is not None or not detail_format.endswith(_RESPONSES):
        return known
    return detail_format.removesuffix(_RESPONSES) or None


def _signs_text(part: dict[str, Any]) -> bool:
    """Returns whether a reasoning part is the signature of the visible text."""
    return not part["text"] and signs_texts(part.get("provider"))
