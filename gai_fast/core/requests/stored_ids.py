"""The ids by which requests and answers name what an upstream stores: answers, conversations, files, caches.

Owns how ids are found; `dialects.py` has the members that hold them. Knows no caller: `stores/owned_ids.py` records
who got which id.

1. A member counts wherever it stands, since dialects add places; what a model or a client wrote itself (arguments of
   calls, schemas, metadata) is not searched.
2. Google's files have addresses for ids, at members that take any address: only its own addresses count.
3. A provider's own skills are everybody's, and a resource of Google's cloud has its project in its name. With the
   gateway's account Google sends secrets, and tokens of service accounts, to a server that the request names.
4. An item of `input` that has an id and no content of its own refers to the item that the upstream stores. Items that
   are repeated whole keep the ids that they had at any upstream, and refer to nothing. The content of some items is
   opaque, and what else they have is not all of it: a summary is not the reasoning, which OpenAI looks up by the id
   ("Item with id 'rs_…' not found") unless the item has it encrypted.
5. An id that this gateway has made names nothing that an upstream stores.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from gai_fast.core.json.chunks import label
from gai_fast.core.requests.dialects import STORED


class StoredId(NamedTuple):
    """An id of something that an upstream stores.

    Args:
        member: The name of the member that holds it; `item_reference` for an item.
        identifier: The id.
    """

    member: str
    identifier: str


ITEM: Final = "item_reference"
"""`StoredId.member` of an item of an earlier answer."""


def _members(form: str) -> frozenset[str]:
    return frozenset(name for name, stored in STORED.items() if form in stored.forms)


_TEXTS: Final = _members("text")
_RESOURCES: Final = _members("resource")
"""Members whose text is an id if it is the name of a resource: rule 3."""
_PROJECT: Final = "projects/"
_ADDRESSES: Final = _members("address")
"""Members whose text is an id if it is a stored file's address: rule 2."""
_PUBLIC: Final = ("http://", "https://")
_FILES_OF_GOOGLE: Final = "generativelanguage."
_OBJECTS: Final = _members("object")
"""Members whose object has an `id`."""
_LISTS: Final = _members("list")
"""Members whose texts are ids."""
FIELDS: Final = _TEXTS | _LISTS
"""Members that hold ids as text: fields of a form may have their names."""
_SKILL: Final = "skill_id"
_STORED_SKILLS: Final = ("custom", "skill_reference")
"""The types of skills that are stored: Anthropic's word, and OpenAI's."""
_UNSEARCHED: Final = frozenset({"arguments", "input_schema", "metadata", "parameters", "schema"})
_WITHOUT_CONTENT: Final = frozenset({"id", "type", "status"})
_OPAQUE: Final = {
    "compaction": "encrypted_content",
    "image_generation_call": "result",
    "reasoning": "encrypted_content",
}
"""The member with an item's content, by the types of items whose content is not in their other members."""
_RESPONSE: Final = "resp_"
_STREAM_LEAST: Final = 22
_STREAM_MOST: Final = 100
_NUMBER_MOST: Final = 9
"""The bounds of the lengths of a stream's id in an item's, and of the item's number."""
_OWN_ITEM: Final = re.compile(rf"[a-z]+_([A-Za-z0-9_-]{{{_STREAM_LEAST},{_STREAM_MOST}}})_[0-9]{{1,{_NUMBER_MOST}}}")
"""The id that this gateway gives to an item: the kind, the stream's id and the item's number."""
_OWN_RESPONSE: Final = re.compile(rf"{_RESPONSE}[A-Za-z0-9_-]{{{_STREAM_LEAST},{_STREAM_MOST}}}")


def stored_ids(value: Any) -> list[StoredId]:
    """Returns the ids in a request or in a part of an answer: rule 1. An outer object's are before those within it.

    Args:
        value: Parsed JSON.
    """
    found: list[StoredId] = []
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for name, inner in one.items():
                if name in STORED and (name != _SKILL or one.get("type", "custom") in _STORED_SKILLS):
                    _note(found, name, inner)
                # Anthropic's calls have their arguments in the object `input`.
                is_searched = isinstance(inner, list) or (isinstance(inner, dict) and name != "input")
                if is_searched and name not in _UNSEARCHED:
                    waiting.append(inner)
        elif isinstance(one, list):
            waiting += [inner for inner in one if isinstance(inner, (dict, list))]
    return found


