"""SIGHUP: reloads the configuration while the server runs.

Owns which settings may change in a reload, and how a configuration gets from the supervisor to its workers. A request
uses one snapshot (`Settings`). `Service.use` replaces it for later requests; running streams keep theirs.

1. An invalid configuration is logged, and nothing changes.
2. `[server]`, `[runs]`, `[store]` without its keys, and everything derived from them stay unchanged until a restart;
   the log reports that.
3. The certificate's files are reloaded too. If they cannot be used, the configuration is invalid.
4. What takes long is done beside the loop: reading the file, and building its guards (`Reload.beside`). A supervisor
   serves no requests: it waits for the file.
5. A configuration that drops the last key or issuer is invalid, and so is one without any if other machines can reach
   the server: it would be open. A proxy opens a server on loopback, too.
"""

from __future__ import annotations

import asyncio
import copyreg
import io
import logging
import pickle
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from gai_fast.config import ConfigError
from gai_fast.model.errors import SetupError
from gai_fast.model.settings import Settings
from gai_fast.runtime.beside import breathing
from gai_fast.server.admin.bodies import Change
from gai_fast.server.admin.changes import changes
from gai_fast.server.edge.certificate import Certificate, CertificateError
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe.audit import audit

_log: Final = logging.getLogger("gai_fast.server")
_DONE: Final = 200
_REFUSED: Final = 400
_UNTIL_RESTART: Final = ("server", "store", "runs", "default_model")


class Reloaded(NamedTuple):
    """The result of a reload.

    Attributes:
        settings: The new configuration; None if nothing changes.
        problem: The reason if nothing changes; else empty.
        changes: As `admin.changes.changes`.
        needs_restart: The sections with changes that apply only after a restart.
    """

    settings: Settings | None
    problem: str = ""
    changes: Sequence[Change] = ()
    needs_restart: Sequence[str] = ()

    @property
    def report(self) -> dict[str, Any]:
        """The result without the configuration, in types that MessagePack supports."""
        return {"problem": self.problem, "changes": self.changes, "needs_restart": self.needs_restart}


class Reload:
    """Reloads the configuration.

    Args:
        settings: The current configuration.
        load: Reads the configuration; raises a `ConfigError` if it is invalid.
        is_open: Whether other machines can reach the server.
        certificate: The server's certificate, which is reloaded too; None without TLS.

    Attributes:
        settings: The current configuration.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        *,
        is_open: bool,
        certificate: Certificate | None = None,
    ) -> None:
        self.settings = settings
        self._load = load
        self._is_open = is_open
        self._certificate = certificate
        self._one_at_a_time = asyncio.Lock()

    def __call__(self) -> Reloaded:
        """Reloads the configuration, and logs the result."""
        return self._accepted(self._checked(self._read()))

    async def beside(self, prepare: Callable[[Settings], Awaitable[object]]) -> Reloaded:
        """Reloads the configuration while the loop goes on, and logs the result. Reloads come one after the other.

        Args:
            prepare: Prepares what the configuration needs; raises a `SetupError` if it cannot be used.
        """
        async with self._one_at_a_time:
            loaded = await asyncio.get_running_loop().run_in_executor(None, breathing, self._read)
            reloaded = self._checked(loaded)
            if reloaded.settings is not None:
                try:
                    await prepare(reloaded.settings)
                except SetupError as problem:
                    reloaded = Reloaded(None, str(problem))
            return self._accepted(reloaded)

    def _accepted(self, reloaded: Reloaded) -> Reloaded:
        """Takes the configuration, and logs the result."""
        if reloaded.settings is None:
            _log.error("the configuration is not reloaded: %s", reloaded.problem)
            return reloaded
        self.settings = reloaded.settings
        _log.info("the configuration has been reloaded")
        for change in reloaded.changes:
            _log.info("%s: %s", change.what, change.change)
        if reloaded.needs_restart:
            _log.warning("what has changed in %s needs a restart", ", ".join(reloaded.needs_restart))
        return reloaded

    def signalled(self) -> Reloaded:
        """Reloads on SIGHUP, and writes the audit log's line; for a request the router writes it."""
        reloaded = self()
        audit_signal(reloaded)
        return reloaded

    def _read(self) -> Settings | ConfigError:
        """Reads the configuration: takes long, and shares nothing that changes with the loop."""
        try:
            return self._load()
        except ConfigError as problem:
            return problem

    def _checked(self, new: Settings | ConfigError) -> Reloaded:
        old = self.settings
        if isinstance(new, ConfigError):
            return Reloaded(None, " ".join(str(new).split("\n")))
        kept = replace(old, store=replace(old.store, encryption=new.store.encryption))
        changed = [name for name in _UNTIL_RESTART if getattr(new, name) != getattr(kept, name)]
        new = replace(new, **{name: getattr(kept, name) for name in _UNTIL_RESTART})
        reason = self._problem_of(new)
        if reason:
            return Reloaded(None, reason)
        try:
            if self._certificate is not None:
                self._certificate.use(self._certificate.load())
                self._certificate.warn()
        except CertificateError as problem:
            return Reloaded(None, str(problem))
        names = [f"`{name}`" if name == "default_model" else f"[{name}]" for name in changed]
        return Reloaded(new, changes=changes(old, new), needs_restart=names)

    def _problem_of(self, new: Settings) -> str:
        if not new.needs_key and not new.server.insecure:
            gone = _named_callers(self.settings)
            what = f"{gone} would be gone, and no key would be left" if gone else "no key would be left"
            if self._is_open:
                return f"{what}, while other machines reach this server"
            if self.settings.needs_key:
                return f"{what}: the server would be open to everyone that a proxy lets through"
        if new.default_model is not None and new.model(new.default_model) is None:
            return f"there would be no model {new.default_model!r}, which `default_model` names until a restart"
        return ""


def audit_signal(reloaded: Reloaded) -> None:
    """Writes the audit log's line of a reload on SIGHUP."""
    audit("reload", None, None, None, _REFUSED if reloaded.settings is None else _DONE)


def _named_callers(settings: Settings) -> str:
    """Returns the keys and issuers of a configuration for a message."""
    keys, issuers = settings.keys, settings.issuers
    names = [*(f"[[key]] {each.name}" for each in keys), *(f"[[issuer]] {each.name}" for each in issuers)]
    more = len(names) - LIMITS.named_callers
    return f"{', '.join(names[: LIMITS.named_callers])}{f' and {more} more' if more > 0 else ''}"


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


class _Pickler(pickle.Pickler):
    """A pickler that supports read-only mappings."""

    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[MappingProxyType] = lambda mapping: (_read_only, (dict(mapping),))


def to_bytes(settings: Settings) -> bytes:
    """Serializes a configuration, including secrets, for another process of the server.

    Args:
        settings: The configuration.
    """
    written = io.BytesIO()
    _Pickler(written).dump(settings)
    return written.getvalue()


def from_bytes(data: bytes) -> Settings:
    """Deserializes a configuration that `to_bytes` has written.

    Args:
        data: The bytes from the supervisor; bytes from any other source could run code.
    """
    settings: Settings = pickle.loads(data)
    return settings
