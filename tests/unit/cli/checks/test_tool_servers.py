"""`cli/checks/tool_servers.py`: `check --probe` lists the tools of each server, and calls none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.unit.cli.conftest import Run
from tests.unit.cli.tools.test_command import SERVER


@pytest.fixture(autouse=True)
def file(folder: Path) -> None:
    (folder / "server.py").write_text(SERVER.replace('{"name": "bad\\x1b", "inputSchema": {"type": "object"}},', ""))
    command = json.dumps([sys.executable, "-S", str(folder / "server.py")])
    (folder / "c.toml").write_text(f'[[tool_server]]\nname = "local"\ncommand = {command}\n')


def probed(run: Run, code: int) -> dict[str, str]:
    """Returns the only check of a server of tools."""
    result = run("check", "-c", "c.toml", "--probe", "--json")
    assert result.exit_code == code, result.output
    check: dict[str, str]
    [check] = json.loads(result.stdout)["tool_servers"]
    return check


def test_a_server_that_lists_tools_is_ok(run: Run, folder: Path) -> None:
    check = probed(run, 0)
    assert (check["name"], check["status"], check["fix"]) == ("tools.local", "ok", "")
    assert check["detail"].startswith("protocol 2026-07-28, 4 tools in ")
    assert not (folder / "called").exists()
    assert "tools.local: ok: protocol 2026-07-28" in run("check", "-c", "c.toml", "--probe").stdout
    assert "tools.local" not in run("check", "-c", "c.toml").stdout, "nothing is asked without --probe"


@pytest.mark.parametrize(
    ("patterns", "code", "status", "named"),
    [
        ('idempotent = ["none"]', 0, "warning", "`idempotent` 'none'"),
        ('approve = ["writ", "w*"]\nidempotent = ["none"]', 1, "error", "`approve` 'writ', `idempotent` 'none'"),
    ],
)
def test_a_pattern_that_names_no_tool_is_found(
    run: Run, folder: Path, patterns: str, code: int, status: str, named: str
) -> None:
    with (folder / "c.toml").open("a") as file:
        file.write(f"{patterns}\n")
    check = probed(run, code)
    assert check["status"] == status, "a tool that `approve` should name would run without a person"
    assert check["detail"].endswith(f"; no tool for {named}")
    assert check["fix"] == "correct the patterns of local"


def test_a_tool_that_is_left_out_is_a_warning(run: Run, folder: Path) -> None:
    (folder / "server.py").write_text(SERVER)
    check = probed(run, 0)
    assert (check["status"], check["fix"]) == ("warning", "`gai-fast tools list` has the reasons")
    assert check["detail"].endswith("; left out: bad")


def test_a_server_out_of_reach_is_an_error(run: Run, folder: Path) -> None:
    (folder / "c.toml").write_text(f'[[tool_server]]\nname = "gone"\nurl = "http://127.0.0.1:{free_port()}/"\n')
    check = probed(run, 1)
    assert (check["status"], check["fix"]) == ("error", "check `url` of gone, and `gai-fast tools list`")
    assert "cannot connect to 127.0.0.1:" in check["detail"]
    (folder / "c.toml").write_text('[[tool_server]]\nname = "gone"\ncommand = ["no-such-command"]\n')
    check = probed(run, 1)
    assert check["detail"] == "its command cannot be run: No such file or directory"
