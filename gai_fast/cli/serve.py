"""`gai-fast serve`: runs the server, and prints how to use it."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from gai_fast.cli import (
    ConfigFailure,
    Failure,
    StartupFailure,
    WholeRange,
    announce,
    cannot_listen,
    certificate_problem,
    check_app,
    config_option,
    load_config,
    option,
)
from gai_fast.cli.diagnosis import start_warnings
from gai_fast.kernels import IMPLEMENTATION, MODULES, SIMD
from gai_fast.model.limits import SHARED
from gai_fast.model.version import __version__
from gai_fast.providers import get_provider

if TYPE_CHECKING:
    from gai_fast.config import Loaded
    from gai_fast.model.settings import ServerSettings, Settings
    from gai_fast.server.serving import BoundAddresses
    from gai_fast.server.workers.supervisor import WorkerEnds
    from gai_fast.server.workers.worker import Group
    from gai_fast.stores import StoreError

KEY_VARIABLE = "GAI_API_KEY"
"""The variable in the examples if the configuration only has the digest of a key; the playground uses it, too."""
MAKEFILE = Path(__file__).parents[2] / "Makefile"
"""The Makefile, which only exists if the package runs from a clone."""
Load = Callable[[], "Settings"]
"""Reads the configuration again; raises a `ConfigError` if it cannot be used."""

_log: Final = logging.getLogger("gai_fast.server")

QUERY = "Tell me a short story about a lighthouse keeper."


def banner(url: str, loaded: Loaded, *, has_examples: bool = True) -> str:
    """Returns the text that the server prints after its start. The examples are whole lines that can be pasted.

    Args:
        url: The base URL of the server: scheme, host and port.
        loaded: The configuration.
        has_examples: Whether somebody may paste them; the log of a service has the other lines alone.
    """
    settings = loaded.settings
    # Clients cannot connect to a wildcard address.
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    lines = [f"gai-fast {__version__} on {url}", compiled_parts()]
    if not url.startswith("unix:"):
        lines.append(f"playground: {url}/")
    if loaded.path is not None:
        lines.append(f"configuration: {click.format_filename(loaded.path)}")
    lines.append(f"models: {', '.join(settings.model_names()) or 'none: add an [[upstream]]'}")
    described = [(each.name, get_provider(each.upstream.provider).description) for each in settings.models.values()]
    lines += [f"{name}: {description}" for name, description in described if description]
    model = settings.model(None)
    if model is not None and has_examples:
        if (variable := _variable_of(loaded, model.name)) is not None:
            lines.append(f"key: the examples read it from ${variable}; first export {variable}=<the secret>")
        lines += ["", *examples(url, model.name, loaded)]
    return "\n".join(lines)


def compiled_parts() -> str:
    """Returns which parts of the package are compiled and, in a clone, how to compile the rest."""
    kernels = f"compiled ({SIMD})" if IMPLEMENTATION == "native" else "pure Python"
    parts = f"kernels {kernels}, modules {MODULES}"
    if IMPLEMENTATION == "native" and MODULES == "interpreted" and MAKEFILE.exists():
        parts += ": `make install` compiles them, and a request takes half the CPU"
    return parts


def examples(url: str, model: str, loaded: Loaded) -> list[str]:
    """Returns a curl line and a snippet for the openai package, each followed by an empty line."""
    body = json.dumps({"model": model, "query": QUERY}, ensure_ascii=False)
    header, api_key, imports = _key_of(loaded, model)
    socket_flag, more = "", ""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        socket_flag = f"--unix-socket {shlex.quote(path)} "
        url = f"{loaded.settings.server.scheme}://localhost"
        imports = [*imports, "from httpx import Client, HTTPTransport"]
        more = f", http_client=Client(transport=HTTPTransport(uds={path!r}))"
    return [
        f"curl -N {socket_flag}{url}/api/v1/stream -H 'content-type: application/json'{header} -d {shlex.quote(body)}",
        "",
        *imports,
        "from openai import OpenAI  # pip install openai",
        f'client = OpenAI(base_url="{url}/v1", api_key={api_key}{more})',
        f'messages = [{{"role": "user", "content": {json.dumps(QUERY)}}}]',
        f"stream = client.chat.completions.create(model={model!r}, messages=messages, stream=True)",
        "for chunk in stream:",
        '    print("".join(choice.delta.content or "" for choice in chunk.choices), end="", flush=True)',
        "",
        "print()",
        "",
    ]


def _key_of(loaded: Loaded, model: str) -> tuple[str, str, list[str]]:
    """Returns the key for the examples, without its value: a header for curl, a Python expression, and its imports.

    The key is the first one that may use the model.
    """
    if not loaded.settings.needs_key:
        return "", '"none"', []
    variable = _variable_of(loaded, model)
    if variable is None:
        _, place = _reference(loaded, model)
        path = str((loaded.path or Path()).parent.resolve() / place)
        shell, python, imports = f"$(cat {shlex.quote(path)})", f"Path({path!r}).read_text().strip()", "pathlib"
        return f' -H "authorization: Bearer {shell}"', python, [f"from {imports} import Path"]
    return f' -H "authorization: Bearer ${variable}"', f'os.environ["{variable}"]', ["import os"]


def _variable_of(loaded: Loaded, model: str) -> str | None:
    """Returns the variable from which the examples read a key. None if they need no key, or read it from a file."""
    if not loaded.settings.needs_key:
        return None
    kind, place = _reference(loaded, model)
    return {"env": place, "file": None}.get(kind, KEY_VARIABLE)


def _reference(loaded: Loaded, model: str) -> tuple[str, str]:
    """Returns the kind and the place of the newest secret of the first key that may use a model, else of the first
    key. Without keys, the kind is `token`."""
    if not loaded.keys:
        return "token", ""
    keys = [table for table, key in zip(loaded.keys, loaded.settings.keys, strict=True) if key.may_use(model)]
    kind, _, place = (keys or loaded.keys)[0]["secret"].value[-1].partition(":")
    return kind, place


def run_async(main: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine on the fastest installed event loop."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(settings: Settings, ready: Callable[[str], None], record: Path | None, load: Load) -> None:
    from gai_fast.runtime.tuning import tune_process
    from gai_fast.server.serving import serve

    tune_process()
    await serve(settings, ready=ready, record=record, load_settings=load)


def _supervise(settings: Settings, ready: Callable[[str], None], record: Path | None, load: Load) -> None:
    """Runs several workers.

    Raises:
        CertificateError: The certificate cannot be used.
        OSError: The address cannot be bound.
        OpenAddress: The address would be reachable from other machines.
        StartupFailure: The path of a socket between workers would be too long.
        WorkerError: The workers cannot start.
    """
    from gai_fast.runtime.ids import new_server_name
    from gai_fast.server.admin.drained import DRAINED, DrainedTargetsHome
    from gai_fast.server.edge.listening import SocketListener
    from gai_fast.server.reload import Reload, to_bytes
    from gai_fast.server.serving import bind
    from gai_fast.server.workers import totals
    from gai_fast.server.workers.bus_folder import PathTooLong, bus_folder
    from gai_fast.server.workers.peers import RecordHome
    from gai_fast.server.workers.shared_limits import QUESTIONS, LedgerHome
    from gai_fast.server.workers.shared_tokens import QUESTIONS as OF_TOKENS
    from gai_fast.server.workers.shared_tokens import TokenHome
    from gai_fast.server.workers.supervisor import Supervisor
    from gai_fast.server.workers.worker import Group

    bound = bind(settings)
    reload = Reload(settings, load, is_open=bound.is_open, certificate=bound.certificate)

    records, limits, drained, tokens = RecordHome(), LedgerHome(), DrainedTargetsHome(), TokenHome(settings)

    def answer(kind: str, items: Sequence[Any]) -> Any:
        if kind == DRAINED:
            return drained.answer(items)
        if kind in OF_TOKENS:
            return tokens.answer(kind, items)
        return limits.answer(kind, items) if kind in QUESTIONS else records.answer(items)

    def reloaded(*, by_signal: bool) -> tuple[bytes | None, dict[str, Any]]:
        new = reload.signalled() if by_signal else reload()
        if new.settings is not None:
            drained.use(new.settings)
            tokens.use(new.settings)
        return None if new.settings is None else to_bytes(new.settings), new.report

    def ended(worker: int) -> None:
        limits.forget(worker)
        tokens.forget(worker)

    with ExitStack() as opened:
        opened.callback(SocketListener(bound.sockets, bound.path).close)
        parent = Path(tempfile.gettempdir())
        try:
            folder = opened.enter_context(bus_folder(parent))
        except PathTooLong:
            text = f"the path of TMPDIR ({parent}) is too long for the sockets of workers"
            raise StartupFailure(f"{text}: set TMPDIR to a shorter one") from None
        group = Group(new_server_name(), folder)
        Supervisor(
            bound.sockets,
            count=settings.server.workers,
            work=lambda ends: _work(reload.settings, ends, bound, group, record),
            grace=settings.server.grace,
            ready=lambda: ready(bound.url),
            reload=reloaded,
            counts=totals.dump_process,
            add=totals.add,
            answer=answer,
            ended=ended,
        ).run()


def _work(settings: Settings, ends: WorkerEnds, bound: BoundAddresses, group: Group, record: Path | None) -> int:
    """Runs one of several workers, in its own process; returns the exit code."""
    from gai_fast.model.errors import SetupError
    from gai_fast.runtime.functions import FunctionError
    from gai_fast.runtime.tuning import tune_process
    from gai_fast.server.workers.link import pack
    from gai_fast.server.workers.worker import run_worker
    from gai_fast.stores import StoreError

    tune_process()
    with ends.link.dup() as spare:
        try:
            run_async(run_worker(settings, ends, bound, group, record))
        except StoreError as problem:
            code, why = StartupFailure.exit_code, _store_failure(problem)
        except FunctionError as problem:
            code, why = ConfigFailure.exit_code, f"`app` in [server] {problem}"
        except SetupError as problem:
            code, why = ConfigFailure.exit_code, str(problem)
        else:
            return 0
        spare.sendall(pack("failed", code, why))
        return code


def _store_failure(problem: StoreError) -> str:
    from gai_fast.stores import SealError

    if isinstance(problem, SealError):  # its text has the remedy
        return f"the store cannot be used: {problem}"
    return f"the store cannot be used: {problem}: check `url` in [store] (--store), and that the store is there"


def _from_here(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Resolves a flag's path against the working directory; paths in the configuration start from its folder."""
    return None if value is None else str(Path.cwd() / value)


