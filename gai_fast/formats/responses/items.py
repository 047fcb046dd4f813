"""Reads the `input` of a Responses request as native messages.

Owns the mapping of each kind of item. Adjacent items of the assistant's turn (messages, reasoning and calls) become one
native message. Items of tools that the provider ran are dropped: clients send back every item of an answer, and the
answer's text contains the outcome. A call that the gateway has made is a call and its result, which stands behind the
calls next to it; one without a result is dropped. So is a request for an approval of the gateway's, unless it is
answered: then it is a call, whose result the run will know. Items
of built-in tools that the client runs cannot be expressed.
Items that only their upstream has are refused, whatever `on_unsupported` is: without them it is another question.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from gai_fast.core.requests.gateway_calls import (
    KIND,
    REQUEST,
    RESPONSE,
    is_gateways,
    is_own_approval,
    made_call,
    name_of,
    new_answers,
)
from gai_fast.core.requests.signatures import open_signature
from gai_fast.formats._members import (
    CallInputs,
    cache_mark,
    data_url,
    invalid,
    member,
    require_type,
    required,
    unknown_members,
)
from gai_fast.formats._openai import AUDIO_TYPES
from gai_fast.formats._signatures import author_of
from gai_fast.formats.limits import LIMITS
from gai_fast.formats.responses.parts import ADDITIONAL_TOOLS, DIALECT, flat_name
from gai_fast.formats.responses.tools import PROVIDER_RUNS
from gai_fast.model.errors import Unsupported

_CALLS: Final = frozenset(("function_call", "custom_tool_call", KIND, REQUEST, RESPONSE))


class InputReader:
    """Reads items.

    Args:
        lost: The list for the paths of members that cannot be expressed.
        labels: The labels of servers that the request says to be the gateway's.

    Attributes:
        messages: The native messages.
        additional_tools: The items that declare tools, with their paths.
    """

    def __init__(self, lost: list[str], labels: Collection[str] = ()) -> None:
        self.messages: list[dict[str, Any]] = []
        self.additional_tools: list[tuple[str, dict[str, Any]]] = []
        self._lost = lost
        self._labels = labels
        self._items: list[Any] = []
        self._decided: frozenset[str] | None = None  # the requests for approvals that are answered
        self._results: list[dict[str, Any]] = []  # of the gateway's calls, until other items than calls follow
        self._calls: dict[str, dict[str, Any]] = {}
        self._inputs = CallInputs()
        self._signatures: dict[str, str] = {}

    def read(self, items: list[Any], path: str) -> None:
        """Reads all items.

        Args:
            items: The items.
            path: The path of the list.

        Raises:
            InvalidRequest: The text names the item by its path.
        """
        if len(items) > LIMITS.input_items:
            raise invalid(f"more than {LIMITS.input_items} items", path)
        self._items = items
        for at, item in enumerate(items):
            self._item(item, f"{path}[{at}]")
        self._add_results()
        for call_id, signature in self._signatures.items():
            if call_id in self._calls:
                self._calls[call_id]["signature"] = signature

    def _item(self, item: Any, path: str) -> None:
        require_type(item, path, dict)
        kind = member(item, "type", path, str)
        member(item, "id", path, str)
        if kind is None and "role" not in item and "id" in item:
            kind = "item_reference"
        if self._results and kind not in _CALLS and kind != "reasoning":
            self._add_results()
        if kind in (None, "message"):
            self._message(item, path)
        elif kind == "reasoning":
            self._reasoning(item, path)
        elif kind in ("function_call", "custom_tool_call"):
            self._call(item, path, kind)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self._result(item, path)
        elif kind == "item_reference":
            text = f"`{path[2:]}` names an item that the upstream does not support: send the item itself"
            raise Unsupported(message=text, reason="conversation")
        elif kind == ADDITIONAL_TOOLS:
            self.additional_tools.append((path, item))
        elif is_gateways(item, self._labels):
            self._made_call(item, path)
        elif kind in (REQUEST, RESPONSE) and is_own_approval(item):
            if kind == REQUEST and item["id"] in self._answered():
                self._decided_call(item, path)
        elif kind not in PROVIDER_RUNS:
            self._lost.append(path[2:])

    def _answer(self) -> list[dict[str, Any]]:
        """Returns the parts of the open assistant message; adds a message if the last one has another role."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": []})
        parts: list[dict[str, Any]] = self.messages[-1]["content"]
        return parts

    # -- messages --

    def _message(self, item: dict[str, Any], path: str) -> None:
        self._lost += unknown_members(item, path, ("type", "role", "content", "id", "status", "phase"))
        role = required(item, "role", path, str)
        if role not in ("system", "developer", "user", "assistant"):
            raise invalid("The role is not one of system, developer, user, assistant", f"{path}.role")
        content = (
            required(item, "content", path, str, list) if role == "user" else member(item, "content", path, str, list)
        )
        if content is None:
            content = []  # it says nothing
        if role == "assistant":
            texts = [{"type": "text", "text": content}] if isinstance(content, str) else self._parts(content, path)
            self._answer().extend(texts)
            return
        read = content if isinstance(content, str) else self._parts(content, path)
        self.messages.append({"role": "user" if role == "user" else "system", "content": read})

    def _parts(self, content: list[Any], path: str, member_name: str = "content") -> list[dict[str, Any]]:
        parts = (self._part(part, f"{path}.{member_name}[{at}]") for at, part in enumerate(content))
        return [part for part in parts if part is not None]

    def _part(self, part: Any, path: str) -> dict[str, Any] | None:
        require_type(part, path, dict)
        kind = required(part, "type", path, str)
        if kind in ("input_text", "output_text", "text"):
            self._lost += unknown_members(
                part, path, ("type", "text", "annotations", "logprobs", "prompt_cache_breakpoint")
            )
            return {"type": "text", "text": required(part, "text", path, str), **cache_mark(part, path)}
        if kind == "refusal":
            self._lost += unknown_members(part, path, ("type", kind))
            return {"type": "text", "text": required(part, kind, path, str)}
        if kind == "input_image" and member(part, "image_url", path, str):
            # `detail` affects cost, not content.
            self._lost += unknown_members(part, path, ("type", "image_url", "detail", "prompt_cache_breakpoint"))
            url = part["image_url"]
            return {
                "type": "image",
                **(data_url(url, f"{path}.image_url") if url.startswith("data:") else {"url": url}),
                **cache_mark(part, path),
            }
        if kind == "input_file" and member(part, "file_data", path, str):
            self._lost += unknown_members(
                part, path, ("type", "file_data", "filename", "detail", "prompt_cache_breakpoint")
            )
            filename = member(part, "filename", path, str)
            name = {} if filename is None else {"filename": filename}
            return {
                "type": "file",
                **data_url(part["file_data"], f"{path}.file_data"),
                **name,
                **cache_mark(part, path),
            }
        if kind == "input_file" and member(part, "file_url", path, str):
            self._lost += unknown_members(
                part, path, ("type", "file_url", "filename", "detail", "prompt_cache_breakpoint")
            )
            return {"type": "file", "url": part["file_url"], **cache_mark(part, path)}
        if kind == "input_audio":
            self._lost += unknown_members(part, path, ("type", kind))
            audio = required(part, kind, path, dict)
            form = required(audio, "format", f"{path}.{kind}", str)
            data = required(audio, "data", f"{path}.{kind}", str)
            return {"type": "audio", "data": data, "media_type": AUDIO_TYPES.get(form, f"audio/{form}")}
        self._lost.append(path[2:])  # a file stored at its upstream, or a part of another kind
        return None

    # -- reasoning --

    def _reasoning(self, item: dict[str, Any], path: str) -> None:
        self._lost += unknown_members(item, path, ("type", "id", "summary", "content", "encrypted_content", "status"))
        text = self._texts(item, "content", path, "") or self._texts(item, "summary", path, "\n\n")
        content = member(item, "encrypted_content", path, str)
        if content:
            signed = open_signature(content, f"{path}.encrypted_content", author_of(DIALECT))
            call_id = signed.pop("call_id", None)
            if call_id is not None:
                self._signatures[call_id] = signed["signature"]
            else:
                self._add_results()
                self._answer().append({"type": "reasoning", "text": text, **signed})
        elif text:
            self._add_results()
            self._answer().append({"type": "reasoning", "text": text})

    def _texts(self, item: dict[str, Any], key: str, path: str, between: str) -> str:
        texts: list[str] = []
        for at, part in enumerate(member(item, key, path, list) or ()):
            require_type(part, f"{path}.{key}[{at}]", dict)
            member(part, "type", f"{path}.{key}[{at}]", str)
            texts.append(required(part, "text", f"{path}.{key}[{at}]", str))
        return between.join(texts)

    # -- calls --

    def _call(self, item: dict[str, Any], path: str, kind: str) -> None:
        is_function = kind == "function_call"
        own = "arguments" if is_function else "input"
        known = ("type", "id", "call_id", "name", "namespace", own, "status", "caller")
        self._lost += unknown_members(item, path, known)
        call_id = required(item, "call_id", path, str)
        name, namespace = required(item, "name", path, str), member(item, "namespace", path, str)
        part = {
            "type": "tool_call",
            "call_id": call_id,
            "name": flat_name(namespace, name) if namespace else name,
            # The input of a custom tool is text; a text input becomes the call of a custom tool again.
            "input": self._inputs.read(required(item, "arguments", path, str))
            if is_function
            else required(item, "input", path, str),
        }
        self._calls[call_id] = part
        self._answer().append(part)

    def _made_call(self, item: dict[str, Any], path: str) -> None:
        """Reads a call that the gateway has made."""
        call = made_call(item)
        if call is None:
            raise invalid("A member of the item is missing or has another type", path)
        if call.output is None:
            return
        given = self._inputs.read(call.arguments)
        part = {"type": "tool_call", "call_id": call.call_id, "name": call.name, "input": given}
        self._calls[call.call_id] = part
        self._answer().append(part)
        result = {"role": "tool", "call_id": call.call_id, "content": call.output}
        self._results.append({**result, "is_error": True} if call.is_error else result)

    def _answered(self) -> frozenset[str]:
        if self._decided is None:
            answers = new_answers(self._items)
            self._decided = frozenset([str(each.item.get("approval_request_id")) for each in answers])
        return self._decided

    def _decided_call(self, item: dict[str, Any], path: str) -> None:
        """Reads a call whose approval this request decides: it has its approval's id, and no result yet."""
        label, tool = required(item, "server_label", path, str), required(item, "name", path, str)
        given = self._inputs.read(required(item, "arguments", path, str))
        call_id = item["id"]
        part = {"type": "tool_call", "call_id": call_id, "name": name_of(label, tool), "input": given}
        self._calls[call_id] = part
        self._answer().append(part)
        self._results.append({"role": "tool", "call_id": call_id, "content": ""})

    def _add_results(self) -> None:
        self.messages += self._results
        self._results = []

    def _result(self, item: dict[str, Any], path: str) -> None:
        known = ("type", "id", "call_id", "output", "status", "name", "namespace", "caller")
        self._lost += unknown_members(item, path, known)
        call_id = required(item, "call_id", path, str)
        if call_id not in self._calls:
            raise invalid("No call with this `call_id` came before", f"{path}.call_id")
        output = required(item, "output", path, str, list)
        content = output if isinstance(output, str) else self._parts(output, path, "output")
        self.messages.append({"role": "tool", "call_id": call_id, "content": content})
