"""The form of sealed values, judged by the vectors of the GCM specification and by the documented layout."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import stat
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gai_fast.model.settings import SealSettings, Secret
from gai_fast.stores import seals as module
from gai_fast.stores.backend import Record, StoreError
from gai_fast.stores.seals import FRAMES, OVERHEAD, Seals, digest_of, is_sealed, place_of

KEYS = [bytes([number]) * 32 for number in range(3)]


def settings(*keys: bytes, required: bool = False) -> SealSettings:
    return SealSettings(tuple(Secret(b64encode(key).decode()) for key in keys), required=required)


async def seals(*keys: bytes) -> Seals:
    made = Seals(settings(*keys))
    await made.load()
    return made


K = "feffe9928665731c6d6a8f9467308308" * 2
P = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
)
C = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
)
# McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to 16: key, nonce, associated data, text,
# sealed text, tag.
VECTORS = [
    ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    ("00" * 32, "00" * 12, "", "00" * 16, "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"),
    (K, "cafebabefacedbaddecaf888", "", P, C, "b094dac5d93471bdec1a502270e3cc6c"),
    (
        K,
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        P[:120],
        C[:120],
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]


@pytest.mark.parametrize("vector", VECTORS, ids=["13", "14", "15", "16"])
async def test_the_vectors_of_the_specification_are_sealed_and_opened(vector: tuple[str, ...]) -> None:
    key, nonce, place, value, text, tag = map(bytes.fromhex, vector)
    made = await seals(key)
    made._writer, made._count = nonce[:8], int.from_bytes(nonce[8:], "big")
    sealed = made.seal(place, value)
    assert sealed[9:] == nonce + text + tag
    assert made.open(place, sealed) == value


@pytest.mark.parametrize("vector", VECTORS, ids=["13", "14", "15", "16"])
async def test_a_vector_with_one_changed_bit_is_damaged(vector: tuple[str, ...]) -> None:
    key, _, place, value, _, _ = map(bytes.fromhex, vector)
    made = await seals(key)
    sealed = made.seal(place, value)
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreError) as refused:
            made.open(place, bytes(changed))
        assert refused.value.fault == "damaged"
    assert made.open(place, sealed) == value
    assert (made.errors, made.is_short) == (0, False)


@pytest.mark.parametrize("length", [0, 1, 20, 36, -1])
async def test_a_value_that_is_cut_is_damaged(length: int) -> None:
    made = await seals(KEYS[0])
    with pytest.raises(StoreError, match="damaged"):
        made.open(b"", made.seal(b"", b"word")[:length])


async def test_the_form_is_the_documented_one() -> None:
    made = await seals(KEYS[1])
    caller = hashlib.sha256(b"alice").digest()
    assert digest_of("alice") == caller
    place = place_of("log.frames", "a-stream", caller, after=3, number=5)
    assert place == b"\x01\x00" + (3).to_bytes(8, "big") + (5).to_bytes(8, "big") + caller + b"\x0alog.framesa-stream"
    assert place_of("log.end", "s", is_last=True) == b"\x01\x01" + bytes(16) + bytes(32) + b"\x07log.ends"
    sealed = made.seal(place, b"a text")
    assert (sealed[:1], sealed[1:9]) == (b"\x01", hmac.digest(KEYS[1], b"gai-fast key id", "sha256")[:8])
    assert len(sealed) == len(b"a text") + OVERHEAD
    opened = Cipher(algorithms.AES(KEYS[1]), modes.GCM(sealed[9:21], sealed[-16:])).decryptor()
    opened.authenticate_additional_data(place)
    assert opened.update(sealed[21:-16]) + opened.finalize() == b"a text"


async def test_the_frames_of_a_log_are_sealed_for_their_places() -> None:
    made = await seals(KEYS[0])
    made.seal(b"", b"")
    made._count = (1 << 32) - 1  # the second record begins a writer
    records = [Record(0, 3, b"one"), Record(3, 5, b"two")]
    sealed = made.seal_frames("a-\udc00stream", digest_of("alice"), records)
    assert [(each.after, each.last_seq) for each in sealed] == [(0, 3), (3, 5)]
    for record, each in zip(records, sealed, strict=True):
        place = place_of(FRAMES, "a-\udc00stream", digest_of("alice"), record.after, record.last_seq)
        assert made.open(place, each.piece) == record.piece
    first, second = (each.piece[9:21] for each in sealed)
    assert (first[8:], second[8:], first[:8] == second[:8]) == (b"\xff" * 4, bytes(4), False)
    with pytest.raises(StoreError, match="add it to `keys`"):
        Seals(settings()).seal_frames("s", digest_of(""), records)


async def test_no_nonce_is_used_twice_also_when_the_count_is_full() -> None:
    made = await seals(KEYS[0])
    first = made.seal(b"", b"")[9:21]
    assert made.seal(b"", b"")[9:21] == first[:8] + b"\0\0\0\1"
    made._count = (1 << 32) - 1
    last, next_one = made.seal(b"", b"")[9:21], made.seal(b"", b"")[9:21]
    assert last == first[:8] + b"\xff\xff\xff\xff"
    assert next_one[:8] != first[:8]
    assert next_one[8:] == bytes(4)


async def test_a_worker_draws_its_own_bytes_after_the_fork() -> None:
    made = await seals(KEYS[0])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, made.seal(b"", b"")[9:21])
        os._exit(0)
    drawn = os.read(read, 12)
    os.waitpid(child, 0)  # noqa: ASYNC222  # it has written, and ends
    assert drawn[:8] != made.seal(b"", b"")[9:17]
    os.close(read)
    os.close(write)


async def test_the_first_key_seals_and_all_open() -> None:
    old, both = await seals(KEYS[0]), await seals(KEYS[1], KEYS[0])
    sealed = old.seal(b"", b"word")
    assert both.open(b"", sealed) == b"word"
    assert not both.is_current(sealed)
    assert both.is_current(both.seal(b"", b"word"))
    with pytest.raises(StoreError) as refused:
        old.open(b"", both.seal(b"", b"word"))
    assert refused.value.fault == "sealed"
    assert (old.errors, old.is_short) == (1, True)
    await old.use(settings(*KEYS))
    assert (old.errors, old.is_short, len(old)) == (1, False, 3)


@pytest.mark.parametrize(
    "text", ["", "short", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode(), "é" * 43 + "=", "!" * 44]
)
async def test_keys_that_cannot_be_used_change_nothing(text: str) -> None:
    made = await seals(KEYS[0])
    sealed = made.seal(b"", b"word")
    with pytest.raises(StoreError, match="32 bytes in base64") as refused:
        await made.use(SealSettings((Secret(text),)))
    assert not text or text not in str(refused.value)
    assert made.open(b"", sealed) == b"word"


async def test_a_store_that_is_sealed_stays_so() -> None:
    made = await seals(KEYS[0])
    with pytest.raises(StoreError, match="there are no keys any more"):
        await made.use(SealSettings())
    assert len(made) == 1


def program(folder: Path, body: str) -> tuple[str, ...]:
    path = folder / "keys"
    path.write_text(f"#!{sys.executable} -S\n{body}\n")
    path.chmod(stat.S_IRWXU)
    return (str(path),)


async def test_a_program_prints_the_keys(tmp_path: Path) -> None:
    lines = [b64encode(key).decode() for key in (*KEYS, KEYS[0])]
    made = Seals(SealSettings(command=program(tmp_path, f"print(*{lines}, sep=chr(10))")))
    await made.load()
    assert len(made) == len(KEYS)
    assert made.is_current((await seals(KEYS[0])).seal(b"", b""))


async def test_a_slow_program_does_not_replace_the_keys_of_a_later_reload(tmp_path: Path) -> None:
    old, new = (b64encode(key).decode() for key in KEYS[:2])
    made = Seals(SealSettings())
    slow = program(tmp_path, f"import time; time.sleep(0.5); print('{old}')")
    await asyncio.gather(made.use(SealSettings(command=slow)), made.use(SealSettings((Secret(new),))))
    assert made.is_current((await seals(KEYS[1])).seal(b"", b""))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("print('secret')", "a key is not 32 bytes"),
        ("pass", "`command` prints no key"),
        ("raise SystemExit(4)", "`command` exited with code 4: run it by hand"),
        ("print('secret ' * 17)", "`command` prints more than 16 keys"),
        ("print('s' * 5000)", "`command` prints more than 4096 bytes"),
    ],
)
async def test_a_program_that_prints_no_keys_is_told(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(StoreError) as refused:
        await Seals(SealSettings(command=program(tmp_path, body))).load()
    assert told in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(StoreError, match=r"install gai-fast\[seal\]"):
        await seals(KEYS[0])


def test_no_plain_value_of_a_log_has_the_form() -> None:
    plain = [b"", b'{"seq":1}' * 9, b"id: s.1\ndata: {}\n\n" * 9, b"=text" * 9, b"+" * 40, b"-", b'["worker"' * 9]
    assert not any(map(is_sealed, plain))
    assert module.VERSION == 1
