"""The texts of a request, each with its place: those of native requests, and of bodies in a client's dialect.

Owns what is a text and what is not, and how a request gets other texts in their places. Knows no guard.

1. Texts are those of every role and part: system, query, prompts, messages, tool results, reasoning, and the arguments
   of earlier calls, which are JSON: each string and each key of it is a text. Arguments that are no JSON are one text.
2. No texts are definitions of tools, schemas, ids, names of tools, values of which a dialect has a list, metadata,
   images, sounds, files, and what is encrypted.
3. A member that no dialect is known to have is a text: only what a dialect says is none is left out, in the place where
   the dialect has it. So are raw members (`extra`, `provider_options`), which may replace the whole conversation, and
   members that a server alone knows. Of an object that no dialect has, each string and each key is a text: a document
   and an answer of a tool may name their members as they like.
4. What proves a text (a signature, encrypted reasoning, probabilities of its tokens) is named with it: it cannot stay
   beside another text. Reasoning is left out with its signature; a call loses its signature alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from gai_fast.model.request import (
    Message,
    ProviderBlockPart,
    ReasoningPart,
    Request,
    TextPart,
    ToolCallPart,
)

Path = tuple[str | int, ...]
"""The names of members and the places in lists that lead to a value."""

Form = Literal["text", "json", "raw", "value"]
"""How a text stands in its request: as itself, as JSON in a string, as JSON text (`Raw`), as a parsed JSON value."""

Pause = Callable[[], object]


def _no_pause() -> None:
    """Does nothing."""


_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_NO_PATHS: Final[tuple[Path, ...]] = ()
_NO_PLACES: Final[dict[str, str]] = {}
_BREATH: Final = 1000
"""Strings between two calls of `pause`: a millisecond."""

_ARGUMENTS: Final = "arguments"
_SETTINGS: Final = frozenset(
    (
        *("stream", "stream_options", "background", "store", "n", "best_of", "echo", "seed", "temperature", "top_p"),
        *("top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "max_tokens"),
        *("max_completion_tokens", "max_output_tokens", "stop", "stop_sequences", "logit_bias", "top_logprobs"),
        *("functions", "function_call", "tool_choice", "parallel_tool_calls", "web_search_options", "mcp_servers"),
        *("audio", "response_format", "output_config", "output_format", "modalities", "reasoning", "reasoning_effort"),
        *("thinking", "verbosity", "include", "truncation", "conversation", "container", "diagnostics", "betas"),
        *("user", "safety_identifier", "metadata", "client_metadata", "service_tier", "access_programs"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "provider", "models", "api_version"),
        *("generationConfig", "safetySettings", "toolConfig", "cachedContent"),
        *("model", "tools", "logprobs", "cache_control", "session_id", "previous_response_id"),
        *("user_profile_id", "workspace_id"),
    )
)
"""The members of whole requests, in any dialect, that have no text of the conversation: rule 2."""
_FORMS: Final = ("text", "format")
"""The members of Responses requests and of Ollama's that have the form of the answer, as an object."""
_OUTPUT_TOKENS: Final = ("stop_token_ids", "allowed_token_ids")
"""Lists of tokens of the answer, not of the conversation."""
_SPEAKERS: Final = ("user", "assistant", "system", "developer")
"""The roles whose `name` is the caller's own: that of other roles is a tool's."""
_TOOL_ROLES: Final = ("tool", "function", "model", "ipython")
_ROLES: Final = frozenset((*_SPEAKERS, *_TOOL_ROLES))
"""The roles of dialects. Any other one is a text: a server of open models writes it into its prompt."""
_SIGNATURES: Final = (
    *("signature", "encrypted_content", "thought_signature", "thoughtSignature", "extra_content"),
    *("reasoning_signature", "reasoning_opaque"),
)
"""The members that prove the text beside them: Anthropic's, OpenAI's, Gemini's, and those of servers that pass them on
in the chat dialect."""
_ENCRYPTED: Final = "encrypted_content"
_LOGPROBS: Final = "logprobs"
_REASONING: Final = ("reason", "think")
"""A part of the types of reasoning in all dialects."""
_OPAQUE_SOURCES: Final = ("base64", "url", "file")
"""The types of Anthropic's `source` that hold no text."""


class _Kind:
    """A kind of objects that dialects have.

    Args:
        silent: The members that are no text.
        within: The members whose objects are of dialects too, each with the place that they stand in.
        others: The place of the objects in other members.
        is_signed: Whether it may have a proof of its texts.
    """

    def __init__(
        self,
        silent: Iterable[str],
        within: Mapping[str, str] = _NO_PLACES,
        *,
        others: str = "",
        is_signed: bool = True,
    ) -> None:
        self.silent = frozenset((*silent, *_SIGNATURES) if is_signed else silent)
        self.within = within
        self.others = others
        self.is_signed = is_signed


