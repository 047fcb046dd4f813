"""Chains of kept responses: the items of a whole conversation, and one item by its id.

Pure: gets what is kept as bytes, and knows no store and no route. `pages.py` has pages of a request's own items.

1. The items of a chain are those of each turn, from the first on: its input, then its output, then the new ones.
2. Empty messages do not count. Of a failed turn, items that it broke off do not count either.
3. A call without an output is left out if its turn did not complete, with the reasoning before it: providers refuse
   reasoning that nothing follows. Otherwise it is an error, and so is an output without a call.
   An answer to the gateway's own request for an approval is left out in later turns: it was acted on, or not at all.
4. Items of earlier turns that are neither messages, reasoning nor calls of the client's or the gateway's tools are
   understood by their own provider alone, and so is reasoning that is not sealed. `Joined.marks` has their places.
5. An item of a request's input that has no id of its own has one of the gateway's form. Its number begins at
   `limits.input_item`; items of an answer have lower ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import Raw
from mypy_extensions import mypyc_attr

from gai_fast.core.json.structure import Structure
from gai_fast.core.requests.gateway_calls import KIND, REQUEST, RESPONSE, is_gateways, is_own_approval
from gai_fast.core.requests.limits import LIMITS as IDS
from gai_fast.core.requests.signatures import is_ours
from gai_fast.core.requests.stored_ids import ITEM, is_own_item, own_item_id, response_of_item
from gai_fast.formats._base import ItemMark
from gai_fast.formats._members import member
from gai_fast.formats.responses.declared import custom_names
from gai_fast.formats.responses.kept_values import exact, values
from gai_fast.formats.responses.parts import ADDITIONAL_TOOLS
from gai_fast.kernels import encode_json
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.json_pieces import UNREADABLE


class Kept(Protocol):
    """A kept response; `stores/responses.py` has the type."""

    @property
    def identifier(self) -> str:
        """The response's id."""

    @property
    def status(self) -> str:
        """`completed`, `incomplete`, `failed` or `cancelled`."""

    @property
    def input(self) -> bytes:
        """The JSON array of its request's own items."""

    @property
    def response(self) -> bytes:
        """Its last `response` object."""

    @property
    def provider(self) -> str:
        """The provider that answered; empty if it is unknown."""


class Joined(NamedTuple):
    """The items of a conversation.

    Attributes:
        items: The items.
        marks: Which of them only their provider understands, in order.
    """

    items: list[Any]
    marks: list[ItemMark]


# ---- a request's own items -------------------------------------------------------------------------------------------


def own_items(body: dict[str, Any]) -> list[Any]:
    """Returns the items of a request's `input`; a text is one message of the user.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: `input` is neither a text nor a list.
    """
    given = member(body, "input", "$", str, list)
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return given or []


def input_id(item: Any, response: str, at: int) -> str:
    """Returns the id of an item of a request's input: rule 5."""
    return _given_id(item) or _made_id(_prefix_of(item), response, at)


def _given_id(item: Any) -> str:
    """Returns the id that a client gave to an item. Empty if it gave none."""
    own = item.get("id") if isinstance(item, dict) else None
    return own if isinstance(own, str) else ""


def _prefix_of(item: Any) -> str:
    """Returns how the id of an item without one begins."""
    return PREFIXES.get(kind_of(item) if isinstance(item, dict) else "message", "item")


def _made_id(prefix: str, response: str, at: int) -> str:
    return own_item_id(prefix, response.removeprefix(_RESPONSE), IDS.input_item + at)


class Written:
    """The own items of a request, written while it is read: at the end of its answer they are not walked again.

    Args:
        text: The items, a JSON array; of many a line begins after each `ITEMS_OF_LINE`, for `pages.py`.
        given: The ids of the items that have one.
        made: Of the others, how their ids begin, and their places.
    """

    def __init__(self, text: bytes, given: Sequence[str], made: Sequence[tuple[str, int]]) -> None:
        self.text = text
        self.given = given
        self.made = made


