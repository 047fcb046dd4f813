"""Changes to chat requests that no table of rules expresses: tools, the order of messages, the beginning of an answer.

Knows the dialect, and no provider: the rules of each provider name those that it needs.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

from gai_fast.core.requests.shapes import RequestShape
from gai_fast.model.changes import Changes
from gai_fast.providers.requests.rules import Mend


class Tools:
    """Writes `tools` for a provider that refuses members of tools that it does not know.

    Args:
        provider: The provider's name.
        needs_parameters: The provider refuses a function without `parameters`.
    """

    def __init__(self, provider: str, *, needs_parameters: bool = False) -> None:
        self._provider = provider
        self._needs_parameters = needs_parameters

    def __call__(self, tools: Any, changes: Changes) -> Any:
        """Returns the value of `tools`; the arguments are those of `Member.write`."""
        if not isinstance(tools, list):
            return tools
        sent: list[Any] = []
        for at, tool in enumerate(tools):
            function = tool.get("function") if isinstance(tool, dict) else None
            if not isinstance(function, dict):
                if isinstance(tool, dict) and tool.get("type") == "custom":
                    changes.leave_out(self._provider, f"tools[{at}]", "custom tools")
                else:
                    sent.append(tool)
                continue
            kept = {name: value for name, value in function.items() if name in _FUNCTION and value is not None}
            _report(tool, _TOOL, f"tools[{at}]", changes)
            _report(function, _FUNCTION, f"tools[{at}].function", changes)
            if self._needs_parameters and "parameters" not in kept:
                kept["parameters"] = {"type": "object", "properties": {}}
            sent.append({"type": "function", "function": kept})
        return sent


def _report(holder: dict[str, Any], known: frozenset[str], path: str, changes: Changes) -> None:
    """Records the members of an object that are left out: marks of caches, or what another server knows."""
    for name, value in holder.items():
        if name not in known and value is not None:
            changes.drop(f"{path}.{name}")


_TOOL: Final = frozenset(("type", "function"))
_FUNCTION: Final = frozenset(("name", "description", "parameters", "strict"))
"""The members of a function that every provider knows."""


class ChatChoiceNeedsTools(Mend):
    """Leaves `tool_choice` and `parallel_tool_calls` out of a request without tools, which the dialect refuses there.

    Args:
        provider: The provider's name.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return not body.get("tools") and ("tool_choice" in body or "parallel_tool_calls" in body or "tools" in body)

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        body.pop("tools", None)
        body.pop("parallel_tool_calls", None)
        if body.pop("tool_choice", None) not in (None, "auto", "none"):
            changes.leave_out(self._provider, "tool_choice", "it needs `tools`")


class Prefix(Mend):
    """Marks a last message of the assistant as the beginning of the answer: `prefix: true`."""

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return shape.last == "assistant" and bool(body["messages"])

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        *others, last = body["messages"]
        if isinstance(last, dict) and last.get("role") == "assistant" and not last.get("tool_calls"):
            body["messages"] = [*others, {**last, "prefix": True}]


class ChatPairs(Mend):
    """Moves the results of calls to directly after their calls, if the dialect wants them there.

    If members may be left out, calls without results and results without calls are removed. Otherwise the provider
    refuses them.

    Args:
        provider: The provider's name.
        results_last: Instructions between calls and their results go before the calls, so that the results stay last:
            the provider refuses a last message of the system. Otherwise they go after the results.
    """

    def __init__(self, provider: str, *, results_last: bool = False) -> None:
        self._provider = provider
        self._results_last = results_last

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return bool(shape.ids) and not _is_paired(body["messages"])

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        messages: list[Any] = body["messages"]
        results: dict[str, list[int]] = {}  # the places of results, in descending order, by the id of their call
        for at in range(len(messages) - 1, -1, -1):
            message = messages[at]
            if _role(message) == "tool" and isinstance(message.get("tool_call_id"), str):
                results.setdefault(message["tool_call_id"], []).append(at)
        early = _Instructions(messages) if self._results_last else None
        sent: list[int] = []  # the places of the sent messages
        run: list[int] = []  # those of the calls and results that come last, before which instructions can be put
        changed: dict[int, dict[str, Any]] = {}  # messages without calls that were left out
        placed: set[int] = set()
        for at, message in enumerate(messages):
            if _role(message) == "tool":
                if at not in placed and not changes.may_drop:
                    run.append(at)  # a result of no call
                elif at not in placed:
                    changes.drop(f"messages[{at}]")
                continue
            if at in placed:
                continue  # instructions that stand before the calls
            calls = _calls(message)
            kept, found = _matched(calls, at, results, changes)
            if len(kept) < len(calls):
                message = {name: value for name, value in message.items() if name != "tool_calls"}
                if kept:
                    message["tool_calls"] = kept
                changed[at] = message
            if calls and not kept and not message.get("content"):
                continue
            if found and early is not None:
                moved = early.take(at, max(found))
                sent += moved
                placed.update(moved)
                for place in moved:
                    changes.adjust(f"messages[{place}]", "moved before the calls")
            if not kept:
                sent += [*run, at]
                run = []
                continue
            run.append(at)
            if found:
                following = _next_turn(messages, at, placed)
                run += found
                placed.update(found)
                for place in found:
                    if following < place:
                        changes.adjust(f"messages[{place}]", "moved to its call")
        sent += run
        body["messages"] = [changed.get(place, messages[place]) for place in sent]
        changes.places = [changes.own(f"messages[{place}]") for place in sent]


