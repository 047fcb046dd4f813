"""Pages of the own items of a kept response's request, as OpenAI lists them.

Pure, as `chain.py`. A page parses its own items alone: their lines are split into texts, and of other items at most the
ids are read. A long list is read beside the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from gai_fast.core.requests.limits import LIMITS as IDS
from gai_fast.formats.responses.chain import ITEMS_OF_LINE, PREFIXES, REASONING, Kept, input_id, kind_of
from gai_fast.formats.responses.kept_values import Named, id_of, item_texts, value_of
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.json_pieces import UNREADABLE

_NAMED: Final = msgspec.json.Decoder(Named)
_NUMBER: Final = "0123456789"
_DIGITS: Final = len(str(IDS.input_item))


def items_page(kept: Kept, order: str, after: str | None, limit: int) -> dict[str, Any] | None:
    """Returns a page of the own items of a kept response's request.

    Args:
        kept: The response.
        order: `asc`, the order of the request, or `desc`.
        after: The id of the item before the page; None for the first page.
        limit: The most items of the page.

    Returns:
        `{"object": "list", "data", "first_id", "last_id", "has_more"}`. None if no item has the id `after`.
    """
    texts = _Texts(kept.input)
    places: Sequence[int] = range(len(texts))
    if order == "desc":
        places = range(len(texts) - 1, -1, -1)
    if after is not None:
        before = _place_of(kept, texts, after, places)
        if before is None:
            return None
        places = places[places.index(before) + 1 :]
    data: list[dict[str, Any]] = []
    for at in places[:limit]:
        breathe()
        item = value_of(texts[at])
        data.append(_listed(item, input_id(item, kept.identifier, at)))
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(places) > limit,
    }


class _Texts:
    """The JSON text of each item of a list, unparsed. Lines, as `written` writes them, are split when asked for."""

    def __init__(self, text: bytes) -> None:
        self._lines = text[1:-1].split(b",\n")  # no text of JSON has another line
        self._split: dict[int, Sequence[Raw | bytes]] = {}
        last = len(self._lines) - 1
        of_last = self._split[last] = item_texts(b"[%b]" % self._lines[last] if last else text)
        self._of_line = ITEMS_OF_LINE if last else max(1, len(of_last))
        self._count = last * ITEMS_OF_LINE + len(of_last)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: int) -> Raw | bytes:
        line, place = divmod(at, self._of_line)
        if line not in self._split:
            self._split[line] = item_texts(b"[%b]" % self._lines[line])
        return self._split[line][place]


def _place_of(kept: Kept, texts: _Texts, identifier: str, places: Sequence[int]) -> int | None:
    """Returns the place of the item with an id, the first in the order of `places`. None if there is none.

    The id of an item that was sent without one tells its place.
    """
    number = identifier.rpartition("_")[2]
    if 0 < len(number) <= _DIGITS and not number.strip(_NUMBER):
        at = int(number) - IDS.input_item
        if 0 <= at < len(texts) and input_id(value_of(texts[at]), kept.identifier, at) == identifier:
            return at
    for at in places:
        breathe()
        try:
            if id_of(_NAMED.decode(texts[at])) == identifier:
                return at
        except UNREADABLE:  # no object, or one that a strict parser refuses
            item = value_of(texts[at])
            if isinstance(item, dict) and item.get("id") == identifier:
                return at
    return None


def _listed(item: Any, identifier: str) -> dict[str, Any]:
    """Returns an item with its id and its type, and with the state and the parts that OpenAI's types want."""
    if not isinstance(item, dict):
        return {"id": identifier, "type": "message", "role": "user", "content": []}  # no item: nothing took it
    kind = kind_of(item) or "message"
    state = {"status": "completed"} if kind in PREFIXES and kind != REASONING else {}
    listed = {**state, **item, "id": identifier, "type": kind}
    content = item.get("content")
    if kind == "message" and isinstance(content, str):
        is_answer = item.get("role") == "assistant"
        part = {"type": "output_text" if is_answer else "input_text", "text": content}
        listed["content"] = [{**part, "annotations": [], "logprobs": []} if is_answer else part]
    return listed
