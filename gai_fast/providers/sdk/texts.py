"""Reads the text in an object of an SDK by its attributes, if the object is one text and nothing else.

Most objects of a stream are. Any other is written as its API's JSON (`sdk/objects.py`), which takes up to ten times as
long. Owns the paths to the texts, and the members that no adapter reads beside a text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gai_fast.core.json.chunks import count

Text = tuple[int | None, str, Any]
"""The arguments of `Adapter.receive_text`, and the object with the usage beside the text, or None."""


class Step:
    """One object on the way to a text.

    Args:
        name: The member that holds the next object, or the text.
        unread: Other members that no adapter reads once it has the answer's id and model.
        is_list: Whether the member is a list of one object.
        kind: The object's `type`; empty if it has none.
        number: The member with the number of the text's choice or block; empty if the object has none.
        usage: The member with the usage of the answer so far, and the count that each usage has; empty if there is
            none. Only the last usage of a stream matters.
    """

    def __init__(
        self,
        name: str,
        unread: Iterable[str] = (),
        *,
        is_list: bool = False,
        kind: str = "",
        number: str = "",
        usage: tuple[str, str] = ("", ""),
    ) -> None:
        self.name = name
        self.is_list = is_list
        self.kind = kind
        self.number = number
        self.usage, self.counted = usage
        own = [name, number, self.usage, "type" if kind else ""]
        self.read = frozenset((*unread, *filter(None, own)))
        """The members that may have a value."""


class TextPath:
    """The way to the text in the objects of one API.

    Args:
        steps: Its steps.
        holder: The member of an event that holds the object; empty if the object comes without an event.
    """

    def __init__(self, steps: tuple[Step, ...], holder: str = "") -> None:
        self._steps = steps
        self._holder = holder

    def within(self, holder: str) -> TextPath:
        """Returns the path in events that hold the object in this member."""
        return TextPath(self._steps, holder)

    def read(self, item: Any) -> Text | None:
        """Returns the text of an object that is one text and nothing else; None for any other object."""
        number: Any = None
        usage: Any = None
        try:
            if self._holder:
                item = getattr(item, self._holder)
            for step in self._steps:
                members: dict[str, Any] = item.__dict__
                if step.kind and members["type"] != step.kind:
                    return None
                given, extra = item.__pydantic_fields_set__, item.__pydantic_extra__
                if not given <= step.read:
                    for name in given - step.read:
                        if members.get(name):
                            return None
                if extra:
                    for name in extra.keys() - step.read:
                        if extra[name]:
                            return None
                if step.number:
                    number = members[step.number]
                if step.usage:
                    usage = members[step.usage]
                    if usage is not None and not count(usage.__dict__[step.counted]):
                        return None
                item = members[step.name]
                if step.is_list:
                    (item,) = item
        except (AttributeError, KeyError, TypeError, ValueError):  # of another shape
            return None
        if type(item) is not str or not item or not (number is None or type(number) is int):
            return None
        return number, item, usage


def text_itself(item: Any) -> Text | None:
    """Returns a text, or the text of an event that has nothing else; None for any other object."""
    text = item
    if isinstance(item, dict):
        if len(item) != 2 or item.get("type") != "text.delta":
            return None
        text = item.get("text")
    return (None, text, None) if type(text) is str and text else None


_UNREAD: Final = ("created", "created_at", "id", "model", "object", "obfuscation", "p", "service_tier")
_UNREAD_OF_GENAI: Final = ("create_time", "model_version", "response_id", "sdk_http_response")
_USAGE: Final = ("usage_metadata", "prompt_token_count")

PATHS: Final = {
    "openai": TextPath(
        (
            Step("choices", (*_UNREAD, "system_fingerprint", "type"), is_list=True),
            Step("delta", number="index"),
            Step("content", ("role",)),
        )
    ),
    "openai:responses": TextPath(
        (
            Step(
                "delta",
                (*_UNREAD, "item_id", "sequence_number", "snapshot"),  # of a helper: all the text so far
                kind="response.output_text.delta",
                number="output_index",
            ),
        )
    ),
    "anthropic": TextPath(
        (Step("delta", _UNREAD, kind="content_block_delta", number="index"), Step("text", kind="text_delta"))
    ),
    "gemini": TextPath(
        (
            Step("candidates", _UNREAD_OF_GENAI, is_list=True, usage=_USAGE),
            Step("content", ("avg_logprobs", "token_count"), number="index"),
            Step("parts", ("role",), is_list=True),
            Step("text"),
        )
    ),
    "cohere": TextPath(
        (
            Step("delta", (*_UNREAD, "index"), kind="content-delta"),
            Step("message", ("role",)),
            Step("content"),
            Step("text", ("type",)),
        )
    ),
    "ollama": TextPath((Step("message", _UNREAD), Step("content", ("role",)))),
}
"""The paths of the APIs: of an object of Responses only in the first part of an item."""
