"""Each fault of a judge through a whole gateway, by a configuration's file: guards that are closed or open, or let some
characters out before their verdict. All rows at once: nobody else is harmed.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import pytest

from tests.integration import test_judges
from tests.integration.configured import configured
from tests.integration.gateway import (
    DONE,
    FINISH,
    KEY,
    LAST_CHUNK,
    NATIVE,
    SSE_HEAD,
    Gateway,
    Handler,
    Net,
    Peer,
    Response,
    delta,
    on_steady_loop,
)
from tests.integration.test_judges import FAULTS, FINE, FUNCTIONS, GATE, MODERATION_FAULTS, MODULE, TEXT, module, saying
from tests.ports import free_port
from tests.waiting import until
from tests.wire import chunk

__all__ = ["module"]

ASKED = "A fox that nobody may see."
EXPOSURE = 50
STEP = 3
"""The characters of a delta."""


class Row(NamedTuple):
    """A judge with a fault.

    Args:
        use: Its guard's `use`.
        kind: The fault, as of `Failed`. Empty if the judge is right all the same.
        judge: What it does: a server's handler, or a function. None if nothing listens.
    """

    use: str
    kind: str
    judge: Any


async def twice(peer: Peer) -> None:
    """Answers each question twice; the second answer belongs to none."""
    while True:
        await peer.request()
        answers = (json.dumps(FINE).encode(), b'{"flagged": true}')
        await peer.send(
            b"".join(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(each), each) for each in answers)
        )


async def raises(asked: Any) -> Any:
    raise ValueError(asked["text"] + KEY)


SERVERS: Final = {
    **{name: Row("http", kind, handler) for name, (handler, kind) in FAULTS.items()},
    "nobody listens": Row("http", "network", None),
    "answers twice": Row("http", "", twice),
}
OTHERS: Final = {
    **{f"moderation: {name}": Row("moderation", "form", saying(body)) for name, body in MODERATION_FAULTS.items()},
    **{f"function: {name}": Row("python", kind, call) for name, (call, kind) in FUNCTIONS.items() if name[0] != "b"},
    "async function: raises": Row("python", "exception", raises),
}
STUCK: Final = {
    f"function: {name}": Row("python", kind, call) for name, (call, kind) in FUNCTIONS.items() if name[0] == "b"
}
"""Its calls take the threads that the functions of the others need."""
SAID: Final = {
    "late": "no verdict within 0.3 s",
    "network": "",
    "status": "it answers with status",
    "form": "its answer ",
    "exception": "it raised ",
}
"""What the log says of each kind."""
MODES: Final = {
    "closed": ('["output"]', "closed", 0),
    "exposed": ('["output"]', "closed", EXPOSURE),
    "closed on input": ('["input"]', "closed", 0),
    "open": ('["input", "output"]', "open", 0),
}


def slug(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower())


class Model:
    """An upstream that says the text in small pieces; keeps what it is asked, by model."""

    def __init__(self) -> None:
        self.asked: dict[str, list[Any]] = {}

    async def __call__(self, peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            self.asked.setdefault(body["model"], []).append(body)
            pieces = [chunk(delta(TEXT[at : at + STEP])) for at in range(0, len(TEXT), STEP)]
            await peer.send(SSE_HEAD, *pieces, chunk(FINISH + DONE) + LAST_CHUNK)


async def file_of(net: Net, module: ModuleType, rows: dict[str, Row], model_url: str, mode: str) -> str:
    """Returns a configuration with a model and its guard for each row."""
    sides, on_failure, exposure = MODES[mode]
    up = 'provider = "openai-compatible"\napi_key = "env:KEY"\n'
    parts = [f'[server]\nport = 0\n[[upstream]]\nname = "up"\n{up}base_url = "{model_url}/v1"\n']
    for name, row in rows.items():
        key = slug(name)
        parts.append(f'[[model]]\nname = "{key}"\nupstream = "up"\n')
        judge = ""
        if row.use == "python":
            setattr(module, key.replace("-", "_"), row.judge)
            judge = f'python = "{MODULE}:{key.replace("-", "_")}"'
        else:
            url = f"http://127.0.0.1:{free_port()}" if row.judge is None else await url_of(net, row.judge)
            judge = f'url = "{url}/check"'
            if row.use == "moderation":
                parts.append(f'[[upstream]]\nname = "{key}"\n{up}base_url = "{url}/v1"\n')
                judge = f'upstream = "{key}"'
        parts.append(
            f'[[guard]]\nname = "{key}"\nuse = "{row.use}"\nmodels = ["{key}"]\non = {sides}\n{judge}\n'
            f'timeout = {test_judges.within(row.kind)}\nmax_exposure = {exposure}\non_failure = "{on_failure}"\n'
        )
    return "\n".join(parts)


async def url_of(net: Net, handler: Handler) -> str:
    return (await net.upstream(handler)).url


async def ask(gateway: Gateway, name: str, *, is_stream: bool) -> Response:
    return await gateway.ask("POST", NATIVE, {"model": slug(name), "query": ASKED, "stream": is_stream})


def check_closed(name: str, streamed: Response, whole: Response, most: int) -> int:
    """Checks two answers that their guard has closed; returns the characters that were out without a verdict."""
    error = streamed.events[-2]["error"]
    assert (streamed.types[0], streamed.types[-2:], streamed.events[-1]["finished"]) == (
        "start",
        ["error", "done"],
        False,
    )
    for each in (error, whole.error):
        told = (each["code"], each["reason"], each["temporary"], each["guard"])
        assert told == ("provider_unavailable", "guard_failed", True, slug(name)), name
    assert whole.status == 503
    assert TEXT.startswith(streamed.text)
    assert len(streamed.text) <= most, name
    assert set(streamed.types[1:-2]) <= {"text.delta"}
    return len(streamed.text)


def check_open(name: str, streamed: Response, whole: Response) -> None:
    assert (streamed.text, whole.json["text"]) == (TEXT, TEXT), name
    warnings = [each for each in streamed.events if each["type"] == "warning"]
    assert [(each["reason"], each["guard"]) for each in warnings] == [("guard_failed", slug(name))], name
    assert streamed.types[1] == "warning", "of the input, behind the start"
    assert streamed.types[-2:] == ["finish", "done"]
    assert streamed.events[-2]["finish_reason"] == whole.json["finish_reason"] == "stop"


@on_steady_loop
@pytest.mark.parametrize("mode", MODES)
async def test_each_fault_ends_its_stream_or_is_warned_of(
    net: Net, module: ModuleType, tmp_path: Path, mode: str
) -> None:
    model = Model()
    url = await url_of(net, model)
    GATE.clear()
    exposed: dict[str, int] = {}
    rows: dict[str, Row] = {**SERVERS, **OTHERS, **STUCK}
    gateways: dict[str, Gateway] = {}
    try:
        for group in (SERVERS, OTHERS, STUCK):
            gateway = await configured(net, tmp_path, await file_of(net, module, group, url, mode))
            gateways |= dict.fromkeys(group, gateway)
        asked = [ask(gateways[name], name, is_stream=each) for name in rows for each in (True, False)]
        answers = await asyncio.gather(*asked)
    finally:
        GATE.set()
    for (name, row), streamed, whole in zip(rows.items(), answers[::2], answers[1::2], strict=True):
        failures = gateways[name].running.engine.guarding.tallies.failures[slug(name)]
        reached = model.asked.get(slug(name), [])
        assert (failures > 0) is bool(row.kind), name
        if not row.kind:
            assert (streamed.text, whole.json["text"], "warning" in streamed.types) == (TEXT, TEXT, False)
        elif mode == "open":
            check_open(name, streamed, whole)
        elif mode == "closed on input":
            assert (streamed.status, whole.status, reached) == (503, 503, []), name
            for each in (streamed.error, whole.error):
                assert (each["reason"], each["guard"]) == ("guard_failed", slug(name))
        else:
            exposed[name] = check_closed(name, streamed, whole, EXPOSURE if mode == "exposed" else 0)
        if mode != "closed on input":
            assert len(reached) == 2, "each is asked once, and none instead"
            assert {each["messages"][-1]["content"] for each in reached} == {ASKED}
        assert KEY.encode() not in streamed.body + whole.body
    check_logged(net, rows)
    if mode == "exposed":
        assert exposed["slow"] == EXPOSURE - EXPOSURE % STEP, "as much as may be out"
    await until(lambda: not any(each.streams for each in gateways.values()))


def check_logged(net: Net, rows: dict[str, Row]) -> None:
    """Checks that the log names the fault of each row once, and no text."""
    assert not [line for line in net.logged if "fox" in line or KEY in line]
    for name, row in rows.items():
        if row.kind:
            told = [line for line in net.logged if f"guard {slug(name)!r}: the judge has failed" in line]
            assert len(told) == 1, name
            assert SAID[row.kind] in told[0]
    net.logged[:] = [line for line in net.logged if "the judge has failed" not in line]
