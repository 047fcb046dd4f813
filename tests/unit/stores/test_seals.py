"""The keys of a sealed store, from the configuration and from a program."""

from __future__ import annotations

import asyncio
import stat
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from gai_fast.model.settings import SealSettings, Secret
from gai_fast.stores import StoreError
from gai_fast.stores.seals import Seals

KEYS = [bytes([number]) * 32 for number in range(3)]


def settings(*keys: bytes, required: bool = False) -> SealSettings:
    return SealSettings(tuple(Secret(b64encode(key).decode()) for key in keys), required=required)


async def seals(*keys: bytes) -> Seals:
    made = Seals(settings(*keys))
    await made.load()
    return made


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
    ("body", "expected"),
    [
        ("print('secret')", "a key is not 32 bytes"),
        ("pass", "`command` prints no key"),
        ("raise SystemExit(4)", "`command` exited with code 4: run it by hand"),
        ("print('secret ' * 17)", "`command` prints more than 16 keys"),
        ("print('s' * 5000)", "`command` prints more than 4096 bytes"),
    ],
)
async def test_a_program_that_prints_no_keys_is_reported(tmp_path: Path, body: str, expected: str) -> None:
    with pytest.raises(StoreError) as refused:
        await Seals(SealSettings(command=program(tmp_path, body))).load()
    assert expected in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(StoreError, match=r"pip install '\.\[seal\]'"):
        await seals(KEYS[0])
