"""`cli/dialects/openai.py`: usage as OpenAI's API sends it."""

from __future__ import annotations

from gai_fast.cli.mock.dialects import DIALECTS
from tests.unit.cli.mock.dialects.answers import BODY, chunks


def test_openai_tells_usage_only_where_it_is_asked() -> None:
    plain = DIALECTS["openai"](BODY, 1)
    assert all("usage" not in chunk for frame in plain.closing(5, False) for chunk in chunks(frame))
    asked = DIALECTS["openai"]({**BODY, "stream_options": {"include_usage": True}}, 1)
    assert chunks(asked.delta("a"))[0]["usage"] is None
    [last] = chunks(asked.closing(5, False)[-2])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 5
