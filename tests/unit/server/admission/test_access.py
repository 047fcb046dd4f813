"""Who may ask for which path, as the route table says."""

from __future__ import annotations

from typing import get_args

import pytest

from gai_fast.server.admission.access import Access, Paths
from gai_fast.server.routes.table import PATHS, ROUTES


def test_each_kind_of_access_has_a_route() -> None:
    assert {route.access for route in ROUTES} == {*get_args(Access)}


def test_the_paths_of_the_table_are_known() -> None:
    assert PATHS.keyed == ("/api", "/v1", "/ws", "/p/")
    assert PATHS.operated == ("/admin", "/docs", "/dashboard")
    assert PATHS.login == {"/docs", "/dashboard"}
    assert PATHS.login_files == ("/docs/", "/dashboard/")
    assert PATHS.metrics == {"/metrics"}


def test_what_begins_like_a_route_with_a_key_needs_one_unless_an_open_route_begins_so_too() -> None:
    paths = Paths([("/v1/{x}", "key"), ("/p/{x}", "key"), ("/probe", "open"), ("/", "open")])
    for path in ("/v1", "/v1/nothing", "/v1x", "/p/", "/p/x"):
        assert paths.is_api(path), path
    for path in ("/probe", "/p", "/", "/v2", "*"):
        assert not paths.is_api(path), path


def test_what_is_below_the_first_segment_of_an_operators_route_is_for_operators() -> None:
    paths = Paths([("/admin/v1/x", "admin"), ("/page", "login"), ("/page/{file}", "login file"), ("/pages", "open")])
    for path in ("/admin", "/admin/", "/admin/v2", "/page", "/page/x"):
        assert paths.is_for_operators(path), path
    for path in ("/", "*", "/administrator", "/pages", "//admin"):
        assert not paths.is_for_operators(path), path
    nothing = Paths([("/healthz", "open")])
    assert not nothing.is_for_operators("/admin")
    assert not nothing.is_api("/v1")


@pytest.mark.parametrize("access", ["key", "open", "metrics"])
def test_a_route_below_operators_routes_cannot_be_for_others(access: Access) -> None:
    """With the key of any caller it would open all of them."""
    with pytest.raises(ValueError, match="/admin/v1/mine: the routes below /admin must be for the same callers"):
        Paths([("/admin/v1/keys", "admin"), ("/admin/v1/mine", access)])
