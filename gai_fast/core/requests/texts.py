"""The texts of a request, each with its place: those of native requests, and of bodies in a client's dialect.

Owns what is a text and what is not, and how a request gets other texts in their places. Knows no guard.

1. Texts are those of every role and part: system, query, prompts, messages, tool results, reasoning, and the arguments
   of earlier calls, which are JSON: each string and each key of it is a text. Arguments that are no JSON are one text.
2. No texts are definitions of tools, schemas, ids, names of tools, values of which a dialect has a list, metadata,
   images, sounds, files, and what is encrypted.
3. A member that no dialect is known to have is a text: only what is known not to be one is left out. So are raw members
   (`extra`, `provider_options`), which may replace the whole conversation, and members that a server alone knows.
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

from gai_fast.kernels import encode_json, parse_exact
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
_BREATH: Final = 1000
"""Strings between two calls of `pause`: a millisecond."""

_ARGUMENTS: Final = "arguments"
_INPUT: Final = "input"
_NO_TEXTS: Final = frozenset(
    (
        *("type", "id", "role", "name", "object", "status", "model", "detail", "format", "phase", "version"),
        *("tools", "parameters", "input_schema", "output_schema", "schema", "annotations", "logprobs"),
        *("image_url", "input_audio", "audio", "file", "file_data", "file_url", "filename", "media_type"),
        *("cache_control", "prompt_cache_breakpoint", "data", "caller", "page_age", "encrypted_index"),
    )
)
"""The members of messages, items and parts that have no text: rule 2."""
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
    )
)
"""The members of whole requests, in any dialect, that have no text of the conversation: rule 2."""
_FORM: Final = "text"
"""The member of Responses requests that has the form of the answer, as an object."""
_OUTPUT_TOKENS: Final = ("stop_token_ids", "allowed_token_ids")
"""Lists of tokens of the answer, not of the conversation."""
_SPEAKERS: Final = ("user", "assistant", "system", "developer")
"""The roles whose `name` is the caller's own: that of other roles is a tool's."""
_ROLES: Final = frozenset((*_SPEAKERS, "tool", "function", "model", "ipython"))
"""The roles of dialects. Any other one is a text: a server of open models writes it into its prompt."""
_AUDIO: Final = "audio"
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

    __slots__ = ("_ends", "form", "path", "proofs", "source", "strings")

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
        return parse_exact(text) if self.form == "value" else text

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


def _quoted(text: str) -> str:
    """Returns a text as a JSON string; half a pair of surrogates stays an escape."""
    written = json.dumps(text, ensure_ascii=False)
    return written if written.isascii() or not _HALVES.search(written) else json.dumps(text)


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
            _add(value, (*path, name), _NO_PATHS, found, pause)
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
    if name in _SETTINGS or name in _NO_TEXTS or name in _SIGNATURES or name.endswith(("_id", "_ids")):
        return True
    return name == _FORM and isinstance(value, dict)


def _add(
    value: dict[str, Any] | list[Any], path: Path, proofs: Sequence[Path], found: list[Text], pause: Pause
) -> None:
    """Adds the texts within a value.

    Args:
        value: The value.
        path: Its place.
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
                _add(each, (*path, at), proofs, found, pause)
        return
    own = _proofs(value, path)
    if own:
        proofs = (*proofs, *own)
    for name, each in value.items():
        if name == "source":
            _add_source(each, (*path, name), proofs, found, pause)
        elif name == "role" or name == "name":
            if isinstance(each, str) and (each not in _ROLES if name == "role" else value.get("role") in _SPEAKERS):
                found.append(Text((*path, name), each))
        elif name == _AUDIO and isinstance(each, dict):  # an earlier answer, with its words beside it
            _add(each, (*path, name), proofs, found, pause)
        elif name in _NO_TEXTS or name in _SIGNATURES or name.endswith(("_id", "_ids")):
            continue
        elif isinstance(each, str):
            form: Form = "json" if name == _ARGUMENTS else "text"
            found.append(Text((*path, name), each, form, proofs, pause))
        elif isinstance(each, (dict, list)):
            if name in (_ARGUMENTS, _INPUT):
                found.append(Text((*path, name), encode_json(each).decode(), "value", proofs, pause))
            else:
                _add(each, (*path, name), proofs, found, pause)


def _add_source(source: Any, path: Path, proofs: Sequence[Path], found: list[Text], pause: Pause) -> None:
    """Adds the texts of a document that is given as text."""
    if isinstance(source, str):
        found.append(Text(path, source, proofs=proofs))
    elif isinstance(source, dict) and source.get("type") not in _OPAQUE_SOURCES:
        text = source.get("data")
        if isinstance(text, str):
            found.append(Text((*path, "data"), text, proofs=proofs))
        _add(source, path, proofs, found, pause)


def _proofs(value: dict[str, Any], path: Path) -> list[Path]:
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

    __slots__ = ("_below", "_has_value", "_value", "is_left_out")

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
