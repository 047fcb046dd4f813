"""Sealed stores: no word is in them, each kind of damage is refused, and keys are changed while they are used."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gai_fast.cli.mock.command import Mock
from gai_fast.model.errors import Error
from gai_fast.model.settings import CacheSettings, KeySettings, SealSettings, StoreSettings, key_digest
from gai_fast.runtime.timers import TimerWheel
from gai_fast.stores import Claim, Ending, LogHeader, Store, StoreError, StreamLog, open_backend, open_store
from gai_fast.stores.backend import CLAIMS, IDS, SEAL, Backend, Gap, Record
from gai_fast.stores.sealed import SealedBackend
from tests.integration.gateway import QUERY, Net
from tests.integration.processes import run_forked, serving
from tests.integration.stores.changes import changed
from tests.integration.stores.conftest import MakeBackend
from tests.integration.stores.sealing import (
    KEYS,
    Tampered,
    content_of,
    flipped,
    forms_of,
    in_text,
    sealed_with,
    with_piece,
)
from tests.integration.stores.test_serve import (
    BODY,
    address_of,
    folder,
    frames,
    get,
    streaming,
)
from tests.integration.test_cache import ON, ask, result_of
from tests.integration.test_cli import gai
from tests.waiting import until_answered

__all__ = ["folder"]

Open = Callable[..., Any]
PLAIN = SealSettings()
ADMIN = "an-admin-key-of-the-tests"
WORDS = ["Zebrafähre-of-the-caller", "kennwort-of-metadata", "chat-geheimnis-7", "idempotenz-wort-9", "end-nutzer-3"]
"""What a caller writes into a request."""
SAID = [" carried", " another,"]
"""What the model says."""


@pytest.fixture
def server(request: pytest.FixtureRequest, url: str) -> Any:
    return request.getfixturevalue("redis_server") if url.startswith("redis") else None


@pytest.fixture
async def open_at(url: str) -> AsyncIterator[Open]:
    made: list[Store] = []

    async def open_at(encryption: SealSettings = PLAIN, **options: Any) -> Store:
        settings = StoreSettings(url, encryption=encryption, **options)
        made.append(open_store(settings, TimerWheel(asyncio.get_running_loop()), claim_ttl=60))
        await made[-1].open()
        return made[-1]

    yield open_at
    for store in made:
        await store.close()


def begin(store: Store, stream_id: str = "s", caller: str = "alice") -> StreamLog:
    return store.create(LogHeader(stream_id, caller, "m", "gai", "ndjson"))


FINISHED = Ending("finished", "stop", {"input_tokens": 1})


def frame(seq: int, text: str = "x") -> bytes:
    return json.dumps({"type": "text.delta", "seq": seq, "text": text}, separators=(",", ":")).encode() + b"\n"


async def written(store: Store, stream_id: str = "s", caller: str = "alice", records: int = 4) -> bytes:
    """Writes a whole log with some records; returns its bytes."""
    log = begin(store, stream_id, caller)
    backend = store._backend
    assert backend is not None
    for seq in range(1, records + 1):
        log.append(frame(seq, f"{stream_id}{seq}"), seq)
        await until_stored(backend, stream_id, seq)
    log.end(FINISHED)

    async def is_ended() -> bool:
        news = (await backend.tail({stream_id: records}, 0.0)).get(stream_id)
        return news is not None and news.ending is not None

    await until_answered(is_ended)
    return b"".join(log.read(0, 10**9).pieces)


async def until_stored(backend: Backend, stream_id: str, seq: int) -> None:
    async def is_stored() -> bool:
        copy = await backend.load(stream_id)
        return copy is not None and any(record.last_seq >= seq for record in copy.news.records)

    await until_answered(is_stored)


def text_of(log: StreamLog) -> bytes:
    return b"".join(log.read(0, 10**9).pieces)


# ---- no word ---------------------------------------------------------------------------------------------------------


async def talk(net: Net, mock: Mock, url: str, encryption: SealSettings) -> None:
    """Leaves all that a caller can leave in a store."""
    gateway = await net.gateway(mock, url=url, encryption=encryption, cache=CacheSettings(ttl=600.0))
    messages = [{"role": "user", "content": WORDS[0]}]
    native = {
        "model": "m",
        "messages": messages,
        "metadata": {"note": WORDS[1]},
        "user": WORDS[4],
        "resumable": True,
    }
    headers = {"idempotency-key": WORDS[3], **ON}
    for _ in range(2):
        assert (await gateway.ask("POST", "/api/v1/stream", native, headers)).status == 200
    chat = {"model": "m", "messages": messages, "stream": True, "user": WORDS[4]}
    assert (await gateway.ask("POST", "/v1/chat/completions", chat, {"idempotency-key": WORDS[3] + "2"})).status == 200
    vercel = {"id": WORDS[2], "messages": [{"role": "user", "parts": [{"type": "text", "text": WORDS[0]}]}]}
    assert (await gateway.ask("POST", "/api/v1/chat?model=m", vercel)).status == 200
    broken = {**native, "model": "none-of-them"}
    assert (await gateway.ask("POST", "/api/v1/stream", broken)).status == 404
    await asyncio.sleep(0.2)  # the last batch
    await gateway.running.close()


async def leave(url: str, encryption: SealSettings) -> None:
    """Leaves words in every place of a store that may have some."""
    backend = open_backend(StoreSettings(url, encryption=encryption))
    assert backend is not None
    await backend.open()
    caller, request_id, text, error, tool = WORDS
    header = LogHeader("of-words", caller, "m", "gai", "ndjson", request_id=request_id)
    ending = Ending("failed", error={"code": "internal", "message": error})
    gap = Gap(1, text, is_whole=True)
    records = [Record(1, 2, json.dumps({"type": "tool_call.start", "name": tool}, ensure_ascii=False).encode())]
    await backend.write([changed("of-words", header, "worker", keep=60.0, caller=caller)])
    await backend.write([changed("of-words", gap=gap, caller=caller)])
    await backend.write([changed("of-words", records=records, ending=ending, last_seq=2, keep=60.0, caller=caller)])
    for kind in (CLAIMS, "answer", "key"):
        await backend.put(kind, "name", "\n".join(WORDS).encode(), 60)
    await backend.put(CLAIMS, f"{WORDS[3]} of a name", b"value", 60)
    await backend.close()


@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "plain"])
async def test_no_word_of_a_caller_or_a_model_is_in_a_sealed_store(
    net: Net, url: str, server: Any, *, is_sealed: bool
) -> None:
    mock = await net.mock(deltas=20)
    encryption = sealed_with(0) if is_sealed else PLAIN
    await talk(net, mock, url, encryption)
    await leave(url, encryption)
    content = content_of(url, server)
    found = {word for word in [*WORDS, *SAID] if any(form in content for form in forms_of(word))}
    assert found == (set() if is_sealed else {*WORDS, *SAID}), "a plain store shows that the scan finds what is there"


# ---- damage ----------------------------------------------------------------------------------------------------------

Damage = Callable[[Tampered, Tampered], None]
"""Changes a log; the other one is of another stream of the same caller."""


def nothing(_log: Tampered, _other: Tampered) -> None:
    pass


def piece(number: int, change: Callable[[bytes], bytes]) -> Damage:
    def damage(log: Tampered, _other: Tampered) -> None:
        log.records[number] = with_piece(log.records[number], change(log.records[number].piece))

    return damage


def swapped_within(log: Tampered, _other: Tampered) -> None:
    first, second = log.records[1], log.records[2]
    log.records[1:3] = [with_piece(first, second.piece), with_piece(second, first.piece)]


def swapped_between(log: Tampered, other: Tampered) -> None:
    log.records[1] = other.records[1]


def all_of_another(log: Tampered, other: Tampered) -> None:
    log.records, log.ending = other.records, other.ending


def replayed(log: Tampered, _other: Tampered) -> None:
    log.records[2] = with_piece(log.records[2], log.records[1].piece)


def deleted(log: Tampered, _other: Tampered) -> None:
    del log.records[1]


def deleted_and_closed(log: Tampered, _other: Tampered) -> None:
    del log.records[1]
    log.records[1] = replace(log.records[1], after=log.records[0].last_seq)


def after_no_event(log: Tampered, _other: Tampered) -> None:
    log.records[1] = replace(log.records[1], after=-1)


def first_left_out(log: Tampered, _other: Tampered) -> None:
    del log.records[0]


def last_left_out(log: Tampered, _other: Tampered) -> None:
    del log.records[-1]


def last_omitted_and_reported(log: Tampered, _other: Tampered) -> None:
    del log.records[-1]
    log.last_seq = log.records[-1].last_seq
    assert log.ending is not None
    log.ending = log.ending._replace(error={**(log.ending.error or {}), "last_seq": log.last_seq})


def end_of_another(log: Tampered, other: Tampered) -> None:
    log.ending = other.ending


def plain_end(log: Tampered, _other: Tampered) -> None:
    log.ending = Ending("finished", "stop")


def changed_end(log: Tampered, _other: Tampered) -> None:
    assert log.ending is not None
    outer = dict(log.ending.error or {})
    outer["sealed"] = in_text(str(outer["sealed"]), lambda sealed: flipped(sealed, 40))
    log.ending = log.ending._replace(error=outer)


def plain_record(log: Tampered, _other: Tampered) -> None:
    log.records[1] = with_piece(log.records[1], frame(2, "planted"))


def header_of_another(log: Tampered, other: Tampered) -> None:
    log.header = log.header._replace(request_id=other.header.request_id)


def other_caller(log: Tampered, _other: Tampered) -> None:
    log.header = log.header._replace(caller="00" * 32)


def other_worker(log: Tampered, _other: Tampered) -> None:
    log.worker += "x"


def plain_header(log: Tampered, _other: Tampered) -> None:
    log.header = LogHeader(log.header.stream_id, "mallory", "m", "gai", "ndjson")


DAMAGES: dict[str, Damage] = {
    "a flipped bit of the version": piece(1, lambda sealed: flipped(sealed, 0)),
    "a flipped bit of the key's id": piece(1, lambda sealed: flipped(sealed, 5)),
    "a flipped bit of the nonce": piece(1, lambda sealed: flipped(sealed, 10)),
    "a flipped bit of the text": piece(1, lambda sealed: flipped(sealed, 30)),
    "a flipped bit of the tag": piece(1, lambda sealed: flipped(sealed, -1)),
    "a record that is cut": piece(1, lambda sealed: sealed[:-3]),
    "a record that is cut to its head": piece(1, lambda sealed: sealed[:21]),
    "two records swapped": swapped_within,
    "a record of another stream": swapped_between,
    "all records of another stream": all_of_another,
    "a record under another number": replayed,
    "a record left out": deleted,
    "a record left out, and the next one moved to its place": deleted_and_closed,
    "a record after a number below zero": after_no_event,
    "the first record left out": first_left_out,
    "the last record left out": last_left_out,
    "the last record left out, and the end says so": last_omitted_and_reported,
    "the end of another stream": end_of_another,
    "a plain end": plain_end,
    "a changed end": changed_end,
    "a plain record": plain_record,
    "the header of another stream": header_of_another,
    "another caller": other_caller,
    "another worker": other_worker,
    "a plain header": plain_header,
}


async def tampered(inner: Backend, stream_id: str) -> Tampered:
    copy = await inner.load(stream_id)
    assert copy is not None
    return Tampered(copy)


@pytest.mark.parametrize("name", DAMAGES)
async def test_what_is_damaged_is_an_error_and_never_text(open_at: Open, make_backend: MakeBackend, name: str) -> None:
    inner = make_backend()
    await inner.open()
    store = await open_at(sealed_with(0))
    said = {each: await written(store, each) for each in ("s", "t", "u")}
    other = await tampered(inner, "t")
    for stream_id, damage in (("s", DAMAGES[name]), ("u", nothing)):
        log = await tampered(inner, stream_id)
        damage(log, other)
        await log.write(inner)
    reader = await open_at(sealed_with(0))
    try:
        log = await reader.find("s")
    except Error as error:
        refused, text = error, b""
    else:
        assert log is not None
        assert log.ending is None
        assert log.broken is not None
        refused, text = log.broken, text_of(log)
    assert (refused.code, refused.reason) == ("internal", "log_damaged")
    assert said["s"].startswith(text)
    assert b"planted" not in text
    twin = await reader.find("u")
    assert twin is not None
    assert (twin.ending, text_of(twin)) == (FINISHED, said["u"])


async def test_a_log_without_its_end_reads_as_one_whose_worker_died(open_at: Open, make_backend: MakeBackend) -> None:
    inner = make_backend()
    await inner.open()
    store = await open_at(sealed_with(0))
    await written(store)
    log = await tampered(inner, "s")
    log.ending = None
    await log.write(inner)
    await store.close()
    reader = await open_at(sealed_with(0))
    found = await reader.find("s")
    assert found is not None
    assert found.broken is not None
    assert found.broken.reason == "worker_lost"


async def test_the_text_of_dropped_events_is_sealed_and_none_of_it_can_be_left_out(
    open_at: Open, make_backend: MakeBackend
) -> None:
    inner = make_backend()
    await inner.open()
    store = await open_at(sealed_with(0), max_stream_bytes=16384)
    log = begin(store)
    for seq in range(1, 400):
        padded = frame(seq, f"planted{seq} ")[:-2] + b',"pad":"' + b"x" * 80 + b'"}\n'
        log.append(padded, seq)
        if seq % 40 == 0:
            await asyncio.sleep(0.05)
    log.end(FINISHED)
    backend = store._backend
    assert backend is not None

    async def is_ended() -> bool:
        copy = await backend.load("s")
        return copy is not None and copy.news.ending is not None

    await until_answered(is_ended)
    raw, opened = await inner.load("s"), await backend.load("s")
    assert raw is not None
    assert opened is not None
    assert opened.lost > 0
    assert (opened.text or "").startswith("planted1 ")
    tokens = (raw.text or "").split(";")[:-1]
    assert len(tokens) > 1
    cut = [tokens[1:], tokens[:-1], [*tokens[:-2], tokens[-1]], tokens[::-1]]
    for text in (*(";".join([*some, ""]) for some in cut), "=planted", ";".join(tokens), f"-1{tokens[0][1:]};"):
        changed = Tampered(raw)
        assert changed.gap is not None
        changed.gap = changed.gap._replace(text=text)
        await changed.write(inner)
        with pytest.raises(StoreError) as refused:
            await backend.load("s")
        assert refused.value.fault == "damaged"
    await Tampered(raw).write(inner)
    twin = await backend.load("s")
    assert twin is not None
    assert twin.text == opened.text


@pytest.mark.parametrize("kind", [CLAIMS, "key"])
async def test_a_damaged_or_moved_record_is_an_error(open_at: Open, make_backend: MakeBackend, kind: str) -> None:
    inner = make_backend()
    await inner.open()
    store = await open_at(sealed_with(0))
    backend = store._backend
    assert isinstance(backend, SealedBackend)
    await backend.put(kind, "one", b"value of one", 60)
    await backend.put(kind, "two", b"value of two", 60)
    [one], [two] = [(await backend._places(kind, name))[:1] for name in ("one", "two")]
    assert (one == "one") == (kind != CLAIMS)
    raws = [await inner.get(kind, place) for place in (one, two)]
    assert all(raw is not None and b"value" not in raw for raw in raws)
    for raw in (flipped(raws[0] or b"", 30), (raws[0] or b"")[:-1], raws[1] or b""):
        await inner.put(kind, one, raw, 60)
        with pytest.raises(StoreError) as refused:
            await backend.get(kind, "one")
        assert refused.value.fault == "damaged"
        with pytest.raises(StoreError):
            await backend.swap(kind, "one", None, b"new", 60)
    await inner.put(kind, one, raws[0] or b"", 60)
    assert await backend.get(kind, "one") == b"value of one"
    assert await backend.swap(kind, "one", b"value of one", b"another", 60) == b"value of one"
    assert await backend.swap(kind, "one", b"value of one", b"third", 60) == b"another"
    assert not await backend.delete(kind, "one", b"third")
    assert await backend.delete(kind, "one", b"another")
    assert await backend.get(kind, "one") is None


async def test_races_for_a_sealed_record_have_one_winner(open_at: Open) -> None:
    one, other = (await open_at(sealed_with(0)))._backend, (await open_at(sealed_with(0)))._backend
    for number in range(30):
        backends = [one, other] * 3
        values = [f"{number}-{index}".encode() for index in range(len(backends))]
        found = await asyncio.gather(
            *(
                backend.swap(CLAIMS, f"{number}", None, value, 60)
                for backend, value in zip(backends, values, strict=True)
            )
        )
        [winner] = [value for value, before in zip(values, found, strict=True) if before is None]
        assert {before for before in found if before is not None} <= {winner}
        assert await other.get(CLAIMS, f"{number}") == winner


# ---- idempotency and the cache ---------------------------------------------------------------------------------------


async def test_a_damaged_idempotency_record_is_refused_and_nothing_is_generated_again(
    net: Net, url: str, make_backend: MakeBackend
) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock, url=url, encryption=sealed_with(0))
    body, headers = {**QUERY, "model": "m"}, {"idempotency-key": "k"}
    assert (await gateway.ask("POST", "/api/v1/stream", body, headers)).status == 200
    again = await gateway.ask("POST", "/api/v1/stream", body, headers)
    assert again.headers["idempotent-replayed"] == "true"
    inner = make_backend()
    await inner.open()
    [place] = await names_of(inner, url, CLAIMS)
    raw = await inner.get(CLAIMS, place)
    assert raw is not None
    await inner.put(CLAIMS, place, flipped(raw, 30), 60)
    refused = await gateway.ask("POST", "/api/v1/stream", body, headers)
    assert (refused.status, refused.json["error"]["reason"]) == (500, "log_damaged")
    await inner.put(CLAIMS, place, raw, 60)
    assert (await gateway.ask("POST", "/api/v1/stream", body, headers)).headers["idempotent-replayed"] == "true"
    assert len(mock.requests) == 1


async def names_of(inner: Any, url: str, kind: str) -> list[str]:
    """Returns the names of all records of a kind, as the store has them."""
    if url.startswith("sqlite"):
        rows = await inner.look(lambda connection: connection.execute("SELECT key FROM claims").fetchall())
        names = [name for (name,) in rows]
        return [
            name
            for name in names
            if (":" in name) == (kind != CLAIMS) and name.startswith(f"{kind}:") == (kind != CLAIMS)
        ]
    found = await inner.client.command("KEYS", f"gai:{kind}:*")
    return [each.decode().partition(f"gai:{kind}:")[2] for each in found]


async def test_a_damaged_cached_answer_is_a_miss(net: Net, url: str, make_backend: MakeBackend) -> None:
    mock = await net.mock(deltas=3)
    kept = CacheSettings(ttl=600.0)
    one = await net.gateway(mock, url=url, encryption=sealed_with(0), cache=kept)
    assert result_of(await ask(one)) == "miss"
    inner = make_backend()
    await inner.open()
    found: list[str] = []

    async def is_there() -> bool:
        found[:] = [
            each.partition(":")[2] if url.startswith("sqlite") else each
            for each in await names_of(inner, url, "answer")
        ]
        return bool(found)

    await until_answered(is_there)
    other = await net.gateway(mock, url=url, encryption=sealed_with(0), cache=kept)
    assert result_of(await ask(other)) == "hit"
    raw = await inner.get("answer", found[0])
    assert raw is not None
    await inner.put("answer", found[0], flipped(raw, 30), 60)
    third = await net.gateway(mock, url=url, encryption=sealed_with(0), cache=kept)
    response = await ask(third)
    assert (response.status, result_of(response)) == (200, "miss")
    assert len(mock.requests) == 2


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encryption", [PLAIN, sealed_with(1)], ids=["no key", "another key"])
async def test_a_store_whose_key_is_missing_is_refused_and_said_so(
    net: Net, url: str, server: Any, encryption: SealSettings
) -> None:
    mock = await net.mock(deltas=3)
    gateway = await net.gateway(mock, url=url, encryption=sealed_with(0))
    body = {**QUERY, "model": "m", "resumable": True}
    response = await gateway.ask("POST", "/api/v1/stream", body, {"idempotency-key": "k"})
    stream_id = response.headers["x-gai-stream-id"]
    await asyncio.sleep(0.2)
    await gateway.running.close()

    gateway = await net.gateway(mock, url=url, encryption=encryption)
    refused = await gateway.ask("GET", f"/api/v1/streams/{stream_id}")
    assert (refused.status, refused.headers["x-should-retry"]) == (503, "false")
    error = refused.json["error"]
    assert (error["code"], error["reason"], error["temporary"]) == ("overloaded", "store_sealed", False)
    assert "retry-after" not in refused.headers
    messages = [{"role": "user", "content": "Hello"}]
    chat = {"model": "m", "messages": messages, "max_tokens": 10}
    for path, asked, status, member in (
        ("/api/v1/stream", body, 503, "reason"),
        ("/v1/chat/completions", chat, 503, "code"),
        ("/v1/responses", {"model": "m", "input": "Hello"}, 503, "code"),
        ("/v1/messages", chat, 529, "error_code"),
    ):
        refused = await gateway.ask("POST", path, asked, {"idempotency-key": "k"})
        assert (refused.status, refused.headers["x-should-retry"]) == (status, "false"), path
        error = refused.json["error"]
        assert {**error, **error.get("details", {})}[member] == "store_sealed"
    ready = await gateway.ask("GET", "/readyz")
    assert (ready.status, ready.json["store"]) == (200, "sealed")
    metrics = (await gateway.ask("GET", "/metrics")).body.decode()
    [count] = [line for line in metrics.splitlines() if line.startswith("gai_fast_store_sealed_errors_total ")]
    assert float(count.rpartition(" ")[2]) >= 5
    answered = await gateway.ask("POST", "/api/v1/stream", body)
    assert answered.types[-2:] == ["finish", "done"], "a stream does not depend on its store"
    await asyncio.sleep(0.2)
    await gateway.running.close()
    assert b'"text":"Once"' not in content_of(url, server), "nothing is ever written in plain"


async def test_keys_are_rotated_while_the_store_is_used(open_at: Open, make_backend: MakeBackend) -> None:
    inner = make_backend()
    await inner.open()
    store = await open_at(sealed_with(0))
    said = await written(store)
    backend = store._backend
    assert isinstance(backend, SealedBackend)
    await backend.put("key", "alice", b"digest", None)
    await backend.put(IDS, "ids", b"1" * 16, 60)
    assert await store.claim("k", Claim("s", "f", 1)) is None
    before = {name: await inner.get(*name) for name in ((SEAL, "names"), ("key", "alice"), (IDS, "ids"))}

    await store.rotate(sealed_with(1, 0))
    ids = {name: (raw or b"")[1:9] for name in before if (raw := await inner.get(*name))}
    assert ids[SEAL, "names"] == ids["key", "alice"] != (before[SEAL, "names"] or b"")[1:9]
    assert ids[IDS, "ids"] == (before[IDS, "ids"] or b"")[1:9], "what has a time to live is not sealed anew"
    again = await written(store, "t")
    assert (await store.find_claim("k") or Claim("", "")).stream_id == "s", "the names of keys do not change"

    reader = await open_at(sealed_with(1))
    assert await reader._backend.get("key", "alice") == b"digest"
    log = await reader.find("t")
    assert log is not None
    assert text_of(log) == again
    with pytest.raises(Error) as refused:
        await reader.find("s")
    assert refused.value.reason == "store_sealed"
    assert reader.is_sealed
    await reader.rotate(sealed_with(1, 0))
    assert not reader.is_sealed
    old = await reader.find("s")
    assert old is not None
    assert text_of(old) == said


async def test_a_store_that_has_lost_everything_gets_its_key_of_the_names_back(
    open_at: Open, make_backend: MakeBackend
) -> None:
    inner = make_backend()
    await inner.open()
    old = await open_at(sealed_with(0))
    assert await old.claim("k", Claim("s", "f", 1)) is None
    await inner.delete(SEAL, "names")
    await inner.give_up(old.worker)

    async def is_back() -> bool:
        return await inner.get(SEAL, "names") is not None

    await until_answered(is_back)
    new = await open_at(sealed_with(0))
    assert (await new.find_claim("k") or Claim("", "")).stream_id == "s", "else it would be answered twice"


async def test_a_damaged_key_of_the_names_ends_the_start_which_says_what_to_do(
    open_at: Open, make_backend: MakeBackend
) -> None:
    inner = make_backend()
    await inner.open()
    store = await open_at(sealed_with(0))
    assert await store.claim("k", Claim("s", "f", 1)) is None
    raw = await inner.get(SEAL, "names")
    assert raw is not None
    await inner.put(SEAL, "names", flipped(raw, 30), None)
    with pytest.raises(StoreError) as refused:
        await open_at(sealed_with(0))
    assert refused.value.fault == "damaged"
    assert str(refused.value) == (
        "its record `seal:names`, by which idempotency keys are found, is damaged: put it back, or remove it, which"
        " frees those keys"
    )
    await inner.put(SEAL, "names", raw, None)
    assert (await (await open_at(sealed_with(0))).find_claim("k") or Claim("", "")).stream_id == "s"


async def test_processes_agree_on_the_key_of_the_names_after_a_loss(open_at: Open, make_backend: MakeBackend) -> None:
    inner = make_backend()
    await inner.open()
    old = await open_at(sealed_with(0))
    assert await old.claim("of before", Claim("s", "f", 1)) is None
    await inner.delete(SEAL, "names")
    new = await open_at(sealed_with(0))
    assert await new.claim("k", Claim("t", "f", 1)) is None
    await inner.give_up(old.worker)

    async def is_found() -> bool:
        found = await old.find_claim("k")
        return found is not None and found.stream_id == "t"

    await until_answered(is_found)


async def test_what_has_no_time_to_live_is_sealed_with_the_first_key_at_the_start(
    open_at: Open, make_backend: MakeBackend
) -> None:
    inner = make_backend()
    await inner.open()
    await inner.put("key", "of before", b"digest", None)
    store = await open_at(sealed_with(0))
    raw = await inner.get("key", "of before")
    assert raw is not None
    assert b"digest" not in raw
    assert sorted(await store._backend.lasting()) == [("key", "of before")]
    await open_at(sealed_with(1, 0))
    assert (await inner.get("key", "of before") or b"")[1:9] != raw[1:9]


async def test_keys_that_cannot_be_used_are_logged_and_change_nothing(
    open_at: Open, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_at(sealed_with(0))
    said = await written(store)
    await store.rotate(SealSettings(command=("/no/such/program",)))
    await store.rotate(PLAIN)
    assert [record.getMessage() for record in caplog.records] == [
        "the keys of the store are not changed: [store.encryption]: `command` cannot be run: No such file or directory:"
        " run it by hand",
        "the keys of the store are not changed: [store.encryption]: there are no keys any more: a store that is sealed"
        " stays so",
    ]
    log = await (await open_at(sealed_with(0))).find("s")
    assert log is not None
    assert text_of(log) == said


async def test_a_plain_store_of_before_is_read_unless_sealing_is_required(open_at: Open) -> None:
    store = await open_at()
    said = await written(store)
    assert await store.claim("k", Claim("s", "f", 1)) is None
    await store.ids.add("alice", ["resp_1"])
    await store.close()

    reader = await open_at(sealed_with(0))
    log = await reader.find("s")
    assert log is not None
    assert (log.ending, text_of(log)) == (FINISHED, said)
    standing = await reader.claim("k", Claim("t", "f", 2))
    assert standing is not None
    assert standing.stream_id == "s"
    assert await reader.ids.missing("alice", ["resp_1"]) is None
    await reader.close()

    strict = await open_at(sealed_with(0, required=True))
    for asked in (strict.find("s"), strict.claim("k", Claim("t", "f", 2))):
        with pytest.raises(Error) as refused:
            await asked
        assert refused.value.reason == "log_damaged"


async def test_a_stream_that_began_before_there_were_keys_ends_as_it_began(
    open_at: Open, make_backend: MakeBackend
) -> None:
    store = await open_at()
    log = begin(store)
    log.append(frame(1), 1)
    backend = store._backend
    await until_stored(backend, "s", 1)
    await store.rotate(sealed_with(0))
    log.append(frame(2), 2)
    log.end(FINISHED)
    assert await written(store, "t")
    inner = make_backend()
    await inner.open()
    raw = await inner.load("s")
    assert raw is not None
    assert [record.piece for record in raw.news.records] == [frame(1), frame(2)]
    reader = await open_at(sealed_with(0))
    for stream_id in ("s", "t"):
        found = await reader.find(stream_id)
        assert found is not None
        assert found.ending == FINISHED


async def test_keys_of_callers_are_sealed_refused_without_their_key_and_sealed_anew(
    net: Net, url: str, server: Any, make_backend: MakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    admin = KeySettings("admin", (key_digest(ADMIN),), role="admin")
    as_admin = {"authorization": f"Bearer {ADMIN}"}
    gateway = await net.gateway(None, url=url, encryption=sealed_with(0), keys=(admin,))
    made = await gateway.ask("POST", "/admin/v1/keys", {"name": "geheimer-name"}, as_admin)
    assert made.status == 201, made.json
    as_caller = {"authorization": f"Bearer {made.json['secret']}"}
    assert (await gateway.ask("GET", "/v1/models", headers=as_caller)).status == 200
    await gateway.running.close()
    content = content_of(url, server)
    assert not any(form in content for word in ("geheimer-name", made.json["secret"]) for form in forms_of(word))

    for encryption in (PLAIN, sealed_with(1)):
        gateway = await net.gateway(None, url=url, encryption=encryption, keys=(admin,))
        refused = await gateway.ask("GET", "/v1/models", headers=as_caller)
        assert refused.status == 503, "never 401: the key may be a good one"
        assert refused.headers["x-should-retry"] == "false"
        refused = await gateway.ask("POST", "/admin/v1/keys", {"name": "geheimer-name"}, as_admin)
        assert (refused.status, refused.json["error"]["reason"]) == (503, "store_sealed")
        await gateway.running.close()
    assert caplog.text.count("that are not sealed again: 2: the store is sealed") == 1, "one line, not one a record"

    gateway = await net.gateway(None, url=url, encryption=sealed_with(1, 0), keys=(admin,))
    assert (await gateway.ask("GET", "/v1/models", headers=as_caller)).status == 200
    await gateway.running.close()
    gateway = await net.gateway(None, url=url, encryption=sealed_with(1), keys=(admin,))
    assert (await gateway.ask("GET", "/v1/models", headers=as_caller)).status == 200, "sealed anew at the start"


async def test_ids_of_a_plain_store_are_never_taken_for_sealed_ones(open_at: Open) -> None:
    store = await open_at(sealed_with(0))
    plain = b"\x01" + bytes(63)
    await store._backend._inner.put(IDS, "bucket", plain, 60)
    assert await store._backend.get(IDS, "bucket") == plain


# ---- servers ---------------------------------------------------------------------------------------------------------


def sealing(folder: Path, url: str, *numbers: int, more: str = "") -> None:
    """Writes a configuration with keys in files."""
    for number in numbers:
        (folder / f"kek{number}").write_text(KEYS[number] + "\n")
    names = ", ".join(f'"file:kek{number}"' for number in numbers)
    (folder / "gai-fast.toml").write_text(
        f'[server]\nport = 0\n[store]\nurl = "{url}"\n[store.encryption]\nkeys = [{names}]\n{more}'
    )


async def test_followers_of_a_killed_server_get_what_it_sealed_and_are_notified(folder: Path, url: str) -> None:
    sealing(folder, url, 0)
    async with gai("serve", cwd=folder) as first, streaming(await address_of(first)) as (stream_id, early, _):
        await asyncio.sleep(0.2)
        first.process.kill()
        await first.end()
    async with gai("serve", cwd=folder) as second:
        got = frames(await get(await address_of(second), f"/api/v1/streams/{stream_id}"))
    had = frames(early)
    shared = min(len(got) - 2, len(had) - 1)
    assert shared > 10
    assert got[:shared] == had[:shared]
    assert [event["type"] for _, event in got[-2:]] == ["error", "done"]


@pytest.mark.parametrize("workers", [1, 2])
async def test_keys_are_taken_on_sighup(net: Net, folder: Path, tmp_path: Path, workers: int) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    sealing(folder, url, 0)

    async def stored(server: Any) -> str:
        response = await server.ask("POST", "/api/v1/stream", {**QUERY, "model": "demo", "resumable": True})
        assert response.types[-1] == "done"
        return str(response.headers["x-gai-stream-id"])

    async with serving(net, folder, "--workers", str(workers)) as server:
        old = await stored(server)
        (folder / "kek1").write_text("no key")
        (folder / "gai-fast.toml").write_text(
            (folder / "gai-fast.toml").read_text().replace('"file:kek0"', '"file:kek1", "file:kek0"')
        )
        server.signal(signal.SIGHUP)
        result = await server.said("the configuration is not reloaded")
        assert "32 bytes in base64" in result
        assert "no key" not in result.replace("no key of", "")
        (folder / "kek1").write_text(KEYS[1])
        server.signal(signal.SIGHUP)
        await server.said("the configuration has been reloaded")
        await asyncio.sleep(0.5)
        new = await stored(server)
        assert (await server.ask("GET", f"/api/v1/streams/{old}")).status == 200
        server.signal()
        assert await server.ended() == 0
    sealing(folder, url, 1)
    async with serving(net, folder) as server:
        assert (await server.ask("GET", f"/api/v1/streams/{new}")).status == 200
        assert (await server.ask("GET", f"/api/v1/streams/{old}")).status == 503


async def test_every_worker_says_that_one_has_met_a_record_whose_key_is_missing(
    net: Net, folder: Path, url: str
) -> None:
    """Until a key is added. Half of all probes found nothing amiss."""

    async def ready(server: Any) -> list[str | None]:
        """Returns what each worker says of the store, twice."""
        answers = [await server.ask("GET", "/readyz") for _ in range(4)]
        assert {each.status for each in answers} == {200}
        return [each.json.get("store") for each in answers]

    async def all_say(server: Any, what: str | None) -> bool:
        return await ready(server) == [what] * 4

    sealing(folder, url, 0)
    async with serving(net, folder) as server:
        response = await server.ask("POST", "/api/v1/stream", {**QUERY, "model": "demo", "resumable": True})
        old = response.headers["x-gai-stream-id"]
    sealing(folder, url, 1, 0)
    async with serving(net, folder):
        pass
    sealing(folder, url, 1)
    async with serving(net, folder, "--workers", "2") as server:
        assert await ready(server) == [None] * 4
        assert (await server.ask("GET", f"/api/v1/streams/{old}")).status == 503
        await until_answered(lambda: all_say(server, "sealed"))
        sealing(folder, url, 1, 0)
        server.signal(signal.SIGHUP)
        await until_answered(lambda: all_say(server, None))
        assert (await server.ask("GET", f"/api/v1/streams/{old}")).status == 200


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('keys = ["file:kek0"]\ncommand = ["kms"]', "has `keys` beside `command`"),
        ("required = true", "is `required`, and has neither `keys` nor `command`"),
        ('keys = ["file:none"]', "none cannot be read: No such file or directory"),
        ('keys = ["file:short"]', "what file:short holds is no key of 32 bytes in base64"),
        ('keys = ["file:words"]', "what file:words holds is no key of 32 bytes in base64"),
        (f'keys = ["{KEYS[0]}"]', "a key itself does not belong in the file"),
        ('key = ["file:kek0"]', "has an unknown key 'key'; did you mean keys?"),
        ('keys = ["file:kek0"' + ', "file:kek0"' * 16 + "]", "has more than 16 `keys`"),
    ],
)
async def test_keys_that_cannot_be_used_are_mistakes_of_the_configuration(
    folder: Path, table: str, expected: str
) -> None:
    (folder / "kek0").write_text(KEYS[0])
    (folder / "short").write_text(KEYS[0][:40])
    (folder / "words").write_text("an open secret")
    (folder / "gai-fast.toml").write_text(f"[server]\nport = 0\n[store.encryption]\n{table}\n")
    code, output, errors = await run_forked("serve", cwd=folder)
    assert (code, output) == (2, "")
    assert expected in errors
    assert "open secret" not in errors
    assert KEYS[0] not in errors


@pytest.mark.parametrize(("where", "more"), [("sqlite:///{}/s.db", ""), ("memory://", "required = true\n")])
async def test_a_program_without_keys_ends_the_start(folder: Path, tmp_path: Path, where: str, more: str) -> None:
    table = f'[store.encryption]\ncommand = ["false"]\n{more}'
    (folder / "gai-fast.toml").write_text(f'[server]\nport = 0\n[store]\nurl = "{where.format(tmp_path)}"\n{table}')
    code, output, errors = await run_forked("serve", cwd=folder)
    assert (code, output) == (3, "")
    assert "[store.encryption]: `command` exited with code 1: run it by hand" in errors


async def test_the_checks_know_of_keys_and_seal_nothing(folder: Path, url: str) -> None:
    (folder / "gai-fast.toml").write_text(f'[server]\nport = 0\n[store]\nurl = "{url}"\n')
    async with gai("serve", cwd=folder) as server:
        await address_of(server)
    sealing(folder, url, 0)
    code, output, errors = await run_forked("doctor", "--json", cwd=folder)
    [found] = [each for each in json.loads(output) if each["name"] == "store"]
    assert found["status"] == "ok", (code, errors)
    assert found["detail"].endswith("can be read and written, sealed with the first of 1 keys")
    backend = open_backend(StoreSettings(url))
    assert backend is not None
    await backend.open()
    assert not backend.is_sealed, "a check makes no store sealed"
    await backend.close()
    async with gai("serve", cwd=folder) as server:
        assert b'"finished":true' in await get(await address_of(server), "/api/v1/stream", BODY)
        await asyncio.sleep(0.2)
    sealing(folder, url, 1)
    _, output, _ = await run_forked("doctor", "--json", cwd=folder)
    [found] = [each for each in json.loads(output) if each["name"] == "store"]
    assert found["status"] == "error"
    assert "sealed with a key" in found["detail"]
