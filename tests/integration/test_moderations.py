"""Moderations of OpenAI and Mistral as judges, by a configuration's file: what they are asked, and what they answer.

The judges from outside: the requests of both SDKs, and the types of their answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mistralai.client
import openai
import pydantic
import pytest
from mistralai.client.models import ClassificationRequest, ModerationResponse
from openai.types import ModerationCreateParams, ModerationCreateResponse

from tests.integration.configured import configured
from tests.integration.gateway import (
    DONE,
    FINISH,
    KEY,
    LAST_CHUNK,
    NATIVE,
    SSE_HEAD,
    Gateway,
    Net,
    Peer,
    delta,
    on_both_loops,
    on_uvloop,
)
from tests.unit.net.judges.test_dialects import OF_MISTRAL, OF_OPENAI
from tests.wire import chunk

BASES = {"openai": "/v1", "mistral": ""}
"""The ends of both providers' `base_url`, as their SDKs have them."""
MODELS = {"openai": "omni-moderation-latest", "mistral": "mistral-moderation-latest"}
OPENAI_SCORES = {
    "harassment": 0.819,
    "harassment/threatening": 0.805,
    "sexual": 1.6e-06,
    "hate": 0.0076,
    "illicit": 0.0305,
    "self-harm": 0.0126,
    "sexual/minors": 2.2e-08,
    "violence": 0.9999993,
    "violence/graphic": 0.843,
}
MISTRAL_SCORES = {"sexual": 9.6e-05, "violence_and_threats": 0.99902, "law": 2.3e-05, "pii": 0.00012}
"""The scores of the examples in both API references, rounded; the others are small."""
BAD = "I want to hurt them."


def openai_answer(is_bad: bool) -> dict[str, Any]:
    scores = {name: OPENAI_SCORES.get(name, 0.0002) if is_bad else 1.1e-06 for name in OF_OPENAI}
    result = {
        "flagged": is_bad,
        "categories": {name: score > 0.5 for name, score in scores.items()},
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in scores},
    }
    answer = {"id": "modr-0d97", "model": MODELS["openai"], "results": [result]}
    ModerationCreateResponse.model_validate(answer, strict=True)
    return answer


def mistral_answer(is_bad: bool) -> dict[str, Any]:
    scores = {name: MISTRAL_SCORES.get(name, 1.5e-05) if is_bad else 1.5e-05 for name in OF_MISTRAL}
    result = {"categories": {name: score > 0.5 for name, score in scores.items()}, "category_scores": scores}
    answer = {"id": "4d71ae", "model": MODELS["mistral"], "results": [result]}
    ModerationResponse.model_validate(answer)
    return answer


ANSWERS = {"openai": openai_answer, "mistral": mistral_answer}
FOUND = {"openai": ("violence", 0.9999993), "mistral": ("violence_and_threats", 0.99902)}


class Server:
    """A model whose answers are `said`, and moderations of both kinds; keeps what both were asked.

    Attributes:
        said: What the model says.
        chats: The bodies of the requests for answers.
        asked: The paths, keys and bodies of the requests for moderations.
    """

    def __init__(self) -> None:
        self.said = "A fine day."
        self.chats: list[Any] = []
        self.asked: list[tuple[str, str, Any]] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            body = json.loads(await peer.request())
            path = peer.head.split(b" ")[1].decode()
            if not path.endswith("/moderations"):
                self.chats.append(body)
                await peer.send(SSE_HEAD, chunk(delta(self.said)), chunk(FINISH + DONE) + LAST_CHUNK)
                continue
            key = peer.head.lower().partition(b"authorization: ")[2].partition(b"\r\n")[0].decode()
            self.asked.append((path, key, body))
            answer = ANSWERS["mistral" if "mistral" in body["model"] else "openai"](BAD in body["input"])
            await peer.answer("200 OK", json.dumps(answer).encode(), "Content-Type: application/json")


def guards_of(url: str, action: str, more: str = "") -> str:
    parts = ["[server]\nport = 0\n"]
    for name, model in MODELS.items():
        parts.append(
            f"""
[[upstream]]
name = "{name}"
provider = "{name}"
base_url = "{url}{BASES[name]}"
api_key = "env:KEY"

[[model]]
name = "of-{name}"
upstream = "{name}"

[[guard]]
name = "policy-{name}"
use = "moderation"
upstream = "{name}"
model = "{model}"
action = "{action}"
models = ["of-{name}"]
timeout = 50.0
{more}"""
        )
    return "\n".join(parts)


