"""The bytes of requests in the chat dialect without what a conversation says.

1. A template is learned for each model of a provider, from samples that are built from objects: whatever a provider
   overrides is in it. A request that it does not fit is built from objects. Rendering takes a fifth of that time.
2. A request fits if it has nothing but texts; or tools that several requests share, and their calls and results.
3. What stands before and behind the messages of requests with tools is learned once for these tools, from a sample with
   all that a conversation may have by rule 2. What a provider changes in it and reports fits no template.
4. Calls fit whose results follow at once, in their order, and an answer of the assistant behind these: some providers
   mend all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from msgspec import UNSET, Raw, Struct
from msgspec.structs import astuple, replace

from gai_fast.kernels import encode_json, escape, join_json
from gai_fast.model.errors import Error
from gai_fast.model.request import (
    AssistantMessage,
    Message,
    Request,
    SharedTools,
    SystemMessage,
    TextPart,
    ToolCallPart,
    ToolMessage,
    UserMessage,
)
from gai_fast.providers.requests.limits import LIMITS
from gai_fast.providers.requests.parts import has_cache_marks
from gai_fast.providers.requests.rules import CallIds, RequestRules
from gai_fast.providers.requests.target import NO_CORRECTIONS, Target, UpstreamRequest
from gai_fast.providers.requests.tool_names import ToolNames
from gai_fast.runtime.breathing import breathe


class Writer(Protocol):
    """The API whose templates are learned."""

    @property
    def tool_names(self) -> ToolNames | None:
        """The names that it accepts. None for all."""

    def headers(self, target: Target) -> list[tuple[str, str]]:
        """Works as `API.headers`."""

    def rules_of(self, target: Target) -> RequestRules:
        """Works as `API.rules_of`."""

    def built(self, request: Request, target: Target) -> UpstreamRequest:
        """Works as `ChatAPI.built`."""

    def message(self, message: Message, path: str, target: Target) -> dict[str, Any] | None:
        """Works as `ChatAPI.message`."""

    def earlier_call(self, call: ToolCallPart, path: str, target: Target) -> dict[str, Any]:
        """Works as `ChatAPI.earlier_call`."""


class BodyFrame:
    """What stands before and behind the messages of requests that have the same other members.

    Args:
        before: The body before the messages. None if no request with these members fits.
        after: The body behind them.
        corrections: The facts of the model that the configuration corrects.
    """

    def __init__(self, before: bytes | None, after: bytes, corrections: Mapping[str, Any] = NO_CORRECTIONS) -> None:
        self.before = before
        self.after = after
        self.corrections = corrections


class RequestTemplate:
    """The template of a model.

    Attributes:
        path: The request's path.
        known: The last credential and its headers, in one tuple because another thread may replace them.
        frame: That of requests without other members.
        continues: A request whose last message is the assistant's fits, too. Some APIs mark or refuse such a message.
        alternates: Only requests fit in which user and assistant alternate, behind system messages. Other requests are
            changed for some APIs.
        ends: The bytes before and after the text of a message, by its kind; empty: no request fits the template.
        calls: How calls and results are written. None if no request with them fits.
    """

    def __init__(self) -> None:
        self.path = ""
        self.known: tuple[str | None, Sequence[tuple[str, str]]] = (None, ())
        self.frame = _NO_FRAME
        self.continues = True
        self.alternates = False
        self.ends: dict[type[Struct], tuple[bytes, bytes]] = {}
        self.calls: WrittenCalls | None = None

    def render(self, api: Writer, request: Request, target: Target) -> bytes | None:
        """Returns the body of a request, or None if the request does not fit: rule 2.

        Args:
            api: The API.
            request: The request.
            target: Model and credential.
        """
        if not self.ends:
            return None
        members = _astuple(request)  # one call: each access of a member by name costs 160 instructions
        others = members[_FIRST_OTHER:_AFTER_OTHERS]
        if others == _UNGIVEN:
            return self._rendered(self.frame, members, None)
        tools: Any = members[_TOOLS]
        if self.calls is None or type(tools) is not SharedTools:
            return None
        if others[_FORMAT:_SAMPLING] != _NO_FORMAT or others[_AFTER_SAMPLING:] != _NO_MORE:
            return None
        key = api, target.model, others[_CHOICE], others[_SAMPLING:_AFTER_SAMPLING]
        frame: BodyFrame | None = tools.written.get(key)
        if frame is None or frame.corrections != target.corrections:
            frame = self._frame_of(api, request, target)
            if len(tools.written) >= LIMITS.frames:
                tools.written.clear()
            tools.written[key] = frame
        return self._rendered(frame, members, self.calls)

    def _frame_of(self, api: Writer, request: Request, target: Target) -> BodyFrame:
        """Learns the frame of requests with tools: rule 3."""
        before: bytes | None = None
        after = b""
        sample = replace(request, query=_UNSET, system=_UNSET, messages=_CALLED)
        asked = Target(target.model, None, "error", target.corrections)
        said = self._rendered(_NO_FRAME, _astuple(sample), self.calls)
        if said is not None and not has_cache_marks(sample):
            try:
                made = api.built(sample, asked)
            except Error:
                made = None  # the request itself is refused, or something of it is left out
            is_like = made is not None and made.path == self.path and [*made.headers] == [*api.headers(asked)]
            if made is not None and is_like and not asked.has_changes and made.body.count(said) == 1:
                before, _, after = made.body.partition(said)
        return BodyFrame(before, after, target.corrections)

    def _rendered(self, frame: BodyFrame, members: tuple[Any, ...], calls: WrittenCalls | None) -> bytes | None:
        before = frame.before
        if before is None:
            return None
        pieces: list[bytes | str] = []
        system, query = members[_SYSTEM], members[_QUERY]
        messages: list[Message] = members[_MESSAGES]
        if query is _UNSET and not self.continues and messages and type(messages[-1]) not in _ASKING:
            return None
        if self.alternates and not _alternate(messages, query):
            return None
        if system is not _UNSET and not self._add(pieces, SystemMessage, system):
            return None
        if calls is None:
            for message in messages:
                breathe()
                if not self._add(pieces, type(message), message.content):
                    return None
        elif not self._add_all(pieces, messages, calls, query is _UNSET):
            return None
        if query is not _UNSET and not self._add(pieces, UserMessage, query):
            return None
        if not pieces:
            return None
        pieces[0] = before
        pieces.append(frame.after)
        return _join_json(pieces)

    def _add_all(self, pieces: list[bytes | str], messages: list[Message], calls: WrittenCalls, may_end: bool) -> bool:
        """Adds a conversation that may have calls. Returns False if it does not fit: rule 4.

        Args:
            pieces: As for `_add`.
            messages: The conversation.
            calls: How calls are written.
            may_end: Whether nothing follows.
        """
        seen: set[str] = set()
        waiting: list[str] = []  # the calls whose results follow, the last one first
        has_results = False  # just before
        each: Any
        for each in messages:
            breathe()
            kind = type(each)
            if kind is ToolMessage:
                if not waiting or each.call_id != waiting.pop() or not calls.add_result(pieces, each):
                    return False
                has_results = True
                continue
            if waiting or (has_results and kind is not AssistantMessage):
                return False
            has_results = False
            if kind is AssistantMessage and type(each.content) is not str:
                waiting = calls.add(pieces, each)
                if not waiting or not seen.isdisjoint(waiting):
                    return False
                seen.update(waiting)
                if len(waiting) > 1:
                    waiting.reverse()
            elif not self._add(pieces, kind, each.content):
                return False
        return not waiting and (may_end or not has_results)

    def _add(self, pieces: list[bytes | str], kind: type[Struct], text: Any) -> bool:
        """Adds a comma and a message to `pieces`. Returns False, and adds nothing, if the content is not text."""
        ends = self.ends.get(kind)
        if ends is None or not isinstance(text, str) or not text:
            return False
        head, tail = ends
        pieces.append(b",")
        pieces.append(head)
        pieces.append(text)
        pieces.append(tail)
        return True


class WrittenCalls:
    """How calls of tools and their results are written.

    Args:
        silent: The bytes before and behind the calls of a message without text.
        saying: The bytes before and behind its text, and those behind the calls of that message.
        call: The bytes before and between the id, the name and the arguments of a call, and behind them.
        result: The bytes before and between the id and the text of a result, and behind them.
        names: The names that the API accepts. None for all.
        call_ids: The ids that it accepts. None for all.
    """

    def __init__(
        self,
        silent: Sequence[bytes],
        saying: Sequence[bytes],
        call: Sequence[bytes],
        result: Sequence[bytes],
        names: ToolNames | None,
        call_ids: CallIds | None,
    ) -> None:
        self._silent = silent
        self._saying = saying
        self._call = call
        self._result = result
        self._names = names
        self._call_ids = call_ids

    def add(self, pieces: list[bytes | str], message: Message) -> list[str]:
        """Adds a comma and a message with calls. Returns their ids; empty if it does not fit.

        Args:
            pieces: As for `RequestTemplate._add`.
            message: The assistant's message, with parts.
        """
        texts: list[str] = []
        made: list[bytes | str] = []
        ids: list[str] = []
        before, before_name, before_arguments, behind = self._call
        parts: Sequence[Any] = message.content
        for part in parts:
            kind = type(part)
            if kind is TextPart and part.cache is _UNSET:
                texts.append(part.text)
            elif kind is ToolCallPart and part.signature is _UNSET and self._fits(part):
                arguments = bytes(part.input)
                if not arguments.startswith(b"{") or part.call_id in ids:
                    return []
                made += (b",", before, part.call_id, before_name, part.name, before_arguments, arguments.decode())
                made.append(behind)
                ids.append(part.call_id)
            else:
                return []
        if not ids:
            return []
        made[0] = b""
        text = "".join(texts)
        if text:
            head, tail, end = self._saying
            pieces += (b",", head, text, tail, *made, end)
        else:
            head, end = self._silent
            pieces += (b",", head, *made, end)
        return ids

    def add_result(self, pieces: list[bytes | str], message: Any) -> bool:
        """Adds a comma and a result. Returns False if it does not fit; arguments as for `add`."""
        text: Any = message.content
        if message.is_error or not isinstance(text, str) or not text:
            return False
        before, before_text, behind = self._result
        pieces += (b",", before, message.call_id, before_text, text, behind)
        return True

    def _fits(self, call: ToolCallPart) -> bool:
        if self._names is not None and not self._names.fits(call.name):
            return False
        return self._call_ids is None or self._call_ids.fits(call.call_id)


def learned(api: Writer, wanted: Target) -> RequestTemplate:
    """Returns the template of a model: rule 1.

    Args:
        api: The API.
        wanted: Model and credential.
    """
    template = RequestTemplate()
    target = Target(wanted.model, wanted.api_key)
    try:
        headers = tuple(api.headers(target))
        template.known = target.api_key, headers
        for kind in (UserMessage, AssistantMessage, SystemMessage):
            message = encode_json(api.message(kind(content=_PROBE), "", target))
            head, _, tail = message.partition(escape(_PROBE))
            template.ends[kind] = head, tail
        one = api.built(Request(query=_PROBE), target)
        template.path = one.path
        head, tail = template.ends[UserMessage]
        before, _, after = one.body.partition(b"%b%b%b" % (head, escape(_PROBE), tail))
        template.frame = BodyFrame(before, after)
        template.continues = _fits(template, api, _LAST, target)
        one = api.built(_SEVERAL, target)
        template.alternates = template.render(api, _SEVERAL, target) != one.body
        one = api.built(_TURNS, target)
        is_same = template.render(api, _TURNS, target) == one.body
        if not is_same or one.path != template.path or tuple(one.headers) != headers:
            template.ends.clear()
        elif not template.alternates:
            template.calls = _calls_of(api, target)
    except Error:
        template.ends.clear()  # this provider does not support some sample
    return template


def _fits(template: RequestTemplate, api: Writer, sample: Request, target: Target) -> bool:
    """Returns whether a sample fits a template."""
    try:
        one = api.built(sample, target)
    except Error:
        return False
    return template.render(api, sample, target) == one.body and one.path == template.path


def _calls_of(api: Writer, target: Target) -> WrittenCalls | None:
    """Learns how calls are written. None if they are not a text, or a place, each."""
    probe = ToolCallPart(call_id=_ID, name=_NAME, input=_ARGUMENTS)
    try:
        call = encode_json(api.earlier_call(probe, "", target))
        silent = encode_json(api.message(AssistantMessage(content=[probe]), "", target))
        saying = encode_json(api.message(AssistantMessage(content=[TextPart(text=_SAID), probe]), "", target))
        result = encode_json(api.message(ToolMessage(call_id=_ID, content=_SAID), "", target))
    except Error:
        return None
    learned_from = (
        _split(silent, call),
        _split(saying, escape(_SAID), call),
        _split(call, escape(_ID), escape(_NAME), escape(bytes(_ARGUMENTS).decode())),
        _split(result, escape(_ID), escape(_SAID)),
    )
    if not all(learned_from):
        return None
    return WrittenCalls(*learned_from, api.tool_names, api.rules_of(target).call_ids)


def _split(whole: bytes, *marks: bytes) -> list[bytes]:
    """Returns the bytes before, between and behind marks that stand in this order, each once; empty if they do not."""
    found: list[bytes] = []
    rest = whole
    for mark in marks:
        if whole.count(mark) != 1:
            return []
        before, mark_found, rest = rest.partition(mark)
        if not mark_found:
            return []
        found.append(before)
    return [*found, rest]


def _alternate(messages: list[Message], query: Any) -> bool:
    """Returns whether the messages after the system's alternate, from the user's to the user's; the last is a query."""
    is_user = False
    has_begun = False
    for message in messages:
        if not has_begun and type(message) is SystemMessage:
            continue
        has_begun = True
        is_user = not is_user
        if type(message) is not (UserMessage if is_user else AssistantMessage):
            return False
    return is_user == (query is _UNSET)


