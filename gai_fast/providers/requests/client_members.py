"""The client's own member in place of a refused member of the upstream: an error names what the client has sent.

There is no table of names. Without the client's member, the upstream's is not sent, or has another
value: the request is written again without each, by the same rules and writers. Only refused requests pay for
it. Knows no provider and no dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final

from msgspec import UNSET, Struct, json
from msgspec.structs import replace

from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.request import NamedTool, Request
from gai_fast.providers.requests.limits import LIMITS
from gai_fast.providers.requests.refusals import named_member, paths_within

Write = Callable[[Any], Mapping[str, Any]]
"""Returns the upstream's body for a request; raises `Error` if the upstream cannot get it."""

_PROBE: Final = "-"
_CONVERSATION: Final[Mapping[str, Any]] = {
    "messages": [{"role": "user", "content": _PROBE}],
    "input": _PROBE,
    "prompt": _PROBE,
}
"""The replacement for the conversation of a client's body, so that a long one is not written again and again."""
_FIXED: Final = frozenset((*_CONVERSATION, "query", "model", "stream", "system", "instructions"))
"""Members that are no wish for which a provider has another name."""
_DEPTH: Final = 3
_MANY: Final = 1000
_ABSENT: Final = object()


def client_member(
    asked: Request | Mapping[str, Any], write: Write, error: Error, *, is_own: bool = False
) -> str | None:
    """Returns the path of the client's member that an upstream's error is about, or None if that is not known.

    Args:
        asked: The request as the client sent it: a native one, or a body in the client's dialect.
        write: Writes it for the upstream.
        error: The upstream's error.
        is_own: The body is in the upstream's dialect: a name that is the client's already is no news.
    """
    brief = _brief(asked)
    try:
        # The client's members count, too: those that the upstream is not sent are read again as often.
        if _size(brief) > LIMITS.rewritten_request:
            return None
        sent = write(brief)
        if _size(sent) > LIMITS.rewritten_request:
            return None
    except (Error, ValueError):  # a number or a text that JSON does not have
        return None
    members = {name: value for name, value in sent.items() if name not in _FIXED}
    path = named_member(error, sorted(paths_within(members, members), key=len, reverse=True))
    if path is None:
        return None
    found = _cause(brief, "", write, path, sent)
    return None if is_own and found == path else found


def _brief(asked: Request | Mapping[str, Any]) -> Any:
    """Returns a request with a short conversation, at most one tool (the chosen one), and no instructions."""
    if isinstance(asked, Request):
        choice = asked.tool_choice
        named = [tool for tool in asked.tools if isinstance(choice, NamedTool) and tool.name == choice.name]
        return replace(asked, query=_PROBE, messages=[], system=UNSET, tools=(named or asked.tools)[:1])
    body = {name: _CONVERSATION.get(name, value) for name, value in asked.items()}
    for name in ("system", "instructions"):
        body.pop(name, None)
    if isinstance(body.get("tools"), list):
        chosen = _name_of(body.get("tool_choice"))
        named = [tool for tool in body["tools"] if chosen and _name_of(tool) == chosen]
        body["tools"] = (named or body["tools"])[:1]
    return body


def _size(body: Request | Mapping[str, Any]) -> int:
    """Returns the bytes of a request's JSON."""
    return len(json.encode(body) if isinstance(body, Request) else encode_json(body))


def _name_of(tool: Any) -> Any:
    """Returns the name of a tool, or of the tool that a choice names, in any dialect; None if there is none."""
    if not isinstance(tool, dict):
        return None
    inner = tool.get("function") or tool.get("custom")
    return inner.get("name") if isinstance(inner, dict) else tool.get("name")


def _cause(asked: Any, holder: str, write: Write, path: str, whole: Mapping[str, Any]) -> str | None:
    """Returns the path of the innermost member of a request without which its upstream's body has not this member.

    Of several it is the one without which the fewest other members are lost.

    Args:
        asked: The request.
        holder: The path of the object whose members are tried; empty for the request itself.
        write: As for `client_member`.
        path: The path in the upstream's body.
        whole: The upstream's body for the request.
    """
    value = _at(whole, path)
    if value is _ABSENT:  # its name has a dot
        return None
    found, fewest = "", _MANY
    for name in islice(_names(_at(asked, holder) if holder else asked), LIMITS.client_members):
        here = f"{holder}.{name}" if holder else name
        try:
            sent = write(_without(asked, here))
        except (Error, TypeError):  # a request needs this member, or an object does
            continue
        less = _at(sent, path)
        if less is _ABSENT:
            lost = len(whole.keys() - sent.keys())  # without `tools` there is no `tool_choice` either
        elif isinstance(value, (str, int, float)) and less != value:
            lost = _MANY - 1
        else:
            continue
        if lost < fewest:
            found, fewest = here, lost
    if not found or found.count(".") + 1 >= _DEPTH:
        return found or None
    return _cause(asked, found, write, path, whole) or found


def _names(holder: Any) -> Iterable[str]:
    if isinstance(holder, Struct):
        return [name for name in holder.__struct_fields__ if name not in _FIXED and getattr(holder, name) is not UNSET]
    # A name with a dot is not a path.
    return [name for name in holder if name not in _FIXED and "." not in name] if isinstance(holder, dict) else ()


def _at(holder: Any, path: str) -> Any:
    for name in path.split("."):
        holder = getattr(holder, name, _ABSENT) if isinstance(holder, Struct) else _member(holder, name)
    return holder


def _member(holder: Any, name: str) -> Any:
    return holder.get(name, _ABSENT) if isinstance(holder, Mapping) else _ABSENT


def _without(holder: Any, path: str) -> Any:
    """Returns a copy of an object without the member at a path.

    Raises:
        TypeError: The object needs the member.
    """
    name, _, rest = path.partition(".")
    if isinstance(holder, Struct):
        kept = {field: getattr(holder, field) for field in holder.__struct_fields__}
        inner = kept.pop(name)
        return type(holder)(**kept, **({name: _without(inner, rest)} if rest else {}))
    if rest:
        return {**holder, name: _without(holder[name], rest)}
    return {key: value for key, value in holder.items() if key != name}
