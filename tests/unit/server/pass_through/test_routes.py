"""`tests/integration/test_pass_through.py` asks the routes over sockets."""

from __future__ import annotations

from gai_fast.server.pass_through.routes import METERED
from gai_fast.server.routes.table import NOT_OFFERED, ROUTES, is_passed_unread


def test_a_route_whose_answers_are_metered_names_its_model() -> None:
    read = {route.path for route in ROUTES if route.method == "POST" and not (route.any_body or route.takes_form)}
    assert read >= METERED


FORM = {"content-type": "multipart/form-data; boundary=x"}
JSON = {"content-type": "application/json"}


def test_only_forms_and_the_upstreams_own_paths_are_passed_on_unread() -> None:
    for path in ("/p/up/v1/x", "/v1/audio/transcriptions", "/v1/images/edits"):
        assert is_passed_unread(path, FORM)
        assert is_passed_unread(path, JSON) is path.startswith("/p/")
    for path in ("/v1/embeddings", "/v1/chat/completions", "/p", "/playground/x", "/v1/audio/transcriptions/x"):
        assert not is_passed_unread(path, FORM)


def test_files_and_batches_are_not_offered() -> None:
    """One account's files would be every caller's."""
    assert {"/v1/files", "/v1/batches", "/v1/uploads"} <= NOT_OFFERED
    assert not NOT_OFFERED & {route.path for route in ROUTES}
