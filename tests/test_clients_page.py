"""`docs/clients.md`: its tables are what the code does; each format states where every type of event stands."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from gai_fast.formats import FORMATS, Format, get_format
from gai_fast.model.events import DELTAS, TYPES, Event
from gai_fast.providers import get_provider
from tools.answer_specimens import answer, answers
from tools.client_table import (
    CHANGED,
    KEPT,
    LEFT_OUT,
    PAGE,
    REFUSED,
    Place,
    asked,
    context,
    differing,
    in_stream,
    passes,
    reads_requests,
    requests,
    streamed,
    written,
)
from tools.provider_table import apis
from tools.request_specimens import DIALECTS

ROOT: Final = Path(__file__).parents[1]
GENERATED: Final = re.compile(r"<!-- generated: pairs -->\n(.*?)<!-- end -->", re.S)
ROW: Final = re.compile(r"^\| ((?:`[a-z._]+`[ ]?)+) \| (.+) \|$", re.M)


def versions(form: Format) -> list[Format]:
    """Returns the format, as clients of each version read it."""
    found = [form]
    for name in map(str, range(10)):
        try:
            found.append(form.version(name))
        except ValueError:
            continue
    return found


def stated(form: Format) -> dict[str, str]:
    """Returns the place of each type of event, as the docstring of the module says that writes them."""
    name = type(form.encoder("sse", context())).__module__
    if name.startswith(("gai_fast.kernels._native.", "gai_fast.kernels._pure.")):
        name = type(form).__module__  # a kernel writes events as they are; the format says so
    source = (ROOT / f"{name.replace('.', '/')}.py").read_text()  # a compiled module has no docstring
    text = ast.get_docstring(ast.parse(source)) or ""
    rows = [(kind, place) for kinds, place in ROW.findall(text) for kind in re.findall("`(.+?)`", kinds)]
    assert len(rows) == len(dict(rows)), f"{form.name}: a type stands in two rows"
    return dict(rows)


def writes(form: Format, kind: str) -> bool:
    """Returns whether the format writes anything for events of this type."""
    if kind in ("start", "done"):
        stream = answer("groq")
        without = [event for event in stream if event["type"] != kind]
        if streamed(form, stream) != streamed(form, without):
            return True
    return any(in_stream(form, one).fate != LEFT_OUT for one in answers("groq").values() if kind in one.kinds)


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run `python -m tools.client_table`"


def test_every_format_stands_on_the_page_with_the_apis_that_its_requests_reach_unchanged() -> None:
    sections = re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", GENERATED.findall(PAGE.read_text())[0], re.M | re.S)
    assert [name for name, _ in sections] == list(FORMATS)
    for name, text in sections:
        line = "".join(re.findall(r"^Requests and answers pass byte for byte: (.+)\.$", text, re.M))
        assert re.findall("`(.+?)`", line) == [api for api, one in apis().items() if passes(get_format(name), one)]


@pytest.mark.parametrize("name", DIALECTS)
def test_the_fate_of_everything_in_a_request_follows_from_the_tables_of_its_format_and_of_the_native_one(
    name: str,
) -> None:
    form, native = get_format(name), get_format("gai")
    for api, one in apis().items():
        if not passes(form, one):
            read = {
                what: fate
                for table in ([native] if form is native else [native, form])
                for (what, fate), names in differing(table).items()
                if api in names
            }
            for what, fate in requests(form, api, one).items():
                assert read.get(what, KEPT) == fate, (api, what)


def test_every_type_of_event_has_a_specimen() -> None:
    kinds = {kind for one in answers("openai").values() for kind in one.kinds}
    assert kinds == TYPES - {"done"}
    assert kinds >= DELTAS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_states_the_place_or_the_absence_of_every_type_of_event(name: str) -> None:
    assert sorted(stated(get_format(name))) == sorted(TYPES)


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_states_is_what_it_writes(name: str) -> None:
    form = get_format(name)
    absent = {kind for kind, place in stated(form).items() if place.startswith("none")}
    if form.copies_upstream:
        assert absent == TYPES
        return
    assert absent == {kind for kind in TYPES if not any(writes(each, kind) for each in versions(form))}


def test_all_specimens_are_those_of_a_format() -> None:
    assert DIALECTS.keys() <= FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_with_requests_has_specimens_of_its_own(name: str) -> None:
    form = get_format(name)
    assert reads_requests(form) == (name in DIALECTS)
    if name in DIALECTS:
        fates = requests(form, "openai", get_provider("openai"))
        assert len(fates) > len(DIALECTS[name].specimens) / 2


class TestFates:
    """The tool tells apart what it is to tell apart."""

    def test_a_request(self) -> None:
        specimens, chat = DIALECTS["openai"].specimens, get_format("openai")
        assert asked(chat, get_provider("openai"), specimens["several choices"]) == KEPT
        assert asked(chat, get_provider("anthropic"), specimens["system message"]) == KEPT
        assert asked(chat, get_provider("anthropic"), specimens["several choices"]) == REFUSED
        assert asked(chat, get_provider("gemini"), specimens["effort"]) == CHANGED
        assert asked(chat, get_provider("cohere"), specimens["cache key"]) == LEFT_OUT
        assert asked(chat, get_provider("ollama"), specimens["tool choice: none"]) == CHANGED

    def test_reasoning_goes_back_to_its_provider(self) -> None:
        fates = requests(get_format("openai"), "anthropic", get_provider("anthropic"))
        assert fates["sent back: reasoning signature"] == KEPT
        assert fates["sent back: redacted reasoning"] == KEPT

    def test_an_answer(self) -> None:
        messages, every = get_format("anthropic"), answers("openai")
        assert in_stream(messages, every["text"]) == Place(KEPT, ("content_block_delta: delta.text",))
        assert in_stream(messages, every["step end"]) == Place(LEFT_OUT)
        length = in_stream(messages, every["finish reason: `length`"])
        assert length == Place(CHANGED, ('message_delta: delta.stop_reason = "max_tokens"',))

    def test_an_answer_of_which_only_a_part_arrives(self) -> None:
        error = answers("openai")["error"]
        assert in_stream(get_format("simple"), error) == Place(CHANGED, ("error",))

    def test_a_format_that_needs_specimens_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(DIALECTS, "openai")
        with pytest.raises(KeyError, match="'openai' reads requests"):
            requests(get_format("openai"), "openai", get_provider("openai"))


def test_a_type_that_is_unknown_to_a_format_writes_nothing() -> None:
    unknown: Event = {"type": "of the future"}
    for name in FORMATS:
        if name not in ("gai", "raw"):
            form = get_format(name)
            assert streamed(form, answer("openai", [unknown])) == streamed(form, answer("openai")), name
