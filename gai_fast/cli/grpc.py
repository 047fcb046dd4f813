"""`gai-fast grpc`: a gRPC server in front of a running gateway."""

from __future__ import annotations

import errno
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gai_fast.cli import ConfigFailure, StartupFailure, WholeRange, announce, cannot_listen, option, url_option
from gai_fast.model.addresses import is_loopback
from gai_fast.model.errors import Error, Unauthorized
from gai_fast.model.settings import Secret
from gai_fast.model.version import installing

if TYPE_CHECKING:
    from grpc import ServerCredentials

    from gai_fast.library.remote import RemoteGateway

_log: Final = logging.getLogger("gai_fast.grpc")
_EXTRA: Final = ("google", "grpc", "grpc_health", "grpc_reflection")
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""A name may have an address of a family that this machine lacks."""


async def _check_keys(gateway: RemoteGateway, host: str) -> None:
    """Checks that a gateway has keys, which a server that other machines reach needs.

    Raises:
        ConfigFailure: It has none.
        StartupFailure: It does not say.
    """
    try:
        await gateway.models()
    except Unauthorized:
        return
    except Error as problem:
        raise StartupFailure(
            f"cannot tell whether the gateway has keys, which --host {host} needs: {problem}"
        ) from None
    text = f"--host {host} is refused: other machines could use the gateway without a key. Add a [[key]] to the gateway"
    raise ConfigFailure(f"{text}, or listen on 127.0.0.1")


async def _note_absence(gateway: RemoteGateway, url: str) -> None:
    """Logs that a gateway does not answer. It may start later than this server, so it is not an error."""
    try:
        await gateway.models()
    except Unauthorized:
        return  # calls bring keys
    except Error as problem:
        _log.warning("%s does not answer as a gateway yet; calls fail until it does: %s", url, problem)


async def _serve(url: str, host: str, port: int, credentials: ServerCredentials | None, key: Secret | None) -> None:
    from gai_fast.grpc.server import CannotServe, GrpcServer, serve_until_signal
    from gai_fast.library.remote import connect
    from gai_fast.runtime.tuning import tune_process

    def ready(bound: int) -> None:
        announce(f"gRPC on {_place(host, bound)}, in front of {url}")

    is_open = not is_loopback(host)
    async with connect(url) as gateway:
        if is_open:
            await _check_keys(gateway, host)
        else:
            await _note_absence(gateway, url)
        _check_free(host, port)
        tune_process()
        server = GrpcServer(gateway, _place(host, port), credentials=credentials, key=key, needs_key=is_open)
        try:
            await serve_until_signal(server, ready)
        except CannotServe as problem:
            raise StartupFailure(f"cannot listen on {_place(host, port)}: {problem}") from None


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_free(host: str, port: int) -> None:
    """Checks that the command can listen on an address: grpcio does not report the reason if it cannot.

    Raises:
        StartupFailure: It cannot.
    """
    problem: OSError | None = None
    is_free = False
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    tried.bind(address)
                    is_free = True
                except OSError as refusal:
                    if refusal.errno not in _ABSENT:
                        raise
                    problem = refusal
    except OSError as refusal:
        raise cannot_listen(_place(host, port), refusal) from None
    if problem is not None and not is_free:
        raise cannot_listen(_place(host, port), problem)


def _credentials(cert: Path | None, key: Path | None) -> ServerCredentials | None:
    """Reads the files for TLS.

    Raises:
        StartupFailure: They cannot be used.
    """
    if cert is None or key is None:
        return None
    import grpc

    from gai_fast.server.edge.certificate import Certificate, CertificateError

    try:
        Certificate(str(cert), str(key))
        return grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    except CertificateError as problem:
        raise StartupFailure(str(problem)) from None
    except OSError as problem:  # the files have changed since the check
        raise StartupFailure(f"{problem.filename} cannot be read: {problem.strerror}") from None


def _key(context: click.Context, parameter: click.Parameter, value: str | None) -> Secret | None:
    if value and not (value.isascii() and value.isprintable()):
        raise click.BadParameter("a key has visible ASCII characters only: this one holds others, or a line end")
    return Secret(value) if value else None


@click.command()
@url_option(required=True, help="The gateway, with the prefix under which it is mounted.")
@option("--host", default="127.0.0.1", help="Address to listen on. Another machine's calls need a gateway with keys.")
@option("--port", type=WholeRange(0, 65535), default=50051, help="Port to listen on; 0 chooses a free one.")
@option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="Certificate chain (PEM): TLS alone.")
@option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="The certificate's private key (PEM).")
@option(
    "--key", callback=_key, help="The key of calls that bring none. Prefer the variable: others read a command line."
)
def command(url: str, host: str, port: int, tls_cert: Path | None, tls_key: Path | None, key: Secret | None) -> None:
    """Serve a running gateway over gRPC (gai.v1).

    Keys, limits, logs and models are the gateway's. SIGTERM lets calls end, for 30 seconds at most. Exit code 2: a flag
    is wrong, or other machines could call without a key; 3: the port is taken, or the files for TLS cannot be used.
    """
    from gai_fast.cli.serve import run_async

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together: give both, or neither")
    if key is not None and not is_loopback(host):
        raise click.UsageError("--key is for calls from this machine alone: leave it out, or listen on 127.0.0.1")
    try:
        import gai_fast.grpc.server  # noqa: F401  # is the extra there?
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.partition(".")[0] not in _EXTRA:
            raise
        raise StartupFailure(f"this needs packages that are not installed: {installing('grpc')}") from None
    run_async(_serve(url, host, port, _credentials(tls_cert, tls_key), key))
