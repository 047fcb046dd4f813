"""The check of `[store]`: opened as the server would open it, and no file is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gai_fast.cli.checks.store import check_store
from gai_fast.model.settings import StoreSettings


async def test_a_store_in_memory_is_no_fault() -> None:
    assert (await check_store(StoreSettings())).status == "ok"


async def test_a_file_that_is_not_there_yet_is_left_to_the_server(tmp_path: Path) -> None:
    check = await check_store(StoreSettings(url=f"sqlite:///{tmp_path}/new.db"))
    assert (check.status, list(tmp_path.iterdir())) == ("ok", [])


async def test_a_new_file_needs_a_folder(tmp_path: Path) -> None:
    check = await check_store(StoreSettings(url=f"sqlite:///{tmp_path}/data/new.db"))
    assert (check.status, check.detail) == ("error", f"the folder {tmp_path}/data does not exist")
    assert check.fix == "make the folder, or change `url` in [store]"


async def test_a_new_file_needs_a_folder_that_this_user_may_write_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK | os.X_OK))
    check = await check_store(StoreSettings(url=f"sqlite:///{tmp_path}/new.db"))
    assert (check.status, check.detail) == ("error", f"this user cannot write to the folder {tmp_path}")
    assert "[store]" in check.fix


async def test_a_file_that_is_no_store_is_an_error_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_text("this is no database" * 100)
    check = await check_store(StoreSettings(url=f"sqlite:///{tmp_path}/damaged.db"))
    assert (check.status, check.name) == ("error", "store")
    assert "[store]" in check.fix


@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.0.0.1:9"])
async def test_a_server_that_does_not_answer_is_an_error_and_its_password_is_not_shown(host: str) -> None:
    check = await check_store(StoreSettings(url=f"redis://:hidden@{host}/0"))
    assert check.status == "error"
    assert "hidden" not in check.detail + check.fix
