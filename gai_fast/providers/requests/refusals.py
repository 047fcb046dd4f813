"""Members that an upstream refuses by name: which of them a request can do without, and which one an error names.

A request can do without the members that the gateway has added, and without those that it has translated under
`on_unsupported = "drop"`. Knows no provider.

All work is linear in the request: the words of an error are found once, and its text is short. Members are looked for
among the words, not one after the other in the text, and only those that are named are looked for in the request's
texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from gai_fast.core.json.chunks import label, objects
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.providers.requests.limits import LIMITS

_NEEDED: Final = frozenset(
    "contents input instructions max_tokens messages model prompt stream system systemInstruction tools".split()
)
"""Members that cannot be left out: without one, a request means something else or is invalid."""
_ADDED_TO_BODIES: Final = "stream_options"
"""The member that is added to a client's body, to count tokens."""
_CODES: Final = frozenset(("invalid_request", "unsupported"))
_HUMP: Final = re.compile(r"(?<=[a-z])([A-Z])")
_DISTINCT: Final = re.compile(r"[_.]|[a-z][A-Z]")
"""The marks by which a member's name differs from other words."""


class RefusedMember(NamedTuple):
    """A member that an upstream refuses and that a request can do without."""

    path: str
    is_lacking: bool
    """The upstream does not know or support the member, regardless of its value."""
    is_ours: bool
    """The gateway adds the member to every request."""


def may_name_a_member(error: Error) -> bool:
    """Returns whether an error is an upstream's refusal of a request."""
    return error.code in _CODES and error.provider is not None


