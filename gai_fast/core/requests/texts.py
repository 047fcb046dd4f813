"""The texts of a request, each with its place: those of native requests, and of bodies in a client's dialect.

Owns how texts are found, and how a request gets others in their places; `dialects.py` says of each member whether it
is one. Knows no guard.

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

from gai_fast.core.requests.dialects import (
    BODY,
    CONTENT,
    FORMS,
    MEDIUM,
    MESSAGE,
    PART,
    PLACES,
    PROOFS,
    SETTINGS,
    SOURCE,
    TYPES,
    Kind,
)
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
_OUTPUT_TOKENS: Final = ("stop_token_ids", "allowed_token_ids")
"""Lists of tokens of the answer, not of the conversation."""
_SPEAKERS: Final = ("user", "assistant", "system", "developer")
"""The roles whose `name` is the caller's own: that of other roles is a tool's."""
_TOOL_ROLES: Final = ("tool", "function", "model", "ipython")
_ROLES: Final = frozenset((*_SPEAKERS, *_TOOL_ROLES))
"""The roles of dialects. Any other one is a text: a server of open models writes it into its prompt."""
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
            _add(value, (*path, name), BODY.get(name, _FREE), _NO_PATHS, found, pause)
    return found


def has_tokens(body: Mapping[str, Any]) -> bool:
    """Returns whether a member of a client's body is a list of token ids, or a list of such lists.

    Args:
        body: The client's JSON object, or an object of raw members.
    """
    for name, value in body.items():
        if isinstance(value, list) and name not in SETTINGS and name not in _OUTPUT_TOKENS:
            kinds = set(map(type, value))
            if int in kinds or (list in kinds and any(int in map(type, each) for each in value if type(each) is list)):
                return True
    return False


def _is_setting(name: str, value: Any) -> bool:
    """Returns whether a member of a whole request has no text: rules 2 and 3."""
    return name in SETTINGS or (name in FORMS and isinstance(value, dict))


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
        if place in (PART, MESSAGE):
            proofs = (*proofs, path) if _proofs(value, path) else proofs
        found.append(Text(path, _quoted(value), "value", proofs, pause))
        return
    own = _proofs(value, path) if kind.is_signed else _NO_PATHS
    if own:
        proofs = (*proofs, *own)
    for name, each in value.items():
        below = kind.within.get(name, kind.others)
        if isinstance(each, str):
            is_silent = name in kind.silent or below == MEDIUM
            if not is_silent or _is_said(name, each, value, place):
                form: Form = "json" if name == _ARGUMENTS else "text"
                found.append(Text((*path, name), each, form, proofs, pause))
        elif isinstance(each, (dict, list)) and name not in kind.silent:
            _add(each, (*path, name), below, proofs, found, pause)


def _kind(value: dict[str, Any], place: str) -> Kind | None:
    """Returns the kind of an object. None if no dialect has such an object in its place."""
    if place in (PART, MESSAGE):
        name = value.get("type")
        if isinstance(name, str) and name != MESSAGE:
            kind = TYPES.get(name)
            return _TOOL_RESULT if kind is None and name.endswith("_tool_result") else kind
        return PLACES[MESSAGE] if place == MESSAGE else None
    if place == SOURCE and value.get("type") not in _OPAQUE_SOURCES:
        return _TEXT_SOURCE
    return PLACES.get(place)


def _is_said(name: str, text: str, value: dict[str, Any], place: str) -> bool:
    """Returns whether a member of a message, which is no text as a rule, is one here."""
    if place != MESSAGE and place != CONTENT:
        return False
    if name == "role":
        return text not in _ROLES
    return name == "name" and value.get("type", MESSAGE) == MESSAGE and value.get("role") not in _TOOL_ROLES


def _proofs(value: dict[str, Any], path: Path) -> Sequence[Path]:
    """Returns the places of what proves the texts of an object: rule 4."""
    signatures: list[Path] = [(*path, name) for name in PROOFS if value.get(name)]
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

_TEXT_SOURCE: Final = Kind(("type", "media_type", *PROOFS), {"content": PART})
_TOOL_RESULT: Final = TYPES["tool_result"]
"""Also of any type that ends so."""


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
