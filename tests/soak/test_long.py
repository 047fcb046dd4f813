"""`make soak-long`, for answers of six seconds: each is whole, though its server is replaced."""

from __future__ import annotations

import sys

import pytest

from tests.soak.long import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="missing on this machine: /proc")


def test_answers_are_whole_though_their_server_is_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "6", "--workers", "1"]) == 0, capsys.readouterr().out
