"""`config/faults.py`: a file that is no TOML is told by what is wrong in its line, without what the line says."""

from __future__ import annotations

import pytest

from tests.unit.config.folders import Folder

QUOTES = "a text needs quotes at both ends"
ONE = "one key stands in one line"


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ('[server]\nport = 80\n\n# c\n\n\nhost = "127.0.0.1\n', 7, f'{QUOTES}: host = "…"'),
        ("[server]\nhost = 127.0.0.1\n", 2, QUOTES),
        ("[server]\nhost = 'a\n", 2, QUOTES),
        ("[server]\nhost = a\n", 2, QUOTES),
        ("[server]\nheader_timeout = 10s\n", 2, QUOTES),
        ('[server]\nx = """a\nb\n', 2, QUOTES),
        ("[server]\ncors_origins = [a, b]\n", 2, f"{QUOTES}, also in a list"),
        ("[server]\nhost = “a”\n", 2, "these quotes are typographic"),
        ("[server]\na = 1\nb = 2\n[store]\nc = 3\n\n\n\n[server]\n", 9, "[server] stands twice: lines 1 and 9"),
        ("server.port = 1\n[server]\n", 2, "`server` stands twice: lines 1 and 2"),
        ("[server]\nport = 1\nport = 2\n", 3, "`port` stands twice: lines 2 and 3"),
        ('[key]\nname = "a"\n[[key]]\n', 3, "write [[key]] for each"),
        ("# c\nserver:\n  port: 80\n", 2, "this is YAML"),
        ("---\nserver:\n", 1, "this is YAML"),
        ('{"server": {}}', 1, "this is JSON"),
        ("[server]\nport: 80\n", 2, "a key and its value stand around `=`: port = 80"),
        ("[server]\nport 80\n", 2, "`=` and a value are missing"),
        ("[server]\nclient cert = 1\n", 2, "a key with a blank needs quotes"),
        ("[server]\nport =\n", 2, "a value is missing"),
        ("[server]\ndemo = False\n", 2, "a switch is true or false: demo = false"),
        ("[server]\ndemo = on\n", 2, "demo = true"),
        ('[server]\nport = 80 host = "x"\n', 2, ONE),
        ("[server]\nhost = 'it's'\n", 2, ONE),
        ("[server]\nport = 080\n", 2, "a number does not begin with 0"),
        ("[[key]]\nexpires = 2026-13-45\n", 2, "there is no such day"),
        ('[server]\nx = "C:\\q"\n', 2, "begins an escape"),
        ("[server\nport = 1\n", 1, "a head of a table is not closed"),
        ("[[key]\nport = 1\n", 1, "a head of a table is not closed"),
        ('[server]\ncors_origins = ["a" "b"]\n', 2, "a comma is missing between two values"),
        ('[server]\ncors_origins = ["a"\n', 2, "a list is not closed"),
        ('[server]\ncors_origins = ["a",\n"b"\n[key]\n', 4, "a list is not closed"),
        ("[[model]]\nextra = {a = 1,\nb = 2}\n", 2, "a table in braces"),
        ('[server]\nx = "\x01"\n', 2, "Illegal character"),
        ("[server]\n= 3\n", 2, "Invalid statement"),
    ],
)
def test_the_usual_mistakes_are_told_in_words(folder: Folder, source: str, line: int, words: str) -> None:
    [problem] = folder.problems(source)
    assert problem.startswith(f"gai-fast.toml:{line}:"), problem
    assert words in problem


@pytest.mark.parametrize(
    "value", ["sk-canary", '"sk-canary', "“sk-canary”", "'sk-canary' x", "[sk-canary", "12 sk-canary"]
)
def test_no_text_of_the_file_is_repeated(folder: Folder, value: str) -> None:
    for sign in ("=", ":"):
        [problem] = folder.problems(f"[[upstream]]\napi_key {sign} {value}\n")
        assert "canary" not in problem