def written(items: Sequence[Any], most: int) -> Written:
    """Writes the own items of a request.

    Args:
        items: The items.
        most: The most ids, given or made, that are noted: the last ones. They are held while the answer is made.
    """
    is_short = len(items) <= ITEMS_OF_LINE
    text = encode_json(items) if is_short else b""
    texts: list[bytes] = []
    given: list[str] = []
    made: list[tuple[str, int]] = []
    for at, item in enumerate(items):
        if not is_short:
            breathe()
            texts.append(encode_json(item))
        identifier = _given_id(item)
        if identifier:
            given.append(identifier)
        else:
            made.append((_prefix_of(item), at))
    if len(items) > most:
        given, made = given[-most:], made[-most:]
    if not is_short:
        lines = [b",".join(texts[at : at + ITEMS_OF_LINE]) for at in range(0, len(texts), ITEMS_OF_LINE)]
        text = b"[%b]" % b",\n".join(lines)
    return Written(text, given, made)


def written_before(text: bytes, most: int) -> Written:
    """Returns items that another process has written; may take long.

    Args:
        text: The items, a JSON array.
        most: As for `written`.
    """
    found = written(values(text), most)
    return Written(text, found.given, found.made)


# ---- items by their ids ----------------------------------------------------------------------------------------------


def indexed_ids(identifier: str, own: Written, output: Sequence[str], most: int) -> list[str]:
    """Returns the ids of a response's items that do not tell the response's id: a store finds the others without them.

    Args:
        identifier: The response's id.
        own: The own items of its request.
        output: The ids of the items of its answer.
        most: The most ids. Of more the last ones are returned, those of the answer last.
    """
    made = [_made_id(prefix, identifier, at) for prefix, at in own.made]
    if made and response_of_item(made[0]) == identifier:  # so do all of them, else none does
        made = []
    others = [*own.given, *output][-most:]
    ids = made + [each for each in others if response_of_item(each) != identifier]
    return list(dict.fromkeys([each for each in ids[-most:] if 0 < len(each) <= SHARED.identifier]))


def items_by_id(kept: Kept) -> dict[str, dict[str, Any]]:
    """Returns the items of a kept response as they were written, those of its request and of its answer, by their ids.

    Args:
        kept: The response.
    """
    found: dict[str, dict[str, Any]] = {}
    for at, item in enumerate(values(kept.input)):
        if not at % _BREATHS:
            breathe()
        if isinstance(item, dict) and not ("id" in item and _refers(item)):
            found[input_id(item, kept.identifier, at)] = item
    for at, item in enumerate(output_of(kept)):
        if not at % _BREATHS:
            breathe()
        identifier = item.get("id") if isinstance(item, dict) else None
        if isinstance(identifier, str) and identifier:
            found[identifier] = item
    return found


def item_of(kept: Kept, identifier: str) -> dict[str, Any] | None:
    """Returns an item of a kept response as it was written, of its answer or of its request; None if there is none.

    Args:
        kept: The response.
        identifier: The item's id.
    """
    return items_by_id(kept).get(identifier)


class Reference(NamedTuple):
    """An item of a request that names an item of an earlier response.

    Attributes:
        place: Its index.
        identifier: The id.
        is_needed: Whether the item has no content. If false, the request may be complete without the kept item.
    """

    place: int
    identifier: str
    is_needed: bool


def references(items: Sequence[Any]) -> list[Reference]:
    """Returns the references among the items of a request.

    Args:
        items: The items of `input`.
    """
    found: list[Reference] = []
    for at, item in enumerate(items):
        breathe()
        identifier = item.get("id") if isinstance(item, dict) else None
        if isinstance(identifier, str) and identifier:
            kind = item.get("type")
            if _refers(item):
                found.append(Reference(at, identifier, is_needed=kind != REASONING))
            elif kind == REASONING and not item.get("encrypted_content") and not is_own_item(identifier):
                found.append(Reference(at, identifier, is_needed=False))
    return found


def _refers(item: dict[str, Any]) -> bool:
    """Returns whether an item with an id has no content."""
    return item.get("type") == ITEM or not any(value and name not in _NAMING for name, value in item.items())


# ---- a chain ---------------------------------------------------------------------------------------------------------