class _Instructions:
    """The instructions of a conversation, which are taken in their order.

    Args:
        messages: The conversation.
    """

    def __init__(self, messages: list[Any]) -> None:
        self._places = [at for at, message in enumerate(messages) if _role(message) in ("system", "developer")]
        self._next = 0

    def take(self, after: int, before: int) -> list[int]:
        """Returns the places of those between two messages that were not taken.

        Args:
            after: The place of the first message. It grows from call to call.
            before: The place of the second message.
        """
        taken: list[int] = []
        while self._next < len(self._places) and self._places[self._next] < before:
            if self._places[self._next] > after:
                taken.append(self._places[self._next])
            self._next += 1
        return taken


def _matched(
    calls: Sequence[Any], at: int, results: Mapping[str, list[int]], changes: Changes
) -> tuple[list[Any], list[int]]:
    """Returns the calls of a message that are kept, and the places of their results.

    Args:
        calls: The calls.
        at: The place of their message.
        results: The places of results that belong to no call yet, in descending order, by the id of their call. Loses
            those before the calls, and those that are returned.
        changes: If members may be left out, has each call without a result.
    """
    kept: list[Any] = []
    found: list[int] = []
    for call in calls:
        identifier = call.get("id") if isinstance(call, dict) else None
        places = results.get(identifier) if isinstance(identifier, str) else None
        while places and places[-1] < at:
            places.pop()
        if places:
            found.append(places.pop())
        elif changes.may_drop:
            changes.drop(f"messages[{at}].tool_calls")
            continue
        kept.append(call)
    return kept, found


def _next_turn(messages: Sequence[Any], at: int, placed: Container[int]) -> int:
    """Returns the place of the first message after some calls that is neither a result nor placed elsewhere.

    Args:
        messages: All messages.
        at: The place of the calls.
        placed: The places of messages that go elsewhere.
    """
    after = at + 1
    while after < len(messages) and (after in placed or _role(messages[after]) == "tool"):
        after += 1
    return after


def _is_paired(messages: list[Any]) -> bool:
    """Returns whether the results of all calls directly follow them, and there are no other results."""
    wanted: set[str] = set()
    for message in messages:
        if _role(message) == "tool":
            identifier = message.get("tool_call_id")
            if not isinstance(identifier, str) or identifier not in wanted:
                return False
            wanted.discard(identifier)
            continue
        if wanted:
            return False
        ids = [call.get("id") for call in _calls(message) if isinstance(call, dict)]
        wanted = {identifier for identifier in ids if isinstance(identifier, str)}
    return not wanted


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _calls(message: Any) -> list[Any]:
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return calls if isinstance(calls, list) else []


class NoLateSystem(Mend):
    """Makes system messages the user's after an answer or a result, at the end, and before an answer; reports it.

    "Unexpected role 'system' after role 'assistant'", "Expected last role User or Tool": Mistral's API. Before an
    answer, because the message was the last one when that answer was asked for: each turn repeats the turn before.
    """

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return False
        before: Any = None
        has_begun = False
        for message in messages:
            role = _role(message)
            if role == "system" and (before == "assistant" or before == "tool"):
                return True
            if role == "assistant" and before == "system" and has_begun:
                return True
            has_begun = has_begun or role != "system"
            before = role
        return bool(before == "system")

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        messages: list[Any] = body["messages"]
        sent: list[Any] = []
        has_begun = False
        for at, message in enumerate(messages):
            has_begun = has_begun or _role(message) != "system"
            is_late = at == len(messages) - 1 or (sent and _role(sent[-1]) in ("assistant", "tool"))
            is_late = is_late or (has_begun and _role(messages[at + 1]) == "assistant")
            if is_late and _role(message) == "system":
                changes.adjust(f"messages[{at}].role", "user")
                message = {**message, "role": "user"}
            sent.append(message)
        body["messages"] = sent


