"""What a provider accepts of a request in the Responses dialect: reasoning, and the ids of items and calls.

Knows the dialect, and no provider.
"""

from __future__ import annotations

from typing import Any, Final

from mypy_extensions import mypyc_attr

from gai_fast.core.shapes import Shape, begins_as_its_kind
from gai_fast.core.signatures import is_ours, opened
from gai_fast.model.changes import Changes
from gai_fast.providers._rules import CallIds, RequestRules

CALL_IDS: Final = CallIds(".{1,64}")
"""The ids of calls that OpenAI accepts."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ResponsesRules(RequestRules):
    """What a provider accepts of a Responses request; the arguments are those of `RequestRules`.

    Sealed reasoning of another provider is left out, the provider's own is unsealed. An item's id that does not begin
    as those of its kind do is left out: another provider gave it.
    """

    def is_plain(self, shape: Shape) -> bool:
        return not shape.signed and not shape.has_odd_items and self.ids_fit(shape)

    def fit_messages(self, body: dict[str, Any], shape: Shape, changes: Changes) -> None:
        sent: list[Any] = []
        for at, item in enumerate(body["input"]):
            fitted = self._item(item, at) if isinstance(item, dict) else item
            if fitted is not None:
                sent.append(fitted)
        body["input"] = sent

    def _item(self, item: dict[str, Any], at: int) -> dict[str, Any] | None:
        """Returns an item that the provider accepts, or None for reasoning of another provider."""
        content = item.get("encrypted_content")
        fitted = item
        if item.get("type") == "reasoning" and is_ours(content):
            signed = opened(str(content), f"$.input[{at}].encrypted_content", "")
            if signed.get("provider") != self.provider or "call_id" in signed:
                return None
            fitted = {**fitted, "encrypted_content": signed["signature"]}
        if not begins_as_its_kind(item):
            fitted = {**fitted}
            if item.get("type") == "reasoning":  # the one kind that needs an id
                fitted["id"] = "rs_" + str(item["id"])
            else:
                del fitted["id"]
        call_id = item.get("call_id")
        if isinstance(call_id, str) and self.call_ids is not None:
            fitted = {**fitted, "call_id": self.call_ids.fitted(call_id)}
        return fitted
