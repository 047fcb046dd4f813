"""`server/admission/run_requests.py`: how a request asks for the gateway's tools, and what cannot be a run."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.formats import get_format
from gai_fast.model.errors import Error
from gai_fast.model.settings import ModelSettings, UpstreamSettings
from gai_fast.server.admission.negotiation import Negotiated
from gai_fast.server.admission.run_requests import asks_approvals, check_run, leaves_approvals, named_tools

SSE = Negotiated(get_format("gai"), "sse", "compact")
RAW = Negotiated(get_format("raw"), "sse", "compact")


def named(**tool: Any) -> Any:
    return named_tools({"tools": [{"type": "function", "name": "f"}, {"type": "mcp", **tool}]})


def test_a_label_names_all_tools_of_a_server_or_the_gateway_s_own() -> None:
    assert named(server_label="docs") == (["docs.*"], [], ["tools[1]"])
    assert named(server_label="gateway") == (["?*"], [], ["tools[1]"])


def test_allowed_tools_are_names_and_no_patterns() -> None:
    assert named(server_label="docs", allowed_tools=["a", "b*"])[0] == ["docs.a", "docs.b[*]"]
    assert named(server_label="gateway", allowed_tools={"tool_names": ["w"]})[0] == ["w"]


def test_approvals_are_added_and_none_is_lifted() -> None:
    assert named(server_label="docs", require_approval="always")[1] == ["docs.*"]
    some = {"always": {"tool_names": ["w"]}, "never": {"tool_names": ["r"]}}
    assert named(server_label="docs", require_approval=some)[1] == ["docs.w"]
    assert named(server_label="docs", require_approval="never")[1] == []


def test_a_connector_of_the_provider_is_not_the_gateway_s() -> None:
    assert named(server_label="docs", server_url="https://x") is None
    assert named(server_label="docs", connector_id="c") is None
    assert named_tools({"tools": "x"}) is None


@pytest.mark.parametrize(
    "tool",
    [
        {},
        {"server_label": 1},
        {"server_label": "docs", "allowed_tools": "a"},
        {"server_label": "docs", "allowed_tools": [1]},
        {"server_label": "docs", "allowed_tools": {"read_only": True}},
        {"server_label": "docs", "require_approval": "sometimes"},
        {"server_label": "d" * 129},
        {"server_label": "docs", "allowed_tools": ["a" * 129]},
        {"server_label": "docs", "allowed_tools": ["a"] * 129},
        {"server_label": "docs", "allowed_tools": ["a"] * 100, "require_approval": {"always": ["a"] * 29}},
    ],
)
def test_what_cannot_be_used_is_refused(tool: dict[str, Any]) -> None:
    with pytest.raises(Error) as refused:
        named(**tool)
    assert refused.value.reason == "tools"


@pytest.mark.parametrize(("form", "answers", "reason"), [(SSE, 2, "n"), (RAW, 1, "format")])
def test_what_cannot_be_a_run(form: Negotiated, answers: int, reason: str) -> None:
    with pytest.raises(Error) as refused:
        check_run(form, answers)
    assert (refused.value.code, refused.value.reason) == ("unsupported", reason)


def test_what_can() -> None:
    check_run(SSE, 1)


def _asks(
    header: str | None,
    asked: str | None,
    name: str,
    *,
    is_stream: bool = True,
    takes: bool = False,
    leaves: bool = False,
) -> bool:
    upstream = UpstreamSettings("up", "openai", "http://127.0.0.1", takes_credentials=takes)
    headers = {} if header is None else {"x-gai-approvals": header}
    negotiated = Negotiated(get_format(name), "sse", None)
    return asks_approvals(
        headers, asked, negotiated, ModelSettings("m", upstream, "m"), is_stream=is_stream, leaves=leaves
    )


def test_who_is_asked_for_approvals() -> None:
    asked = [_asks(None, None, name) for name in ("gai", "agui", "vercel", "openai", "anthropic", "responses")]
    assert asked == [True, True, False, False, False, False]
    assert _asks("ask", None, "openai")
    assert _asks(None, "ask", "gai", is_stream=False)
    assert not _asks("deny", "ask", "gai")
    assert not _asks(None, "deny", "gai")
    assert not _asks(None, None, "gai", is_stream=False)
    assert not _asks(None, None, "gai", takes=True)


def test_a_response_asks_unless_it_must_not() -> None:
    assert _asks(None, None, "responses", leaves=True)
    assert _asks(None, None, "responses", is_stream=False, takes=True, leaves=True)
    assert not _asks("deny", None, "responses", leaves=True)
    assert leaves_approvals(get_format("responses"), Negotiated(get_format("responses"), "sse", None))
    assert not leaves_approvals(get_format("responses"), Negotiated(get_format("gai"), "sse", None))
    assert not leaves_approvals(get_format("gai"), Negotiated(get_format("responses"), "sse", None))


def test_a_wish_that_is_none_is_refused() -> None:
    with pytest.raises(Error) as refused:
        _asks("maybe", None, "gai")
    assert (refused.value.code, refused.value.reason) == ("invalid_request", "approvals")
