"""Names of tools that an API refuses: others are sent in their place, and answers have the client's again.

Clients of other APIs have longer names, and names with dots. Of a body in the API's own dialect the names are sent as
they are. Knows no provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from msgspec.structs import replace

from gai_fast.core.adapter import Adapter
from gai_fast.model.changes import Changes
from gai_fast.model.events import Event
from gai_fast.model.request import AssistantMessage, NamedTool, Request, ToolCallPart
from gai_fast.providers.answers.adapter import WrappingAdapter

_OTHERS: Final = re.compile(r"[^a-zA-Z0-9_-]")
_DIGEST: Final = 8
_AssistantMessage: Final = AssistantMessage  # a constant: a name look-up costs 30 ns


class ToolNames:
    """The names of tools that an API accepts.

    Args:
        pattern: The regular expression of a whole name.
        most: The most characters of a name.
    """

    def __init__(self, pattern: str, most: int) -> None:
        self._matches = re.compile(pattern).fullmatch
        self._most = most

    def fits(self, name: str) -> bool:
        """Returns whether the API accepts a name."""
        return len(name) <= self._most and self._matches(name) is not None

    def fitted(self, name: str) -> str:
        """Returns a name that the API accepts, in place of a refused name. It depends on the name alone."""
        head = _OTHERS.sub("_", name)
        if not head[:1].isalpha():
            head = f"_{head}"
        digest = sha256(name.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
        return f"{head[: self._most - _DIGEST - 1]}_{digest}"


OPENAI_NAMES: Final = ToolNames("[a-zA-Z0-9_-]+", 64)
"""OpenAI's reference, `tools.function.name`; other APIs of its dialects and Cohere's have the same rule."""


def fitted_names(request: Request, rule: ToolNames) -> dict[str, str]:
    """Returns the names that are sent in place of others, by the client's name; empty if the API accepts all names.

    Args:
        request: The client's request.
        rule: The names that the API accepts.
    """
    names: dict[str, str] = {}
    for tool in request.tools:
        if isinstance(tool.name, str) and not rule.fits(tool.name):
            names[tool.name] = rule.fitted(tool.name)
    for message in request.messages:
        # Of another class, `isinstance` asks the metaclass: 1,100 instructions a message.
        if type(message) is _AssistantMessage and not isinstance(message.content, str):
            for part in message.content:
                if isinstance(part, ToolCallPart) and not rule.fits(part.name):
                    names[part.name] = rule.fitted(part.name)
    return names


def with_names(request: Request, names: Mapping[str, str], changes: Changes) -> Request:
    """Returns a request with other names of tools.

    Args:
        request: The request.
        names: As `fitted_names` returns them.
        changes: Gets the paths and the new names.
    """
    tools = [*request.tools]
    for at, tool in enumerate(tools):
        sent = names.get(tool.name) if isinstance(tool.name, str) else None
        if sent is not None:
            tools[at] = replace(tool, name=sent)
            changes.adjust(f"tools[{at}].name", sent)
    messages = [*request.messages]
    for at, message in enumerate(messages):
        if isinstance(message, AssistantMessage) and not isinstance(message.content, str):
            messages[at] = _with_names(message, names, f"messages[{at}]", changes)
    choice = request.tool_choice
    if isinstance(choice, NamedTool) and choice.name in names:
        choice = NamedTool(name=names[choice.name])
        changes.adjust("tool_choice.name", choice.name)
    return replace(request, tools=tools, messages=messages, tool_choice=choice)


def _with_names(message: AssistantMessage, names: Mapping[str, str], path: str, changes: Changes) -> AssistantMessage:
    parts: list[Any] = [*message.content]
    for at, part in enumerate(parts):
        if isinstance(part, ToolCallPart) and part.name in names:
            parts[at] = replace(part, name=names[part.name])
            changes.adjust(f"{path}.content[{at}].name", names[part.name])
    return AssistantMessage(content=parts)


class RenamingAdapter(WrappingAdapter):
    """Restores the client's names of tools in the calls of an answer.

    Args:
        inner: The provider's adapter.
        names: The names that were sent, by the client's name.
    """

    def __init__(self, inner: Adapter, names: Mapping[str, str]) -> None:
        super().__init__(inner)
        self._asked = {sent: asked for asked, sent in names.items()}

    def read(self, events: list[Event]) -> list[Event]:
        return [self._renamed(event) if event["type"] in _CALLS else event for event in events]

    def _renamed(self, event: Event) -> Event:
        asked = self._asked.get(event["tool_call"].get("name", ""))
        return event if asked is None else {**event, "tool_call": {**event["tool_call"], "name": asked}}


_CALLS: Final = ("tool.call.start", "tool.call")