# Constants: a name look-up costs 30 ns.
_UNSET: Final = UNSET
_astuple: Final = astuple
_join_json: Final = join_json
_ASKING: Final = frozenset((UserMessage, ToolMessage))
_PROBE: Final = "-"
_SAID: Final = "said-it"
_ID: Final = "call_id-1"
_NAME: Final = "tool-1"
_ARGUMENTS: Final = Raw(b'{"a":"b c"}')
_SEVERAL: Final = Request(
    system="a",
    messages=[
        SystemMessage(content="b"),
        UserMessage(content=" c\n"),
        UserMessage(content="d"),
        SystemMessage(content="e"),
        AssistantMessage(content=" f\n"),
        AssistantMessage(content="g"),
        SystemMessage(content="i"),
    ],
    query="h",
)
_TURNS: Final = Request(
    system="a",
    messages=[UserMessage(content=" b\n"), AssistantMessage(content=" c\n")],
    query="d",
)
_LAST: Final = Request(messages=[UserMessage(content="a"), AssistantMessage(content="b")])


def _call(number: int) -> ToolCallPart:
    return ToolCallPart(call_id=f"abcdefgh{number}", name="tool", input=Raw(b'{ "a": "\\u00e9"}'))


def _result(number: int) -> ToolMessage:
    return ToolMessage(call_id=f"abcdefgh{number}", content=f" {number}\n")


