"""Tools that the provider runs, as items of a Responses answer.

Owns a tool's kind of item, the item's JSON object, and the events of its run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from gai_fast.formats._openai import argument_text


class _Kind(NamedTuple):
    """A kind of tool.

    Args:
        item: The type of the kind's items.
        prefix: The prefix of the kind's events, or empty if it has no events.
        runs: The event between `in_progress` and the end, or empty for none.
        input: The member for the tool's input, or empty if the kind has its own form.
    """

    item: str
    prefix: str = ""
    runs: str = ""
    input: str = ""


_KINDS: Final = {
    "web_search": _Kind("web_search_call", "response.web_search_call", "searching"),
    "file_search": _Kind("file_search_call", "response.file_search_call", "searching"),
    "code_interpreter": _Kind("code_interpreter_call", "response.code_interpreter_call", "interpreting"),
    "image_generation": _Kind("image_generation_call", "response.image_generation_call", "generating"),
    "mcp_approval_request": _Kind("mcp_approval_request"),
    "computer": _Kind("computer_call", input="action"),
    "local_shell": _Kind("local_shell_call", input="action"),
    "shell": _Kind("shell_call", input="action"),
    "apply_patch": _Kind("apply_patch_call", input="operation"),
}
_FAILURES: Final = frozenset(("http_error", "mcp_protocol_error", "mcp_tool_execution_error"))
"""The types of an `mcp_call`'s failures."""
_OTHER: Final = _Kind("mcp_call", "response.mcp_call")

PROVIDER_RUNS: Final = frozenset({kind.item for kind in (*_KINDS.values(), _OTHER) if kind.prefix} | {"mcp_list_tools"})
"""The types of items for tools that the provider runs; the client runs the other tools."""


class ToolItem:
    """One run of a tool.

    Args:
        identifier: The provider's id of the run.
        name: The tool's name.
        index: The item's index.
        provider: The provider that runs the tool.
        emit: As for `Output`.

    Attributes:
        index: The item's index.
        item: The item's JSON object.
        draws: The tool's result is an image.
        is_request: The item is complete from the start: its outcome is another item, or comes from the client.
    """

    def __init__(
        self,
        identifier: str,
        name: str,
        index: int,
        provider: str | None,
        emit: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._kind = _KINDS.get(name, _OTHER)
        self._emit = emit
        self._images = 0
        self._failed = False
        self.index = index
        self.draws = name == "image_generation"
        kind = self._kind.item
        self.is_request = bool(self._kind.input) or kind == "mcp_approval_request"
        self.item: dict[str, Any] = {"id": identifier, "type": kind}
        if kind != "mcp_approval_request":
            self.item["status"] = "in_progress"
        if kind == "mcp_call":
            self.item |= {"name": name, "server_label": provider or "", "arguments": "", "output": None, "error": None}
        elif kind == "mcp_approval_request":
            self.item |= {"name": "", "server_label": "", "arguments": ""}
        elif kind == "web_search_call":
            self.item["action"] = {"type": "search", "query": ""}
        elif kind == "file_search_call":
            self.item |= {"queries": [], "results": None}
        elif kind == "code_interpreter_call":
            self.item |= {"code": None, "container_id": "", "outputs": None}
        elif kind == "image_generation_call":
            self.item["result"] = None
        else:
            self.item |= {"call_id": identifier, self._kind.input: {}}
            if name == "computer":
                self.item["pending_safety_checks"] = []

    def begin(self) -> None:
        """Emits the events of a started run; called after the item is emitted."""
        self._emit_state("in_progress")
        if self._kind.runs:
            self._emit_state(self._kind.runs)

    def _emit_state(self, name: str, members: Mapping[str, Any] | None = None, infix: str = "") -> None:
        if self._kind.prefix:
            at = {"item_id": self.item["id"], "output_index": self.index}
            self._emit(f"{self._kind.prefix}{infix}.{name}", {**at, **(members or {})})

    def take(self, run: Mapping[str, Any]) -> None:
        """Updates the item from an event.

        Args:
            run: The event's `server_tool`.
        """
        given, output = run.get("input"), run.get("output")
        self._failed = run["status"] == "failed"
        if given is not None:
            self._take_input(given)
        if output is None:
            return
        kind = self._kind.item
        if kind == "mcp_call":
            self.item["error" if self._failed else "output"] = failure(output) if self._failed else text_of(output)
        elif kind == "file_search_call" and _are_objects(output):
            self.item["results"] = output
        elif kind == "code_interpreter_call":
            is_own = _are_objects(output) and all("type" in one for one in output)
            self.item["outputs"] = output if is_own else [{"type": "logs", "logs": text_of(output)}]

    def _take_input(self, given: Any) -> None:
        members = given if isinstance(given, dict) else {}
        kind, item = self._kind.item, self.item
        if kind == "mcp_call":
            item["arguments"] = text_of(given)
        elif kind == "mcp_approval_request":
            item |= {key: text_of(members[key]) for key in ("name", "server_label", "arguments") if key in members}
        elif kind == "web_search_call":
            query = members.get("query") or (given if isinstance(given, str) else "")
            item["action"] = members if "type" in members else {"type": "search", "query": text_of(query)}
        elif kind == "file_search_call":
            queries = members.get("queries", [given])
            item["queries"] = [text_of(query) for query in (queries if isinstance(queries, list) else [queries])]
        elif kind == "code_interpreter_call":
            item["code"] = text_of(members.get("code", given))
        elif kind == "image_generation_call":
            if "revised_prompt" in members:
                item["revised_prompt"] = text_of(members["revised_prompt"])
        else:
            item[self._kind.input] = given

    def show(self, image: dict[str, Any]) -> None:
        """Sets the item's image, or emits a partial image.

        Args:
            image: The event's `image`.
        """
        form = image.get("media_type", "image/png").removeprefix("image/")
        if image.get("partial"):
            partial = {"partial_image_index": self._images, "partial_image_b64": image["data"], "output_format": form}
            self._images += 1
            self._emit_state("partial_image", partial)
        else:
            self.item |= {"result": image["data"], "output_format": form}

    def end(self, *, is_complete: bool = True) -> None:
        """Emits the end of the run; the finished item follows.

        Args:
            is_complete: The run has ended; false if the answer ended first.
        """
        kind, item = self._kind.item, self.item
        if not is_complete:
            item["status"] = "failed" if self.draws else "incomplete"
            return
        if kind == "mcp_call":
            self._emit_state("done", {"arguments": item["arguments"]}, "_arguments")
        elif kind == "code_interpreter_call" and item["code"] is not None:
            self._emit_state("done", {"code": item["code"]}, "_code")
        if "status" in item:
            item["status"] = "failed" if self._failed else "completed"
        if kind == "mcp_call" or not self._failed:
            self._emit_state("failed" if self._failed else "completed")


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def failure(output: Any) -> dict[str, Any]:
    """Returns the `error` of an `mcp_call`."""
    if isinstance(output, dict) and text_of(output.get("type", "")) in _FAILURES:
        return output
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text_of(output)}]}


def text_of(value: Any) -> str:
    """Returns a string unchanged, and any other value as JSON."""
    return argument_text(value)
