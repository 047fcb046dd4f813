"""`gai-fast key`: creates, lists, rotates and revokes the keys of callers, in the configuration file or at a server.

A secret is printed once; the file gets its digest. The file is replaced as a whole or not at all. It is only replaced
if the new file has no mistake that the old file does not have. `server_key.py` has the requests to a server.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource
from msgspec import to_builtins

from gai_fast.cli import (
    ConfigFailure,
    Failure,
    FiniteRange,
    api_key_option,
    config_option,
    discard_output,
    json_option,
    option,
    print_json,
    server_option,
)
from gai_fast.cli.config import toml
from gai_fast.cli.keys.server_key import at_server
from gai_fast.config import ConfigError, find, read
from gai_fast.config.checks import PERIODS
from gai_fast.config.editing import EditError, add_key, add_secret, remove_key
from gai_fast.config.file import ConfigFile
from gai_fast.config.keys import read_value
from gai_fast.config.problems import Problems, nearest, shown
from gai_fast.config.resolution import Table, read_keys
from gai_fast.model.settings import COUNTED_LIMITS, LIMITS_OF_KEY, Secret, key_digest
from gai_fast.runtime.ids import new_key_secret

if TYPE_CHECKING:
    from gai_fast.server.admin.bodies import Key

_SERVER: Final = "A running server, without a path: its key is made, listed or changed, and not the file's."
_RELOAD: Final = "a server that runs takes the change with its next reload (`gai-fast reload`, SIGHUP)"


@click.group()
def command() -> None:
    """Make, list, renew or revoke the keys of callers."""


# ---- new -----------------------------------------------------------------------------------------------------------


def _counted_limits(function: Callable[..., None]) -> Callable[..., None]:
    """Adds a flag for each limit that is a whole number."""
    for each in reversed(COUNTED_LIMITS):
        function = option(f"--{each.name.replace('_', '-')}", type=int, metavar="N", help=f"{each.about}.")(function)
    return function


@command.command()
@click.argument("name")
@config_option
@option(
    "--role", type=click.Choice(["user", "admin", "metrics"]), help="The caller's role; by default from [key_defaults]."
)
@option("--models", metavar="NAMES", help="The models that it may use: names and patterns with *, split by commas.")
@option("--tools", metavar="NAMES", help="The gateway's tools that it may use, as --models; by default none.")
@option("--expires", metavar="MOMENT", help="When the key expires: 2030-01-31, or 2030-01-31T18:00:00Z.")
@_counted_limits
@option("--spend", metavar="AMOUNT/PERIOD", help="Money in a period: 20/month, 1.50/day.")
@server_option(envvar="GAI_FAST_KEY_SERVER", help=_SERVER)
@api_key_option(envvar="GAI_FAST_KEY_API_KEY")
@json_option
def new(
    name: str,
    config_path: Path | None,
    role: str | None,
    models: str | None,
    tools: str | None,
    expires: str | None,
    spend: str | None,
    server: str | None,
    api_key: Secret | None,
    json: bool,
    **counted: int | None,
) -> None:
    """Make a key, and print its secret this once.

    A [[key]] is added to the file. If there is no file, it is printed. With --server the key is made there instead.
    """
    if server is not None:
        _check_alone(config_path, role=role)
        values: dict[str, Any] = {"name": name, "role": role, "models": _names(models), "expires": expires, **counted}
        values["tools"] = _names(tools)
        values["spend"] = None if spend is None else _spend(spend)
        said = {key: value for key, value in values.items() if value is not None}
        new = at_server(server, api_key, lambda client: client.new_key(said))
        _print_secret(new.name, new.secret, _reference(new.secret), json)
        if new.warning:
            _note(new.warning)
        return
    _check_no_key(api_key)
    secret, reference = _new_secret()
    given: dict[str, Any] = {
        "name": name,
        "secret": reference,
        "models": _names(models),
        "tools": _names(tools),
        "role": role,
        "expires": expires,
    }
    given |= {**counted, "spend": None if spend is None else _spend(spend)}
    table = {key: value for key, value in given.items() if value is not None}
    problems = Problems()
    read = {
        key: read_value(problems, "key", key, value, "NAME" if key == "name" else f"--{key.replace('_', '-')}")
        for key, value in table.items()
    }
    if read.get("expires") is not None and read["expires"] <= datetime.now(UTC):
        problems.add("--expires", f"{expires} has passed: the key could never be used")
    if problems:
        raise ConfigFailure("\n".join(problems.lines))
    lines = ["[[key]]", *(f"{key} = {toml(value)}" for key, value in table.items())]
    path = find(config_path)
    if path is None:
        _print_secret(name, secret, reference, json, block="\n".join(lines))
        return

    def change(text: str, keys: list[Table]) -> str:
        there = next((key["name"].origin for key in keys if key["name"].value == name), None)
        if there is not None:
            rotate = f"gai-fast key rotate {shlex.quote(name)}{_file_flag(config_path)}"
            raise ConfigFailure(f"{there}: a [[key]] of this name is there: `{rotate}` gives it another secret")
        return add_key(text, lines)

    _edit(path, change, lambda: _print_secret(name, secret, reference, json))
    _note(f"added [[key]] {name} to {click.format_filename(path)}: {_RELOAD}")
    if role != "metrics" and _lacks_tools(path, name):
        _note(f"{name} may use no tool of the gateway: --tools names some, `tools` of [key_defaults] for all keys")


def _lacks_tools(path: Path, name: str) -> bool:
    """Returns whether models of a file have tools, and a key may use none."""
    tables = ConfigFile(path).tables
    models = tables.get("model", [])
    if not any(isinstance(each, dict) and each.get("tools") for each in models):
        return False
    own = next(table for table in _keys_of(path) if table["name"].value == name)
    return "tools" not in own or not own["tools"].value


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [each.strip() for each in text.split(",") if each.strip()]


def _check_alone(config_path: Path | None, *, role: str | None = None) -> None:
    """Refuses flags of the file beside `--server`."""
    if role == "admin":
        raise click.UsageError("--role admin and --server do not go together: a key of the store is no admin's")
    if config_path is not None and _is_given("config_path"):
        raise click.UsageError("-c and --server do not go together: the key is in the file, or at the server")


def _file_flag(config_path: Path | None) -> str:
    """Returns the flag that names the file in a further command; empty if the command finds the file by itself."""
    if config_path is None or not _is_given("config_path"):
        return ""
    return f" -c {shlex.quote(click.format_filename(config_path))}"


def _check_no_key(key: Secret | None) -> None:
    """Refuses a key that would do nothing."""
    if key is not None and _is_given("api_key"):
        raise click.UsageError("--api-key needs --server")


def _is_given(parameter: str) -> bool:
    """Returns whether the command line has a flag, which its variable may set for other commands."""
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.COMMANDLINE


def _spend(text: str) -> dict[str, Any]:
    """Returns the table of `AMOUNT/PERIOD`.

    Raises:
        ConfigFailure: The text is not of this form.
    """
    amount, _, period = text.partition("/")
    try:
        number = int(amount) if amount.isdecimal() else float(amount)
        if not math.isfinite(number) or period not in PERIODS:  # JSON has no number that is not finite
            raise ValueError
        return {"amount": number, "period": period}
    except (ValueError, OverflowError):
        periods = ", ".join(PERIODS)
        what = f"must be AMOUNT/PERIOD, such as 50/month, with a period of {periods}, not {shown(text)}"
        raise ConfigFailure(f"--spend {what}") from None


def _new_secret() -> tuple[str, str]:
    """Returns a new secret, and the reference to it for the file."""
    secret = new_key_secret()
    return secret, _reference(secret)


def _reference(secret: str) -> str:
    return f"sha256:{key_digest(secret).hex()}"


def _print_secret(name: str, secret: str, reference: str, json: bool, **more: str) -> None:
    if json:
        print_json({"name": name, "secret": secret, "hash": reference, **more})
        return
    click.echo(f"secret: {secret}")
    if more:
        click.echo(f"\n{more['block']}")
        _note("the secret is not shown again; there is no file: paste this [[key]] into one, or name it with -c")
    else:
        _note("it is not shown again: only its digest is kept")


def _note(text: str) -> None:
    """Prints a note to the standard error."""
    click.echo(text, err=True)


# ---- list ----------------------------------------------------------------------------------------------------------


@command.command(name="list")
@config_option
@server_option(envvar="GAI_FAST_KEY_SERVER", help=_SERVER)
@api_key_option(envvar="GAI_FAST_KEY_API_KEY")
@json_option
def list_(config_path: Path | None, server: str | None, api_key: Secret | None, json: bool) -> None:
    """List the keys, without their secrets.

    Those of the file; with --server those that the server knows.
    """
    if server is not None:
        _check_alone(config_path)
        raw, shown = at_server(server, api_key, lambda client: client.keys())
        if json:
            print_json(raw)
        else:
            _print_keys([_as_listed(each) for each in shown], ("source", "spent"))
        return
    _check_no_key(api_key)
    path = find(config_path)
    keys = [] if path is None else [_listed(table) for table in _keys_of(path)]
    if json:
        print_json(keys)
    else:
        _print_keys(keys)


def _print_keys(keys: Sequence[Mapping[str, Any]], more: Sequence[str] = ()) -> None:
    """Prints a table of keys.

    Args:
        keys: As `_listed` returns them.
        more: Further members to show.
    """
    rows = [("name", "role", "models", "expires", *more, "limits")]
    for key in keys:
        limits = ", ".join(f"{name} {_limit(value)}" for name, value in key["limits"].items() if value is not None)
        expires = f"{key['expires'] or '-'}{' (expired)' if key['expired'] else ''}"
        others = (str(key[each]) for each in more)
        rows.append((key["name"], key["role"], " ".join(key["models"]) or "none", expires, *others, limits or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows if keys else ():
        line = "  ".join([*(f"{cell:{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])
        click.echo(line)
    if not keys:
        click.echo("there are no keys")


def _listed(table: Table) -> dict[str, Any]:
    """Returns the members of a key that `key list` shows, without its secrets and digests."""
    values = {name: value.value for name, value in table.items()}
    expires: datetime | None = values.get("expires")
    return {
        "name": values["name"],
        "role": values.get("role", "user"),
        "models": [] if values.get("role") == "metrics" else list(values.get("models", ("*",))),
        "expires": None if expires is None else expires.isoformat().replace("+00:00", "Z"),
        "expired": expires is not None and expires <= datetime.now(UTC),
        "limits": {
            name: dict(values[name]) if name == "spend" and name in values else values.get(name)
            for name in LIMITS_OF_KEY
        },
        "secrets": len(values["secret"]),
    }


def _as_listed(key: Key) -> dict[str, Any]:
    """Returns the members of a server's key in the form of `_listed`."""
    spent = "-" if key.spent is None else f"{key.spent:.6g}"
    is_over = key.expires is not None and key.expires.timestamp() <= datetime.now(UTC).timestamp()
    return {**to_builtins(key), "spent": spent, "expired": is_over}


