"""What a request about a key may say of itself; tests/integration/test_keys.py asks a whole server."""

from __future__ import annotations

from typing import Any

import pytest

from gai_fast.model.errors import Error
from gai_fast.server.admin.key_routes import GRACE, KeyRoutes, _grace
from gai_fast.server.limits import LIMITS
from tests.unit.server import incoming_requests


def test_a_rotation_leaves_an_hour_unless_it_says_otherwise() -> None:
    assert _grace({}) == GRACE == 3600.0
    assert _grace({"grace": 0}) == 0.0
    assert _grace({"grace": LIMITS.key_grace}) == 30 * 86_400.0


@pytest.mark.parametrize("given", [{"grace": value} for value in (-1, "1", True, None, 1e9, [])] + [{"grce": 1}])
def test_another_grace_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Error) as caught:
        _grace(given)
    assert (caught.value.status, caught.value.reason) == (400, "grace")


def test_a_body_is_refused_before_anything_is_asked() -> None:
    routes = KeyRoutes(None, None, None)  # type: ignore[arg-type]  # they are not used
    for body, status in ((b"x" * (LIMITS.key_body + 1), 413), (b"[]", 400), (b"", 400)):
        incoming = incoming_requests.incoming(
            incoming_requests.http("POST", "/admin/v1/keys", {"content-type": "application/json"}, body=body)
        )
        with pytest.raises(Error) as caught:
            routes.create(incoming)
        assert caught.value.status == status
