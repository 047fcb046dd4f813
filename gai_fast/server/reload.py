"""SIGHUP: a configuration that is loaded anew while the server runs.

Owns what may change then, and how a configuration gets from the supervisor to its workers. A request takes one snapshot
(`Settings`); `Service.use` swaps it for the requests that follow, and streams that run keep theirs.

1. A configuration that cannot be used is logged, and nothing changes.
2. `[server]`, `[store]` and what becomes of them stay as they are until a restart, which the log says.
3. The files of the certificate are read anew; the ones that cannot be used are a configuration that cannot be used.
4. Without the last key a server that other machines reach would be open: that is a configuration that cannot be used.
"""

from __future__ import annotations

import copyreg
import io
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from gai_fast.config import ConfigError
from gai_fast.model.settings import Settings
from gai_fast.server.admin.changes import changes
from gai_fast.server.edge.certificate import Certificate, CertificateError
from gai_fast.server.observe.audit import audit

_log: Final = logging.getLogger("gai_fast.server")
_DONE: Final = 200
_REFUSED: Final = 400
_KEPT: Final = ("server", "store", "default_model")


class Reloaded(NamedTuple):
    """The result of loading the configuration anew.

    Attributes:
        settings: The configuration that is in force from now on; `None`: nothing changes.
        problem: Why nothing changes, else empty.
        changes: As `admin.changes.changes`.
        needs_restart: The sections in which something has changed that counts from the next start on.
    """

    settings: Settings | None
    problem: str = ""
    changes: Sequence[Mapping[str, str | None]] = ()
    needs_restart: Sequence[str] = ()

    @property
    def report(self) -> dict[str, Any]:
        """The result without the configuration, as MessagePack can hold it."""
        return {"problem": self.problem, "changes": self.changes, "needs_restart": self.needs_restart}


class Reload:
    """Loads the configuration anew.

    Args:
        settings: The one in force.
        load: Reads it; a `ConfigError` says why it cannot be used.
        is_open: Other machines reach the server.
        certificate: The server's, which is loaded anew as well.

    Attributes:
        settings: The one in force.
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

    def __call__(self) -> Reloaded:
        """Loads the configuration; the log says what comes of it, too."""
        reloaded = self._loaded()
        if reloaded.settings is None:
            _log.error("the configuration is not reloaded: %s", reloaded.problem)
            return reloaded
        self.settings = reloaded.settings
        _log.warning("the configuration has been reloaded")
        if reloaded.needs_restart:
            _log.warning("what has changed in %s needs a restart", ", ".join(reloaded.needs_restart))
        return reloaded

    def signalled(self) -> Reloaded:
        """Reloads for SIGHUP, and writes the line of the audit log; for a request the router writes it."""
        reloaded = self()
        audit("reload", None, None, None, _REFUSED if reloaded.settings is None else _DONE)
        return reloaded

    def _loaded(self) -> Reloaded:
        old = self.settings
        try:
            new = self._load()
        except ConfigError as problem:
            return Reloaded(None, " ".join(str(problem).split("\n")))
        changed = [name for name in _KEPT if getattr(new, name) != getattr(old, name)]
        new = replace(new, **{name: getattr(old, name) for name in _KEPT})
        reason = self._problem_of(new)
        if reason:
            return Reloaded(None, reason)
        try:
            if self._certificate is not None:
                self._certificate.use(self._certificate.load())
        except CertificateError as problem:
            return Reloaded(None, str(problem))
        names = [f"`{name}`" if name == "default_model" else f"[{name}]" for name in changed]
        return Reloaded(new, changes=changes(old, new), needs_restart=names)

    def _problem_of(self, new: Settings) -> str:
        if self._is_open and not new.keys and not new.server.insecure:
            return "other machines reach this server, and there would be no keys"
        if new.default_model is not None and new.model(new.default_model) is None:
            return f"there would be no model {new.default_model!r}, which `default_model` names until a restart"
        return ""


def _read_only(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


class _Pickler(pickle.Pickler):
    """Also knows read-only mappings."""

    dispatch_table = copyreg.dispatch_table.copy()
    dispatch_table[MappingProxyType] = lambda mapping: (_read_only, (dict(mapping),))


def to_bytes(settings: Settings) -> bytes:
    """A configuration, secrets included, for another process of the same server.

    Args:
        settings: The configuration.
    """
    written = io.BytesIO()
    _Pickler(written).dump(settings)
    return written.getvalue()


def from_bytes(data: bytes) -> Settings:
    """The configuration that `to_bytes` has written.

    Args:
        data: From the supervisor; from anybody else it could run code.
    """
    settings: Settings = pickle.loads(data)
    return settings