class NoPrefill(Mend):
    """Leaves a last message of the assistant out, for a provider that wants one of the user or a result there.

    Args:
        provider: The provider's name.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return shape.last == "assistant"

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        messages: list[Any] = body["messages"]
        end = len(messages)
        while end and _role(messages[end - 1]) == "assistant":
            end -= 1
            changes.leave_out(self._provider, f"messages[{end}]", "a last message of the assistant")
        body["messages"] = messages[:end]


class AnswerAfterResults(Mend):
    """Puts a word of the assistant between results and a question, if a provider needs one there; reports it."""

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        return "tool" in shape.roles

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        sent: list[Any] = []
        for at, message in enumerate(body["messages"]):
            if sent and _role(sent[-1]) == "tool" and _role(message) in ("user", "system"):
                changes.adjust(f"messages[{at}]", "after a word of the assistant")
                sent.append({"role": "assistant", "content": _WORD})
            sent.append(message)
        body["messages"] = sent


_WORD: Final = "OK."


class AlternateTurns(Mend):
    """Makes the messages after the system's alternate: the user's first and last, the assistant's in between.

    Adjacent messages of one role are joined, and system messages after others become the user's; both are reported.

    Args:
        provider: The provider's name.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider

    def is_needed(self, body: dict[str, Any], shape: RequestShape) -> bool:
        before: Any = ""
        messages = body.get("messages")
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            return False  # the provider refuses it
        for message in messages:
            role = _role(message)
            if (role == before and role != "system") or (role == "system" and before not in ("", "system")):
                return True
            if role == "assistant" and (before in ("", "system") or not message.get("content")):
                return True
            before = role
        return bool(before != "user")

    def mend(self, body: dict[str, Any], changes: Changes) -> None:
        sent: list[Any] = []
        joined: dict[int, list[Any]] = {}  # the contents of several messages, by the place of the one that gets them
        for at, message in enumerate(body["messages"]):
            role = _role(message)
            before: Any = _role(sent[-1]) if sent else ""
            if role == "assistant" and not message.get("content"):
                changes.drop_message(f"messages[{at}]")  # its calls were left out
                continue
            if role == "system" and before not in ("", "system"):
                changes.adjust(f"messages[{at}].role", "user")
                message = {**message, "role": "user"}
                role = "user"
            if role == "assistant" and before in ("", "system"):
                changes.leave_out(self._provider, f"messages[{at}]", "a first message of the assistant")
            elif sent and role == before and role != "system":
                changes.adjust(f"messages[{at}]", "joined")
                joined.setdefault(len(sent) - 1, [sent[-1].get("content")]).append(message.get("content"))
            else:
                sent.append(message)
        for place, contents in joined.items():
            sent[place] = {**sent[place], "content": _joined(contents)}
        if sent and _role(sent[-1]) == "assistant":
            changes.leave_out(
                self._provider, f"messages[{len(body['messages']) - 1}]", "a last message of the assistant"
            )
            sent.pop()
        if sent and all(_role(message) == "system" for message in sent):
            changes.adjust(f"messages[{len(sent) - 1}].role", "user")
            sent[-1] = {**sent[-1], "role": "user"}
        body["messages"] = sent


def _joined(contents: list[Any]) -> Any:
    """Joins the contents of several messages."""
    texts = [*takewhile(lambda content: isinstance(content, str), contents)]
    text = "\n\n".join(texts)
    if len(texts) == len(contents):
        return text
    return [*_parts(text), *(part for content in contents[len(texts) :] for part in _parts(content))]


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def has_functions(body: Mapping[str, Any], shape: RequestShape) -> bool:
    """Returns whether a request has the dialect's older form of tools."""
    if "functions" in body or "function_call" in body or "function" in shape.roles:
        return True
    return bool(shape.roles) and "function_call" in shape.roles.get("assistant", ())


def with_tools(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a request with tools in place of `functions`, as the dialect's newer form has them."""
    sent = {name: value for name, value in body.items() if name not in ("functions", "function_call")}
    functions, choice = body.get("functions"), body.get("function_call")
    if isinstance(functions, list) and functions:
        sent["tools"] = [{"type": "function", "function": function} for function in functions]
    if isinstance(choice, str):
        sent["tool_choice"] = choice
    elif isinstance(choice, dict):
        sent["tool_choice"] = {"type": "function", "function": choice}
    messages: list[Any] = []
    ids: dict[Any, str] = {}
    given = body.get("messages")
    for at, message in enumerate(given if isinstance(given, list) else ()):
        call = message.get("function_call") if isinstance(message, dict) else None
        if isinstance(call, dict) and isinstance(call.get("name"), str):
            kept = {name: value for name, value in message.items() if name != "function_call"}
            ids[call["name"]] = identifier = f"call_{at}"
            messages.append({**kept, "tool_calls": [{"id": identifier, "type": "function", "function": call}]})
        elif _role(message) == "function" and isinstance(message.get("name"), str) and message["name"] in ids:
            result = {"role": "tool", "tool_call_id": ids[message["name"]], "content": message.get("content")}
            messages.append(result)
        else:
            messages.append(message)
    sent["messages"] = messages if isinstance(given, list) else given
    return sent