def _limit(value: Any) -> str:
    return f"{value['amount']} a {value['period']}" if isinstance(value, dict) else str(value)


# ---- rotate, revoke ------------------------------------------------------------------------------------------------


@command.command()
@click.argument("name")
@config_option
@option("--grace", type=FiniteRange(0), metavar="SECONDS", help="How long the former secret stays valid at a server.")
@server_option(envvar="GAI_FAST_KEY_SERVER", help=_SERVER)
@api_key_option(envvar="GAI_FAST_KEY_API_KEY")
@json_option
def rotate(
    name: str, config_path: Path | None, grace: float | None, server: str | None, api_key: Secret | None, json: bool
) -> None:
    """Give a key another secret beside its present one.

    Both are valid. If it already has several, the oldest one is dropped. At a server the former secret ends after
    --grace seconds.
    """
    if server is not None:
        _check_alone(config_path)
        from gai_fast.server.admin.bodies import Rotation

        seconds = Rotation().grace if grace is None else grace
        new = at_server(server, api_key, lambda client: client.rotate_key(name, seconds))
        _print_secret(new.name, new.secret, _reference(new.secret), json)
        lasts = f"stays valid for {seconds:.15g} s" if seconds else "is refused from now on"
        _note(f"the former secret of {name} {lasts}")
        return
    _check_no_key(api_key)
    if grace is not None:
        raise click.UsageError("--grace needs --server: in the file both secrets are valid until the next rotation")
    secret, reference = _new_secret()
    path = _file(config_path)
    _edit(
        path,
        lambda text, keys: add_secret(text, _index(path, keys, name), reference),
        lambda: _print_secret(name, secret, reference, json),
    )
    _note(f"the former secret of {name} stays valid until the next `key rotate`: {_RELOAD}")


