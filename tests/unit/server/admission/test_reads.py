"""`server/admission/reads.py`: how often a key may read in a minute."""

from __future__ import annotations

import logging

import pytest

from gai_fast.config.checks import NAME
from gai_fast.ledger import LocalLedger
from gai_fast.model.errors import Error
from gai_fast.model.settings import ANONYMOUS, KeyLimits, KeySettings
from gai_fast.server.admission.reads import Reads, reader_of
from gai_fast.stores.health import out_of_reach
from tests.conftest import ChangeLimits
from tests.limits import LIMITS


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def key(name: str, requests: int | None = None) -> KeySettings:
    return KeySettings(name, (), limits=KeyLimits(requests_per_minute=requests))


class Counted:
    """Reads of a server with one worker."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.ledger = LocalLedger(self.clock)
        self.refused = {"reads": 0}
        self.reads = Reads(self.ledger, self.refused)

    async def read(self, caller: KeySettings) -> int:
        return await self.reads.take(caller, lambda: 5)

    async def admitted(self, caller: KeySettings) -> int:
        """Returns how many reads are admitted in a row."""
        for number in range(10_000):
            try:
                assert await self.read(caller) == 5
            except Error:
                return number
        return 10_000


@pytest.mark.parametrize(("requests", "most"), [(3, 30), (None, LIMITS.reads), (0, LIMITS.reads)])
async def test_a_key_has_ten_times_as_many_reads_as_requests_and_no_other_loses_any(
    requests: int | None, most: int
) -> None:
    counted = Counted()
    assert await counted.admitted(key("alice", requests)) == most
    assert counted.refused == {"reads": 1}
    assert await counted.admitted(key("bob", 1)) == 10
    counted.clock.now += 60
    assert await counted.admitted(key("alice", requests)) == most


async def test_reads_come_back_evenly_and_the_refusal_says_when() -> None:
    counted, caller = Counted(), key("alice", 1)
    assert await counted.admitted(caller) == 10
    with pytest.raises(Error) as refused:
        await counted.read(caller)
    assert (refused.value.code, refused.value.reason, refused.value.retry_after_ms) == ("rate_limited", "reads", 6_000)
    counted.clock.now += 6
    assert await counted.admitted(caller) == 1
    assert await counted.admitted(key("alice", 10)) == 90, "a reload: what was used stays used"
    await counted.ledger.reset(reader_of(caller).name)
    assert await counted.admitted(caller) == 10


async def test_a_read_is_no_request_and_its_refusal_is_logged_as_that_of_a_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gai_fast.limits")
    counted, caller = Counted(), key("alice", 1)
    assert await counted.admitted(caller) == 10
    assert caplog.messages == ["a request of alice is refused: this key has read what is kept, or lists, as often as "
                               "it may in a minute (10 times): ask later"]  # fmt: skip
    assert set(counted.ledger.refused.values()) == {0}
    assert counted.ledger.try_take(caller, "stream"), "no request is used"
    assert not counted.ledger._home.state(reader_of(caller).name).holders, "a read has ended"


async def test_a_read_is_refused_while_the_ledger_is_out_of_reach_if_a_request_of_its_key_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Counted()

    async def take(*_: object) -> None:
        raise out_of_reach("the limits")

    monkeypatch.setattr(counted.ledger, "take", take)
    assert await counted.read(key("root")) == 5, "it has no limits"
    for limits in (KeyLimits(requests_per_minute=1), KeyLimits(streams=1)):
        with pytest.raises(Error) as refused:
            await counted.read(KeySettings("alice", (), limits=limits))
        assert (refused.value.code, refused.value.reason) == ("overloaded", "store")


@pytest.mark.parametrize("name", ["root", "issuer:[reads] root", "c-0123", ANONYMOUS])
def test_no_caller_has_the_name_by_which_the_reads_of_another_are_counted(name: str) -> None:
    counted_for = reader_of(key(name)).name
    assert counted_for != name
    assert not NAME.fullmatch(counted_for[:1]), "so begin the names of keys and of issuers"
    assert reader_of(key(counted_for)).name != counted_for


async def test_reads_leave_neither_spend_nor_a_stream(change_limits: ChangeLimits) -> None:
    change_limits(ledger_keys=2)
    counted = Counted()
    for number in range(8):
        await counted.read(key(f"issuer:{number}"))
        counted.clock.now += 60
    assert await counted.ledger.spend("key") == []
    assert not counted.ledger._tickets
    assert len(counted.ledger._home._states) <= 3, "what is idle is dropped"
