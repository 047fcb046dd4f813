"""The shape of a request in a client's dialect: the properties on which a provider's rules depend.

Collected once per request, by the walk that counts its characters. Knows the dialects, and no provider. Wrong types are
ignored: the provider refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gai_fast.core.requests.gateway_calls import KIND, REQUEST, RESPONSE, is_gateways, is_own_approval
from gai_fast.core.requests.signatures import is_ours
from gai_fast.core.requests.stored_ids import is_own_item, may_name_another

CACHE_MARKS: Final = ("prompt_cache_breakpoint", "cache_control")
"""The members of parts and messages that end a cached part of the prompt: OpenAI's and Anthropic's. OpenRouter takes
the second in parts; clients of LiteLLM also send it in a message, for its last part."""

_PLAIN_CALL: Final = 3
"""The members of a call that every provider knows: `id`, `type` and `function`."""

_PLAIN_PART: Final = 2
"""The members of a text: `type` and `text`."""


class RequestShape:
    """The contents of a request besides plain texts.

    Attributes:
        characters: The characters of its texts, in the chat dialect.
        roles: By role, the names of the members of its messages, without `role` and `content`. A role of every provider
            is missing if its messages have a text and nothing else. The name is empty for a member that is null.
        parts: By role, the types of the parts of its messages. `text` only if such a part has more than its text.
        calls: The names of the members of calls, except the members of every call.
        ids: The ids of calls and of their results.
        last: The role of the last message.
        signed: There is reasoning that its provider must be asked about: it is sealed, or lacks its signature, or this
            gateway has made its id.
        is_encrypted: There is reasoning that a provider has encrypted, and that is not sealed.
        has_odd_items: An item's `id` lacks the prefix of its kind, or an item is a call that the gateway has made.
        may_refer: An item may stand for one that is stored.
        may_be_silent: A message may say nothing.
    """

    def __init__(self) -> None:
        self.characters = 0
        self.roles: dict[str, set[str]] = {}
        self.parts: dict[str, set[str]] = {}
        self.calls: set[str] = set()
        self.ids: list[str] = []
        self.last = ""
        self.signed = False
        self.is_encrypted = False
        self.has_odd_items = False
        self.may_refer = False
        self.may_be_silent = False

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


def chat_shape(messages: object) -> RequestShape:
    """Returns the shape of a conversation in the chat dialect.

    Args:
        messages: The value of `messages`.
    """
    shape = RequestShape()
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
            if not content:
                shape.may_be_silent = True
            counted += len(content)
            continue
        size = characters(message)
        if not size and not message.get("tool_calls"):
            shape.may_be_silent = True
        counted += size
        shape._note(role if isinstance(role, str) else "", message)
    shape.characters = counted
    if isinstance(role, str):
        shape.last = role
    return shape


def is_silent(content: object) -> bool:
    """Returns whether the content of a message, in any dialect, is nothing but empty texts."""
    if isinstance(content, list):
        return not any(not isinstance(part, dict) or part.get("text", True) for part in content)
    return not content


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


_ITEM_TEXTS: Final[tuple[str, ...]] = ("content", "text", "arguments", "input", "output")
_ITEM_IDS: Final = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
"""The prefix of the id of an item of the Responses dialect, by its kind."""


def responses_shape(body: Mapping[str, Any]) -> RequestShape:
    """Returns the shape of a request in the Responses dialect, without its characters."""
    shape = RequestShape()
    items = body.get("input")
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                _note_item(shape, item)
    return shape


def responses_characters(body: dict[str, Any]) -> int:
    """Counts the characters of the texts in a request in the Responses dialect."""
    return _item_characters(body.get("instructions")) + _item_characters(body.get("input"))


def responses_tool_characters(body: dict[str, Any]) -> int:
    """Counts the characters of the tools that a request in the Responses dialect declares: in `tools` and in items."""
    tools, items = body.get("tools"), body.get("input")
    counted = _json_size(tools) if tools else 0
    if isinstance(items, list):
        for item in items:
            if isinstance(item, dict):
                added = item.get("tools")
                counted += _json_size(added) if added else 0
    return counted


def _note_item(shape: RequestShape, item: dict[str, Any]) -> None:
    kind = item.get("type")
    if (kind is None or kind == "message") and is_silent(item.get("content")):
        shape.may_be_silent = True
    call_id, identifier = item.get("call_id"), item.get("id")
    if isinstance(call_id, str):
        shape.ids.append(call_id)
    if kind == "reasoning":
        content = item.get("encrypted_content")
        if is_ours(content) or (not content and isinstance(identifier, str) and is_own_item(identifier)):
            shape.signed = True
        elif content is not None:
            shape.is_encrypted = True
    elif kind in (REQUEST, RESPONSE):
        shape.has_odd_items = shape.has_odd_items or is_own_approval(item)
    if identifier is not None:
        if not begins_as_its_kind(item) or (kind == KIND and is_gateways(item)):
            shape.has_odd_items = True
        if may_name_another(item):
            shape.may_refer = True


def begins_as_its_kind(item: dict[str, Any]) -> bool:
    """Returns whether the `id` of an item of the Responses dialect has the prefix of its kind, if that has one."""
    kind, identifier = item.get("type"), item.get("id")
    begin = _ITEM_IDS.get(kind) if isinstance(kind, str) else None
    return begin is None or not isinstance(identifier, str) or identifier.startswith(begin)


def _item_characters(items: object) -> int:
    """Counts the characters of the texts in items of any shape."""
    if isinstance(items, str):
        return len(items)
    counted = 0
    if isinstance(items, list):
        for item in items:
            counted += _item_characters(item)
    elif isinstance(items, dict):
        for key in _ITEM_TEXTS:
            value = items.get(key)
            if value is not None:
                counted += len(value) if type(value) is str else _item_characters(value)
    return counted


_BLOCK_TEXTS: Final = frozenset(("content", "text", "thinking", "name", "description", "title", "context"))
"""The members of messages, blocks and tools of the Messages dialect that hold text. Data of images and documents does
not count."""
_BLOCK_VALUES: Final = frozenset(("input", "input_schema"))


def messages_shape(body: Mapping[str, Any]) -> RequestShape:
    """Returns the shape of a request in the Messages dialect, without its characters."""
    shape = RequestShape()
    messages = body.get("messages")
    if isinstance(messages, list):
        for message in messages:
            content = message.get("content") if isinstance(message, dict) else None
            if is_silent(content):
                shape.may_be_silent = True
            if isinstance(content, list):
                for block in content:
                    if isinstance(block, dict):
                        _note_block(shape, block)
    return shape


def messages_characters(body: dict[str, Any]) -> int:
    """Counts the characters of the texts in a request in the Messages dialect."""
    system, tools = body.get("system"), body.get("tools")
    return _block_characters(system) + _block_characters(body.get("messages")) + _block_characters(tools)


def _note_block(shape: RequestShape, block: dict[str, Any]) -> None:
    kind = block.get("type")
    if kind == "tool_use" or kind == "tool_result":  # a set costs a hash
        identifier = block.get("id" if kind == "tool_use" else "tool_use_id")
        if isinstance(identifier, str):
            shape.ids.append(identifier)
    elif is_unsigned_or_sealed(block):
        shape.signed = True


def is_unsigned_or_sealed(block: dict[str, Any]) -> bool:
    """Returns whether a block of the Messages dialect is reasoning that no provider of the dialect has signed."""
    kind = block.get("type")
    if kind != "thinking" and kind != "redacted_thinking":  # a set costs a hash
        return False
    signature = block.get("signature" if kind == "thinking" else "data")
    return signature == "" or is_ours(signature)


def _block_characters(part: object) -> int:
    if isinstance(part, str):
        return len(part)
    counted = 0
    if isinstance(part, list):
        for one in part:
            counted += _block_characters(one)
    elif isinstance(part, dict):
        # Over the members that are there: a look-up of each one that may be took most of the time of a large body.
        for key, value in part.items():
            if key == "role" or key == "type":  # most, and a set costs a hash
                continue
            if key in _BLOCK_TEXTS:
                counted += len(value) if type(value) is str else _block_characters(value)
            elif key in _BLOCK_VALUES:
                counted += _json_size(value)
            elif key == "source" and isinstance(value, dict):
                counted += _block_characters(value.get("content"))
                counted += _block_characters(value.get("data")) if value.get("type") == "text" else 0
    return counted


def _json_size(value: object) -> int:
    """Counts the characters of a JSON value: about the length of its JSON text."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, list):
        return 2 + sum([_json_size(one) + 1 for one in value])
    if isinstance(value, dict):
        return 2 + sum([len(key) + 4 + _json_size(one) for key, one in value.items()])
    return 0 if value is None else 4
