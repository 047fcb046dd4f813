"""Reads requests of Anthropic's Messages as native requests.

Owns the mapping of fields to those of a native request, and which fields are ignored or cannot be expressed. Accepts
all blocks of the gateway's own answers in this format, and blocks that only Anthropic understands. Knows no provider
and no route. Fields that affect only Anthropic, and are harmless elsewhere, go to `provider_options.anthropic`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gai_fast.core.requests.dialects import MESSAGES, known_members
from gai_fast.core.requests.signatures import open_signature
from gai_fast.core.session import session_of_user
from gai_fast.formats._members import (
    DialectReader,
    cache_mark,
    invalid,
    member,
    require_type,
    required,
    unknown_members,
    unserved_members,
)
from gai_fast.formats.messages.attribution import without_attribution
from gai_fast.formats.messages.parts import native_author
from gai_fast.model.errors import Unsupported
from gai_fast.model.request import Request

# Fields that a native request has too; the native request checks them.
_SAME: Final = tuple(MESSAGES.same.split())

# Fields without a visible effect on the answer: accounts, caches, priorities. A translated request to Anthropic has
# them too.
_HARMLESS: Final = tuple(MESSAGES.harmless.split())
_MAY_BE_HARMLESS: Final = frozenset(_HARMLESS)

KNOWN: Final = known_members(MESSAGES)
"""The members of a request that are read, or have no effect."""

# Values that ask for the default.
_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "betas": ([],),
    # The third is Claude Code's: all thinking stays in the conversation, which is the default.
    "context_management": ({}, {"edits": []}, {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}),
    "mcp_servers": ([],),
    "speed": ("standard",),
}

_EFFORTS: Final = frozenset(("low", "medium", "high", "xhigh", "max"))
_ADAPTIVE_EFFORT: Final = "high"
"""The effort of adaptive thinking without `output_config.effort`."""
_TOOL_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


# Fields for tools that run within the answer: they cannot be used with a prefill, which has no blocks of such tools.
_RUNNING: Final[tuple[str, ...]] = ("container", "mcp_servers")


def _check_thread(body: dict[str, Any]) -> None:
    """Refuses to continue a conversation stored at Anthropic; `on_unsupported` does not apply.

    Anthropic's SDK then sends the whole conversation.

    Args:
        body: The client's JSON object.

    Raises:
        Unsupported: The request has a `thread`.
    """
    if body.get("thread") is not None:
        text = "`thread` needs a model whose upstream is Anthropic; send the whole conversation without it"
        raise Unsupported(message=text, reason="thread")


def is_continued(body: dict[str, Any]) -> bool:
    """Returns whether no tools of a container or of MCP servers run within the answer to a request.

    Args:
        body: The client's JSON object.
    """
    return not any(body.get(key) for key in _RUNNING)


def read_messages_request(body: dict[str, Any], *, keeps_attribution: bool = False) -> tuple[Request, list[str]]:
    """Translates a Messages request into a native one; see `Format.parse_request`.

    Args:
        body: The client's JSON object.
        keeps_attribution: Whether Claude Code's attribution block is kept.
    """
    _check_thread(body)
    return _MessagesReader(keeps_attribution=keeps_attribution).request(body)


class _MessagesReader(DialectReader):
    """Reads one request of the dialect.

    Args:
        keeps_attribution: Whether Claude Code's attribution block is kept.
    """

    def __init__(self, *, keeps_attribution: bool = False) -> None:
        super().__init__({"$.reasoning.max_tokens": "$.thinking.budget_tokens"})
        self._keeps_attribution = keeps_attribution
        self._calls: set[str] = set()
        self._sent: list[dict[str, Any]] = []
        self._named: dict[str, None] = {}
        """The names of tools that the conversation names, in the order of their first naming."""

    def read(self, body: dict[str, Any]) -> dict[str, Any]:
        """Returns the native request's JSON object."""
        native: dict[str, Any] = {key: body[key] for key in _SAME if body.get(key) is not None}
        native["stream"] = member(body, "stream", "$", bool) or False
        limit = member(body, "max_tokens", "$", int)
        if limit is not None:
            native["max_tokens"] = limit
        messages = member(body, "messages", "$", list)
        if not messages:
            raise invalid("`messages` must hold at least one message", "$.messages")
        self._sent += self._system(body) if "system" in body else []
        for at, message in enumerate(messages):
            self._sent += self._message(message, f"$.messages[{at}]")
        native["messages"] = self._sent
        stop = member(body, "stop_sequences", "$", list)
        for at, sequence in enumerate(stop or ()):
            require_type(sequence, f"$.stop_sequences[{at}]", str)
        native["stop"] = stop or []
        if "tool_choice" in body:
            native |= self._tool_choice(body)
        native["tools"] = self._tools(body) if "tools" in body else []
        if "output_config" in body or "output_format" in body:
            native |= self._output(body)
        options: dict[str, Any] = {}
        if not _MAY_BE_HARMLESS.isdisjoint(body):  # seldom, and six look-ups cost 600 instructions more
            options = {key: body[key] for key in _HARMLESS if body.get(key) is not None}
        user = member(member(body, "metadata", "$", dict) or {}, "user_id", "$.metadata", str)
        if user is not None and session_of_user(user) is None:  # else Claude Code's, which only Anthropic takes
            native["user"] = user
            self.moved["$.user"] = "$.metadata.user_id"
        if "thinking" in body:
            options |= self._thinking(body, native)
        if options:
            native["provider_options"] = {native_author(): options}
        self.lost += unserved_members(body, KNOWN, _NEUTRAL)
        return native

    # -- messages --

    def _system(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        content = member(body, "system", "$", str, list)
        if not content:
            return []
        texts = self._texts(content, "$.system")
        if not self._keeps_attribution:
            texts = without_attribution({"system": texts}).get("system", [])
            if not texts:
                return []
        return [{"role": "system", "content": texts}]

    def _texts(self, content: str | list[Any], path: str) -> str | list[dict[str, Any]]:
        """Returns content that may hold only text; other blocks are added to `lost`."""
        if isinstance(content, str):
            return content
        parts: list[dict[str, Any]] = []
        for at, block in enumerate(content):
            here = f"{path}[{at}]"
            if self._kind(block, here) == "text":
                parts.append(self._text(block, here))
            else:
                self.lost.append(here[2:])
        return parts

    def _kind(self, block: Any, path: str) -> str:
        require_type(block, path, dict)
        return str(required(block, "type", path, str))

    def _text(self, block: dict[str, Any], path: str) -> dict[str, Any]:
        # Citations of an earlier answer are ignored: a model does not need them.
        self.lost += unknown_members(block, path, ("type", "text", "cache_control", "citations"))
        return {"type": "text", "text": required(block, "text", path, str), **cache_mark(block, path)}

    def _message(self, message: Any, path: str) -> list[dict[str, Any]]:
        require_type(message, path, dict)
        role = required(message, "role", path, str)
        content = required(message, "content", path, str, list)
        self.lost += unknown_members(message, path, ("role", "content"))
        path += ".content"
        if role == "system":
            return [{"role": role, "content": self._texts(content, path)}]
        if role == "assistant":
            return [{"role": role, "content": content if isinstance(content, str) else self._answer(content, path)}]
        if role == "user":
            return [{"role": role, "content": content}] if isinstance(content, str) else self._turn(content, path)
        raise invalid("The role is not one of user, assistant, system", f"{path.removesuffix('.content')}.role")

    def _turn(self, content: list[Any], path: str) -> list[dict[str, Any]]:
        """Returns the messages of a user's turn: each tool result is a separate message."""
        messages: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        for at, block in enumerate(content):
            here = f"{path}[{at}]"
            if self._kind(block, here) != "tool_result":
                parts += self._user_part(block, here)
                continue
            if parts:
                messages.append({"role": "user", "content": parts})
                parts = []
            messages.append(self._result(block, here))
        return [*messages, {"role": "user", "content": parts}] if parts or not messages else messages

    def _user_part(self, block: dict[str, Any], path: str) -> list[dict[str, Any]]:
        kind = block["type"]
        if kind == "text":
            return [self._text(block, path)]
        part: dict[str, Any] | None = None
        if kind == "image":
            part = self._image(block, path)
        elif kind == "document":
            part = self._document(block, path)
        elif kind == "search_result":
            part = self._search_result(block, path)
        else:
            self.lost.append(path[2:])
        if part is None:
            self._keep_mark(block, path)
            return []
        return [part]

    def _search_result(self, block: dict[str, Any], path: str) -> dict[str, Any]:
        """Returns a search result as text: its title, its source and its content."""
        self.lost += unknown_members(block, path, ("type", "title", "source", "content", "cache_control", "citations"))
        citations = member(block, "citations", path, dict)
        if citations and member(citations, "enabled", f"{path}.citations", bool):
            self.lost.append(f"{path}.citations"[2:])
        heads = [required(block, "title", path, str), required(block, "source", path, str)]
        texts = self._texts(required(block, "content", path, list), f"{path}.content")
        text = "\n".join([*heads, *[part["text"] for part in texts if isinstance(part, dict)]])
        return {"type": "text", "text": text, **cache_mark(block, path)}

    def _image(self, block: dict[str, Any], path: str) -> dict[str, Any] | None:
        self.lost += unknown_members(block, path, ("type", "source", "cache_control"))
        mark = cache_mark(block, path)
        source = required(block, "source", path, dict)
        path += ".source"
        kind = required(source, "type", path, str)
        if kind == "url":
            return {"type": "image", "url": required(source, "url", path, str), **mark}
        if kind == "base64":
            media_type = required(source, "media_type", path, str)
            data = required(source, "data", path, str)
            return {"type": "image", "data": data, "media_type": media_type, **mark}
        self.lost.append(path[2:])  # a file stored at Anthropic
        return None

    def _document(self, block: dict[str, Any], path: str) -> dict[str, Any] | None:
        self.lost += unknown_members(block, path, ("type", "source", "title", "cache_control", "citations"))
        citations = member(block, "citations", path, dict)
        if citations and member(citations, "enabled", f"{path}.citations", bool):
            self.lost.append(f"{path}.citations"[2:])
        source = required(block, "source", path, dict)
        title = member(block, "title", path, str)
        mark = cache_mark(block, path)
        path += ".source"
        kind = required(source, "type", path, str)
        if kind == "base64":
            media_type = required(source, "media_type", path, str)
            data = required(source, "data", path, str)
        elif kind == "text":
            media_type = member(source, "media_type", path, str) or "text/plain"
            data = _encoded(required(source, "data", path, str))
        elif kind == "content":
            given = required(source, "content", path, str, list)
            media_type, content = "text/plain", self._texts(given, f"{path}.content")
            data = _encoded(content if isinstance(content, str) else "\n".join(part["text"] for part in content))
        elif kind == "url":
            named = {"filename": title} if title else {}
            return {
                "type": "file",
                "url": required(source, "url", path, str),
                "media_type": "application/pdf",
                **named,
                **mark,
            }
        else:  # a file stored at Anthropic
            self.lost.append(path[2:])
            return None
        return {"type": "file", "data": data, "media_type": media_type, **mark} | ({"filename": title} if title else {})

    def _result(self, block: dict[str, Any], path: str) -> dict[str, Any]:
        self.lost += unknown_members(block, path, ("type", "tool_use_id", "content", "is_error", "cache_control"))
        call_id = required(block, "tool_use_id", path, str)
        if call_id not in self._calls:
            raise invalid("No `tool_use` with this id came before", f"{path}.tool_use_id")
        content = member(block, "content", path, str, list)
        parts: list[dict[str, Any]] = []
        for at, part in enumerate(content if isinstance(content, list) else ()):
            here = f"{path}.content[{at}]"
            kind = self._kind(part, here)
            if kind == "text":
                parts.append(self._text(part, here))
            elif kind in ("image", "document"):
                medium = self._image(part, here) if kind == "image" else self._document(part, here)
                if medium is None:
                    self._keep_mark(part, here)
                else:
                    parts.append(medium)
            elif kind == "search_result":
                parts.append(self._search_result(part, here))
            elif kind == "tool_reference":  # of a client's search for tools
                self.lost += unknown_members(part, here, ("type", "tool_name", "cache_control"))
                name = required(part, "tool_name", here, str)
                self._named[name] = None
                parts.append({"type": "text", "text": name, **cache_mark(part, here)})
            else:
                self._keep_mark(part, here)
                self.lost.append(here[2:])
        mark = cache_mark(block, path)
        text: str = content if isinstance(content, str) else ""
        if mark and text:
            parts.append({"type": "text", "text": text})  # only a part can have the mark
        if mark and parts:
            parts[-1] |= mark
        elif mark:
            self._keep_mark(block, path)
        result = {"role": "tool", "call_id": call_id, "content": parts if parts or isinstance(content, list) else text}
        return result | ({"is_error": True} if member(block, "is_error", path, bool) else {})

    def _answer(self, content: list[Any], path: str) -> list[dict[str, Any]]:
        """Returns the parts of an earlier answer."""
        parts: list[dict[str, Any]] = []
        signatures: dict[str, str] = {}
        for at, block in enumerate(content):
            here = f"{path}[{at}]"
            kind = self._kind(block, here)
            if kind == "text":
                parts.append(self._text(block, here))
            elif kind == "thinking":
                self.lost += unknown_members(block, here, ("type", "thinking", "signature"))
                text = required(block, "thinking", here, str)
                parts.append(_reasoning(text, member(block, "signature", here, str) or "", f"{here}.signature"))
            elif kind == "redacted_thinking":
                self.lost += unknown_members(block, here, ("type", "data"))
                signed = open_signature(required(block, "data", here, str), f"{here}.data", native_author())
                call_id = signed.pop("call_id", None)
                if call_id is not None:
                    signatures[call_id] = signed["signature"]
                else:
                    parts.append({"type": "reasoning", **signed, "redacted": True})
            elif kind == "tool_use":
                self._keep_mark(block, here)
                parts.append(self._call(block, here))
            elif kind in _OWN_BLOCKS or kind.endswith("_tool_result"):
                if kind == _SEARCH_RESULT:
                    self._named.update(dict.fromkeys(_found_tools(block.get("content"))))
                self._keep_mark(block, here)
                parts.append({"type": "provider_block", "provider": native_author(), "block": block})
            else:
                self._keep_mark(block, here)
                self.lost.append(here[2:])
        for part in parts:
            signed_call = part.get("call_id")
            if isinstance(signed_call, str) and signed_call in signatures:
                part["signature"] = signatures[signed_call]
        return parts

    def _keep_mark(self, block: dict[str, Any], path: str) -> None:
        """Notes the mark of a block that may have no part to be marked."""
        mark = cache_mark(block, path)
        if mark:
            self.late_mark = len(self._sent) + 1, mark

    def _call(self, block: dict[str, Any], path: str) -> dict[str, Any]:
        known = ["type", "id", "name", "input", "cache_control"]
        known += ["caller"] if block.get("caller") == {"type": "direct"} else []
        self.lost += unknown_members(block, path, known)
        call_id = required(block, "id", path, str)
        self._calls.add(call_id)
        name, given = required(block, "name", path, str), required(block, "input", path, dict)
        self._named[name] = None
        return {"type": "tool_call", "call_id": call_id, "name": name, "input": given}

    # -- tools, thinking, format --

    def _tools(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the tools. Deferred ones that the conversation has named follow the others; called after the rest.

        Each turn names the tools of the turn before, in the same order: the list of tools only grows.
        """
        tools: list[dict[str, Any]] = []
        given: list[Any] = member(body, "tools", "$", list) or []
        deferred: dict[str, int] = {}
        may_defer: bool | None = None
        for at, tool in enumerate(given):
            path = f"$.tools[{at}]"
            require_type(tool, path, dict)
            if member(tool, "defer_loading", path, bool):
                if may_defer is None:
                    may_defer = not any(_is_tool_search(each) for each in given)
                if may_defer:
                    deferred.setdefault(required(tool, "name", path, str), at)
                    continue
            self._tool(tool, path, tools)
        if deferred:
            declared = {tool.get("name") for tool in tools}
            for name in self._named:
                place = deferred.get(name)
                if place is not None and name not in declared:
                    self._tool(given[place], f"$.tools[{place}]", tools)
        return tools

    def _tool(self, tool: dict[str, Any], path: str, tools: list[dict[str, Any]]) -> None:
        """Adds the native tool of a tool.

        Args:
            tool: The tool.
            path: Its path.
            tools: Gets the native tool.
        """
        kind = member(tool, "type", path, str) or "custom"
        if kind != "custom":
            native = self._server_tool(tool, kind, path)
            if native is None:
                self.lost.append(path[2:])  # a tool that only Anthropic's models know
            else:
                self.moved[f"$.tools[{len(tools)}].options"] = path
                self.moved[f"$.tools[{len(tools)}]"] = path
                tools.append(native)
            return
        known = [*_TOOL_MEMBERS, *[key for key, value in _PLAIN_TOOL.items() if tool.get(key) == value]]
        self.lost += unknown_members(tool, path, known)
        members = {
            "name": required(tool, "name", path, str),
            "description": member(tool, "description", path, str),
            "parameters": required(tool, "input_schema", path, dict),
            "strict": member(tool, "strict", path, bool),
            **cache_mark(tool, path),
        }
        self.moved[f"$.tools[{len(tools)}]"] = path
        tools.append({key: value for key, value in members.items() if value is not None})

    def _server_tool(self, tool: dict[str, Any], kind: str, path: str) -> dict[str, Any] | None:
        """Returns the native tool for a tool that Anthropic runs. None if other providers have none like it."""
        known = ("type", "name", "cache_control", "allowed_callers", "defer_loading")
        if kind.startswith("web_search_"):
            self.lost += unknown_members(tool, path, (*known, *_SEARCH_OPTIONS))
            options = {name: tool[name] for name in _SEARCH_OPTIONS if tool.get(name) is not None}
            return {"type": "web_search", "options": options, **cache_mark(tool, path)}
        if kind.startswith("code_execution_"):
            self.lost += unknown_members(tool, path, known)
            return {"type": "code_execution", **cache_mark(tool, path)}
        return None

    def _tool_choice(self, body: dict[str, Any]) -> dict[str, Any]:
        choice = member(body, "tool_choice", "$", dict)
        if choice is None:
            return {}
        path = "$.tool_choice"
        kind = required(choice, "type", path, str)
        self.lost += unknown_members(choice, path, ("type", "name", "disable_parallel_tool_use"))
        native: dict[str, Any] = {}
        if member(choice, "disable_parallel_tool_use", path, bool):
            native["parallel_tool_calls"] = False
            self.moved["$.parallel_tool_calls"] = f"{path}.disable_parallel_tool_use"
        if kind == "tool":
            name = required(choice, "name", path, str)
            self._named[name] = None
            return native | {"tool_choice": {"name": name}}
        if kind not in _TOOL_CHOICES:
            raise invalid("The type is not one of auto, any, tool, none", f"{path}.type")
        return native | {"tool_choice": _TOOL_CHOICES[kind]}

    def _output(self, body: dict[str, Any]) -> dict[str, Any]:
        """Reads the effort and the schema of the answer; `output_format` is an older place of the schema."""
        native: dict[str, Any] = {}
        output = member(body, "output_config", "$", dict) or {}
        self.lost += unknown_members(output, "$.output_config", ("effort", "format"))
        effort = member(output, "effort", "$.output_config", str)
        if effort in _EFFORTS:
            native["reasoning"] = {"effort": effort}
        elif effort is not None:
            self.lost.append("output_config.effort")
        for holder, key, path in ((output, "format", "$.output_config"), (body, "output_format", "$")):
            wanted = member(holder, key, path, dict)
            if wanted is None:
                continue
            here = f"{path}.{key}"
            self.lost += unknown_members(wanted, here, ("type", "name", "schema"))
            if required(wanted, "type", here, str) != "json_schema":
                raise invalid("The type is not json_schema", f"{here}.type")
            form = {"type": "json_schema", "schema": required(wanted, "schema", here, dict), "strict": True}
            name = member(wanted, "name", here, str)
            native["response_format"] = form | ({"name": name} if name else {})
        return native

    def _thinking(self, body: dict[str, Any], native: dict[str, Any]) -> dict[str, Any]:
        """Reads `thinking`, which Anthropic gets unchanged: a budget, or an effort for other providers."""
        thinking = member(body, "thinking", "$", dict)
        if thinking is None:
            return {}
        path = "$.thinking"
        kind = required(thinking, "type", path, str)
        self.lost += unknown_members(thinking, path, ("type", "budget_tokens", "display"))
        if kind == "enabled":
            budget = required(thinking, "budget_tokens", path, int)
            native["reasoning"] = {**native.get("reasoning", {}), "max_tokens": budget}
        elif kind == "adaptive":
            native["reasoning"] = {"effort": _ADAPTIVE_EFFORT} | native.get("reasoning", {})
        elif kind in ("disabled", "between_tools"):
            effort = native.get("reasoning")
            native["reasoning"] = {"effort": "none"}
            if effort is not None:  # without thinking it still counts at Anthropic
                return {"thinking": thinking, "output_config": effort}
        else:
            self.lost.append("thinking")
        return {"thinking": thinking}


_OWN_BLOCKS: Final = frozenset(("server_tool_use", "mcp_tool_use", "compaction", "fallback", "container_upload"))
"""Blocks of an answer, beside results of tools, that mean nothing to other providers: they are asked without them."""
_SEARCH_OPTIONS: Final[tuple[str, ...]] = ("allowed_domains", "blocked_domains", "max_uses", "user_location")
"""Members of a search of the web that other providers have, too."""
_TOOL_MEMBERS: Final = (
    "type",
    "name",
    "description",
    "input_schema",
    "strict",
    "cache_control",
    "eager_input_streaming",
    "defer_loading",
)
_PLAIN_TOOL: Final[Mapping[str, Any]] = {"allowed_callers": ["direct"], "input_examples": []}
"""Members of a tool, with their default values."""

_TOOL_SEARCH: Final = "tool_search_tool_"
"""The beginning of the types of Anthropic's own searches for tools."""
_SEARCH_RESULT: Final = "tool_search_tool_result"


def _is_tool_search(tool: Any) -> bool:
    """Returns whether a tool is Anthropic's own search for tools, which the gateway does not run.

    Args:
        tool: An item of `tools`, of any type.
    """
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and kind.startswith(_TOOL_SEARCH)


def lost_tool_searches(body: dict[str, Any], lost: Sequence[str]) -> list[str]:
    """Returns the paths of the searches for tools among what a native request cannot express.

    Args:
        body: The client's JSON object.
        lost: The paths.
    """
    searches = {f"tools[{at}]" for at, tool in enumerate(body.get("tools") or ()) if _is_tool_search(tool)}
    return [path for path in lost if path in searches]


def _found_tools(content: Any) -> list[str]:
    """Returns the names of the tools that Anthropic's own search has found.

    Args:
        content: The content of the search's result, of any type: an object with references, or references.
    """
    found = content.get("tool_references") if isinstance(content, dict) else content
    names = [one.get("tool_name") for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [name for name in names if isinstance(name, str)]


def _reasoning(text: str, signature: str, path: str) -> dict[str, Any]:
    signed = open_signature(signature, path, native_author()) if signature else {}
    return {
        "type": "reasoning",
        "text": text,
        **{key: signed[key] for key in ("signature", "provider") if key in signed},
    }


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()
