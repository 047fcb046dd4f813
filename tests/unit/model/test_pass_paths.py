from __future__ import annotations

import pytest

from gai_fast.model.pass_paths import offered_methods, pass_path

LANE = ("/v1/embeddings", "/v1/audio/*", "DELETE /v1/x", "/v1beta/models/*:embedContent")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("v1/embeddings", ["GET", "POST"]),
        ("v1/audio/speech", ["GET", "POST"]),
        ("v1/x", ["DELETE"]),
        ("v1beta/models/m-1:embedContent", ["GET", "POST"]),
        ("v1/audio", []),
        ("v1/audio/", []),  # `*` is one segment, and not an empty one
        ("v1/audio/a/b", []),
        ("v1/embeddings/", []),
        ("V1/embeddings", []),
        ("v1beta/models/:embedContent", []),
        ("v1beta/models/m:generateContent", []),
    ],
)
def test_a_path_has_the_methods_of_the_entries_that_match_it(path: str, methods: list[str]) -> None:
    assert offered_methods(LANE, path.split("/")) == methods


def test_the_methods_of_several_entries_add_up() -> None:
    assert offered_methods(("/v1/*", "PUT /v1/x"), ["v1", "x"]) == ["GET", "POST", "PUT"]


def test_nothing_in_an_entry_but_the_star_is_special() -> None:
    assert offered_methods(("/v1/a.b+[c]",), ["v1", "a.b+[c]"])
    assert not offered_methods(("/v1/a.b",), ["v1", "aXb"])


@pytest.mark.parametrize(
    "entry",
    ["", "/", "v1/x", "/v1//x", "/v1/", "/../x", "/v1/.", "/v1/x?y=1", "/v1/%78", "GET", "get /v1/x", "TRACE /v1/x",
     "GET  /v1/x", "/v1/x y", "/v1\\x", "/v1/x\n"],
)  # fmt: skip
def test_anything_else_is_no_entry(entry: str) -> None:
    with pytest.raises(ValueError, match="is no path such as"):
        pass_path(entry)
