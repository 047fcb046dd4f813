"""The rules for requests in the Messages dialect: reasoning and the ids of calls.

Knows the dialect, and no provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.requests.shapes import RequestShape, is_silent, is_unsigned_or_sealed
from gai_fast.model.changes import Changes
from gai_fast.providers.requests.rules import Mend, RequestRules
from gai_fast.runtime.breathing import breathe


@mypyc_attr(allow_interpreted_subclasses=True)
class MessagesRules(RequestRules):
    """The rules of a provider for Messages requests; the arguments are those of `RequestRules`.

    Reasoning that is sealed or unsigned is left out: another provider wrote it, and the API refuses it.
    """

    def is_plain(self, shape: RequestShape) -> bool:
        return not shape.signed and self.ids_fit(shape)

    def fit_messages(self, body: dict[str, Any], shape: RequestShape, changes: Changes) -> None:
        sent: list[Any] = []
        places: list[str] = []
        for at, message in enumerate(body["messages"]):
            breathe()
            path = f"messages[{at}]"
            content = message.get("content") if isinstance(message, dict) else None
            if isinstance(content, list):
                blocks = [self._block(block) for block in content if not _is_foreign(block)]
                if content and not blocks:
                    # The API refuses a message without content, and joins two adjacent messages of one role.
                    changes.drop_message(path)
                    continue
                message = {**message, "content": blocks}
            sent.append(message)
            places.append(path)
        if len(sent) < len(body["messages"]):
            changes.follow(places)
        body["messages"] = sent

    def _block(self, block: Any) -> Any:
        kind = block.get("type") if isinstance(block, dict) else None
        if self.call_ids is None or (kind != "tool_use" and kind != "tool_result"):
            return block
        name = "id" if kind == "tool_use" else "tool_use_id"
        identifier = block.get(name)
        return {**block, name: self.call_ids.fitted(identifier)} if isinstance(identifier, str) else block


class NoEmptySystem(Mend):
    """Leaves instructions out that say nothing: "system: text content blocks must be non-empty"."""

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return "system" in body and is_silent(body["system"])

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        del body["system"]


class MessagesPairs(Mend):
    """Leaves out calls without results and results without calls, which the API refuses, if members may be left out.

    The result of a call stands in the message after it.
    """

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return bool(shape.ids) and not body.get("thread")

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        if not changes.may_drop:
            return
        messages: list[Any] = body["messages"]
        kept: list[Any] = []
        left: list[str] = []
        for at, message in enumerate(messages):
            breathe()
            blocks = _blocks(message)
            before = _ids(messages[at - 1], "tool_use") if at else frozenset()
            after = _ids(messages[at + 1], "tool_result") if at + 1 < len(messages) else frozenset()
            some: list[Any] = []
            for place, block in enumerate(blocks):
                use, result = _id_of(block, "tool_use"), _id_of(block, "tool_result")
                if (use is not None and use not in after) or (result is not None and result not in before):
                    left.append(f"messages[{at}].content[{place}]")
                else:
                    some.append(block)
            if len(some) == len(blocks):
                kept.append(message)
            elif some:
                kept.append({**message, "content": some})
        if kept and left:
            body["messages"] = kept
            for path in left:
                changes.drop(path)


_IDS: Final[Mapping[str, str]] = {"tool_use": "id", "tool_result": "tool_use_id"}


def _blocks(message: Any) -> list[Any]:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, list) else []


def _id_of(block: Any, kind: str) -> str | None:
    """Returns the id of a call, or of the call of a result; None if the block is of another type."""
    if not isinstance(block, dict) or block.get("type") != kind:
        return None
    identifier = block.get(_IDS[kind])
    return identifier if isinstance(identifier, str) else None


def _ids(message: Any, kind: str) -> frozenset[str]:
    found = [_id_of(block, kind) for block in _blocks(message)]
    return frozenset([each for each in found if each is not None])


def _is_foreign(block: Any) -> bool:
    return isinstance(block, dict) and is_unsigned_or_sealed(block)
