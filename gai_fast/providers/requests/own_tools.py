"""Tools that a provider runs itself, such as a search of the web: how a request declares them.

Owns the names that all providers' options have in common, and how a provider's form is written. Knows no provider: each
API has its forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_LOCATION: Final = "user_location"
CONTEXT_SIZE: Final = "context_size"
"""The amount of web content that a search reads: `low`, `medium` or `high`."""
SHARED_OPTIONS: Final = ("allowed_domains", "blocked_domains", _LOCATION, "max_uses", CONTEXT_SIZE)
"""Options of a search that several providers have, under names of their own. All other options are a provider's."""


class OwnTool(NamedTuple):
    """A provider's declaration of a tool that it runs.

    Args:
        form: The tool without options.
        options: For each shared option that the provider has, its place in the tool: `filters.allowed_domains`.
    """

    form: Mapping[str, Any]
    options: Mapping[str, str] = {}


def lacking(tool: OwnTool, options: Mapping[str, Any]) -> list[str]:
    """Returns the shared options of a request that a provider's tool does not have."""
    return [name for name in options if name in SHARED_OPTIONS and name not in tool.options]


def declared(tool: OwnTool, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tool as the provider declares it.

    Args:
        tool: The provider's form.
        options: The options of the request; shared ones that the provider lacks are left out.
    """
    whole: dict[str, Any] = {**tool.form}
    for name, value in options.items():
        if name in SHARED_OPTIONS and name not in tool.options:
            continue
        if name == _LOCATION and isinstance(value, dict):
            value = {"type": "approximate", **value}
        *outer, last = tool.options.get(name, name).split(".")
        holder = whole
        for key in outer:
            inner = holder.get(key)
            holder[key] = {**inner} if isinstance(inner, dict) else {}  # a copy: all requests share the form
            holder = holder[key]
        holder[last] = value
    return whole


RESPONSES_SEARCH: Final = OwnTool(
    {"type": "web_search"},
    {"allowed_domains": "filters.allowed_domains", _LOCATION: _LOCATION, "context_size": "search_context_size"},
)
"""The search of the Responses API."""
RESPONSES_CODE: Final = OwnTool({"type": "code_interpreter", "container": {"type": "auto"}})
"""The interpreter of the Responses API."""
