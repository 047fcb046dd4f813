"""`gai-fast top`: what it needs, and what it prints once. `integration/test_top.py` has its screen."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from gai_fast.cli.admin_client import AdminError
from gai_fast.cli.top import command as top
from tests.ports import free_port
from tests.unit.cli.conftest import Run


def test_without_its_extra_it_names_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    result = run("top")
    assert result.exit_code == 1
    assert "pip install '.[tui]'" in result.output


def test_into_a_pipe_it_prints_json_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: Any, **__: Any) -> Any:
        return {}, None

    monkeypatch.setattr(top, "_first", answer)
    result = run("top")
    assert result.exit_code == 2
    assert "--json" in result.output
    assert "\x1b" not in result.output


def test_into_a_pipe_it_says_first_that_no_server_answers(run: Run) -> None:
    result = run("top", "--url", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "cannot connect" in result.output


def test_without_a_server_it_fails_with_a_clear_message(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)
    url, step = f"http://127.0.0.1:{free_port()}", "check --url, and that `gai-fast serve` runs there"
    result = run("top", "--url", url, "--json")
    assert result.exit_code == 1
    assert result.output == f"error: {url}: cannot connect (Connection refused): {step}\n"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://a:secret@host", "http://h/?key=1"])
def test_another_url_is_refused_and_not_repeated(run: Run, url: str) -> None:
    result = run("top", "--json", "--url", url)
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_words_of_the_server_control_no_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise AdminError("the server refuses (403): a\x1b[2Jb\x9bc")

    monkeypatch.setattr(top, "_first", refuse)
    result = run("top", "--json")
    assert result.exit_code == 1
    assert result.output.endswith("a\ufffd[2Jb\ufffdc\n")


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret\x1b", "sk-secret\u00e9"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(run: Run, key: str) -> None:
    result = run("top", "--json", env={"GAI_FAST_TOP_API_KEY": key})
    assert result.exit_code == 2
    assert "visible ASCII" in result.output
    assert "sk-secret" not in result.output
