"""The form of sealed values, judged by the vectors of the GCM specification and by the documented layout."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from base64 import b64decode

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gai_fast.stores._base import Ending, LogHeader
from gai_fast.stores.backend import (
    CopyChange,
    Record,
    StoreError,
    ending_text,
    header_text,
    read_ending,
    read_header,
)
from gai_fast.stores.limits import LIMITS
from gai_fast.stores.sealer import FRAMES, OVERHEAD, VERSION, Sealer, digest_of, is_sealed, place_of

KEYS = [bytes([number]) * 32 for number in range(2)]


def sealer(*keys: bytes) -> Sealer:
    made = Sealer()
    made.use_keys(keys)
    return made


def test_a_missing_key_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that it had sealed but what was refused lately may have expired."""
    made = sealer()
    made.refuse()
    now = time.monotonic()
    for later, is_short in ((LIMITS.seal_short - 1, True), (LIMITS.seal_short + 1, False)):
        monkeypatch.setattr(time, "monotonic", lambda later=later: now + later)
        assert made.is_short is is_short
    made.refuse()
    assert made.is_short


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
def test_the_vectors_of_the_specification_are_sealed_and_opened(vector: tuple[str, ...]) -> None:
    key, nonce, place, value, text, tag = map(bytes.fromhex, vector)
    made = sealer(key)
    made._writer, made._count = nonce[:8], int.from_bytes(nonce[8:], "big")
    sealed = made.seal(place, value)
    assert sealed[9:] == nonce + text + tag
    assert made.open(place, sealed) == value


@pytest.mark.parametrize("vector", VECTORS, ids=["13", "14", "15", "16"])
def test_a_vector_with_one_changed_bit_is_damaged(vector: tuple[str, ...]) -> None:
    key, _, place, value, _, _ = map(bytes.fromhex, vector)
    made = sealer(key)
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
def test_a_value_that_is_cut_is_damaged(length: int) -> None:
    made = sealer(KEYS[0])
    with pytest.raises(StoreError, match="damaged"):
        made.open(b"", made.seal(b"", b"word")[:length])


def test_the_form_is_the_documented_one() -> None:
    made = sealer(KEYS[1])
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


def test_the_frames_of_a_log_are_sealed_for_their_places() -> None:
    made = sealer(KEYS[0])
    made.seal(b"", b"")
    made._count = (1 << 32) - 1  # the second record begins a writer
    records = [Record(0, 3, b"one"), Record(3, 5, b"two")]
    sealed = made.seal_change(CopyChange("a-\udc00stream", records=records, caller="alice")).records
    assert [(each.after, each.last_seq) for each in sealed] == [(0, 3), (3, 5)]
    for record, each in zip(records, sealed, strict=True):
        place = place_of(FRAMES, "a-\udc00stream", digest_of("alice"), record.after, record.last_seq)
        assert made.open(place, each.piece) == record.piece
    first, second = (each.piece[9:21] for each in sealed)
    assert (first[8:], second[8:], first[:8] == second[:8]) == (b"\xff" * 4, bytes(4), False)
    with pytest.raises(StoreError, match="add it to `keys`"):
        Sealer().seal_change(CopyChange("s", records=records))


def test_header_and_end_of_a_log_are_the_documented_texts() -> None:
    """A server of another release reads them: JSON, with the sealed value in base64 where a text was."""
    made = sealer(KEYS[0])
    header = LogHeader("s", "alice", "a \u201cmodel\u201d\n", "gai", "sse", "full", "req_1", "0" * 32)
    ending = Ending("failed", None, {"output_tokens": 2}, {"code": "network"}, has_content=False)
    change = CopyChange("s", header, "w", ending=ending, last_seq=7, keep=60.0, caller="alice")
    written = made.seal_change(change)
    caller = digest_of("alice")
    assert written.header is not None
    outer, worker = read_header(header_text(written.header, "of no account"))
    assert (worker, outer._replace(request_id="")) == (
        "w",
        LogHeader("s", caller.hex(), header.model, "sealed", "sse"),
    )
    opened = made.open(place_of("log.header", "s", caller), b64decode(outer.request_id, validate=True))
    assert read_header(opened) == (header, "w")
    assert written.ending is not None
    end = read_ending(ending_text(written.ending))
    assert end.error is not None
    text = end.error["sealed"]
    assert end == Ending("failed", error={"sealed": text, "last_seq": 7})
    place = place_of("log.end", "s", caller, number=7, is_last=True)
    assert read_ending(made.open(place, b64decode(text, validate=True))) == ending


def test_no_nonce_is_used_twice_also_when_the_count_is_full() -> None:
    made = sealer(KEYS[0])
    first = made.seal(b"", b"")[9:21]
    assert made.seal(b"", b"")[9:21] == first[:8] + b"\0\0\0\1"
    made._count = (1 << 32) - 1
    last, next_one = made.seal(b"", b"")[9:21], made.seal(b"", b"")[9:21]
    assert last == first[:8] + b"\xff\xff\xff\xff"
    assert next_one[:8] != first[:8]
    assert next_one[8:] == bytes(4)


def test_a_worker_draws_its_own_bytes_after_the_fork() -> None:
    made = sealer(KEYS[0])
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, made.seal(b"", b"")[9:21])
        os._exit(0)
    drawn = os.read(read, 12)
    os.waitpid(child, 0)  # it has written, and ends
    assert drawn[:8] != made.seal(b"", b"")[9:17]
    os.close(read)
    os.close(write)


def test_no_plain_value_of_a_log_has_the_form() -> None:
    plain = [b"", b'{"seq":1}' * 9, b"id: s.1\ndata: {}\n\n" * 9, b"=text" * 9, b"+" * 40, b"-", b'["worker"' * 9]
    assert not any(map(is_sealed, plain))
    assert VERSION == 1