@command.command()
@click.argument("name")
@config_option
@server_option(envvar="GAI_FAST_KEY_SERVER", help=_SERVER)
@api_key_option(envvar="GAI_FAST_KEY_API_KEY")
@json_option
def revoke(name: str, config_path: Path | None, server: str | None, api_key: Secret | None, json: bool) -> None:
    """Remove a key.

    It is removed from the file; with --server from the server, which ends its streams.
    """
    if server is not None:
        _check_alone(config_path)
        at_server(server, api_key, lambda client: client.revoke_key(name))
        _print_revoked(name, json=json)
        return
    _check_no_key(api_key)
    path = _file(config_path)
    remaining = 0

    def change(text: str, keys: list[Table]) -> str:
        nonlocal remaining
        remaining = len(keys) - 1
        return remove_key(text, _index(path, keys, name))

    _edit(path, change)
    _print_revoked(name, json=json)
    _note(f"removed [[key]] {name} from {click.format_filename(path)}: {_RELOAD}")
    if remaining == 0 and not ConfigFile(path).tables.get("issuer"):
        _note(
            f"{name} was the last key: a server that began without `insecure` refuses the reload, and keeps its former "
            "keys; at its next start it needs none on loopback, and refuses to listen elsewhere"
        )


def _print_revoked(name: str, *, json: bool) -> None:
    if json:
        print_json({"name": name, "revoked": True})
    else:
        click.echo(f"revoked {name}")


