"""The command line: one file per command, imported only when the command is called.

Owns the parts that all commands share: the group, the flags' environment variables, the exit codes (docs/cli.md), and
the printing of data and problems. Importing this package imports no server and no loop.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import math
import os
import re
import select
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from gai_fast.cli.limits import LIMITS
from gai_fast.model.version import __version__

if TYPE_CHECKING:
    from gai_fast.config import Loaded
    from gai_fast.model.settings import Secret
    from gai_fast.server.edge.certificate import CertificateError

__all__ = [
    "COMMANDS",
    "ConfigFailure",
    "Failure",
    "FiniteRange",
    "StartupFailure",
    "WholeRange",
    "announce",
    "api_key_option",
    "cannot_listen",
    "certificate_problem",
    "check_app",
    "config_option",
    "discard_output",
    "json_option",
    "load_config",
    "log_bugs_only",
    "main",
    "option",
    "print_json",
    "server_option",
    "url_option",
]

COMMANDS: Final = {
    "serve": "serve",
    "check": "checks.check",
    "doctor": "checks.doctor",
    "reload": "keys.reload",
    "top": "top.command",
    "decode": "decode",
    "mock": "mock.command",
    "replay": "replay",
    "grpc": "grpc",
    "chat": "chat",
    "bench": "bench.command",
    "models": "models",
    "config": "config",
    "key": "keys.key",
    "guard": "guard",
    "tools": "tools.command",
    "completion": "completion",
    "version": "version",
}
"""The modules of the commands, in the order of `--help`."""


class Failure(click.ClickException):
    """A failure of a running command: exit code 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.message.splitlines():
            click.echo(f"error: {line}", err=file is None, file=file)


class ConfigFailure(Failure):
    """A configuration that cannot be used: exit code 2, as for a wrong flag."""

    exit_code = 2


class StartupFailure(Failure):
    """The server cannot start with a valid configuration: exit code 3, as with uvicorn."""

    exit_code = 3


def cannot_listen(place: str, problem: OSError) -> StartupFailure:
    """Returns the failure of a server that cannot listen.

    Args:
        place: The address, path or descriptor.
        problem: The reason.
    """
    has_port = ":" in place
    reason = str(problem.strerror or problem)
    if problem.errno == errno.EADDRINUSE:
        reason = f"in use by another program{': choose another with --port' if has_port else ''}"
    elif problem.errno == errno.ENOENT:
        reason += ": make its folder first"
    elif problem.errno == errno.EBADF:
        reason += ": --fd is for a socket that another program hands over, 3 with a socket unit of systemd"
    elif problem.errno == errno.EACCES:
        reason += (
            ": a port below 1024 needs a privilege, choose another with --port" if has_port else ": check its folder"
        )
    elif problem.errno == errno.EADDRNOTAVAIL:
        reason += ": --host must be an address of this machine"
    return StartupFailure(f"cannot listen on {place}: {reason}")


class WholeRange(click.IntRange):
    """A range of whole numbers."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            int(value)
        except ValueError:
            self.fail(f"{value!r} is no whole number.", param, ctx)
        number: int = super().convert(value, param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """A range of finite numbers. A click range accepts NaN, because comparisons with NaN are false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            float(value)
        except ValueError:
            self.fail(f"{value!r} is no number.", param, ctx)
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


# Every flag has an environment variable, which `--help` shows.
option = partial(click.option, show_envvar=True, show_default=True)
config_option = option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="GAI_FAST_CONFIG",
    help="Configuration file; by default gai-fast.toml here, if it exists.",
)
json_option = option("--json", is_flag=True, help="Print JSON.")


def _headers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for value in values:
        name, colon, text = value.partition(":")
        if not colon or not name.strip():
            # The value is not shown: it may be a credential.
            raise click.BadParameter("a header is of the form 'name: value'")
        headers[name.strip().lower()] = text.strip()
    return headers


header_option = partial(option, "--header", multiple=True, callback=_headers, metavar="'NAME: VALUE'")


def _url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        is_right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or "@" in parts.netloc or parts.query or parts.fragment:
        # The value is not shown: it may hold a password.
        raise click.BadParameter("it must begin with http:// or https://, name a host, and hold no password or query")
    return value.rstrip("/")


url_option = partial(option, "--url", callback=_url, metavar="URL")
server_option = partial(option, "--server", callback=_url, metavar="URL")


def _api_key(context: click.Context, parameter: click.Parameter, value: str | None) -> Secret | None:
    from gai_fast.model.settings import Secret

    if value and not (value.isascii() and value.isprintable()):
        raise click.BadParameter("a key has visible ASCII characters only: this one holds others, or a line end")
    return Secret(value) if value else None


