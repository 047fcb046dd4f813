"""`cli/__init__.py`: the group, its help, and what all commands share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

import gai_fast
from gai_fast.cli import COMMANDS, ConfigFailure, Failure, StartupFailure, announce, main, print_json
from gai_fast.model.version import __version__
from tests.conftest import ChangeLimits

from .conftest import Run

ROOT = Path(gai_fast.__file__).parents[1]


def commands(group: click.Group, name: str = "gai-fast") -> Iterator[click.Context]:
    """Yields a context for every command, groups included."""
    with click.Context(group, info_name=name, **group.context_settings) as context:
        yield context
        for child in group.list_commands(context):
            command = group.get_command(context, child)
            assert command is not None
            inner = click.Context(command, context, info_name=child, **command.context_settings)
            if isinstance(command, click.Group):
                for grandchild in command.list_commands(inner):
                    last = command.get_command(inner, grandchild)
                    assert last is not None
                    yield click.Context(last, inner, info_name=grandchild)
            yield inner


def test_help_lists_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.output


@pytest.mark.parametrize("group", [(), ("config",), ("key",)])
def test_the_summary_of_each_command_is_a_whole_sentence(run: Run, group: tuple[str, ...]) -> None:
    listed = run(*group, "--help").output.partition("Commands:\n")[2].splitlines()
    assert len(listed) >= 3
    for line in listed:
        assert line.endswith(".")
        assert "..." not in line


@pytest.mark.parametrize(("name", "meant"), [("srve", "serve"), ("chekc", "check"), ("versoin", "version")])
def test_a_misspelt_command_names_the_nearest_one(run: Run, name: str, meant: str) -> None:
    result = run(name)
    assert result.exit_code == 2
    assert f"No such command '{name}'; did you mean '{meant}'?" in result.output


@pytest.mark.parametrize("name", ["follow", "nope"])
def test_a_command_that_is_not_there_is_a_usage_error(run: Run, name: str) -> None:
    result = run(name)
    assert result.exit_code == 2
    assert f"No such command '{name}'" in result.output


def test_every_flag_has_an_environment_variable_and_help_shows_it() -> None:
    seen = set()
    for context in commands(main):
        for parameter in context.command.get_params(context):
            if isinstance(parameter, click.Option) and parameter.name not in ("_click_default_help", "help", "version"):
                said = (parameter.get_help_record(context) or ("", ""))[1]
                assert "env var: GAI_FAST_" in said, (context.command_path, parameter.name)
                seen.add(parameter.name)
    assert {"host", "port", "config_path", "provider", "fail", "origin", "force"} <= seen


def test_the_flags_that_set_a_key_have_only_the_keys_name(run: Run) -> None:
    shown = " ".join(run("serve", "--help").output.split())
    for name in ("HOST", "PORT", "WORKERS", "CONFIG"):
        assert f"GAI_FAST_{name}" in shown


def test_version_flag(run: Run) -> None:
    assert run("--version").output == f"gai-fast {__version__}\n"


def test_importing_the_command_line_imports_no_server() -> None:
    heavy = ("aiohttp", "httptools", "uvloop", "gai_fast.server")
    code = f"import sys, gai_fast.cli; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"


def test_help_imports_no_server_and_no_loop() -> None:
    """`gai-fast --help` imports every command; each imports what is heavy when it runs."""
    heavy = ("aiohttp", "uvloop", "prometheus_client", "gai_fast.server")
    code = (
        "import sys\nfrom gai_fast.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"assert 'gai_fast.cli.mock.command' in sys.modules\nprint([m for m in {heavy} if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=True, cwd=ROOT
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "flag",
    ["mock --rate", "mock --ttft", "replay f --speed", "bench u --rate", "bench u --duration", "bench u --timeout"],
)
def test_a_number_that_is_not_finite_is_a_usage_error(run: Run, flag: str, value: str) -> None:
    result = run(*flag.split(), value)
    assert result.exit_code == 2
    assert f"Invalid value for '{flag.split()[-1]}'" in result.output


def test_json_is_valid_whatever_a_text_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"file": "\udcff"})
    assert json.loads(capsys.readouterr().out) == {"file": "\udcff"}


@pytest.mark.parametrize(("kind", "code"), [(Failure, 1), (ConfigFailure, 2), (StartupFailure, 3)])
def test_failures_have_their_exit_codes_and_a_line_for_each_problem(
    kind: type[Failure], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = kind("one\ntwo")
    failure.show()
    assert failure.exit_code == code
    assert capsys.readouterr().err == "error: one\nerror: two\n"


def test_a_configuration_is_found_in_the_working_directory_or_named(run: Run) -> None:
    Path("gai-fast.toml").write_text("[server]\nprot = 1\n")
    assert run("check").output == "error: gai-fast.toml:2: unknown key 'prot' in [server]; did you mean port?\n"
    assert run("check").exit_code == 2
    assert run("check", env={"GAI_FAST_CONFIG": "other.toml"}).output.startswith("error: other.toml: cannot be read")


def test_a_reader_that_leaves_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "gai_fast", "config", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert errors == b""


@pytest.mark.parametrize("arguments", [["config", "schema"], ["version"], ["--help"], ["chat", "Hi"]])
def test_an_output_that_takes_nothing_is_one_line_and_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import resource, sys\nfrom gai_fast.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nmain(sys.argv[1:])"
    )
    with (tmp_path / "out").open("wb") as output:
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=250,
            cwd=ROOT,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, b"error: File too large\n")


def test_a_full_pipe_that_nobody_reads_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, change_limits: ChangeLimits, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = os.pipe()
    change_limits(stdout_blocked=0.01)
    with os.fdopen(writer, "w", encoding="ascii") as output:
        monkeypatch.setattr(sys, "stdout", output)
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        announce("here I am")
        assert "cannot write to the standard output: it is full, and no program reads it" in caplog.text
        os.read(reader, 1 << 20)
        announce("here I äm")
        assert os.read(reader, 1 << 20) == b"here I \\xe4m\n"
        announce("x" * 200_000)
        os.set_blocking(reader, False)
        assert 4096 <= len(os.read(reader, 1 << 20)) < 200_000
    os.close(reader)


def test_closed_standard_streams_lead_nowhere(tmp_path: Path) -> None:
    """A socket that got one of their numbers would end the process: libuv closes no descriptor below 3."""
    code = (
        "import os, sys\nfrom gai_fast.cli import main\n"
        "try: main(['version'])\nexcept SystemExit as end: code = end.code\n"
        "nothing = os.stat(os.devnull).st_rdev\n"
        "open(sys.argv[1], 'w').write(repr([code, *(os.fstat(number).st_rdev == nothing for number in range(3))]))"
    )
    shell = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    subprocess.run(
        ["sh", "-c", shell, sys.executable, code, str(tmp_path / "message")], timeout=250, cwd=ROOT, check=True
    )
    assert (tmp_path / "message").read_text() == "[0, True, True, True]"


@pytest.mark.parametrize(
    ("encoding", "given", "message"),
    [("utf-8:strict", b"\xff", b"\xef\xbf\xbd \xe2\x9c\x93\n"), ("latin-1:strict", b"\xe9", b"\xe9 \\u2713\n")],
)
def test_no_byte_of_the_input_and_no_character_of_the_output_is_an_error(
    encoding: str, given: bytes, message: bytes
) -> None:
    code = (
        "import click, sys\nfrom gai_fast.cli import main\n"
        "main.callback = lambda: click.echo(sys.stdin.read() + ' \u2713')\n"
        "main.invoke_without_command = True\nmain.no_args_is_help = False\nmain([])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        input=given,
        capture_output=True,
        timeout=250,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (result.stdout, result.stderr) == (message, b"")


def test_json_controls_no_terminal_and_stays_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "a\x1b\x07\x7f\x9b\u061c\u200b\u2028\u202e\u2066\ufeff größe 模型\n"}
    print_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert printed.replace("\n", "").isprintable()
    assert "größe 模型" in printed


def test_a_number_that_is_none_is_reported_in_plain_words(run: Run) -> None:
    """Kubernetes sets such a variable for a service of the name `gai-fast`."""
    result = run("serve", env={"GAI_FAST_PORT": "tcp://10.0.0.1:80"})
    assert result.exit_code == 2
    assert "'--port' (env var: 'GAI_FAST_PORT'): 'tcp://10.0.0.1:80' is no whole number." in result.output
    assert "'fast' is no number." in run("mock", "--rate", "fast").output