class Text:
    """A text of a request, or a JSON value whose strings are texts.

    Args:
        path: Its place.
        source: The text, or the JSON text.
        form: How it stands there.
        proofs: The places of what proves it, which do not stay beside another text.
        pause: As of `texts_of`, for each `_BREATH` strings of a JSON value.

    Attributes:
        strings: The texts: one, or those of the JSON value.
    """

    def __init__(
        self,
        path: Path,
        source: str,
        form: Form = "text",
        proofs: Sequence[Path] = _NO_PATHS,
        pause: Pause = _no_pause,
    ) -> None:
        self.path = path
        self.source = source
        self.form: Form = form
        self.proofs = proofs
        self.strings: list[str] = [source]
        self._ends: list[tuple[int, int]] | None = None
        if form != "text" and _is_json(source):
            ends: list[tuple[int, int]] = []
            self.strings = []
            for each in _STRING.finditer(source):
                if not len(ends) % _BREATH:
                    pause()
                ends.append(each.span())
                self.strings.append(_decoded(each[0]))
            self._ends = ends

    def with_strings(self, strings: Sequence[str]) -> Any:
        """Returns the value with other texts, as it stands in its request; texts that are the same stay as written.

        Args:
            strings: The texts, in the order of `strings`.
        """
        text = strings[0] if self._ends is None else self._written(strings, self._ends)
        if self.form == "raw":
            return Raw(text.encode())
        return json.loads(text) if self.form == "value" else text

    def _written(self, strings: Sequence[str], spans: Sequence[tuple[int, int]]) -> str:
        source = self.source
        parts: list[str] = []
        cursor = 0
        for at, (start, end) in enumerate(spans):
            if strings[at] != self.strings[at]:
                parts += (source[cursor:start], _quoted(strings[at]))
                cursor = end
        return "".join([*parts, source[cursor:]])


def _decoded(written: str) -> str:
    """Returns the text of a JSON string; a parser is asked for escapes alone, at three times the cost."""
    return json.loads(written) if "\\" in written else written[1:-1]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _quoted(value: Any) -> str:
    """Returns a text, or another value, as JSON; half a pair of surrogates stays an escape."""
    written = json.dumps(value, ensure_ascii=False)
    return written if written.isascii() or not _HALVES.search(written) else json.dumps(value)


_HALVES: Final = re.compile(r"[\ud800-\udfff]")


# ---- native requests -----------------------------------------------------------------------------------------------


def texts_of(request: Request, pause: Pause = _no_pause) -> list[Text]:
    """Returns the texts of a native request, in the order of the conversation.

    Args:
        request: The request.
        pause: Called for each message: beside the loop it lets the loop go on.
    """
    found: list[Text] = []
    if isinstance(request.system, str):
        found.append(Text(("system",), request.system))
    messages: list[Message] = request.messages
    for at, message in enumerate(messages):
        pause()
        content = message.content
        if isinstance(content, str):
            found.append(Text(("messages", at, "content"), content))
            continue
        for place, part in enumerate(content):
            _add_part(part, ("messages", at, "content", place), found, pause)
    if isinstance(request.query, str):
        found.append(Text(("query",), request.query))
    for raw, path in _raw_members(request):
        found += texts_in(raw, (), pause, path)
    return found


def _raw_members(request: Request) -> list[tuple[dict[str, Any], Path]]:
    """Returns the members that a native request adds to its provider's, each object with its place."""
    found: list[tuple[dict[str, Any], Path]] = []
    if request.provider_options:
        found += [(options, ("provider_options", name)) for name, options in request.provider_options.items()]
    if request.extra:
        found.append((request.extra, ("extra",)))
    return found


def names_tokens(request: Request) -> bool:
    """Returns whether a raw member of a native request is a list of token ids, in which nobody finds a text."""
    return any(has_tokens(raw) for raw, _ in _raw_members(request))


def _add_part(part: Struct, path: Path, found: list[Text], pause: Pause) -> None:
    if isinstance(part, TextPart):
        found.append(Text((*path, "text"), part.text))
    elif isinstance(part, ReasoningPart):
        if part.text:
            found.append(Text((*path, "text"), part.text, proofs=(path,) if part.signature else _NO_PATHS))
    elif isinstance(part, ToolCallPart):
        proofs = ((*path, "signature"),) if part.signature else _NO_PATHS
        found.append(Text((*path, "input"), bytes(part.input).decode(), "raw", proofs, pause))
    elif isinstance(part, ProviderBlockPart):  # nobody knows what its parts mean
        found.append(Text((*path, "block"), bytes(part.block).decode(), "raw", (path,), pause))


