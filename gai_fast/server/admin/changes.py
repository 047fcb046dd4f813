"""`changes`: the differences between two configurations, by name. Values are never shown: they may be secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, Literal

from gai_fast.model.settings import Settings
from gai_fast.server.admin.bodies import Change

_SECTIONS: Final = {
    "models": "model",
    "upstreams": "upstream",
    "keys": "key",
    "issuers": "issuer",
    "processors": "processor",
    "guards": "guard",
    "tool_servers": "tool_server",
    "tools": "tool",
}
"""The fields of the settings whose section has another name in a configuration file."""


def changes(old: Settings, new: Settings) -> list[Change]:
    """Returns the changes. The `name` is `None` if a section has none.

    Args:
        old: The previous configuration.
        new: The current configuration.
    """
    found: list[Change] = []
    for field in fields(Settings):
        if field.name == "usual":  # follows from the upstreams
            continue
        section = _SECTIONS.get(field.name, field.name)
        before, after = _by_name(getattr(old, field.name)), _by_name(getattr(new, field.name))
        for name in dict.fromkeys([*before, *after]):
            change = _change(before.get(name), after.get(name))
            if change is not None:
                found.append(Change(section, name, change))
    return found


def _by_name(value: Any) -> Mapping[str | None, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple) and value and all(hasattr(each, "name") for each in value):
        return {each.name: each for each in value}
    return {None: value} if value else {}


def _change(before: Any, after: Any) -> Literal["added", "removed", "changed"] | None:
    if before == after:
        return None
    return "added" if before is None else "removed" if after is None else "changed"
