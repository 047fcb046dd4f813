"""Reads requests of Vercel's AI SDK, `{id, messages: UIMessage[], trigger, messageId, …body}`, as native requests.

Owns the mapping from the parts of a `UIMessage` to the parts of a native message, as in `convertToModelMessages` of the
SDK's server. Knows no provider and no route.

1. Members that a page adds to the body are native ones: `model`, `tools`, `temperature` and so on.
2. An assistant message is split at its `step-start` parts. Each step becomes an assistant message, followed by one
   message for each tool result.
3. A part that only a page needs is dropped: `data-*`, sources, a call whose input was still streaming, and a tool that
   the provider ran itself. The provider's own blocks of such a tool are in `data-provider-block` parts, which are read.
4. If a part is meant for the model but has no native form, its path is returned.
5. A page that was asked for an approval sends the chat again with its answer in the last message, as the SDK's server
   reads it. An answer in an earlier message says nothing any more.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.core.requests.gateway_calls import GivenDecision, is_approval_id
from gai_fast.formats._members import (
    DialectReader,
    check_types,
    data_url,
    invalid,
    member,
    require_type,
    required,
    unknown_members,
)
from gai_fast.kernels import encode_json
from gai_fast.model.request import Request

OWN: Final = ("id", "messageId", "trigger")
"""Members of the SDK's body that a native request does not have."""

_NATIVE: Final = frozenset(Request.__struct_fields__) - {"messages", "query"}

_PART: Final = {
    **dict.fromkeys("id state sourceId url title filename mediaType toolCallId toolName errorText".split(), str),
    **dict.fromkeys("providerMetadata callProviderMetadata resultProviderMetadata".split(), dict),
    **dict.fromkeys(("providerExecuted", "preliminary"), bool),
}
"""The types of the members that parts of every type have."""

_APPROVAL: Final = {"id": str, "approved": bool, "reason": str}

_ANSWERED: Final = "approval-responded"
_DENIED: Final = "The user did not allow this call"

_DYNAMIC: Final = "dynamic-tool"

# States of a tool part whose call has no result yet.
_PENDING: Final = ("input-available", "approval-requested")
_ENDED: Final = ("output-available", "output-error", "output-denied")
"""States of a tool part whose call has a result."""


def is_own_body(body: dict[str, Any]) -> bool:
    """Returns whether a body is the SDK's, and not a native request.

    Args:
        body: The client's JSON object.
    """
    if any(key in body for key in OWN):
        return True
    messages = body.get("messages")
    return isinstance(messages, list) and any(isinstance(each, dict) and "parts" in each for each in messages)


def read_ui_request(body: dict[str, Any]) -> tuple[Request, list[str]]:
    """Translates the SDK's body into a native request; see `Format.parse_request`."""
    return _BodyReader().request(body)


def decisions_in(body: dict[str, Any]) -> list[GivenDecision]:
    """Returns the answers to the gateway's requests for approvals: rule 5.

    Args:
        body: The SDK's body, which `read_ui_request` has read.

    Raises:
        InvalidRequest: An answer is not valid.
    """
    message = body["messages"][-1]
    if message["role"] != "assistant":
        return []
    found: list[GivenDecision] = []
    for part, path in zip(*_with_paths(message["parts"], f"$.messages[{len(body['messages']) - 1}]"), strict=True):
        if part.get("state") != _ANSWERED or not part["type"].startswith(("tool-", _DYNAMIC)):
            continue
        approval, where = required(part, "approval", path, dict), f"{path}.approval"
        check_types(approval, where, _APPROVAL)
        identifier = required(approval, "id", where, str)
        if not is_approval_id(identifier):
            continue  # of a tool that the page's own server runs
        name = required(part, "toolName", path, str) if part["type"] == _DYNAMIC else part["type"].removeprefix("tool-")
        is_approved, reason = required(approval, "approved", where, bool), member(approval, "reason", where, str) or ""
        call_id = required(part, "toolCallId", path, str)
        found.append(GivenDecision(identifier, is_approved, reason, call_id, name, part.get("input")))
    return found