async def moderated(net: Net, folder: Path, action: str, more: str = "") -> tuple[Gateway, Server]:
    server = Server()
    upstream = await net.upstream(server)
    return await configured(net, folder, guards_of(upstream.url, action, more)), server


@on_uvloop
async def test_a_moderation_is_asked_as_its_own_sdk_asks(net: Net, tmp_path: Path) -> None:
    gateway, server = await moderated(net, tmp_path, "stop")
    texts = [BAD, "Zwei\n\n\U0001f600 \u201cWörter\u201d", "x" * 40_000]
    for text in texts:
        for name in MODELS:
            await gateway.ask("POST", NATIVE, {"model": f"of-{name}", "query": text})
    ours, server.asked = [each for each in server.asked if each[2]["input"] != server.said], []
    url = str(net.gateways[-1].running.engine.settings.upstreams["openai"].base_url)
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        for _, _, body in ours:
            if body["model"] == MODELS["openai"]:
                await client.moderations.create(**body)
    async with mistralai.client.Mistral(api_key=KEY, server_url=url.removesuffix("/v1")) as sdk:
        for _, _, body in ours:
            if body["model"] == MODELS["mistral"]:
                await sdk.classifiers.moderate_async(inputs=body["input"], model=body["model"])
    assert sorted(ours, key=str) == sorted(server.asked, key=str)
    assert {path for path, _, _ in ours} == {"/v1/moderations"}
    for name in MODELS:
        asked = [body["input"] for _, _, body in ours if body["model"] == MODELS[name]]
        assert asked[:2] == texts[:2]
        assert [len(each) for each in asked[2:]] == [32_768, 40_000 - 32_768]
    for _, _, body in ours:
        if body["model"] == MODELS["openai"]:
            assert pydantic.TypeAdapter(ModerationCreateParams).validate_python(body) == body
        else:
            assert ClassificationRequest.model_validate(body).model_dump(by_alias=True) == body


@on_both_loops
@pytest.mark.parametrize("name", MODELS)
async def test_the_documented_answer_of_a_moderation_stops_or_flags(net: Net, tmp_path: Path, name: str) -> None:
    category, score = FOUND[name]
    gateway, server = await moderated(net, tmp_path, "stop")
    fine = {"model": f"of-{name}", "query": "Hi"}
    assert (await gateway.ask("POST", NATIVE, fine)).text == server.said
    refused = await gateway.ask("POST", NATIVE, {**fine, "query": BAD})
    assert (refused.status, refused.error["reason"], refused.error["guard"]) == (400, "guard", f"policy-{name}")
    assert len(server.chats) == 1
    server.said = f"Well. {BAD}"
    stopped = await gateway.ask("POST", NATIVE, fine)
    assert stopped.types == ["start", "safety", "finish", "done"]
    found = {"category": category, "action": "stop", "score": score, "guard": f"policy-{name}", "on": "output"}
    assert stopped.events[1]["safety"] == found
    assert stopped.events[2]["finish_reason"] == "content_filter"
    flagging, server = await moderated(net, tmp_path, "flag")
    server.said = f"Well. {BAD}"
    response = await flagging.ask("POST", NATIVE, {**fine, "query": BAD})
    assert response.text == server.said
    told = [each["safety"] for each in response.events if each["type"] == "safety"]
    assert told == [{**found, "action": "flag", "on": side} for side in ("input", "output")]


@on_uvloop
async def test_a_threshold_of_the_file_counts_by_the_documented_scores(net: Net, tmp_path: Path) -> None:
    """Above both scores of the categories that are named, nothing is found; `harassment` still counts by its flag."""
    gateway, _ = await moderated(
        net, tmp_path, "flag", "threshold = {violence = 1.0, 'violence/graphic' = 0.9, harassment = 0.5}"
    )
    response = await gateway.ask("POST", NATIVE, {"model": "of-openai", "query": BAD})
    (told,) = [each["safety"] for each in response.events if each["type"] == "safety"]
    assert (told["category"], told["score"]) == ("harassment", 0.819)
    # Mistral has no such categories: what is asked for cannot be read, and a guard that flags lets the text pass.
    response = await gateway.ask("POST", NATIVE, {"model": "of-mistral", "query": BAD})
    assert [each["guard"] for each in response.events if each["type"] == "warning"] == ["policy-mistral"]
    assert net.warned("has no score for 'violence', which `threshold` names") >= 1
