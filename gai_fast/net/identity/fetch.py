"""Fetches a grant. Runs in a thread: the libraries of the clouds are imported and called here only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from gai_fast.model.settings import Cloud, IdentitySettings
from gai_fast.model.version import installing
from gai_fast.net.identity.command import fetch as run
from gai_fast.net.identity.grant import Bearer, Grant, IdentityError
from gai_fast.runtime.programs import Cancellation

_MODULES: Final[Mapping[Cloud, str]] = {
    "aws": "gai_fast.net.identity.aws",
    "google": "gai_fast.net.identity.google",
    "entra": "gai_fast.net.identity.entra",
}
_NEEDS: Final[Mapping[Cloud, tuple[str, ...]]] = {
    "aws": ("botocore",),
    "google": ("google.auth", "requests"),
    "entra": ("azure.identity",),
}
"""The packages of each cloud's extra, as they are imported."""


def is_installed(cloud: Cloud) -> bool:
    """Returns whether the packages of a cloud's extra are there. None of them is imported."""
    try:
        return all(find_spec(name) is not None for name in _NEEDS[cloud])
    except ModuleNotFoundError:  # the package around it
        return False


def fetch(identity: IdentitySettings, cancellation: Cancellation) -> Grant:
    """Fetches a grant; takes seconds.

    Args:
        identity: Where from.
        cancellation: Ends a program that runs for it.

    Raises:
        IdentityError: There is none.
    """
    if identity.token is not None:
        return Bearer(identity.token.reveal(), None)
    if identity.cloud is None:
        return run(identity.command, cancellation)
    try:
        fetch_from: Callable[[IdentitySettings], Grant] = import_module(_MODULES[identity.cloud]).fetch
        return fetch_from(identity)
    except ImportError:
        how = installing(identity.cloud)
        raise IdentityError(f'auth = "{identity.cloud}" needs packages that are not there', how) from None
