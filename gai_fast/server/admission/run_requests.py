"""Requests that are runs: the wait for the lists of their tools, and what such a request cannot be.

`net/stream/` has the runs, and decides which requests are.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard

from gai_fast.core.requests.gateway_calls import ApprovalAnswer
from gai_fast.formats import Format
from gai_fast.model.errors import Error
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import ModelSettings
from gai_fast.server.admission.negotiation import Negotiated

if TYPE_CHECKING:
    from gai_fast.net.runs.offers import RunOffer, RunTools, RunWish

APPROVALS_HEADER: Final = "x-gai-approvals"
_ASK: Final = "ask"
_DENY: Final = "deny"
_RESPONSES: Final = "responses"
_OWN: Final = "gateway"
_SPECIAL: Final = re.compile(r"([*?[])")


class NamedTools(NamedTuple):
    """What a request of the Responses dialect says of the gateway's tools: its `mcp` tools without an address.

    Attributes:
        patterns: The tools that it names.
        approve: Those of them whose calls wait for a person because it says so.
        paths: The paths of these members.
    """

    patterns: list[str]
    approve: list[str]
    paths: list[str]


def named_tools(body: Mapping[str, Any]) -> NamedTools | None:
    """Returns what a request in the Responses dialect says of the gateway's tools; None if it says nothing.

    Args:
        body: The request.

    Raises:
        Error: A member of it cannot be used.
    """
    tools = body.get("tools")
    if not isinstance(tools, list) or not tools:
        return None
    named = NamedTools([], [], [])
    for at, tool in enumerate(tools):
        is_own = isinstance(tool, dict) and tool.get("type") == "mcp"
        if is_own and not tool.get("server_url") and not tool.get("connector_id"):
            _add(named, tool, f"tools[{at}]")
            if len(named.patterns) + len(named.approve) > SHARED.tool_patterns:
                raise _too_many("tools")
    return named if named.paths else None


def _add(named: NamedTools, tool: Mapping[str, Any], path: str) -> None:
    label = tool.get("server_label")
    if not _is_name(label):
        raise _bad_tools(f"{path}.server_label: a label of the gateway's tools is missing")
    allowed = _names(tool.get("allowed_tools"), f"{path}.allowed_tools")
    named.patterns.extend([_all_of(label)] if allowed is None else [_one_of(label, name) for name in allowed])
    required = tool.get("require_approval")
    if required == "always":
        named.approve.append(_all_of(label))
    elif isinstance(required, dict):
        always = _names(required.get("always"), f"{path}.require_approval.always")
        named.approve.extend(_one_of(label, name) for name in always or ())
    elif required not in (None, "never"):
        raise _bad_tools(f"{path}.require_approval: it must be always, never or an object")
    named.paths.append(path)


def _names(given: Any, path: str) -> list[str] | None:
    """Returns the names of tools in a list, or in an object with `tool_names`."""
    if isinstance(given, dict):
        if given.get("read_only") is not None:
            raise Error("unsupported", f"{path}.read_only: the gateway's tools are chosen by name", reason="tools")
        given = given.get("tool_names")
    if given is None:
        return None
    if isinstance(given, list) and len(given) > SHARED.tool_patterns:
        raise _too_many(path)
    if not isinstance(given, list) or not all(map(_is_name, given)):
        raise _bad_tools(f"{path}: it must be a list of names of tools")
    return given


def _is_name(given: Any) -> TypeGuard[str]:
    return isinstance(given, str) and 0 < len(given) <= SHARED.tool_pattern


def _all_of(label: str) -> str:
    return "?*" if label == _OWN else f"{_escaped(label)}.*"


def _one_of(label: str, name: str) -> str:
    return _escaped(name) if label == _OWN else f"{_escaped(label)}.{_escaped(name)}"


def _escaped(name: str) -> str:
    return _SPECIAL.sub(r"[\1]", name)


def _too_many(path: str) -> Error:
    return _bad_tools(f"{path}: more than {SHARED.tool_patterns} names of the gateway's tools (limit tool_patterns)")


def _bad_tools(text: str) -> Error:
    return Error("invalid_request", text, reason="tools")


async def list_tools(
    tools: RunTools,
    wish: RunWish,
    answers: Sequence[ApprovalAnswer],
    caller: str,
    then: Callable[[RunOffer], object],
    look: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Calls with what a run offers, once that is known, and what it has decided.

    Args:
        tools: The tools of the process.
        wish: The run.
        answers: The request's answers to requests for approvals.
        caller: The name of its caller.
        then: The function.
        look: Looks first whether a limit refuses the request. None if its offer costs nothing.

    Raises:
        Error: As `read_answers`, or `look`.
    """
    if look is not None:
        await look()
    offer = await tools.offer(wish, caller)
    if answers:
        from gai_fast.server.admission.approval_answers import read_answers  # most requests have none

        offer.answered = await read_answers(offer, caller, answers)
    then(offer)


def asks_approvals(
    headers: Mapping[str, str],
    asked: str | None,
    negotiated: Negotiated,
    model: ModelSettings,
    *,
    is_stream: bool,
    leaves: bool = False,
) -> bool:
    """Returns whether a run asks a person for approvals. If not, it denies such calls.

    Args:
        headers: The headers of its request.
        asked: What its body says; None if it says nothing.
        negotiated: The form of its response.
        model: The model that it asks.
        is_stream: Whether the response is a stream.
        leaves: Whether its run would leave them to a later request, and wait for nothing.

    Raises:
        Error: It asks for what there is not.
    """
    named = headers.get(APPROVALS_HEADER, asked)
    if named not in (None, _ASK, _DENY):
        raise Error("invalid_request", f"the header {APPROVALS_HEADER} must be {_ASK} or {_DENY}", reason="approvals")
    if named is not None:
        return named == _ASK
    return leaves or (is_stream and negotiated.format.asks_approvals and not model.upstream.takes_credentials)


def leaves_approvals(dialect: Format, negotiated: Negotiated) -> bool:
    """Returns whether a run leaves approvals to a later request, which answers them.

    Args:
        dialect: The format of its route.
        negotiated: The form of its response.
    """
    return dialect.name == _RESPONSES and negotiated.format.name == _RESPONSES


def check_run(negotiated: Negotiated, answers: int) -> None:
    """Checks whether a request can be a run.

    Args:
        negotiated: The form of its response.
        answers: The number of answers that it wants.

    Raises:
        Error: It wants several answers, or a form without events.
    """
    if answers > 1:
        raise Error("unsupported", "a request that may use the gateway's tools has one answer", reason="n")
    if negotiated.copies_upstream:
        text = f"format {negotiated.name!r} has no place for the calls of the gateway's tools"
        raise Error("unsupported", text, reason="format")
