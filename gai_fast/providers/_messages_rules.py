"""What a provider accepts of a request in the Messages dialect: reasoning and the ids of calls.

Knows the dialect, and no provider.
"""

from __future__ import annotations

from typing import Any

from mypy_extensions import mypyc_attr

from gai_fast.core.shapes import Shape, is_unsigned_or_sealed
from gai_fast.model.changes import Changes
from gai_fast.providers._rules import RequestRules


@mypyc_attr(allow_interpreted_subclasses=True)
class MessagesRules(RequestRules):
    """What a provider accepts of a Messages request; the arguments are those of `RequestRules`.

    Reasoning that is sealed or unsigned is left out: another provider wrote it, and the API refuses it.
    """

    def is_plain(self, shape: Shape) -> bool:
        return not shape.signed and self.ids_fit(shape)

    def fit_messages(self, body: dict[str, Any], shape: Shape, changes: Changes) -> None:
        sent: list[Any] = []
        for message in body["messages"]:
            content = message.get("content") if isinstance(message, dict) else None
            if not isinstance(content, list):
                sent.append(message)
                continue
            blocks = [self._block(block) for block in content if not _is_foreign(block)]
            # The API refuses a message without content, and joins two adjacent messages of one role.
            if blocks or not content:
                sent.append({**message, "content": blocks})
        body["messages"] = sent

    def _block(self, block: Any) -> Any:
        kind = block.get("type") if isinstance(block, dict) else None
        if self.call_ids is None or (kind != "tool_use" and kind != "tool_result"):
            return block
        name = "id" if kind == "tool_use" else "tool_use_id"
        identifier = block.get(name)
        return {**block, name: self.call_ids.fitted(identifier)} if isinstance(identifier, str) else block


def _is_foreign(block: Any) -> bool:
    return isinstance(block, dict) and is_unsigned_or_sealed(block)
