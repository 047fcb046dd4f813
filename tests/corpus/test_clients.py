"""Every recording, client by client: straight against through a running gateway.

*Through* is what the client's reader (`tests/readers.py`) makes of the gateway's answer. *Straight* is what the
recording tells: its bytes, where the upstream speaks the client's dialect, or else the events that `decode` makes of
them. The summary of a run has a line for each client.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from gai_fast.formats import FORMATS
from tests.corpus.clients import answers, check_known, check_refused
from tests.corpus.recordings import SECONDS, name_of, recordings
from tests.corpus.served import Wrong, decoded_here, wrong_unless
from tests.corpus.summary import note_equal
from tests.corpus.test_formats import check_passed, passing, read, source_of
from tests.integration.gateway import Response


def as_kept(body: bytes) -> bytes:
    """An upstream's answer as a gateway that keeps it says: its client has asked for no other, and named no parent."""
    kept = re.sub(rb'("store": ?)(?:true|false|null)(?=[,}])', rb"\1true", body)
    return re.sub(rb'("previous_response_id": ?)(?:null|"[^"]*")(?=[,}])', rb"\1null", kept)


def compare(name: str, recording: Any, response: Response) -> None:
    """Compares what a client has with what the recording tells.

    Raises:
        Wrong: The two differ.
        AssertionError: The client could not read the answer, or what passes has changed.
    """
    wrong_unless(response.ended, "the response has no proper end")
    body, events = bytes(response.body), decoded_here(recording)
    if response.status != 200:
        check_refused(name, recording, response)
    elif name == "raw":
        wrong_unless(body == recording.body, "other bytes", body[-200:])
    elif name != "gai" and passing(name, name_of(recording)):
        source = source_of(recording)
        check_passed(body, source if name != "responses" else (*source[:3], as_kept(source[3]), *source[4:]))
    else:
        check_known(read(name, body), events, name)


@pytest.mark.timeout(SECONDS)
@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("name", FORMATS)
def test_a_client_gets_through_the_gateway_what_it_gets_straight(name: str) -> None:
    wrong: dict[str, str] = {}
    for recording, response in answers(name):
        try:
            compare(name, recording, response)
        except (Wrong, AssertionError) as difference:
            wrong[recording.name] = str(difference)
    compared = len(answers(name))
    note_equal(name, compared - len(wrong), compared)
    assert not wrong
    assert compared == len(recordings()) > 0


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_frame_is_a_difference(name: str) -> None:
    """The control: the comparison fails if a delta is lost on the way."""
    recording, response = next(
        (recording, response)
        for recording, response in answers(name)
        if name_of(recording) == "groq" and response.body.count(b"\n\n") > 20
    )
    lost = copy.copy(response)
    frames = bytes(response.body).split(b"\n\n")
    lost.body = bytearray(b"\n\n".join(frames[:10] + frames[11:]))
    compare(name, recording, response)
    with pytest.raises((Wrong, AssertionError)):
        compare(name, recording, lost)