def dispensable(sent: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Returns the paths of the members that a request can do without, the longest first.

    Args:
        sent: The body that was sent.
        names: The names of its members that the gateway has added or translated.
    """
    return sorted(paths_within(sent, unneeded(names)), key=len, reverse=True)


def unneeded(names: Iterable[str]) -> list[str]:
    """Returns the names of members without which a request stays the same request."""
    return [name for name in names if name not in _NEEDED]


def paths_within(sent: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Yields the paths of members of a body, then those of the members within them, level by level.

    Paths that are too long to be in an error are left out: a path repeats the names before its own, which a caller may
    have written.

    Args:
        sent: The body.
        names: The names of the members.
    """
    room, longest = LIMITS.named_members, LIMITS.named_path
    level = [(name, sent[name]) for name in islice(names, room) if name in sent and len(name) <= longest]
    for _ in range(LIMITS.named_depth):
        below: list[tuple[str, Any]] = []
        for path, value in level:
            yield path
            if isinstance(value, dict):
                rest = longest - len(path) - 1
                inner = islice(value.items(), max(0, room - len(level) - len(below)))
                below += [(f"{path}.{name}", each) for name, each in inner if len(name) <= rest]
        room -= len(level)
        level = below


def added_to(body: Mapping[str, Any], sent: Mapping[str, Any]) -> list[str]:
    """Returns the names of the members that were added to a client's body."""
    return [name for name in sent if name not in body or name == _ADDED_TO_BODIES]


def has_path(body: Mapping[str, Any], path: str) -> bool:
    """Returns whether a body has a member at a path. Its name may have dots, and its value may be null.

    Args:
        body: The body.
        path: The path, as `paths_within` yields it.
    """
    # mypyc's generators have no `in`.
    return any(each == path for each in paths_within(body, [name for name in body if path.startswith(name)]))


def value_at(body: Mapping[str, Any], path: str) -> Any:
    """Returns the value of the member at a path of a body. None if there is none."""
    holder: Any = body
    for name in path.split("."):
        holder = holder.get(name) if isinstance(holder, Mapping) else None
    return holder


def named_member(error: Error, paths: Iterable[str]) -> str | None:
    """Returns the path that an error names, the first if it names several. None if it names none.

    Args:
        error: The upstream's error.
        paths: The paths, the longest first.
    """
    return next(named_members(error, paths), None)


def named_members(error: Error, paths: Iterable[str]) -> Iterator[str]:
    """Yields the paths that an error names, those that it names in full first.

    Args:
        error: The upstream's error.
        paths: The paths, the longest first.
    """
    words = _Words(_text(error))
    param = (error.details or {}).get("param")
    others: list[str] = []
    for path in paths:
        if param == path or words.name(path):
            yield path
        else:
            others.append(path)
    for path in others:
        name = path.rpartition(".")[2]
        is_named = name != path and (words.name(name) or words.name(_snake(name)))
        if is_named or words.name(_snake(path)):
            yield path


def unquoted_member(error: Error, paths: Iterable[str], request: Any) -> str | None:
    """Returns the path that an error names, as `named_member`, unless it only quotes the request.

    By such a quotation one caller could have a member left out of the requests of all.

    Args:
        error: The upstream's error.
        paths: The paths, the longest first.
        request: The client's request.
    """
    body: Any = None
    for path in islice(named_members(error, paths), LIMITS.named_checked):
        if body is None:
            body = request if isinstance(request, dict) else msgspec.json.decode(msgspec.json.encode(request))
        name = path.rpartition(".")[2]
        if not _is_quoted({name, _snake(name)}, body, error.message):
            return path
    return None


def _is_quoted(names: set[str], body: Any, text: str) -> bool:
    """Returns whether a text has a string of a request up to a name that is in it: its end may be cut off."""
    size = len(text)
    for value, is_key in _texts(body):
        for name in names:
            at = value.find(name, 0, size)
            if at < 0 or (is_key and (at == 0)):  # `max_tokens_to_sample` quotes no `max_tokens`
                continue
            if value[: at + len(name)] in text:
                return True
    return False


def _texts(body: Any) -> Iterator[tuple[str, bool]]:
    """Yields the strings of a request, and whether each is the name of a member."""
    waiting = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value, False
        elif isinstance(value, dict):
            for name in value:
                yield name, True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def is_lacking(error: Error, path: str) -> bool:
    """Returns whether, by its error, an upstream does not know or support a member, regardless of its value.

    An error about a value, or about members that exclude each other, is none: `Unsupported value`, `Invalid schema`,
    `is not supported with tools`. If in doubt, it is none.

    Args:
        error: The upstream's error.
        path: The member, which the error names.
    """
    details, last = error.details or {}, path.rpartition(".")[2]
    if details.get("param") in (path, last) and details.get("code") in _LACKING_CODES:
        return True
    names = "|".join({re.escape(name) for name in (path, last, _snake(path), _snake(last))})
    return re.search(_LACKING % {"name": f"(?:{names})"}, _text(error), re.I) is not None


_LACKING_CODES: Final = frozenset(("extra_forbidden", "unknown_parameter", "unsupported_parameter"))
"""The codes of OpenAI and Pydantic for an unknown member. Those for values are others (`unsupported_value`)."""
_KIND: Final = r"(?:request )?(?:argument|field|input|key|member|name|option|parameter|property)"
_ENDS: Final = r"(?!\w|\.\w|\[)[`'\"\]]*"
"""The characters after a name that ends a path."""
_PLACE: Final = r"(?:api|backend|deployment|endpoint|models?|provider|server|version)\b"
_HERE: Final = rf"(?: (?:at|by|for|in|on|with) (?:[\w.:/@'`\"-]{{1,64}} ){{0,3}}{_PLACE}| yet)?\s*(?:[.,;:!)]|$)"
"""The rest of a sentence that names no condition under which the member would be taken."""
_UNKNOWN: Final = r"(?:extraneous|unexpected|unknown|unrecogni[sz]ed|unsupported)"
_NOT: Final = r"(?:currently )?not (?:allowed|available|permitted|recogni[sz]ed|supported)"
_NOT_TAKEN: Final = rf":? (?:is |are )?(?:deprecated|unsupported|{_NOT})"
_LACKING: Final = "|".join(
    (
        rf"{_UNKNOWN} {_KIND}(?: supplied)?:? ?[`'\"\[]*%(name)s{_ENDS}",
        r"(?<![\w.])(?:body\.)?%(name)s: extra (?:fields|inputs) (?:are )?not permitted",
        rf"(?<![\w.])%(name)s{_ENDS}(?: {_KIND})?{_NOT_TAKEN}{_HERE}",
        rf"does not (?:have|know|support) (?:the |a )?(?:{_KIND} )?[`'\"]*%(name)s{_ENDS}(?: {_KIND})?{_HERE}",
        rf"{_KIND} not supported(?: (?:by|for|on|with) (?:the|this) \w+)?: [`'\"]*%(name)s{_ENDS}",
    )
)
"""The words of OpenAI, Anthropic, Google, Groq, xAI, Bedrock, vLLM and Pydantic for a member that they do not have."""


def _text(error: Error) -> str:
    return " ".join([error.message, *_violated(error.details or {})])[: 2 * SHARED.error_message]


class _Words:
    """The words of a text among which names are looked for.

    Args:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        first = text[: max(0, text.find(":"))]
        self._quoted = {*_BETWEEN_QUOTES.findall(text), first, first.removeprefix("body.")}
        self._bare = {run.strip(_PUNCTUATION) for run in _RUN.findall(text)}
        self._paths: set[str] = set()
        for token in _DOTTED.findall(text):
            parts = token.removeprefix("body.").split(".", LIMITS.named_depth)[: LIMITS.named_depth]
            heads = [".".join(parts[: count + 1]) for count in range(len(parts))]
            self._bare.update(heads)
            # A word may be between: Anthropic's `thinking.enabled.budget_tokens`.
            self._paths.update([f"{head}.{last}" for at, head in enumerate(heads) for last in parts[at + 1 :]])

    def name(self, name: str) -> bool:
        """Returns whether the text names a member.

        A name that may be any word counts in quotes, or before the text's first colon.
        """
        if name in self._quoted or name in self._paths:
            return bool(name)
        return name in self._bare and _DISTINCT.search(name) is not None


_BETWEEN_QUOTES: Final = re.compile(r"""[`'"](?=([^`'"]+)[`'"])""")
_RUN: Final = re.compile(r"""[^\s`'"]+""")
_PUNCTUATION: Final = "()[]{},.:;!?="
_DOTTED: Final = re.compile(r"(?<![\w.])\w+(?:\.\w+)*")


def _violated(details: Mapping[str, Any]) -> Iterator[str]:
    """Yields the members that Google's error object names (`google.rpc.BadRequest`), in quotes."""
    for detail in objects(details.get("details")):
        for violation in objects(detail.get("fieldViolations")):
            yield f"'{label(violation.get('field'))}'"


def _snake(name: str) -> str:
    """Returns a name in the form of Google's messages: `generation_config` for `generationConfig`."""
    return _HUMP.sub(r"_\1", name).lower()
