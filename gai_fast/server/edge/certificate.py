"""The server's certificate: its files, and the TLS settings.

Owns the choice of versions and ciphers, the errors of the files, and the warning before the certificate expires. A
connection keeps the certificate that it started with: each certificate is a context of its own.
"""

from __future__ import annotations

import logging
import ssl
import time
from typing import Final, NamedTuple

from gai_fast.model.settings import ServerSettings, UpstreamSettings
from gai_fast.runtime import certificates
from gai_fast.runtime.files import open_file
from gai_fast.server.limits import LIMITS

_log: Final = logging.getLogger("gai_fast.server")

_CIPHERS: Final = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""The cipher suites of TLS 1.2: forward secret and authenticated. Security level 2 refuses keys of less than 112 bits
(RSA: 2,048)."""
_PARTS: Final = (("tls_cert", b"-----BEGIN CERTIFICATE-----", "certificate"), ("tls_key", b"PRIVATE KEY-----", "key"))
_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_REASONS: Final = {
    "EE_KEY_TOO_SMALL": "the key is too weak: make one of at least 2,048 bits (RSA) or 256 bits (EC)",
    "CA_MD_TOO_WEAK": "the certificate is signed with a broken hash: have it issued again",
}


class CertificateError(Exception):
    """The certificate or its key cannot be used; the text names the file and the remedy.

    Args:
        text: The text.
        setting: The key of `[server]` that names the file: `tls_cert` or `tls_key`.

    Attributes:
        setting: As the argument.
    """

    def __init__(self, text: str, setting: str) -> None:
        super().__init__(text)
        self.setting = setting


class Validity(NamedTuple):
    """The validity of a certificate for its verifiers.

    Attributes:
        problem: Why they refuse it, now or within `limits.certificate_warning`; empty if they do not.
        is_refused: Whether they refuse it now.
    """

    problem: str
    is_refused: bool


def client_validity(upstream: UpstreamSettings, now: float) -> Validity:
    """Returns whether an upstream takes the gateway's certificate, and for how long.

    Args:
        upstream: An upstream with a `client_cert`.
        now: Unix seconds.

    Raises:
        OSError: The files cannot be used.
    """
    path = upstream.client_cert
    assert path is not None
    what = f"the certificate {path} (`client_cert` of {upstream.name})"
    return _told(what, "the upstream", certificates.client_validity(path, upstream.client_key), now)


def _told(what: str, by: str, found: tuple[float | None, str], now: float) -> Validity:
    end, reason = found
    if reason:
        return Validity(f"{what} is refused by {by}: {reason}: have it issued again, then reload (SIGHUP)", True)
    if end is None or end - now > LIMITS.certificate_warning:
        return Validity("", False)
    day = time.strftime("%Y-%m-%d", time.gmtime(end))
    return Validity(f"{what} expires on {day}: renew it, then reload (SIGHUP)", False)


class Certificate:
    """The certificate of a server.

    Args:
        cert: The file of the chain, the server's own certificate first (PEM).
        key: The file of its private key (PEM), without a passphrase.

    Raises:
        CertificateError: The files cannot be used.

    Attributes:
        context: The context for new connections.
        warns: Whether this process warns of its end: of several workers one does.
    """

    def __init__(self, cert: str, key: str) -> None:
        self.warns = True
        self._cert = cert
        self._key = key
        self._look_at = 0.0  # when its end is looked at again, in monotonic seconds
        self.context = self.load()

    def load(self) -> ssl.SSLContext:
        """Creates a context from the current content of the files; `context` stays unchanged.

        Raises:
            CertificateError: The files cannot be used.
        """
        for (name, mark, what), path in zip(_PARTS, (self._cert, self._key), strict=True):
            _check_file(name, path, mark, what)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._cert, self._key, password=self._refuse_passphrase)
        except ssl.SSLError as problem:
            reason = problem.reason or ""
            raise CertificateError(self._explain(reason), "tls_key" if reason in _MISMATCHES else "tls_cert") from None
        except OSError as problem:  # the files have changed since the check
            text = f"the certificate {self._cert} cannot be read: {problem.strerror}"
            raise CertificateError(text, "tls_cert") from None
        return context

    def use(self, context: ssl.SSLContext) -> None:
        """Uses a context for new connections; open connections keep theirs.

        Args:
            context: The result of `load`.
        """
        self.context = context

    def for_connection(self) -> ssl.SSLContext:
        """Returns the context for a new connection; warns once a day if the certificate expires soon."""
        now = time.monotonic()
        if self.warns and now >= self._look_at:
            self.warn()
        return self.context

    def warn(self) -> None:
        """Logs a warning if the certificate expires soon or has expired."""
        self._look_at = time.monotonic() + LIMITS.certificate_check
        problem = self.expiry_problem(time.time())
        if problem:
            _log.warning("%s", problem)

    def expiry_problem(self, now: float) -> str:
        """Returns why clients refuse the certificate, now or within `limits.certificate_warning`; else empty.

        Args:
            now: Unix seconds.
        """
        return self.validity(now).problem

    def validity(self, now: float) -> Validity:
        """Returns whether clients take the certificate, and for how long.

        Args:
            now: Unix seconds.
        """
        what = f"the certificate {self._cert} (`tls_cert`)"
        return _told(what, "clients", certificates.server_validity(self.context, self._cert), now)

    def reload(self) -> None:
        """Loads and uses the files; if they cannot be used, keeps the current context and logs why."""
        try:
            self.use(self.load())
        except CertificateError as problem:
            _log.error("the certificate is not reloaded: %s", problem)

    def _refuse_passphrase(self) -> str:
        raise CertificateError(
            f"the key {self._key} (`tls_key`) is encrypted: write it without its passphrase "
            "(openssl pkey -in KEY -out FILE), readable by the server alone",
            "tls_key",
        )

    def _explain(self, reason: str) -> str:
        if reason in _MISMATCHES:
            what = f"the key {self._key} (`tls_key`) does not belong to the certificate {self._cert} (`tls_cert`)"
            return f"{what}: name the two files of one pair; in a chain the server's own certificate stands first"
        why = _REASONS.get(reason, f"OpenSSL cannot use them ({reason.lower().replace('_', ' ') or 'no reason given'})")
        return f"the certificate {self._cert} (`tls_cert`) with the key {self._key} (`tls_key`): {why}"


def _check_file(name: str, path: str, mark: bytes, what: str) -> None:
    """Checks that a file can be read and contains the expected PEM block.

    Raises:
        CertificateError: The check fails.
    """
    try:
        with open_file(path) as file:
            text = file.read()
    except OSError as problem:
        how = "check the path and the permissions of the file and its folders"
        unread = f"the {what} {path} (`{name}`) cannot be read: {problem.strerror}: {how}"
        raise CertificateError(unread, name) from None
    if mark not in text:
        raise CertificateError(f"{path} (`{name}`) holds no {what} in PEM form (a line with {mark.decode()})", name)


def certificate_of(settings: ServerSettings) -> Certificate | None:
    """Returns the certificate of a server; None if the server uses plain HTTP.

    Args:
        settings: `[server]`.

    Raises:
        CertificateError: The certificate cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)