class _BodyReader(DialectReader):
    """Reads one body of the SDK's."""

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the native request's JSON object."""
        for key in OWN:
            member(body, key, "$", str)
        native = {key: body[key] for key in body if key in _NATIVE and body[key] is not None}
        messages: list[dict[str, Any]] = []
        for at, message in enumerate(required(body, "messages", "$", list)):
            messages += self._message(message, f"$.messages[{at}]")
        if not messages:
            raise invalid("`messages` must hold at least one message with a part", "$.messages")
        native["messages"] = messages
        known = {*_NATIVE, *OWN, "messages"}
        self.lost += unknown_members(body, "$", known)
        return native

    def _message(self, message: Any, path: str) -> list[dict[str, Any]]:
        require_type(message, path, dict)
        role = required(message, "role", path, str)
        member(message, "id", path, str)
        parts = required(message, "parts", path, list)
        for part, where in zip(*_with_paths(parts, path), strict=True):
            require_type(part, where, dict)
            required(part, "type", where, str)
            check_types(part, where, _PART)
        if role == "system":
            texts = [part for part in map(self._text, *_with_paths(parts, path)) if part is not None]
            return [{"role": "system", "content": texts}] if texts else []
        if role == "user":
            content = [part for part in map(self._user_part, *_with_paths(parts, path)) if part is not None]
            return [{"role": "user", "content": content}] if content else []
        if role == "assistant":
            return self._assistant(parts, path)
        raise invalid("The role is not one of system, user, assistant", f"{path}.role")

    def _text(self, part: dict[str, Any], path: str) -> dict[str, Any] | None:
        if part["type"] == "text":
            return {"type": "text", "text": required(part, "text", path, str)}
        self._leave_out(part, path)
        return None

    def _user_part(self, part: dict[str, Any], path: str) -> dict[str, Any] | None:
        return self._file(part, path) if part["type"] == "file" else self._text(part, path)

    def _file(self, part: dict[str, Any], path: str) -> dict[str, Any] | None:
        """Returns the native part for a file, or None for a sound at an address and for a file without one."""
        media_type = required(part, "mediaType", path, str)
        url = member(part, "url", path, str)
        kind = media_type.partition("/")[0].lower()
        if url is not None and url.startswith("data:"):
            data = data_url(url, f"{path}.url")
            if kind in ("image", "audio", "video"):
                return {"type": kind, **data}
            filename = member(part, "filename", path, str)
            return {"type": "file", **data} | ({} if filename is None else {"filename": filename})
        if url is not None and kind in ("image", "video"):
            return {"type": kind, "url": url}
        if url is not None and kind != "audio":
            return {"type": "file", "url": url, "media_type": media_type}
        self.lost.append(path[2:])
        return None

    def _assistant(self, parts: list[Any], path: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        content: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for part, where in zip(*_with_paths([*parts, {"type": "step-start"}], path), strict=True):
            kind = part["type"]
            if kind == "step-start":
                if content:
                    messages.append({"role": "assistant", "content": content})
                messages += results
                content, results = [], []
            elif kind == "text":
                text = required(part, "text", where, str)
                if text:  # providers refuse an empty part
                    content.append({"type": "text", "text": text})
            elif kind == "reasoning":
                reasoning = self._reasoning(part, where)
                if reasoning["text"] or "signature" in reasoning:
                    content.append(reasoning)
            elif kind == _DYNAMIC:
                self._tool(part, required(part, "toolName", where, str), where, content, results)
            elif kind.startswith("tool-"):
                self._tool(part, kind.removeprefix("tool-"), where, content, results)
            elif kind == "data-provider-block":
                data = required(part, "data", where, dict)
                provider = required(data, "provider", f"{where}.data", str)
                block = required(data, "block", f"{where}.data", dict)
                content.append({"type": "provider_block", "provider": provider, "block": block})
            elif kind == "file":
                file = self._file(part, where)
                if file is not None and file["type"] in ("image", "audio"):
                    content.append(file)
                elif file is not None:  # a native assistant message cannot hold documents and video
                    self.lost.append(where[2:])
            else:
                self._leave_out(part, where)
        # An empty message stays a message: if a provider refuses it, the client gets that error.
        return messages or [{"role": "assistant", "content": []}]

    def _reasoning(self, part: dict[str, Any], path: str) -> dict[str, Any]:
        native = {"type": "reasoning", "text": member(part, "text", path, str) or ""}
        return native | _signature(part, "providerMetadata", path, "signature", "redacted", "provider")

    def _tool(
        self,
        part: dict[str, Any],
        name: str,
        path: str,
        content: list[dict[str, Any]],
        results: list[dict[str, Any]],
    ) -> None:
        """Adds a tool part's call to `content` and its result to `results`."""
        state = required(part, "state", path, str)
        call_id = required(part, "toolCallId", path, str)
        if state == "input-streaming":
            return
        # A call that the gateway has made is `dynamic`: its result is part of the conversation, unlike a provider's.
        is_gateways = part["type"] == _DYNAMIC
        if member(part, "providerExecuted", path, bool) and not (is_gateways and state in _ENDED):
            return
        given = part.get("input", part.get("rawInput")) if state == "output-error" else part.get("input")
        call = {"type": "tool_call", "call_id": call_id, "name": name, "input": {} if given is None else given}
        approval = member(part, "approval", path, dict) or {}
        check_types(approval, f"{path}.approval", _APPROVAL)
        result: dict[str, Any] | None = None
        if state == "output-available":
            output = part.get("output")
            result = {"content": output if isinstance(output, str) else encode_json(output).decode()}
        elif state == "output-error":
            result = {"content": required(part, "errorText", path, str), "is_error": True}
        elif state == "output-denied" or (state == _ANSWERED and approval.get("approved") is False):
            result = {"content": approval.get("reason") or _DENIED, "is_error": True}
        elif state == _ANSWERED:
            self.lost.append(path[2:])  # the page runs an allowed call, and sends the output in a later request
            return
        elif state not in _PENDING:
            raise invalid("The state is not one of a tool part's", f"{path}.state")
        content.append(call | _signature(part, "callProviderMetadata", path, "signature"))
        if result is not None:
            results.append({"role": "tool", "call_id": call_id, **result})

    def _leave_out(self, part: dict[str, Any], path: str) -> None:
        """Drops a part; adds its path to `lost` if the part was meant for the model."""
        kind = part["type"]
        if not kind.startswith("data-") and kind not in ("source-url", "source-document", "step-start"):
            self.lost.append(path[2:])


def _with_paths(parts: list[Any], path: str) -> tuple[list[Any], list[str]]:
    """Returns the parts, and the path of each part."""
    return parts, [f"{path}.parts[{at}]" for at in range(len(parts))]


def _signature(part: dict[str, Any], key: str, path: str, *members: str) -> dict[str, Any]:
    """Returns the members that `signature_metadata` wrote into a part's metadata."""
    metadata = member(part, key, path, dict) or {}
    own = member(metadata, "gai", f"{path}.{key}", dict) or {}
    where = f"{path}.{key}.gai"
    found = {name: member(own, name, where, bool if name == "redacted" else str) for name in members}
    return {name: value for name, value in found.items() if value is not None}
