"""Reads AG-UI's `RunAgentInput` as a native request.

Owns the mapping of a thread's messages to native messages. Knows no provider and no route.

1. `forwardedProps` are members of a native request: `model`, `temperature`, `system` and so on.
2. Reasoning and an answer (text and calls) are separate messages in AG-UI; adjacent ones become one native message.
3. `context` becomes the first system message, so that the model sees it. Activity messages are for the page only and
   are dropped.
4. If a member is meant for the model but has no native form, its path is returned: non-empty `state` and `resume`,
   files stored at a provider, and media of other kinds.
"""

from __future__ import annotations

from typing import Any, Final

from gai_fast.core.requests.signatures import open_signature
from gai_fast.formats._members import DialectReader, check_types, invalid, member, require_type, required
from gai_fast.formats.agui.stream import Run
from gai_fast.model.limits import SHARED
from gai_fast.model.request import Request

_NATIVE: Final = frozenset(Request.__struct_fields__) - {"messages", "query", "tools"}

_OWN: Final = frozenset(
    "threadId runId parentRunId protocolVersion state messages tools context forwardedProps resume".split()
)

_MESSAGE: Final = {"id": str, "name": str}
_ACTIVITY: Final = {"activityType": str, "content": dict}
"""The types of members that are for the page."""

_FUNCTION: Final = "function"

_MEDIA: Final = {"image": "image", "audio": "audio", "document": "file"}
"""The type of the native part for each kind of media with data."""


def is_run_input(body: dict[str, Any]) -> bool:
    """Returns whether a body is a `RunAgentInput`, and not a native request.

    Args:
        body: The client's JSON object.
    """
    return "threadId" in body or "runId" in body


def run_of(body: dict[str, Any]) -> Run:
    """Returns the ids of a run.

    Args:
        body: The client's JSON object.

    Raises:
        InvalidRequest: An id is missing or too long.
    """
    identifiers = [required(body, key, "$", str) for key in ("threadId", "runId")]
    for key, identifier in zip(("threadId", "runId"), identifiers, strict=True):
        if not 0 < len(identifier) <= SHARED.chat_id:
            raise invalid(f"Expected 1 to {SHARED.chat_id} characters", f"$.{key}")
    return Run(*identifiers)


def read_run_input(body: dict[str, Any]) -> tuple[Request, list[str]]:
    """Translates a `RunAgentInput` into a native request; see `Format.parse_request`."""
    return _InputReader().request(body)