def joined(
    chain: Sequence[Kept],
    own: Sequence[Any],
    marks: Sequence[ItemMark] = (),
    structure: Structure | None = None,
    outputs: Sequence[Raw | None] | None = None,
) -> Joined:
    """Returns the items of a conversation: rules 1 to 4.

    Args:
        chain: The turns before, from the first on; empty if the request only has references.
        own: The request's own items; references to kept items are replaced.
        marks: The places of replaced items in `own` that only their provider understands.
        structure: Reads the items of the chain before they are parsed. None for a chain that is known to be small.
        outputs: The `output_text` of each turn; None if they are not read yet.

    Raises:
        InvalidRequest: An output lacks its call, or a call of a completed turn its output. The text names the call.
            Or the structure has more values than a request may have.
    """
    conversation = _Conversation(structure)
    for at, kept in enumerate(chain):
        conversation.add_turn(kept, output_text(kept) if outputs is None else outputs[at])
    begin = len(conversation.items)
    conversation.add(own)
    conversation.marks += [mark._replace(place=begin + mark.place) for mark in marks]  # of at most `kept_references`
    if chain:
        conversation.pair()
    return conversation.result()


def mark_of(item: Any, place: int, provider: str) -> ItemMark | None:
    """Returns the mark of an item that only its provider understands; None for other items.

    Args:
        item: The item.
        place: Its index in the conversation.
        provider: The provider that answered; empty if it is unknown.
    """
    kind = kind_of(item) if isinstance(item, dict) else ""
    if (kind == KIND and is_gateways(item)) or (kind in _APPROVALS and is_own_approval(item)):
        return None
    if kind == REASONING:
        own = item.get("id")  # of any kind: to write a long list as a text takes long
        is_sealed = is_ours(item.get("encrypted_content")) or (isinstance(own, str) and is_own_item(own))
        return ItemMark(place, provider, is_reasoning=True) if provider and not is_sealed else None
    return ItemMark(place, provider, is_reasoning=False) if kind and kind not in _UNDERSTOOD else None


class _Turn:
    """A turn of a conversation.

    Args:
        status: The status of its answer; empty for the request's own items.
        kept: What is kept of it; None if nothing is.
        begin: The index of the first item of its answer.
        end: The index behind the last.
    """

    def __init__(self, status: str, kept: Kept | None, begin: int, end: int) -> None:
        self.status = status
        self.kept = kept
        self.begin = begin
        self.end = end
        self._is_read = False
        self._names: frozenset[str] | None = None

    def declares(self, name: Any) -> bool:
        """Returns whether its request declared a custom tool with this name, or may have. Reads the tools once."""
        if not self._is_read and self.kept is not None:
            self._names = _declared(self.kept)
            self._is_read = True
        return self._names is None or (isinstance(name, str) and name in self._names)


