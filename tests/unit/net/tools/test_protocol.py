"""`gai_fast/net/tools/protocol.py`: which protocol follows from which answer."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.net.tools.protocol import (
    STATELESS,
    Agreement,
    after_discovery,
    after_initialize,
    after_refusal,
    is_older,
)
from gai_fast.net.tools.rpc import Fault, ToolServerError

INFO = "io.modelcontextprotocol/serverInfo"


@pytest.mark.parametrize(
    ("result", "agreed"),
    [
        ({"supportedVersions": [STATELESS]}, Agreement(STATELESS)),
        (
            {"supportedVersions": ["2025-11-25", STATELESS], "_meta": {INFO: {"name": "a\n", "version": "1"}}},
            Agreement(STATELESS, "a 1"),
        ),
        ({"supportedVersions": [STATELESS], "serverInfo": {"name": "b", "version": 2}}, Agreement(STATELESS, "b")),
        ({"supportedVersions": ["2025-06-18"]}, None),
        ({}, None),
        ({"supportedVersions": "2026-07-28"}, None),
    ],
)
def test_a_discovery_is_read(result: dict[str, Any], agreed: Agreement | None) -> None:
    assert after_discovery(result) == agreed


def refused(code: int | None, data: Any = None) -> ToolServerError:
    return ToolServerError("no", "refused", code=code, data=data)


def test_a_refused_version_is_asked_for_once_more_or_becomes_a_session() -> None:
    both = refused(-32022, {"supported": [STATELESS, "2025-11-25"]})
    assert after_refusal(both, is_last=False) == Agreement(STATELESS)
    with pytest.raises(ToolServerError):
        after_refusal(both, is_last=True)
    assert after_refusal(refused(-32022, {"supported": ["2025-03-26"]}), is_last=False) is None


@pytest.mark.parametrize("code", [-32601, -32602, -32000, None])
def test_an_error_of_an_older_server_begins_a_session(code: int | None) -> None:
    assert after_refusal(refused(code), is_last=False) is None


@pytest.mark.parametrize(("code", "data"), [(-32020, None), (-32021, {}), (-32022, None), (-32022, {"supported": 1})])
def test_an_error_of_today_is_an_error(code: int, data: Any) -> None:
    with pytest.raises(ToolServerError, match="no"):
        after_refusal(refused(code, data), is_last=False)


def test_without_a_common_protocol_there_is_no_agreement() -> None:
    reason = "it speaks no protocol of this client"
    with pytest.raises(ToolServerError, match=reason):
        after_discovery({"supportedVersions": ["2027-01-01", {}]})
    with pytest.raises(ToolServerError, match=reason):
        after_refusal(refused(-32022, {"supported": []}), is_last=False)
    for version in ("2024-11-05", STATELESS, None, []):
        with pytest.raises(ToolServerError, match=reason):
            after_initialize({"protocolVersion": version}, None)


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
def test_a_session_has_the_servers_version(version: str) -> None:
    agreed = after_initialize({"protocolVersion": version, "serverInfo": {"name": "old"}}, "id-1")
    assert agreed == Agreement(version, "old", "id-1")
    assert not agreed.is_stateless


@pytest.mark.parametrize(
    ("fault", "status", "of_http", "of_process"),
    [
        ("status", 400, True, True),
        ("status", 404, True, True),
        ("status", 405, True, True),
        ("status", 401, False, False),
        ("status", 429, False, False),
        ("status", 500, False, False),
        ("late", None, False, True),
        ("unreachable", None, False, False),
    ],
)
def test_some_failures_mean_an_older_server(fault: Fault, status: int | None, of_http: bool, of_process: bool) -> None:
    problem = ToolServerError("x", fault, status=status)
    assert is_older(problem, is_process=False) == of_http
    assert is_older(problem, is_process=True) == of_process
