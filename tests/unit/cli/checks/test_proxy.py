"""The findings about proxies, from what has come of a probe."""

from __future__ import annotations

import pytest

from gai_fast.cli.checks.proxy import ProxiedAnswer, _operators, findings

STEADY = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


def statuses(answer: ProxiedAnswer, idle: float = 3.0, heartbeat: float = 15.0) -> list[str]:
    return [each.status for each in findings(answer, idle, heartbeat)]


def test_a_probe_that_comes_as_it_was_sent_is_right() -> None:
    assert statuses(ProxiedAnswer("", [*STEADY, 4.0], 4.0)) == ["ok", "ok", "ok"]


@pytest.mark.parametrize("arrivals", [[4.0] * 7, [0.0, 0.0, 0.0, 0.0, 0.0, 0.3, 4.0], [], [0.0, 0.5, 0.9]])
def test_events_that_come_together_or_not_at_all_are_buffered(arrivals: list[float]) -> None:
    found = findings(ProxiedAnswer("", arrivals, 4.0), 3.0, 15.0)[0]
    assert found.status == "error"
    assert "proxy_buffering" in found.detail
    for name in ("nginx: proxy_buffering off", "Caddy: flush_interval -1", "Cloudflare: ", "ALB: "):
        assert name in found.fix


def test_a_content_coding_is_a_proxys() -> None:
    found = findings(ProxiedAnswer("gzip", [*STEADY, 4.0], 4.0), 3.0, 15.0)[1]
    assert (found.status, "compression (gzip)" in found.detail) == ("warning", True)
    for name in ("nginx: ", "Caddy: ", "Cloudflare: ", "ALB: "):
        assert name in found.fix


def test_a_cut_is_an_error_where_no_keep_alive_comes_before_it() -> None:
    cut = ProxiedAnswer("", STEADY, 3.2)
    found = findings(cut, 10.0, 15.0)[2]
    assert found.status == "error"
    assert "a timeout of a proxy cuts the stream after about 2 s of silence, of 10 s" in found.detail
    for name in ("nginx: proxy_read_timeout", "Caddy: ", "Cloudflare: ", "ALB: "):
        assert name in found.fix
    assert statuses(cut, heartbeat=1.0)[2] == "warning"
    assert statuses(cut, heartbeat=0.0)[2] == "error"


@pytest.mark.parametrize(
    ("url", "status", "expected"),
    [
        ("https://gateway.example.com", 200, "error"),
        ("http://127.0.0.1:8080", 200, "warning"),
        ("https://gateway.example.com", 401, "ok"),
        ("https://gateway.example.com", 403, "ok"),
    ],
)
def test_an_admin_api_that_strangers_reach_without_a_key_is_an_error(url: str, status: int, expected: str) -> None:
    check = _operators(url, status)
    assert (check.status, "admin's key" in check.fix) == (expected, status == 200)