class _Conversation:
    """The items of a conversation while they are joined; `structure` as for `joined`.

    Each item is looked at once, as it is added: interpreted, a look costs more than to parse it.
    """

    def __init__(self, structure: Structure | None) -> None:
        self._structure = structure
        self.items: list[Any] = []
        self.marks: list[ItemMark] = []
        self._turns: list[_Turn] = []
        self._left: set[int] = set()
        self._linked: list[tuple[int, _Turn]] = []
        """The places of calls and of outputs that count, with their turns."""

    def add(self, items: Sequence[Any]) -> None:
        """Adds the request's own items."""
        first = len(self.items)
        self.items += items
        turn = _Turn("", None, len(self.items), len(self.items))
        self._turns.append(turn)
        for at, item in enumerate(items, first):
            if not at % _BREATHS:
                breathe()
            if isinstance(item, dict) and kind_of(item) in _LINKED:
                self._linked.append((at, turn))

    def add_turn(self, kept: Kept, output: Raw | None) -> None:
        """Adds the items of a kept turn, of which `output` is the `output_text`."""
        breathe()
        items, structure = self.items, self._structure
        first = len(items)
        items += values(kept.input, structure)
        begin = len(items)
        items += _read_apart(kept) if output is None else values(bytes(output) or _NO_ITEMS, structure)
        turn = _Turn(kept.status, kept, begin, len(items))
        self._turns.append(turn)
        has_failed = kept.status == _FAILED
        for at in range(first, len(items)):
            if not at % _BREATHS:
                breathe()
            item = items[at]
            if not isinstance(item, dict):
                if at >= begin:  # of an input its provider decides
                    self._left.add(at)
                continue
            if has_failed and at >= begin and item.get("status") in _BROKEN:
                self._left.add(at)
            kind = kind_of(item)
            if kind == "message":  # nearly all
                if not _has_content(item):
                    self._left.add(at)
                continue
            mark = mark_of(item, at, kept.provider)
            if mark is not None:
                self.marks.append(mark)
            elif kind == RESPONSE:
                self._left.add(at)
            if kind in _LINKED and at not in self._left:
                self._linked.append((at, turn))

    def pair(self) -> None:
        """Checks that each call has its output: rule 3."""
        waiting: dict[str, tuple[int, _Turn]] = {}
        answered: set[str] = set()
        for number, (at, turn) in enumerate(self._linked):
            if not number % _BREATHS:
                breathe()
            item = self.items[at]
            call_id = item.get("call_id")
            if not isinstance(call_id, str) or not call_id:
                continue
            if item["type"] in _CALLS:
                if call_id in waiting:
                    self._without_output(*waiting[call_id])
                waiting[call_id] = at, turn
            elif waiting.pop(call_id, None) is not None:
                answered.add(call_id)
            elif call_id not in answered:
                raise _unpaired(f"No tool call found for the output of call {_shown(call_id)}: it is not in")
        for number, (at, turn) in enumerate(waiting.values()):
            if not number % _BREATHS:
                breathe()
            self._without_output(at, turn)

    def _without_output(self, at: int, turn: _Turn) -> None:
        """Leaves a call without an output out, or refuses it.

        Raises:
            InvalidRequest: Its turn is complete.
        """
        kept, item = turn.kept, self.items[at]
        if not turn.status:
            return  # the request's own: its provider decides
        if turn.status != _COMPLETED:
            self._left.add(at)
        elif kept is None or item["type"] != _CUSTOM_CALL or turn.declares(item.get("name")):
            text = f"No tool output found for call {_shown(item['call_id'])}: send it beside the new items of"
            raise _unpaired(text)

    def result(self) -> Joined:
        """Returns the items that count, and their marks."""
        left = self._left
        for turn in self._turns:
            if turn.status != _COMPLETED or (left and not left.isdisjoint(range(turn.begin, turn.end))):
                self._leave_unfollowed(turn)
        if not left:
            return Joined(self.items, self.marks)
        places: dict[int, int] = {}
        items: list[Any] = []
        for at, item in enumerate(self.items):
            if not at % _BREATHS:
                breathe()
            if at not in left:
                places[at] = len(items)
                items.append(item)
        marks: list[ItemMark] = []
        for number, mark in enumerate(self.marks):
            if not number % _BREATHS:
                breathe()
            if mark.place in places:
                marks.append(mark._replace(place=places[mark.place]))
        return Joined(items, marks)

    def _leave_unfollowed(self, turn: _Turn) -> None:
        """Leaves out the reasoning of an answer that nothing follows any more: rule 3."""
        for at in range(turn.end - 1, turn.begin - 1, -1):
            if not at % _BREATHS:
                breathe()
            if at in self._left:
                continue
            if self.items[at].get("type") != REASONING:
                return
            self._left.add(at)


def _unpaired(text: str) -> Error:
    return Error("invalid_request", f"{text} `input`", reason="tool_output", param="input")


def _shown(call_id: str) -> str:
    return call_id[: SHARED.identifier]


def _has_content(message: dict[str, Any]) -> bool:
    """Returns whether a message has content."""
    content = message.get("content")
    if not isinstance(content, list):
        return bool(content)
    for at, part in enumerate(content):
        if not at % _BREATHS:
            breathe()
        if _says(part):
            return True
    return False


def _says(part: Any) -> bool:
    """Returns whether a part of a message has content; one of an unknown kind has."""
    if not isinstance(part, dict):
        return True
    kind = part.get("type")
    name = _TEXTS.get(kind, "") if isinstance(kind, str) else ""
    return not name or bool(part.get(name))


def _declared(kept: Kept) -> frozenset[str] | None:
    """Returns the names of the custom tools that the request of a response declared. None if it is not known.

    Some providers run tools of their own by such calls.
    """
    try:
        tools = bytes(_ANSWER.decode(kept.response).tools)
    except UNREADABLE:
        found = _members(kept).get("tools")
        tools = b"" if found is None else encode_json(found)
    return frozenset(custom_names(tools)) if tools else None


# ---- what is kept ----------------------------------------------------------------------------------------------------


_NO_ITEMS: Final = b"[]"
_NOTHING: Final = Raw(b"")


