"""The shape of a request in a client's dialect: what the rules of a provider depend on.

Found by the walk that counts the characters of a request, once per request. Knows the dialects, and no provider. A
request of any shape has one: wrong types are the provider's to refuse.
"""

from __future__ import annotations

from typing import Any, Final

_PLAIN_CALL: Final = 3
"""The members of a call that every provider knows: `id`, `type` and `function`."""

_PLAIN_PART: Final = 2
"""The members of a text: `type` and `text`."""


class Shape:
    """What a request holds besides plain texts.

    Attributes:
        characters: The characters of its texts.
        roles: By role, the names of the members of its messages, without `role` and `content`. A role of every provider
            is missing if its messages have a text and nothing else. The name is empty for a member that is null.
        parts: By role, the types of the parts of its messages. `text` only if such a part has more than its text.
        calls: The names of the members of calls, without those of every call.
        ids: The ids of calls and of their results.
        last: The role of the last message.
    """

    __slots__ = ("calls", "characters", "ids", "last", "parts", "roles")

    def __init__(self) -> None:
        self.characters = 0
        self.roles: dict[str, set[str]] = {}
        self.parts: dict[str, set[str]] = {}
        self.calls: set[str] = set()
        self.ids: list[str] = []
        self.last = ""

    def _note(self, role: str, message: dict[str, Any]) -> None:
        """Notes a chat message that has more than a text."""
        names = self.roles.get(role)
        if names is None:
            self.roles[role] = names = set()
        for name, value in message.items():
            if name == "role" or name == "content":  # a set costs a hash
                continue
            names.add("" if value is None else name)
            if name == "tool_calls":
                self._note_calls(value)
            elif name == "tool_call_id" and isinstance(value, str):
                self.ids.append(value)
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                kind = part.get("type") if isinstance(part, dict) else None
                if isinstance(kind, str) and (kind != "text" or len(part) > _PLAIN_PART):
                    self.parts.setdefault(role, set()).add(kind)

    def _note_calls(self, calls: object) -> None:
        if not isinstance(calls, list):
            return
        for call in calls:
            if not isinstance(call, dict):
                continue
            identifier = call.get("id")
            if isinstance(identifier, str):
                self.ids.append(identifier)
            if len(call) > _PLAIN_CALL:
                self.calls.update(call)


def chat_shape(messages: object) -> Shape:
    """Returns the shape of a conversation in the chat dialect.

    Args:
        messages: The value of `messages`.
    """
    shape = Shape()
    if not isinstance(messages, list):
        shape.characters = characters(messages)
        return shape
    counted, role = 0, None
    for message in messages:
        if not isinstance(message, dict):
            counted += characters(message)
            continue
        content, role = message.get("content"), message.get("role")
        is_plain = len(message) == 2 and (role == "user" or role == "assistant" or role == "system")
        if is_plain and type(content) is str:
            counted += len(content)
            continue
        counted += characters(message)
        shape._note(role if isinstance(role, str) else "", message)
    shape.characters = counted
    if isinstance(role, str):
        shape.last = role
    return shape


def characters(value: object) -> int:
    """Counts the characters of the texts in a value of a chat request."""
    if isinstance(value, str):
        return len(value)
    counted = 0
    if isinstance(value, list):
        for one in value:
            counted += characters(one)
    elif isinstance(value, dict):
        counted = characters(value.get("content")) + characters(value.get("text"))
    return counted