@click.command()
@config_option
@option("--host", envvar="GAI_FAST_HOST", show_default="127.0.0.1", help="Address to listen on.")
@option(
    "--port",
    type=WholeRange(0, 65535),
    envvar="GAI_FAST_PORT",
    show_default="8080",
    help="Port to listen on; 0 chooses a free one.",
)
@option("--uds", envvar="GAI_FAST_UDS", metavar="PATH", help="Unix socket to listen on, instead of an address.")
@option(
    "--fd",
    type=WholeRange(0, SHARED.descriptor),
    envvar="GAI_FAST_FD",
    help="Inherited descriptor of a listening socket, instead of an address.",
)
@option(
    "--tls-cert",
    envvar="GAI_FAST_TLS_CERT",
    metavar="FILE",
    callback=_from_here,
    help="Certificate chain (PEM): clients come over TLS.",
)
@option(
    "--tls-key",
    envvar="GAI_FAST_TLS_KEY",
    metavar="FILE",
    callback=_from_here,
    help="The certificate's private key (PEM).",
)
@option(
    "--workers",
    type=WholeRange(1),
    envvar="GAI_FAST_WORKERS",
    show_default="1",
    help="Worker processes.",
)
@option(
    "--store",
    envvar="GAI_FAST_STORE",
    metavar="URL",
    help="The store of durable streams: memory://, sqlite:///FILE or redis://HOST.",
)
@option(
    "--log-format",
    type=click.Choice(["text", "json", "auto"]),
    envvar="GAI_FAST_LOG_FORMAT",
    show_default="auto",
    help="Form of the log lines; auto: text on a terminal, JSON otherwise.",
)
@option(
    "--app",
    envvar="GAI_FAST_APP",
    metavar="MODULE:FUNCTION",
    help="Called with the aiohttp.web.Application before it starts, to add routes, middlewares and signals.",
)
@option(
    "--record",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="GAI_FAST_RECORD",
    help="Write every upstream's answer to this folder, for gai-fast replay; requests and keys are not written.",
)
@click.pass_context
def command(context: click.Context, /, config_path: Path | None, record: Path | None, **given: Any) -> None:
    """Run the gateway.

    Without a configuration file, every provider whose usual key is in the environment can be asked, by the names of its
    usual models or as <provider>/<id>, and so can the embedded model demo.
    """
    # SIGHUP would end a process that does not handle it yet. systemd may send it as soon as the process runs, and takes
    # such an end for a clean one. It stays pending until the server handles it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    from gai_fast.server.observe.log_format import HeldLog

    flags = {name: given[name] for name in given if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    log = HeldLog()
    try:
        loaded = load_config(config_path, flags)
    except ConfigFailure:
        log.use_format(given["log_format"])
        raise
    settings, server = loaded.settings, loaded.settings.server
    is_up = False
    log.use(server)
    warn = Warnings()
    warn(settings)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        _log.info("SIGHUP is ignored, as `nohup` wants it: `gai-fast reload` loads a new configuration")
    if record is not None:
        _make_folder_of_recordings(record)

    def ready(url: str) -> None:
        nonlocal is_up
        is_up = True
        if (notice := kept_responses(settings)) is not None:
            _log.info("%s", notice)
        text = banner(url, loaded, has_examples=sys.stdout.isatty())
        if record is not None:
            text += f"\nrecording what upstreams answer to {click.format_filename(record)}"
        announce(text)

    from gai_fast.model.errors import SetupError
    from gai_fast.server.edge.certificate import CertificateError
    from gai_fast.server.edge.listening import CannotListen, OpenAddress
    from gai_fast.server.workers.supervisor import WorkerError
    from gai_fast.stores import StoreError

    def load() -> Settings:
        from gai_fast.config import find, read

        new = read(find(config_path), flags=flags).settings
        warn(new)
        return new

    try:
        if server.workers > 1:
            _supervise(settings, ready, record, load)
        else:
            check_app(loaded)
            run_async(_serve(settings, ready, record, load))
    except StoreError as problem:
        raise StartupFailure(_store_failure(problem)) from None
    except CertificateError as problem:
        raise StartupFailure(certificate_problem(loaded, problem)) from None
    except (OpenAddress, SetupError) as problem:
        raise ConfigFailure(str(problem)) from None
    except CannotListen as problem:
        raise cannot_listen(_place(server), problem) from None
    except WorkerError as problem:
        raise (ConfigFailure if problem.code == ConfigFailure.exit_code else StartupFailure)(str(problem)) from None
    except OSError as problem:  # from user code that `app` has added, such as an unreachable database
        _log.error("the server failed", exc_info=problem)
        if is_up:
            raise Failure(f"the server stopped: {problem}") from None
        raise StartupFailure(f"the server cannot start: {problem}") from None


class Warnings:
    """Logs what is likely not meant in a configuration, each time what it has not said of the one before."""

    def __init__(self) -> None:
        self._said: frozenset[str] = frozenset()

    def __call__(self, settings: Settings) -> None:
        """Logs the warnings of a configuration."""
        found = start_warnings(settings)
        for warning in found:
            if warning not in self._said:
                _log.warning("%s", warning)
        self._said = frozenset(found)


def kept_responses(settings: Settings) -> str | None:
    """Returns what the store keeps of callers that did not ask for it, for the log. None if it keeps nothing."""
    kept, store = settings.responses, settings.store
    if not kept.store or store.url.startswith("memory:"):
        return None
    seal = "sealed" if store.encryption.has_keys else "not sealed"
    return (
        f"the input and the answer of each request to /v1/responses are kept in the store for {kept.ttl:.0f} s,"
        f" {seal}: `store = false` in [responses] keeps nothing"
    )


def _make_folder_of_recordings(record: Path) -> None:
    """Creates the folder of `--record`, unless it exists.

    Raises:
        StartupFailure: The folder cannot be created, or is not writable.
    """
    try:
        record.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise StartupFailure(f"cannot record to {record}: {problem.strerror}") from None
    if not os.access(record, os.W_OK | os.X_OK):
        raise StartupFailure(f"cannot record to {record}: {os.strerror(errno.EACCES)}")


def _place(server: ServerSettings) -> str:
    """Returns the configured address of the server, for a message."""
    if server.fd is not None:
        return f"descriptor {server.fd}"
    return server.uds if server.uds is not None else f"{server.host}:{server.port}"