# ---- bodies in a client's dialect -----------------------------------------------------------------------------------


def texts_in(body: Mapping[str, Any], members: Iterable[str], pause: Pause = _no_pause, path: Path = ()) -> list[Text]:
    """Returns the texts of a client's body.

    Args:
        body: The client's JSON object.
        members: The names of its members that have texts, in their order. Others that are no settings come behind them.
        pause: As for `texts_of`, for each item of a list.
        path: The place of the object.
    """
    found: list[Text] = []
    first = tuple(members)
    for name in (*first, *[each for each in body if each not in first and not _is_setting(each, body[each])]):
        value = body.get(name)
        if isinstance(value, str):
            found.append(Text((*path, name), value))
        elif isinstance(value, (dict, list)):
            _add(value, (*path, name), _BODY.get(name, _FREE), _NO_PATHS, found, pause)
    return found


def has_tokens(body: Mapping[str, Any]) -> bool:
    """Returns whether a member of a client's body is a list of token ids, or a list of such lists.

    Args:
        body: The client's JSON object, or an object of raw members.
    """
    for name, value in body.items():
        if isinstance(value, list) and name not in _SETTINGS and name not in _OUTPUT_TOKENS:
            kinds = set(map(type, value))
            if int in kinds or (list in kinds and any(int in map(type, each) for each in value if type(each) is list)):
                return True
    return False


def _is_setting(name: str, value: Any) -> bool:
    """Returns whether a member of a whole request has no text: rules 2 and 3."""
    return name in _SETTINGS or (name in _FORMS and isinstance(value, dict))


def _add(
    value: dict[str, Any] | list[Any],
    path: Path,
    place: str,
    proofs: Sequence[Path],
    found: list[Text],
    pause: Pause,
) -> None:
    """Adds the texts within a value.

    Args:
        value: The value.
        path: Its path.
        place: The place of dialects that it stands in.
        proofs: The places of what proves all its texts.
        found: Gets the texts.
        pause: As for `texts_in`.
    """
    if isinstance(value, list):
        for at, each in enumerate(value):
            pause()
            if isinstance(each, str):
                found.append(Text((*path, at), each, proofs=proofs))
            elif isinstance(each, (dict, list)):
                _add(each, (*path, at), place, proofs, found, pause)
        return
    kind = _kind(value, place)
    if kind is None:
        if place in (_PART, _MESSAGE):
            proofs = (*proofs, path) if _proofs(value, path) else proofs
        found.append(Text(path, _quoted(value), "value", proofs, pause))
        return
    own = _proofs(value, path) if kind.is_signed else _NO_PATHS
    if own:
        proofs = (*proofs, *own)
    for name, each in value.items():
        below = kind.within.get(name, kind.others)
        if isinstance(each, str):
            is_silent = name in kind.silent or below == _MEDIUM
            if not is_silent or _is_said(name, each, value, place):
                form: Form = "json" if name == _ARGUMENTS else "text"
                found.append(Text((*path, name), each, form, proofs, pause))
        elif isinstance(each, (dict, list)) and name not in kind.silent:
            _add(each, (*path, name), below, proofs, found, pause)


def _kind(value: dict[str, Any], place: str) -> _Kind | None:
    """Returns the kind of an object. None if no dialect has such an object in its place."""
    if place in (_PART, _MESSAGE):
        name = value.get("type")
        if isinstance(name, str) and name != _MESSAGE:
            kind = _TYPES.get(name)
            return _TOOL_RESULT if kind is None and name.endswith("_tool_result") else kind
        return _PLACES[_MESSAGE] if place == _MESSAGE else None
    if place == _SOURCE and value.get("type") not in _OPAQUE_SOURCES:
        return _TEXT_SOURCE
    return _PLACES.get(place)


def _is_said(name: str, text: str, value: dict[str, Any], place: str) -> bool:
    """Returns whether a member of a message, which is no text as a rule, is one here."""
    if place != _MESSAGE and place != _CONTENT:
        return False
    if name == "role":
        return text not in _ROLES
    return name == "name" and value.get("type", _MESSAGE) == _MESSAGE and value.get("role") not in _TOOL_ROLES


