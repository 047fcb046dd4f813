"""The changes of a configuration to a model's requests, and the merge of raw members.

What is merged later has priority: `defaults`, the request, `overrides`, the provider's rules, then raw members:
`extra` of the upstream, `extra` of the model, `provider_options.<name>`, `extra` of the request. `drop` comes last.
Knows no provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import UNSET, Struct
from msgspec.structs import replace

from gai_fast.model.changes import Changes
from gai_fast.model.errors import InvalidRequest
from gai_fast.model.request import Request
from gai_fast.model.settings import ModelSettings, Tuning
from gai_fast.providers.requests.parts import is_given, merged

RESERVED: Final[tuple[str, ...]] = ("model", "n", "stream", "stream_options")
"""Members that no raw member may be: a key's models, its limits and the form of the answer depend on them."""

_SAME: Final[Mapping[str, str]] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
"""Members of the chat dialect that mean the same."""


def check_raw(members: Mapping[str, Any], path: str) -> None:
    """Refuses raw members that no request may have.

    Args:
        members: The raw members.
        path: Their path in the request, starting with `$`.

    Raises:
        InvalidRequest: One of them is in `RESERVED`.
    """
    for name in RESERVED:
        if name in members:
            what = "it cannot be a raw member"
            if name == "model":
                what = "the model is that of the configuration"
            raise InvalidRequest(message=f"The request is not valid: {what} - at `{path}.{name}`", reason="validation")


def is_tuned(model: ModelSettings) -> bool:
    """Returns whether the configuration changes requests of a model."""
    upstream = model.upstream
    return model.tuning is not None or bool(upstream.extra) or bool(upstream.quirks)


def tuned(request: Request, tuning: Tuning) -> Request:
    """Returns a native request with the `defaults` that it lacks, and the `overrides`."""
    changed: dict[str, Any] = {}
    for name in tuning.default_names:
        changed[name] = _filled(getattr(request, name), getattr(tuning.defaults, name))
    for name in tuning.override_names:
        changed[name] = _filled(getattr(tuning.overrides, name), changed.get(name, getattr(request, name)))
    return replace(request, **changed) if changed else request


def _filled(first: Any, second: Any) -> Any:
    """Returns a value, completed by the members of another one that it lacks."""
    if not is_given(first):
        return second
    if isinstance(first, Struct) and type(first) is type(second):
        missing = {
            name: getattr(second, name) for name in first.__struct_fields__ if getattr(first, name) in (UNSET, None)
        }
        return replace(first, **missing)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {**second, **first}
    return first


def filled_body(body: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a client's body with members that it lacks, under any of their names.

    Args:
        body: The client's body.
        members: The members in its dialect.
    """
    whole = dict(body)
    for name, value in members.items():
        given = whole.get(name)
        if isinstance(given, Mapping) and isinstance(value, Mapping):
            whole[name] = filled_body(given, value)
        elif given is None and whole.get(_SAME.get(name, "")) is None:
            whole[name] = value
    return whole


def overridden_body(body: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a client's body with some members replaced. A member's other name in the dialect is removed.

    Args:
        body: The client's body.
        members: The members in its dialect.
    """
    whole = merged(body, members)
    for name in members:
        whole.pop(_SAME.get(name, ""), None)
    return whole


def without(body: dict[str, Any], paths: Iterable[str], changes: Changes) -> dict[str, Any]:
    """Returns a body without the members of some paths, such as `temperature` or `tools[].strict`.

    Args:
        body: The body; it is not changed.
        paths: The paths; `[]` means every element of a list.
        changes: Gets the paths of the members that were there.
    """
    for path in paths:
        body = _without(body, path.split("."), "", changes)
    return body


def _without(holder: dict[str, Any], names: list[str], before: str, changes: Changes) -> dict[str, Any]:
    name, rest = names[0], names[1:]
    is_list = name.endswith("[]")
    name = name.removesuffix("[]")
    if name not in holder:
        return holder
    here = f"{before}{name}"
    if not rest:
        changes.drop(here)
        return {key: value for key, value in holder.items() if key != name}
    inner = holder[name]
    if is_list and isinstance(inner, list):
        inner = [
            _without(each, rest, f"{here}[{at}].", changes) if isinstance(each, dict) else each
            for at, each in enumerate(inner)
        ]
    elif isinstance(inner, dict):
        inner = _without(inner, rest, f"{here}.", changes)
    return {**holder, name: inner}


def quirky(body: dict[str, Any], quirks: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Returns a body of the chat dialect for a server that lacks parts of it.

    Args:
        body: The body; it is not changed.
        quirks: `quirks` of the upstream.
        changes: Gets the paths of the members that are left out.
    """
    sent = dict(body)
    name = quirks.get("max_tokens")
    other = _SAME.get(name, "") if isinstance(name, str) else ""
    if other in sent:
        limit = sent.pop(other)
        sent.setdefault(str(name), limit)
    for member in ("stream_options", "parallel_tool_calls"):
        if quirks.get(member) is False and sent.pop(member, None) is not None and member != "stream_options":
            changes.drop(member)
    if quirks.get("strict") is False:
        sent = without(sent, ["tools[].function.strict", "response_format.json_schema.strict"], changes)
    messages = sent.get("messages")
    if quirks.get("developer_role") is False and isinstance(messages, list):
        sent["messages"] = [
            {**message, "role": "system"}
            if isinstance(message, dict) and message.get("role") == "developer"
            else message
            for message in messages
        ]
    return sent
