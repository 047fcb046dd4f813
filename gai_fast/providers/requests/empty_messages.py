"""Messages in which nothing is left: no provider gets them.

Clients store an empty answer if a stream broke off, or if a model only thought, and send the instructions that their
user has cleared. Knows no provider.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.core.requests.shapes import RequestShape, is_silent
from gai_fast.model.changes import Changes
from gai_fast.providers.requests.rules import Mend

_SAYING: Final = ("tool_calls", "function_call", "audio", "images")
"""The members of a message that say something besides its content."""


class NoEmptyMessages(Mend):
    """Leaves messages out that say nothing, and reports it; a refusal becomes the text of its message.

    The user's last message stays: without it the model would continue the answer before it.

    Args:
        name: The member of a request that has the messages.
        thoughts: The members that hold reasoning which the provider takes back.
        keeps_last: A last message of the assistant stays too: it begins the answer.
    """

    def __init__(self, name: str = "messages", thoughts: tuple[str, ...] = (), *, keeps_last: bool = False) -> None:
        self._name = name
        self._saying = (*_SAYING, *thoughts)
        self._keeps_last = keeps_last

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        if not shape.may_be_silent:  # nearly always
            return False
        messages = body.get(self._name)
        if not isinstance(messages, list):
            return False
        return any(self._is_silent(message, at == len(messages) - 1) for at, message in enumerate(messages))

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        sent: list[Any] = []
        places: list[str] = []
        left: list[str] = []
        given = body[self._name]
        for at, message in enumerate(given):
            path = f"{self._name}[{at}]"
            if self._is_silent(message, at == len(given) - 1):
                refusal = message.get("refusal")
                if not refusal:
                    left.append(path)
                    continue
                message = {**message, "content": refusal}
                del message["refusal"]
            sent.append(message)
            places.append(changes.own(path))
        if sent:
            for path in left:
                changes.drop_message(path)
            body[self._name] = sent
            changes.places = places

    def _is_silent(self, message: Any, is_last: bool) -> bool:
        if not isinstance(message, dict) or not is_silent(message.get("content")):
            return False
        if message.get("type", "message") != "message":  # another item of the Responses dialect
            return False
        role = message.get("role")
        if role == "user" or (role == "assistant" and self._keeps_last):
            if is_last:
                return False
        elif role != "assistant" and role != "system" and role != "developer":  # a set fails for a list
            return False
        return not any(message.get(name) for name in self._saying)