def _file(config_path: Path | None) -> Path:
    path = find(config_path)
    if path is None:
        raise ConfigFailure("there is no configuration file here: name one with -c")
    return path


def _index(path: Path, keys: list[Table], name: str) -> int:
    """Returns the index of the key with a name."""
    names = [key["name"].value for key in keys]
    if name not in names:
        known = nearest(name, names) or "; there are no keys"
        raise ConfigFailure(f"{click.format_filename(path)}: no [[key]] has this name{known}")
    return names.index(name)


# ---- the file ------------------------------------------------------------------------------------------------------


def _keys_of(path: Path) -> list[Table]:
    try:
        return read_keys(ConfigFile(path))
    except ConfigError as problem:
        raise ConfigFailure(str(problem)) from None


def _edit(path: Path, change: Callable[[str, list[Table]], str], show: Callable[[], None] | None = None) -> None:
    """Replaces a file by its changed text.

    Args:
        path: The file. If it is a link, the link's target is replaced.
        change: Returns the new text for the old text and its keys.
        show: Prints the secret of the change. It is called before the file is replaced: a secret that cannot be
            printed would be lost. None if there is no secret.

    Raises:
        ConfigFailure: The change is not possible, or the file has a mistake.
        Failure: The file cannot be written, or the secret not printed.
    """
    real = path.resolve()
    _keys_of(path)  # an error about the file names the given path, not the resolved one
    try:
        with _locked(real) as file:
            keys = _keys_of(path)
            old = file.read()
            mark = b"\xef\xbb\xbf" if old.startswith(b"\xef\xbb\xbf") else b""
            text = change(old.decode("utf-8-sig"), keys)
            _replace(real, os.fstat(file.fileno()), mark + text.encode(), _problems(real), show)
    except EditError as problem:
        raise ConfigFailure(f"{click.format_filename(path)}: {problem}") from None
    except OSError as problem:
        raise Failure(f"cannot write {click.format_filename(path)}: {problem.strerror}") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Opens the file and locks it against other `gai-fast key` processes. If another process replaced the file while
    this one waited for the lock, the new file is opened."""
    while True:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                yield file
                return


def _replace(
    path: Path, status: os.stat_result, content: bytes, known: set[str], show: Callable[[], None] | None
) -> None:
    """Replaces a file.

    Args:
        path: The file.
        status: The status of the old file; the new file gets its mode and owner.
        content: The new file's content.
        known: The mistakes in the old file.
        show: As for `_edit`.

    Raises:
        ConfigFailure: The new file has other mistakes.
        Failure: As for `_edit`.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            with contextlib.suppress(PermissionError):  # only root may change a file's owner
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mistakes = _problems(Path(name)) - known
        if mistakes:
            raise ConfigFailure("\n".join(sorted(mistakes)))
        if show is not None:
            _show(show)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def _show(show: Callable[[], None]) -> None:
    if sys.__stdout__ is None:  # it was closed before the start, and is the null device now
        raise Failure("the secret cannot be printed, so nothing is changed: the standard output is closed")
    try:
        show()
    except OSError as problem:
        discard_output()
        raise Failure(f"the secret cannot be printed, so nothing is changed: {problem.strerror}") from None


def _problems(path: Path) -> set[str]:
    """Returns the mistakes in a configuration without their line numbers, which a change moves."""
    try:
        read(path)
    except ConfigError as problem:
        place = re.compile(rf"{re.escape(str(path))}(:[0-9]+)*")
        return {place.sub("the file", line).removeprefix("the file: ") for line in problem.problems}
    return set()
