"""docs/events.md: types, keys and finish reasons are those of the package, and the bytes are as described."""

from __future__ import annotations

import json
import re
from typing import Final

import gai_fast
from gai_fast.model.events import FINISH_REASONS, KEYS, TYPES
from tests.docs.pages import blocks, coded, read, rows, section

TEXT: Final = read("docs/events.md")


def test_the_table_has_every_type_and_no_key_that_does_not_exist() -> None:
    table = {coded(row[0])[0]: coded(row[1]) for row in rows(section(TEXT, "Types"))[1:]}
    assert {*table} == TYPES
    keys = {key.partition(" ")[0] for keys in table.values() for key in keys}
    assert keys <= {*KEYS, "finished"}


def test_the_keys_stand_in_their_order() -> None:
    _, frozen, additive, *_ = section(TEXT, "Keys").strip().split("\n\n")
    assert (*coded(frozen), *coded(additive)) == KEYS


def test_the_finish_reasons_are_those_of_the_package() -> None:
    [sentence] = re.findall(r"^`finish_reason` is ([^.]+)\.", TEXT, re.M)
    assert {*coded(sentence)} == FINISH_REASONS


def test_the_example_is_what_an_encoder_writes() -> None:
    example = blocks(TEXT)[0].text
    events = [json.loads(line[6:]) for line in example.splitlines() if line.startswith("data: ")]
    encoder = gai_fast.SSEEncoder()
    for event in events:
        encoder.event(event)
    assert encoder.take().decode().strip() == example.strip()


def test_values_without_content_are_absent_and_only_what_must_be_escaped_is() -> None:
    encoder = gai_fast.NDJSONEncoder("compact")
    encoder.event(
        {"type": "start", "model": "", "citations": [], "usage": {}, "provider": None, "text": '/é"\\\x01\n\ud83d'}
    )
    encoder.event({"type": "done", "finished": True})
    first, done = encoder.take().decode().splitlines()
    assert first == r'{"schema":"gai.events.v1","type":"start","seq":1,"text":"/é\"\\\u0001\n�"}'
    assert done == '{"type":"done","finished":true}'