api_key_option = partial(
    option,
    "--api-key",
    callback=_api_key,
    help="An admin's key. Prefer the variable: other users can read a command line.",
)


def load_config(path: Path | None, flags: Mapping[str, Any] | None = None) -> Loaded:
    """Reads the configuration of a command.

    Raises:
        ConfigFailure: The configuration cannot be used.
    """
    from gai_fast.config import ConfigError, find, read

    try:
        return read(find(path), flags=flags)
    except ConfigError as problem:
        raise ConfigFailure(str(problem)) from None


def check_app(loaded: Loaded) -> None:
    """Imports the function that `app` in `[server]` names, if it is set.

    Raises:
        ConfigFailure: The function cannot be imported, or is not a function.
    """
    named = loaded.server.get("app")
    if named is None:
        return
    from gai_fast.server.extension import load

    try:
        load(named.value)
    except ValueError as problem:
        raise ConfigFailure(f"{named.origin}: `app` in [server] {problem}") from None


def certificate_problem(loaded: Loaded, problem: CertificateError) -> str:
    """Returns the text of an error in the certificate's files, after the place that names the file."""
    return f"{loaded.server[problem.setting].origin}: {problem}"


def print_json(value: Any) -> None:
    """Prints one JSON document, indented for people.

    Lone surrogates, such as in file names that are not UTF-8, are escaped, and so are characters that control a
    terminal or are invisible in it.
    """
    text = _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, indent=2, ensure_ascii=False))
    click.echo(text.encode("utf-8", "backslashreplace").decode())


# C1 controls and DEL, direction marks, zero-width characters; `json` escapes C0 controls itself.
_INVISIBLE: Final = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def announce(text: str) -> None:
    """Prints the URL of a server. If the standard output cannot be written to, such as a full disk or a full pipe, the
    server does not end; it waits for `limits.stdout_blocked` seconds at most."""
    try:
        _print_in_time(text)
    except TimeoutError:
        logging.getLogger(__name__).warning("cannot write to the standard output: it is full, and no program reads it")
    except OSError as problem:
        discard_output()
        logging.getLogger(__name__).warning("cannot write to the standard output: %s", problem.strerror)


def _print_in_time(text: str) -> None:
    """Prints lines.

    Raises:
        TimeoutError: The standard output did not accept all lines in time.
        OSError: The standard output fails.
    """
    from gai_fast.server.observe.log_queue import wait_writable

    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # an output in memory has no descriptor
        click.echo(text)
        return
    data = f"{text}\n".encode(sys.stdout.encoding, "backslashreplace")
    while data:
        if not wait_writable(descriptor, round(LIMITS.stdout_blocked * 1e3)):
            raise TimeoutError
        data = data[os.write(descriptor, data[: select.PIPE_BUF]) :]  # a writable pipe accepts at least PIPE_BUF


def log_bugs_only() -> None:
    """Hides warnings in the log, for commands that print the errors of their streams themselves."""
    logging.getLogger("gai_fast").setLevel(logging.ERROR)


def discard_output() -> None:
    """Redirects the standard output to the null device: at its end Python writes the rest of the buffer again."""
    with contextlib.suppress(OSError):  # in tests the output is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_STANDARD_STREAMS: Final = (
    ("stdin", "r", "replace"),
    ("stdout", "w", "backslashreplace"),
    ("stderr", "w", "backslashreplace"),
)
"""The streams in the order of their descriptors: name, mode, and error handler of the encoding."""


def _prepare_standard_streams() -> None:
    """Makes the three standard streams usable, in whatever state the process inherited them.

    A closed stream is opened on the null device: otherwise a socket gets its descriptor, and libuv aborts the process
    when that socket closes. No byte of the input and no character of the output raises a `UnicodeError`.
    """
    for name, mode, errors in _STANDARD_STREAMS:
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


class _Main(click.Group):
    """Imports a command's module only when the command is called or listed."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        _prepare_standard_streams()
        try:
            return super().main(*arguments, **options)
        except OSError as problem:  # such as a full disk for the standard output
            discard_output()
            name = "" if problem.filename is None else f"{problem.filename}: "
            Failure(f"{name}{problem.strerror or problem}").show()
            sys.exit(Failure.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = get_close_matches(cmd_name, COMMANDS, 1)
            if near and not ctx.resilient_parsing:  # completion also resolves incomplete names
                ctx.fail(f"No such command {cmd_name!r}; did you mean {near[0]!r}?")
            return None
        command: click.Command = import_module(f"gai_fast.cli.{COMMANDS[cmd_name]}").command
        command.name = cmd_name
        return command


@click.group(
    cls=_Main,
    context_settings={
        "auto_envvar_prefix": "GAI_FAST",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="gai-fast", message="%(prog)s %(version)s")
def main() -> None:
    """gai-fast: a streaming LLM gateway."""