_CALLED: Final[list[Message]] = [
    UserMessage(content="a"),
    AssistantMessage(content=[TextPart(text=" b"), _call(1), TextPart(text="c "), _call(2)]),
    _result(1),
    _result(2),
    AssistantMessage(content=[_call(3)]),
    _result(3),
    AssistantMessage(content=" d\n"),
    UserMessage(content="e"),
    UserMessage(content="f"),
    SystemMessage(content="g"),
    AssistantMessage(content=[TextPart(text="h"), _call(4)]),
    _result(4),
]
_MEMBERS: Final = Request.__struct_fields__
_SYSTEM: Final = _MEMBERS.index("system")
_MESSAGES: Final = _MEMBERS.index("messages")
_TOOLS: Final = _MEMBERS.index("tools")
_QUERY: Final = _MEMBERS.index("query")
_FIRST_OTHER: Final = _MESSAGES + 1
_AFTER_OTHERS: Final = _MEMBERS.index("json_snapshots")
"""The members between these are sent besides the messages. The members from `json_snapshots` on are never sent, and the
body's `model` is the target's."""
_UNGIVEN: Final[tuple[Any, ...]] = astuple(Request())[_FIRST_OTHER:_AFTER_OTHERS]
_CHOICE: Final = _MEMBERS.index("tool_choice") - _FIRST_OTHER
_FORMAT: Final = _MEMBERS.index("response_format") - _FIRST_OTHER
_SAMPLING: Final = _MEMBERS.index("temperature") - _FIRST_OTHER
_AFTER_SAMPLING: Final = _MEMBERS.index("stop") - _FIRST_OTHER
"""Of the other members, a choice and those of sampling depend on nothing that a conversation says."""
_NO_FORMAT: Final[tuple[Any, ...]] = _UNGIVEN[_FORMAT:_SAMPLING]
_NO_MORE: Final[tuple[Any, ...]] = _UNGIVEN[_AFTER_SAMPLING:]
_NO_FRAME: Final = BodyFrame(b"", b"")
