"""Every provider's grammar by small answers of our own: `fixtures/<provider>/<case>.*` and the events they mean.

The events are the bytes of the gai format, so key order, numbering and the digits of arguments count. Fixtures are
written by hand from the shapes in the providers' documentation; none is a copy of a recording.

A run decodes them with the implementation that the package has in it: `GAI_FAST_NO_EXTENSIONS=1` makes that the pure
one, throughout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gai_fast.core.relay import Relay
from gai_fast.kernels import NDJSONEncoder
from gai_fast.providers import get_provider, provider_names
from tests.kernels import IS_REPEATED, cuts, is_set

FIXTURES = Path(__file__).parent / "fixtures"
CASES = sorted(path for path in FIXTURES.glob("*/*") if not path.name.endswith(".events.ndjson"))

MATRIX = frozenset(
    "text reasoning one_tool parallel_tools no_arg_tool citations refusal usage midstream_error early_eof "
    "keep_alive".split()
)
"""The cases that every provider with streams must show."""


def provider_of(case: Path) -> str:
    """Returns the provider's name: a folder's has no colon."""
    return re.sub("-(completions|generate|responses)$", r":\1", case.parent.name)


def decoded(provider: str, chunks: list[bytes]) -> bytes:
    """Returns the events of an answer, as NDJSON without time and ids."""
    encoder = NDJSONEncoder(envelope="compact")
    relay = Relay(get_provider(provider).adapter(), encoder)
    relay.receive_head(200, {})
    for chunk in chunks:
        relay.receive_data(chunk)
    relay.receive_eof()
    return bytes(encoder.take())


def splits(body: bytes) -> Iterator[list[bytes]]:
    """Yields the cuts of the body; `GAI_FAST_EXHAUSTIVE=1`: in two at every place as well."""
    yield from cuts(body)
    if is_set("GAI_FAST_EXHAUSTIVE"):
        yield from ([body[:at], body[at:]] for at in range(1, len(body)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_events_are_the_expected_at_every_split(case: Path) -> None:
    body = case.read_bytes()
    expected = case.with_suffix(".events.ndjson").read_bytes()
    for chunks in splits(body):
        assert decoded(provider_of(case), chunks).decode() == expected.decode()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_every_prefix_has_one_end(case: Path) -> None:
    body = case.read_bytes()
    for length in range(0, len(body), 1 if is_set("GAI_FAST_EXHAUSTIVE") else 67 if IS_REPEATED else 17):
        lines = decoded(provider_of(case), [body[:length]])
        kinds = [line.split(b'"type":"')[1].split(b'"')[0] for line in lines.splitlines()]
        assert kinds[0] in (b"start", b"error")
        assert kinds[-1] == b"done"
        assert sum(kind in (b"finish", b"error") for kind in kinds) == 1
        assert kinds[-2] in (b"finish", b"error")


@pytest.mark.parametrize("provider", provider_names())
def test_the_matrix_is_complete(provider: str) -> None:
    shown = {case.stem for case in CASES if case.parent.name == provider}
    assert shown >= MATRIX
