"""`gai-fast tools list` and `tools call`: what they print, and that a failure has an exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.unit.cli.conftest import Run
from tests.unit.cli.tools.test_command import SERVER

FUNCTIONS = '''
import gai_fast


@gai_fast.tool(idempotent=True)
def greet(name: str, times: int = 1) -> str:
    """Greets."""
    return "Hello " * times + name


def table():
    return {"rows": [1, None]}


def breaks():
    raise ValueError("no good")
'''


@pytest.fixture(autouse=True)
def file(folder: Path) -> None:
    (folder / "server.py").write_text(SERVER)
    (folder / "functions_of_mine.py").write_text(FUNCTIONS)
    command = json.dumps([sys.executable, "-S", str(folder / "server.py")])
    tools = "".join(
        f'[[tool]]\nname = "{name}"\npython = "functions_of_mine:{name}"\n' for name in ("greet", "table", "breaks")
    )
    (folder / "c.toml").write_text(
        f'[[tool_server]]\nname = "local"\ncommand = {command}\ntools = ["[nw]*"]\napprove = ["write"]\n{tools}'
    )


def test_tools_are_listed_with_what_holds_for_their_calls(run: Run, folder: Path) -> None:
    result = run("tools", "list", "-c", "c.toml")
    assert result.stdout.splitlines() == [
        "local.now    17 bytes  idempotent",
        "local.write  17 bytes  approve idempotent",
        "greet        145 bytes  idempotent",
        "table        62 bytes",
        "breaks       62 bytes",
    ]
    assert result.stderr == "left out: local.bad: its name is no text of 1 to 128 printable characters\n"
    assert (result.exit_code, (folder / "called").exists()) == (0, False)
    listed = json.loads(run("tools", "list", "-c", "c.toml", "--json").stdout)
    assert listed[1] == {"name": "local.write", "schema_bytes": 17, "approve": True, "idempotent": True}
    assert [each["name"] for each in listed] == ["local.now", "local.write", "greet", "table", "breaks"]


def test_a_server_out_of_reach_hides_no_other_tool(run: Run, folder: Path) -> None:
    with (folder / "c.toml").open("a") as file:
        file.write(f'[[tool_server]]\nname = "gone"\nurl = "http://127.0.0.1:{free_port()}/?key=sk-canary"\n')
    result = run("tools", "list", "-c", "c.toml")
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 5)
    assert "error: gone: cannot connect to 127.0.0.1:" in result.stderr
    assert "sk-canary" not in result.output


def test_a_call_prints_the_result(run: Run, folder: Path) -> None:
    result = run("tools", "call", "greet", '{"name": "Ada", "times": 2}', "-c", "c.toml")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello Hello Ada\n", "")
    result = run("tools", "call", "table", "-c", "c.toml")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"rows": [1, None]})
    result = run("tools", "call", "local.now", "{}", "-c", "c.toml")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "\n", "image image/png: 4 bytes of Base64\n")
    assert (folder / "called").read_text() == "now{}\n"


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["breaks"], 1, "error: breaks: ValueError: no good"),
        (["greet", "{}"], 1, "error: greet: the argument 'name' is missing"),
        (["greet", '{"name": "a", "times": 1.5}'], 1, "error: greet: the argument 'times' is not of the type integer"),
        (["greet", "[]"], 1, "error: greet: the arguments are no JSON object"),
        (["greet", "{"], 2, "Invalid value for JSON: they are no JSON"),
        (["greet", '{"a": NaN}'], 2, "Invalid value for JSON: they are no JSON: "),
        (["local.bad"], 2, "error: 'local.bad' is left out: its name is no text of 1 to 128 printable characters"),
        (["gret"], 2, "error: no tool is named 'gret'; did you mean greet?"),
        (["local.writ"], 2, "error: no tool is named 'local.writ'; did you mean local.write?"),
        (["local.fails"], 2, "error: no tool is named 'local.fails'"),
        (["other.now"], 2, "error: no tool is named 'other.now'"),
    ],
)
def test_a_call_that_fails_says_why(run: Run, words: list[str], code: int, problem: str) -> None:
    result = run("tools", "call", *words, "-c", "c.toml")
    assert (result.exit_code, result.stdout) == (code, "")
    assert problem in result.stderr


def test_without_tools_there_is_nothing_to_list(run: Run, folder: Path) -> None:
    (folder / "empty.toml").write_text("")
    for words in (["list"], ["call", "a"]):
        result = run("tools", *words, "-c", "empty.toml")
        text = "error: there is no [[tool_server]] and no [[tool]]: name a configuration that has one by --config\n"
        assert (result.exit_code, result.stderr) == (2, text)
