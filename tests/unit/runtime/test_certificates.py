"""How long certificates are valid, of servers and of clients."""

from __future__ import annotations

import time

import pytest

from gai_fast.runtime.certificates import client_validity, server_validity
from tests.integration.certificates import Authority

DAY = 86_400


@pytest.mark.parametrize(("name", "days"), [("good", 60), ("own", 60), ("expired", None)])
def test_the_certificate_of_a_server(authority: Authority, name: str, days: int | None) -> None:
    end, reason = server_validity(authority.server(name), str(authority.folder / f"{name}.pem"))
    check(end, reason, days)


@pytest.mark.parametrize(
    ("name", "days"), [("client", 60), ("ending-client", 3), ("expired-client", None), ("good", 60)]
)
def test_the_certificate_of_a_client_which_may_be_for_clients_alone(
    authority: Authority, name: str, days: int | None
) -> None:
    end, reason = client_validity(*(str(authority.folder / f"{name}.{kind}") for kind in ("pem", "key")))
    check(end, reason, days)


def test_files_that_are_no_pair(authority: Authority) -> None:
    with pytest.raises(OSError, match="KEY_VALUES_MISMATCH"):
        client_validity(str(authority.folder / "client.pem"), str(authority.folder / "good.key"))


def check(end: float | None, reason: str, days: int | None) -> None:
    if days is None:
        assert (end, reason) == (None, "certificate has expired")
    else:
        assert reason == ""
        assert end is not None
        assert abs(end - time.time() - days * DAY) < DAY