def _proofs(value: dict[str, Any], path: Path) -> Sequence[Path]:
    """Returns the places of what proves the texts of an object: rule 4."""
    signatures: list[Path] = [(*path, name) for name in _SIGNATURES if value.get(name)]
    if signatures:
        kind = value.get("type")
        is_reasoning = isinstance(kind, str) and any(each in kind for each in _REASONING)
        if is_reasoning or value.get(_ENCRYPTED):
            signatures = [path]
    if value.get(_LOGPROBS):
        signatures.append((*path, _LOGPROBS))
    return signatures


_FREE: Final = ""
"""The place of objects that no dialect has."""
_MESSAGE: Final = "message"
_PART: Final = "part"
_CALL: Final = "call"
_FUNCTION: Final = "function"
_MEDIUM: Final = "medium"
_SOURCE: Final = "source"
_CONTENT: Final = "content"
_GENERATE: Final = "contents"
_GENERATE_CALL: Final = "contents_call"
_PROMPT: Final = "prompt"
_VARIABLES: Final = "variables"

_BODY: Final[dict[str, str]] = {
    "messages": _MESSAGE,
    "input": _MESSAGE,
    "system": _PART,
    "prediction": _PART,
    "prompt": _PROMPT,
    "contents": _CONTENT,
    "systemInstruction": _CONTENT,
    "system_instruction": _CONTENT,
}
"""The members of whole requests whose objects are known: of chat, Responses, Messages, and Gemini's."""

_OF_PART: Final = ("type", "cache_control", "prompt_cache_breakpoint")
_OF_ITEM: Final = ("type", "id", "status", "call_id", "phase")
_OF_CALL: Final = (*_OF_PART, "id", "name", "caller")
_PARTS: Final = {"content": _PART}
_TOOL_RESULT: Final = _Kind((*_OF_PART, "tool_use_id", "caller"), _PARTS)
_TEXT_SOURCE: Final = _Kind(("type", "media_type"), _PARTS)

_PLACES: Final[dict[str, _Kind]] = {
    _MESSAGE: _Kind(
        ("role", "name", "tool_call_id", *_OF_ITEM, *_OF_PART),
        {
            "content": _PART,
            "tool_calls": _CALL,
            "function_call": _FUNCTION,
            "audio": _MEDIUM,
            "reasoning_details": _PART,
            "thinking_blocks": _PART,
        },
    ),
    _CALL: _Kind(("type", "id"), {"function": _FUNCTION, "custom": _FUNCTION}),
    _FUNCTION: _Kind(("name",), is_signed=False),
    _MEDIUM: _Kind(
        (
            *("id", "url", "detail", "data", "format", "expires_at", "file_id", "file_data", "filename"),
            *("mimeType", "mime_type", "fileUri", "file_uri"),
        ),
        is_signed=False,
    ),
    _SOURCE: _Kind(("type", "media_type", "data", "url", "file_id"), is_signed=False),
    _CONTENT: _Kind(("role",), {"parts": _GENERATE}),
    _GENERATE: _Kind(
        (),
        {
            **dict.fromkeys(("inlineData", "inline_data", "fileData", "file_data"), _MEDIUM),
            **dict.fromkeys(("functionCall", "function_call", "functionResponse", "function_response"), _GENERATE_CALL),
        },
    ),
    _GENERATE_CALL: _Kind(("id", "name", "scheduling")),
    _PROMPT: _Kind(("id", "version"), {"variables": _VARIABLES}, is_signed=False),
    _VARIABLES: _Kind((), others=_PART, is_signed=False),
}
"""The objects that dialects have without a `type`, by their places."""

