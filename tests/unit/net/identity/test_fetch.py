"""Which source is asked for a token, and libraries that are not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gai_fast.model.settings import CLOUDS, IdentitySettings, Secret
from gai_fast.net.identity import fetch as module
from gai_fast.net.identity.fetch import fetch, is_installed
from gai_fast.net.identity.grant import IdentityError
from gai_fast.runtime.programs import Cancellation


def test_a_given_token_is_used_as_it_is() -> None:
    grant = fetch(IdentitySettings("aws", token=Secret("tok")), Cancellation())
    assert (grant.secret.reveal(), grant.seconds) == ("tok", None)


def test_a_command_is_run() -> None:
    command = (sys.executable, "-S", "-c", "print('tok 60')")
    grant = fetch(IdentitySettings(command=command), Cancellation())
    assert (grant.secret.reveal(), grant.seconds) == ("tok", 60)


def test_a_library_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._NEEDS, "aws", ("gai_fast_no_such_package.inner",))  # type: ignore[arg-type, index]  # a dict
    assert not is_installed("aws")

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(module, "import_module", missing)
    with pytest.raises(IdentityError, match="needs packages that are not there") as refused:
        fetch(IdentitySettings("aws"), Cancellation())
    assert refused.value.fix == "pip install '.[aws]' in a clone of gai-fast"


def test_no_library_of_a_cloud_is_imported_before_it_is_asked() -> None:
    script = (
        "import sys; from gai_fast.net.identity.token_source import TokenSource; "
        "from gai_fast.net.identity.fetch import is_installed; "
        f"assert all(map(is_installed, {CLOUDS!r})); "
        "print([each for each in ('botocore', 'google.auth.transport', 'azure.identity', 'requests', 'msal') "
        "if each in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
