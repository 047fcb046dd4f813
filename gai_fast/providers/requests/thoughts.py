"""Earlier reasoning that an upstream refuses: which errors say so, and a request without it.

An upstream verifies the signatures that it gets back. It refuses one of another upstream or account with a 400. Knows
the dialects, and no provider.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET, Raw
from msgspec.structs import replace

from gai_fast.kernels import encode_json, parse_exact
from gai_fast.model.errors import Error
from gai_fast.model.request import AssistantMessage, Message, ProviderBlockPart, ReasoningPart, Request, ToolCallPart
from gai_fast.providers.requests.refusals import may_name_a_member

_OF_SIGNATURES: Final = re.compile(r"signature|encrypted[_ ]content", re.I)
"""Anthropic: "Invalid `signature` in `thinking` block"; OpenAI: `invalid_encrypted_content`; Google: "Corrupted thought
signature"."""
_OF_MISSING_ONES: Final = re.compile(r"\bmissing\b|\brequired\b", re.I)
_SIGNED: Final = b"thoughtSignature"
"""The member of Google's own blocks that has a signature."""
_MEMBERS: Final = ("reasoning_details", "reasoning_content", "reasoning")
_PARTS: Final = frozenset(("thinking", "redacted_thinking", "reasoning"))


def refuses_signatures(error: Error) -> bool:
    """Returns whether an upstream's error is about a signature that it got, not about a missing one."""
    if not may_name_a_member(error):
        return False
    text = f"{error.message} {(error.details or {}).get('code') or ''}"
    return _OF_SIGNATURES.search(text) is not None and _OF_MISSING_ONES.search(text) is None


def without_thoughts(request: Request | Mapping[str, Any]) -> tuple[Request | dict[str, Any], list[str]]:
    """Returns a request without earlier reasoning and signatures, and the paths of what was left out.

    Args:
        request: A native request, or a body in a client's dialect of any shape.
    """
    paths: list[str] = []
    if isinstance(request, Request):
        messages = [_native_message(message, f"messages[{at}]", paths) for at, message in enumerate(request.messages)]
        kept = [message for message in messages if message is not None]
        return replace(request, messages=kept), paths
    body = dict(request)
    for name, write in (("messages", _message), ("input", _item)):
        given = body.get(name)
        if isinstance(given, list):
            written = [write(each, f"{name}[{at}]", paths) for at, each in enumerate(given)]
            body[name] = [each for each in written if each is not None]
    return body, paths


def _native_message(message: Message, path: str, paths: list[str]) -> Message | None:
    if not isinstance(message, AssistantMessage) or isinstance(message.content, str):
        return message
    before = len(paths)
    parts: list[Any] = []
    for at, part in enumerate(message.content):
        if isinstance(part, ReasoningPart):
            paths.append(f"{path}.content[{at}]")
        elif isinstance(part, ToolCallPart) and part.signature is not UNSET:
            paths.append(f"{path}.content[{at}].signature")
            parts.append(replace(part, signature=UNSET))
        elif isinstance(part, ProviderBlockPart) and _SIGNED in bytes(part.block):
            block = parse_exact(bytes(part.block).decode())
            if block.pop("thoughtSignature", None) is None:
                parts.append(part)
                continue
            paths.append(f"{path}.content[{at}].block.thoughtSignature")
            parts.append(replace(part, block=Raw(encode_json(block))))
        else:
            parts.append(part)
    if len(paths) == before:
        return message
    return AssistantMessage(content=parts) if parts else None


def _item(item: Any, path: str, paths: list[str]) -> Any:
    """Returns an item of the Responses dialect, or None for reasoning."""
    if isinstance(item, dict) and item.get("type") == "reasoning":
        paths.append(path)
        return None
    return item


def _message(message: Any, path: str, paths: list[str]) -> Any:
    """Returns a message of the chat dialect or of Anthropic's, or None if nothing of it is left."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    kept: dict[str, Any] = {}
    for name, value in message.items():
        if name in _MEMBERS:
            if value:
                paths.append(f"{path}.{name}")
        elif name == "content" and isinstance(value, list):
            kept[name] = _parts(value, f"{path}.{name}", paths)
        elif name == "tool_calls" and isinstance(value, list):
            kept[name] = [_call(call, f"{path}.{name}[{at}]", paths) for at, call in enumerate(value)]
        else:
            kept[name] = value
    if message.get("content") and not kept.get("content"):
        if not kept.get("tool_calls"):
            return None
        kept["content"] = None
    return kept


def _parts(parts: list[Any], path: str, paths: list[str]) -> list[Any]:
    kept: list[Any] = []
    for at, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind in _PARTS:
            paths.append(f"{path}[{at}]")
        else:
            kept.append(part)
    return kept


def _call(call: Any, path: str, paths: list[str]) -> Any:
    if not isinstance(call, dict) or "extra_content" not in call:
        return call
    paths.append(f"{path}.extra_content")
    return {name: value for name, value in call.items() if name != "extra_content"}
