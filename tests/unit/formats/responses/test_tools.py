"""Tools that the provider runs, as items of a Responses answer."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.events import Event
from tests.unit.formats.responses_reader import streamed, types, whole, written
from tests.unit.formats.streams import DONE, finish, objects_of


def run(name: str, status: str, **members: Any) -> Event:
    return {"type": "server_tool", "server_tool": {"id": "t_1", "name": name, "status": status, **members}}


def item_of(*events: Event) -> Any:
    (item,) = whole(*events, finish())["output"]
    return item


ITEMS: dict[str, tuple[str, Any, Any, dict[str, Any]]] = {
    "a search": (
        "web_search",
        {"query": "Oslo"},
        [{"url": "https://a.example"}],
        {"type": "web_search_call", "action": {"type": "search", "query": "Oslo"}},
    ),
    "an action": (
        "web_search",
        {"type": "open_page", "url": "https://a.example"},
        None,
        {"action": {"type": "open_page", "url": "https://a.example"}},
    ),
    "a search by text": ("web_search", "Oslo", None, {"action": {"type": "search", "query": "Oslo"}}),
    "files": (
        "file_search",
        {"queries": ["a", "b"]},
        [{"file_id": "f"}],
        {"type": "file_search_call", "queries": ["a", "b"], "results": [{"file_id": "f"}]},
    ),
    "code": (
        "code_interpreter",
        {"code": "1+1"},
        [{"type": "logs", "logs": "2"}],
        {"type": "code_interpreter_call", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
    ),
    "code with an output of another kind": (
        "code_interpreter",
        "1+1",
        "2",
        {"code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
    ),
    "a tool of any other name": (
        "web_fetch",
        {"url": "https://a.example"},
        {"ok": True},
        {
            "type": "mcp_call",
            "name": "web_fetch",
            "arguments": '{"url":"https://a.example"}',
            "output": '{"ok":true}',
            "server_label": "test",
            "error": None,
        },
    ),
}


@pytest.mark.parametrize("name", ITEMS)
def test_a_run_is_an_item_of_its_kind(name: str) -> None:
    tool, given, output, expected = ITEMS[name]
    item = item_of(run(tool, "started"), run(tool, "completed", input=given, output=output))
    assert {key: item[key] for key in expected} == expected
    assert (item["id"], item["status"]) == ("t_1", "completed")


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("web_search", ["in_progress", "searching", "completed"]),
        ("file_search", ["in_progress", "searching", "completed"]),
        ("code_interpreter", ["in_progress", "interpreting", "completed"]),
        ("image_generation", ["in_progress", "generating", "completed"]),
    ],
)
def test_the_events_of_a_run(tool: str, expected: list[str]) -> None:
    found = types(written(run(tool, "started"), run(tool, "completed")))
    names = [f"{tool}_call.{name}" for name in expected]
    assert found[2:] == ["output_item.added", *names, "output_item.done"]


def test_the_code_of_a_run_is_reported() -> None:
    found = written(run("code_interpreter", "completed", input={"code": "1"}))
    assert [one["code"] for one in found if one["type"] == "response.code_interpreter_call_code.done"] == ["1"]


def test_a_run_that_failed() -> None:
    item = item_of(run("web_fetch", "failed", output="no route"))
    assert (item["status"], item["output"]) == ("failed", None)
    assert item["error"] == {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no route"}]}
    own = {"type": "http_error", "code": 500, "message": "no"}
    assert item_of(run("web_fetch", "failed", output=own))["error"] == own
    assert types(written(run("web_fetch", "failed")))[-2:] == ["mcp_call.failed", "output_item.done"]
    assert "completed" not in "".join(types(written(run("web_search", "failed"))))


@pytest.mark.parametrize(("tool", "status"), [("web_search", "incomplete"), ("image_generation", "failed")])
def test_a_run_without_an_end(tool: str, status: str) -> None:
    found = written(run(tool, "started"), finish(), DONE)
    assert found[-1]["response"]["output"][0]["status"] == status
    assert not any(one["type"].endswith("_call.completed") for one in found)


def test_a_run_that_names_neither_itself_nor_its_tool_is_an_item_all_the_same() -> None:
    nameless: Event = {"type": "server_tool", "server_tool": {"status": "failed", "output": {"type": ["x"]}}}
    item = item_of(nameless)
    assert (item["type"], item["name"], item["status"]) == ("mcp_call", "", "failed")
    assert item["id"]
    assert item["error"]["type"] == "mcp_tool_execution_error"


@pytest.mark.parametrize(
    ("tool", "kind", "member"),
    [
        ("computer", "computer_call", "action"),
        ("local_shell", "local_shell_call", "action"),
        ("shell", "shell_call", "action"),
        ("apply_patch", "apply_patch_call", "operation"),
    ],
)
def test_a_call_that_the_client_runs_is_complete_at_once(tool: str, kind: str, member: str) -> None:
    found = [run(tool, "started", input={"type": "x"}), run(tool, "completed", output="done")]
    (item,) = [one["item"] for one in objects_of(streamed(*found)) if one["type"] == "response.output_item.done"]
    assert (item["type"], item["call_id"], item[member], item["status"]) == (kind, "t_1", {"type": "x"}, "completed")


def test_an_approval_is_asked_for() -> None:
    asked = {"server_label": "s", "name": "f", "arguments": "{}"}
    item = item_of(run("mcp_approval_request", "started", input=asked))
    assert item == {"id": "t_1", "type": "mcp_approval_request", **asked}


def test_the_prompt_of_an_image_is_kept() -> None:
    item = item_of(run("image_generation", "completed", input={"revised_prompt": "a cat"}))
    assert (item["revised_prompt"], item["result"]) == ("a cat", None)
