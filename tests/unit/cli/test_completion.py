"""`gai-fast completion`: real shells complete what the command line knows."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gai_fast
from gai_fast.cli import COMMANDS

from .conftest import Run

ROOT = Path(gai_fast.__file__).parents[1]

# Each runs the script of its shell, asks for the completions of a line, and prints them one a line.
BASH = """
source "$1"
COMP_WORDS=($2)
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
[[ $2 == *' ' ]] && { COMP_WORDS+=(''); COMP_CWORD=$(( COMP_CWORD + 1 )); }
_gai_fast_completion gai-fast
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { :; }
_path_files() { echo "files $*"; }
_describe() { print -l -- ${completions_with_descriptions%%:*}; }
compadd() { print -l -- $completions; }
source "$1"
words=(${=2})
[[ $2 == *' ' ]] && words+=('')
CURRENT=${#words}
_gai_fast_completion
"""
FISH = """
source $argv[1]
complete --do-complete $argv[2] | string replace --regex '\\t.*' ''
"""
SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
FLAGS = {"bash": ("--norc", "-c"), "zsh": ("-f", "-c"), "fish": ("--no-config", "-c")}


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (ci/system-deps.sh does it)")
    return name


def completed(shell: str, line: str, folder: Path, run: Run) -> list[str]:
    """Returns the shell's completions of a line."""
    script = folder / "script"
    script.write_text(run("completion", shell).output)
    program = folder / "gai-fast"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gai_fast "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    arguments = [shell, *FLAGS[shell], SHELLS[shell]]
    # `sh -c` has a name for itself before the first argument; fish has not.
    arguments += [*(() if shell == "fish" else (shell,)), str(script), line]
    result = subprocess.run(
        arguments, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stderr == ""
    return result.stdout.split()


def test_a_shell_completes_commands_flags_and_values(shell: str, folder: Path, run: Run) -> None:
    assert sorted(completed(shell, "gai-fast ", folder, run)) == sorted(COMMANDS)
    assert "--workers" in completed(shell, "gai-fast serve --w", folder, run)
    assert completed(shell, "gai-fast completion z", folder, run) == ["zsh"]


def test_a_comma_in_a_description_ends_nothing_in_fish(run: Run) -> None:
    assert 'string split -m1 "," $completion' in run("completion", "fish").output


def test_a_misspelt_command_completes_to_nothing(shell: str, folder: Path, run: Run) -> None:
    assert completed(shell, "gai-fast chekc --j", folder, run) == []


def test_another_shell_is_a_usage_error(run: Run) -> None:
    result = run("completion", "tcsh")
    assert result.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.output
    assert run("completion").exit_code == 2