class _InputReader(DialectReader):
    """Reads one `RunAgentInput`."""

    def __init__(self) -> None:
        super().__init__({f"$.{key}": f"$.forwardedProps.{key}" for key in _NATIVE})

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the native request's JSON object."""
        run_of(body)
        member(body, "parentRunId", "$", str)
        forwarded = member(body, "forwardedProps", "$", dict) or {}
        native = {key: value for key, value in forwarded.items() if key in _NATIVE and value is not None}
        context = self._context(body)
        messages = [{"role": "system", "content": context}] if context else []
        given = required(body, "messages", "$", list)
        if not given:
            raise invalid("`messages` must hold at least one message", "$.messages")
        self._messages(given, messages)
        if not any(message["content"] or message["role"] != "assistant" for message in messages):
            raise invalid("`messages` must have a message for the model", "$.messages")
        native["messages"] = messages
        native["tools"] = [self._tool(tool, f"$.tools[{at}]") for at, tool in enumerate(_list(body, "tools"))]
        self.lost += [f"forwardedProps.{key}" for key in forwarded if key not in native and forwarded[key] is not None]
        self.lost += [key for key in ("state", "resume") if body.get(key)]
        self.lost += [key for key, value in body.items() if key not in _OWN and value is not None]
        return native

    def _context(self, body: dict[str, Any]) -> str:
        lines = []
        for at, entry in enumerate(_list(body, "context")):
            path = f"$.context[{at}]"
            require_type(entry, path, dict)
            texts = required(entry, "description", path, str), required(entry, "value", path, str)
            lines.append(": ".join(texts))
        return "\n".join(lines)

    def _tool(self, tool: Any, path: str) -> dict[str, Any]:
        require_type(tool, path, dict)
        native = {
            "name": required(tool, "name", path, str),
            "description": member(tool, "description", path, str),
            "parameters": member(tool, "parameters", path, dict),
        }
        return {key: value for key, value in native.items() if value is not None}

    # -- messages --

    def _messages(self, given: list[Any], messages: list[dict[str, Any]]) -> None:
        """Adds the native messages: rule 2."""
        answer: list[dict[str, Any]] = []
        has_answer = False  # an empty message stays a message: if a provider refuses it, the client gets that error
        for at, message in enumerate(given):
            path = f"$.messages[{at}]"
            require_type(message, path, dict)
            role = required(message, "role", path, str)
            check_types(message, path, _MESSAGE)
            if role == "assistant":
                answer += self._assistant(message, path)
                has_answer = True
                continue
            if role == "reasoning":
                answer += self._reasoning(message, path)
                continue
            if role == "activity":
                check_types(message, path, _ACTIVITY)
                continue
            if answer or has_answer:
                messages.append({"role": "assistant", "content": answer})
                answer, has_answer = [], False
            messages.append(self._other(message, role, path))
        if answer or has_answer:
            messages.append({"role": "assistant", "content": answer})

    def _other(self, message: dict[str, Any], role: str, path: str) -> dict[str, Any]:
        if role in ("system", "developer"):
            return {"role": "system", "content": required(message, "content", path, str)}
        if role == "user":
            return {"role": "user", "content": self._content(message, path)}
        if role != "tool":
            raise invalid(
                "The role is not one of developer, system, user, assistant, tool, reasoning, activity", f"{path}.role"
            )
        native = {"role": "tool", "call_id": required(message, "toolCallId", path, str)}
        error = member(message, "error", path, str)
        content = self._content(message, path, "text", "image")
        if error is None:
            return {**native, "content": content}
        return {**native, "content": content or error, "is_error": True}

    def _assistant(self, message: dict[str, Any], path: str) -> list[dict[str, Any]]:
        text = member(message, "content", path, str)
        parts = [{"type": "text", "text": text}] if text else []
        if message.get("encryptedValue") is not None:
            self.lost.append(f"{path}.encryptedValue"[2:])
        calls = member(message, "toolCalls", path, list) or []
        return parts + [self._call(call, f"{path}.toolCalls[{at}]") for at, call in enumerate(calls)]

    def _call(self, call: Any, path: str) -> dict[str, Any]:
        require_type(call, path, dict)
        if member(call, "type", path, str) not in (None, _FUNCTION):
            raise invalid(f"The type is not `{_FUNCTION}`", f"{path}.type")
        function = required(call, _FUNCTION, path, dict)
        native = {
            "type": "tool_call",
            "call_id": required(call, "id", path, str),
            "name": required(function, "name", f"{path}.function", str),
            "input": self.inputs.read(member(function, "arguments", f"{path}.function", str) or ""),
        }
        signed = _signature(call, path)
        return native | ({"signature": signed["signature"]} if signed else {})

    def _reasoning(self, message: dict[str, Any], path: str) -> list[dict[str, Any]]:
        text = member(message, "content", path, str) or ""
        signed = _signature(message, path)
        return [{"type": "reasoning", "text": text, **signed}] if text or signed else []

    def _content(self, message: dict[str, Any], path: str, *kinds: str) -> str | list[dict[str, Any]]:
        """Returns a message's content.

        Args:
            message: The message.
            path: The message's path.
            *kinds: The kinds of native parts that the message may hold; all if none is given.
        """
        content = required(message, "content", path, str, list)
        if isinstance(content, str):
            return content
        parts = []
        for at, part in enumerate(content):
            where = f"{path}.content[{at}]"
            native = self._part(part, where)
            if native is None or (kinds and native["type"] not in kinds):
                self.lost.append(where[2:])
            else:
                parts.append(native)
        return parts

    def _part(self, part: Any, path: str) -> dict[str, Any] | None:
        require_type(part, path, dict)
        kind = required(part, "type", path, str)
        if kind == "text":
            return {"type": "text", "text": required(part, "text", path, str)}
        if kind not in _MEDIA:
            return None
        source = required(part, "source", path, dict)
        path += ".source"
        source_type = required(source, "type", path, str)
        value = required(source, "value", path, str)
        if source_type == "data":
            media_type = required(source, "mimeType", path, str)
            return {"type": _MEDIA[kind], "data": value, "media_type": media_type}
        return {"type": "image", "url": value} if (source_type, kind) == ("url", "image") else None


def _list(body: dict[str, Any], key: str) -> list[Any]:
    return member(body, key, "$", list) or []


def _signature(holder: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns the signature that a client sends back; a signature that is not sealed is a provider's own."""
    text = member(holder, "encryptedValue", path, str)
    if not text:
        return {}
    own = open_signature(text, f"{path}.encryptedValue", "")
    return {key: own[key] for key in ("signature", "redacted", "provider") if own.get(key)}
