"""`tests/integration/test_pass_through.py` asks the routes over sockets."""

from __future__ import annotations

from gai_fast.server.lanes.routes import NOT_OFFERED, ROUTES, takes_any_body
from gai_fast.server.pass_through.routes import METERED


def test_a_route_whose_answers_are_metered_names_its_model() -> None:
    read = {route.path for route in ROUTES if route.method == "POST" and not route.any_body}
    assert read >= METERED


def test_only_bodies_that_are_passed_on_unread_may_have_any_type() -> None:
    for path in ("/p/up/v1/x", "/v1/audio/transcriptions", "/v1/images/edits"):
        assert takes_any_body(path)
    for path in ("/v1/embeddings", "/v1/chat/completions", "/p", "/playground/x", "/v1/audio/transcriptions/x"):
        assert not takes_any_body(path)


def test_files_and_batches_are_not_offered() -> None:
    """One account's files would be every caller's."""
    assert {"/v1/files", "/v1/batches", "/v1/uploads"} <= NOT_OFFERED
    assert not NOT_OFFERED & {route.path for route in ROUTES}