@mypyc_attr(native_class=False)
class _Answer(msgspec.Struct):
    """The members of a `response` that a chain reads, as JSON texts; the others are skipped."""

    output: Raw = _NOTHING
    tools: Raw = _NOTHING


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def output_text(kept: Kept) -> Raw | None:
    """Returns the JSON array of the items of a kept response's answer; empty if it has none.

    Args:
        kept: The response.

    Returns:
        A view of the response's text. None if a strict parser refuses that text.
    """
    try:
        return _ANSWER.decode(kept.response).output
    except UNREADABLE:
        return None


def output_of(kept: Kept) -> list[Any]:
    """Returns the items of a kept response's answer.

    Args:
        kept: The response.
    """
    output = output_text(kept)
    return _read_apart(kept) if output is None else values(bytes(output) or _NO_ITEMS)


def _read_apart(kept: Kept) -> list[Any]:
    """Returns the items of the answer of a response that a strict parser refuses."""
    items = _members(kept).get("output")
    return items if isinstance(items, list) else []


def read_members(kept: Kept) -> bytes:
    """Returns a kept response's object with the members alone that a chain reads, which may be far smaller.

    An object repeats the `instructions` and the `tools` of its request. Of the tools, `pair` reads the names of custom
    ones, if there is a call of such a tool.

    Args:
        kept: The response.
    """
    try:
        answer = _ANSWER.decode(kept.response)
        output = bytes(answer.output) or _NO_ITEMS
        if not answer.tools or not (_CUSTOM in kept.input or _CUSTOM in output):
            return b'{"output":%b}' % output
        tools: list[bytes] = []
        for name in custom_names(bytes(answer.tools)):
            breathe()
            tools.append(b'{"type":"custom","name":%b}' % encode_json(name))
        return b'{"output":%b,"tools":[%b]}' % (output, b",".join(tools))
    except UNREADABLE:
        return kept.response  # what reads it says what is wrong with it


def _members(kept: Kept) -> dict[str, Any]:
    """Returns a kept response that a strict parser refuses: an upstream's may have invalid UTF-8 or lone surrogates."""
    value = exact(kept.response)
    return value if isinstance(value, dict) else {}


def kind_of(item: dict[str, Any]) -> str:
    """Returns the type of an item, which may be missing for a message and for a reference."""
    kind = item.get("type")
    if isinstance(kind, str):
        return kind
    return "message" if "role" in item else ITEM if "id" in item else ""


_RESPONSE: Final = "resp_"
_COMPLETED: Final = "completed"
_FAILED: Final = "failed"
REASONING: Final = "reasoning"
_CUSTOM_CALL: Final = "custom_tool_call"
_CUSTOM: Final = _CUSTOM_CALL.encode()
PREFIXES: Final = {
    "message": "msg",
    REASONING: "rs",
    "function_call": "fc",
    _CUSTOM_CALL: "ctc",
    "function_call_output": "fco",
    "custom_tool_call_output": "ctco",
}
"""How the ids of items begin, by their type."""
_CALLS: Final = frozenset(
    ("function_call", _CUSTOM_CALL, "computer_call", "local_shell_call", "shell_call", "apply_patch_call")
)
"""The types of items that call a tool which the client runs."""
_OUTPUTS: Final = frozenset([f"{kind}_output" for kind in _CALLS])
"""Codex answers a `local_shell_call` with the output of a function: the call's id alone makes a pair."""
_LINKED: Final = _CALLS | _OUTPUTS
_UNDERSTOOD: Final = frozenset(
    (
        "message",
        REASONING,
        "function_call",
        "function_call_output",
        _CUSTOM_CALL,
        "custom_tool_call_output",
        ITEM,
        ADDITIONAL_TOOLS,
    )
)
"""The types of items that mean the same to all providers, or that are refused where they mean nothing."""
_APPROVALS: Final = frozenset((REQUEST, RESPONSE))
_BROKEN: Final = ("in_progress", "incomplete", "searching", "interpreting", "generating")
"""The states of items that their answer broke off."""
ITEMS_OF_LINE: Final = 64
_BREATHS: Final = 64
"""Items that are looked at between two breaths: a breath takes as long as a look."""
_TEXTS: Final = {"output_text": "text", "input_text": "text", "text": "text", "refusal": "refusal"}
"""The member with the text of a part."""
_NAMING: Final = frozenset(("id", "type", "status"))
"""The members of an item that only names another one."""