_TYPES: Final[dict[str, _Kind]] = {
    # Parts of messages: chat, Responses, Anthropic's, and those that servers of the chat dialect have.
    **dict.fromkeys(
        ("text", "input_text", "summary_text", "reasoning_text", "refusal", "compaction", "content"),
        _Kind((*_OF_PART, "id"), {"content": _PART, "citations": _PART}),
    ),
    "output_text": _Kind((*_OF_PART, "annotations", "logprobs")),
    **dict.fromkeys(
        ("thinking", "reasoning.text", "reasoning.summary"), _Kind((*_OF_PART, "id", "format"), {"thinking": _PART})
    ),
    **dict.fromkeys(("redacted_thinking", "reasoning.encrypted"), _Kind((*_OF_PART, "id", "format", "data"))),
    "image_url": _Kind(_OF_PART, {"image_url": _MEDIUM}),
    "input_audio": _Kind(_OF_PART, {"input_audio": _MEDIUM}),
    "file": _Kind(_OF_PART, {"file": _MEDIUM}),
    "input_image": _Kind((*_OF_PART, "image_url", "file_id", "detail")),
    "computer_screenshot": _Kind((*_OF_PART, "image_url", "file_id", "detail")),
    "input_file": _Kind((*_OF_PART, "file_data", "file_url", "file_id", "filename", "detail")),
    "image": _Kind(_OF_PART, {"source": _SOURCE}),
    "document": _Kind(_OF_PART, {"source": _SOURCE}),
    "search_result": _Kind(_OF_PART, _PARTS),
    "container_upload": _Kind((*_OF_PART, "file_id")),
    "tool_use": _Kind(_OF_CALL),
    "server_tool_use": _Kind(_OF_CALL),
    "mcp_tool_use": _Kind((*_OF_CALL, "server_name")),
    "tool_result": _TOOL_RESULT,
    "web_search_result": _Kind((*_OF_PART, "page_age")),
    "web_fetch_result": _Kind((*_OF_PART, "retrieved_at"), _PARTS),
    **dict.fromkeys(
        (
            *("char_location", "page_location", "content_block_location", "search_result_location"),
            "web_search_result_location",
        ),
        _Kind((*_OF_PART, "file_id", "encrypted_index")),
    ),
    # Items of Responses.
    "reasoning": _Kind(_OF_ITEM, {"content": _PART, "summary": _PART}),
    "function_call": _Kind((*_OF_ITEM, "name")),
    "custom_tool_call": _Kind((*_OF_ITEM, "name")),
    **dict.fromkeys(("function_call_output", "custom_tool_call_output"), _Kind(_OF_ITEM, {"output": _PART})),
    "computer_call_output": _Kind(_OF_ITEM, {"output": _PART}),
    "item_reference": _Kind(("type", "id")),
    "mcp_call": _Kind((*_OF_ITEM, "name", "server_label", "approval_request_id")),
    "mcp_approval_request": _Kind((*_OF_ITEM, "name", "server_label")),
    "mcp_approval_response": _Kind((*_OF_ITEM, "approval_request_id")),
    "mcp_list_tools": _Kind((*_OF_ITEM, "server_label", "tools")),
    "file_search_call": _Kind(_OF_ITEM),
    "web_search_call": _Kind(_OF_ITEM),
    "code_interpreter_call": _Kind((*_OF_ITEM, "container_id")),
    "image_generation_call": _Kind((*_OF_ITEM, "result")),
    **dict.fromkeys(
        (
            *("computer_call", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"),
            *("apply_patch_call", "apply_patch_call_output", "tool_search_call", "tool_search_output"),
        ),
        _Kind(_OF_ITEM),
    ),
}
"""The objects that dialects have in messages, items and parts, by their `type`."""


# ---- other texts in their places ------------------------------------------------------------------------------------


def with_texts(request: Any, texts: Mapping[Path, Any], left_out: Collection[Path]) -> Any:
    """Returns a request with other values in some places. What does not change is shared with the request.

    Args:
        request: A native request, or a client's body.
        texts: The new values (`Text.with_strings`), by their places.
        left_out: The places of what is left out.
    """
    changes = _Changes()
    for path, value in texts.items():
        changes.at(path).set(value)
    for path in left_out:
        changes.at(path).leave_out()
    return changes.applied(request)


class _Changes:
    """The changes within a value."""

    def __init__(self) -> None:
        self._below: dict[str | int, _Changes] = {}
        self._value: Any = None
        self._has_value = False
        self.is_left_out = False

    def at(self, path: Path) -> _Changes:
        """Returns the changes of a place within the value."""
        changes = self
        for step in path:
            below = changes._below.get(step)
            if below is None:
                below = changes._below[step] = _Changes()
            changes = below
        return changes

    def set(self, value: Any) -> None:
        """Replaces the value."""
        self._value = value
        self._has_value = True

    def leave_out(self) -> None:
        """Leaves the value out."""
        self.is_left_out = True

    def applied(self, value: Any) -> Any:
        """Returns the value with its changes."""
        if self._has_value:
            return self._value
        if not self._below:
            return value
        if isinstance(value, list):
            items = [*value]
            for step in sorted(self._below, reverse=True, key=_place):
                at, change = _place(step), self._below[step]
                if change.is_left_out:
                    del items[at]
                else:
                    items[at] = change.applied(items[at])
            return items
        if isinstance(value, dict):
            members = {**value}
            for name, change in self._below.items():
                if change.is_left_out:
                    members.pop(str(name), None)
                else:
                    members[str(name)] = change.applied(members[str(name)])
            return members
        fields = {
            str(name): UNSET if change.is_left_out else change.applied(getattr(value, str(name)))
            for name, change in self._below.items()
        }
        return replace(value, **fields)


def _place(step: str | int) -> int:
    assert isinstance(step, int)
    return step