def _note(found: list[StoredId], name: str, value: Any) -> None:
    """Adds the ids of one member."""
    if isinstance(value, str):
        is_stored = (
            name in _TEXTS
            or (name in _ADDRESSES and is_stored_address(value))
            or (name in _RESOURCES and value.startswith(_PROJECT))
        )
        if value and is_stored:
            found.append(StoredId(name, value))
    elif isinstance(value, dict):
        identifier = label(value.get("id"))
        if identifier and name in _OBJECTS:
            found.append(StoredId(name, identifier))
    elif isinstance(value, list) and name in _LISTS:
        found += [StoredId(name, each) for each in value if isinstance(each, str)]


def is_stored_address(address: str) -> bool:
    """Returns whether an address names something that its provider stores for the account of the request.

    Google reads `gs://…` and the addresses of its File API with the gateway's credential.

    Args:
        address: The address of a file.
    """
    lowered = address.strip().lower()
    return not lowered.startswith(_PUBLIC) or _FILES_OF_GOOGLE in lowered


def own_item_id(kind: str, stream_id: str, number: int) -> str:
    """Returns the id that this gateway gives to an item of an answer in the Responses dialect: rule 5.

    Args:
        kind: The beginning of the ids of its kind.
        stream_id: The stream's id.
        number: The item's number in the answer.
    """
    return f"{kind}_{stream_id}_{number}"


def is_own_item(identifier: str) -> bool:
    """Returns whether an id has the form of `own_item_id`."""
    return _OWN_ITEM.fullmatch(identifier) is not None


def own_response_id(stream_id: str) -> str:
    """Returns the id of a response that this gateway writes."""
    return f"{_RESPONSE}{stream_id}"


def response_of_item(identifier: str) -> str:
    """Returns the id of the response that has an item of this gateway. Empty for any other id."""
    found = _OWN_ITEM.fullmatch(identifier)
    return "" if found is None else own_response_id(found[1])


def is_item_of(identifier: str, response: str) -> bool:
    """Returns whether an id says that its item is one of a response.

    Args:
        identifier: The item's id.
        response: The response's id, of this gateway's form: `is_response`.
    """
    # As `response_of_item`, for each item of each answer that is kept: the pattern takes four times as long.
    stream_id = response[len(_RESPONSE) :]
    if stream_id not in identifier:  # an upstream's item
        return False
    kind, found, number = identifier.partition(f"_{stream_id}_")
    if not found or not identifier.isascii() or len(number) > _NUMBER_MOST:
        return False
    return kind.isalpha() and kind.islower() and number.isdigit()


def is_response(identifier: str) -> bool:
    """Returns whether an id has the form of `own_response_id`, as those of upstreams may."""
    return _OWN_RESPONSE.fullmatch(identifier) is not None


def referenced_items(items: Any) -> list[StoredId]:
    """Returns the ids of items without content: rule 4.

    Args:
        items: `input` of a request in the Responses dialect, of any shape.
    """
    found: list[StoredId] = []
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                identifier = item.get("id")
                if isinstance(identifier, str) and identifier and _is_reference(item):
                    found.append(StoredId(ITEM, identifier))
    return found


def may_name_another(item: dict[str, Any]) -> bool:
    """Returns whether an item with an id may stand for one that is stored, here or at an upstream.

    Args:
        item: An item of `input` of a request in the Responses dialect.
    """
    kind = item.get("type")
    if kind == ITEM or (kind == "reasoning" and not item.get("encrypted_content")):
        return True
    return not [name for name, value in item.items() if value and name not in _WITHOUT_CONTENT]


def _is_reference(item: dict[str, Any]) -> bool:
    kind = item.get("type")
    if kind == ITEM:
        return True
    content = _OPAQUE.get(kind) if isinstance(kind, str) else None
    if content is not None:
        return not item.get(content) and not is_own_item(item["id"])
    return not [name for name, value in item.items() if value and name not in _WITHOUT_CONTENT]
