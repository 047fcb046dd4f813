"""The folder of real requests is read, and a file in it that is no request is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.requests.recorded import VARIABLE, OddFile, recorded

DOORS = ("chat", "messages")
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def write(folder: Path, path: str, held: Any) -> None:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(held if isinstance(held, str) else json.dumps(held))


def test_without_the_variable_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert recorded(DOORS) == {"chat": {}, "messages": {}}


def test_bodies_are_in_folders_of_doors_and_in_notes_beside_recordings(folder: Path) -> None:
    write(folder, "chat/deep/one.json", BODY)
    note = {"api": "anthropic.messages", "status": 200, "request": BODY}
    write(folder, "anthropic/two.json", note)
    write(folder, "anthropic/refused.json", {**note, "status": 400})
    write(folder, "anthropic/without.json", {**note, "request": None})
    write(folder, "anthropic/cut.json", {**note, "request": {"model": "m", "_omitted_bytes": 5}})
    write(folder, "gemini/other.json", {**note, "api": "gemini.streamGenerateContent"})
    write(folder, "expected.json", [])
    sent = {"messages": BODY["messages"]}
    assert recorded(DOORS) == {
        "chat": {"recorded chat/deep/one": sent},
        "messages": {"recorded anthropic/two": sent},
    }


@pytest.mark.parametrize(
    ("path", "held", "message"),
    [
        pytest.param("chat/odd.json", "{", "odd.json: not JSON", id="broken"),
        pytest.param("chat/odd.json", "\x00\udcff".encode(errors="replace").decode(), "odd.json: not JSON", id="bytes"),
        pytest.param("chat/odd.json", [BODY], "odd.json: a request is a JSON object", id="list"),
        pytest.param("chats/odd.json", BODY, "odd.json: `chats` is no door (chat, messages)", id="door"),
        pytest.param("odd.json", BODY, "no request in <door>/*.json; the doors are chat, messages", id="none"),
    ],
)
def test_an_odd_file_is_named(folder: Path, path: str, held: Any, message: str) -> None:
    write(folder, path, held)
    with pytest.raises(OddFile, match=re.escape(message)):
        recorded(DOORS)
