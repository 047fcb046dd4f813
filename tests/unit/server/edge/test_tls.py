"""TLS to a client, between a transport and a protocol that are not there: the client is an `SSLObject`."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest

from gai_fast.server.edge.certificate import Certificate
from gai_fast.server.edge.tls import ClientHandshakes, TLSConnection, plain_http
from tests.integration.certificates import Authority
from tests.limits import LIMITS


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return Certificate(str(authority.folder / "good.pem"), str(authority.folder / "good.key"))


class Wire(asyncio.Transport):
    """A socket's transport: what is written to it waits for the client."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 9)})
        self.sent = b""
        self.calls: list[str] = []
        self.reading = True

    def write(self, data: Any) -> None:
        assert not self.is_closing()
        assert "eof" not in self.calls
        self.sent += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        self.calls.append("eof")

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Above(asyncio.Protocol):
    """The server's protocol: notes its calls."""

    def __init__(self, *, goes_on: bool = False) -> None:
        self.calls: list[str] = []
        self.data = b""
        self.reads = 0
        self.transport: Any = None
        self.on_data: Callable[[], None] = lambda: None
        self._goes_on = goes_on

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.reads += 1
        self.on_data()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return self._goes_on

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


class AtOnce(ClientHandshakes):
    """Every handshake has its turn at once."""

    def queue(self, connection: TLSConnection) -> None:
        connection.advance()


class Both:
    """A connection, its wire, its protocol, and a client that speaks TLS to it."""

    def __init__(
        self,
        certificate: Certificate,
        authority: Authority,
        *,
        goes_on: bool = False,
        turns: type[ClientHandshakes] = AtOnce,
    ) -> None:
        self.above = Above(goes_on=goes_on)
        self.wire = Wire()
        self.handshakes = turns(lambda remote: f"plain {remote}".encode())
        self.connection = TLSConnection(certificate.context, self.above, self.handshakes)
        self.connection.connection_made(self.wire)
        self.context = authority.client()
        self._from_server, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.taken = 0
        self.client: ssl.SSLObject

    def shake(self, *, alpn: list[str] | None = None, version: ssl.TLSVersion | None = None) -> None:
        if alpn is not None:
            self.context.set_alpn_protocols(alpn)
        if version is not None:
            self.context.maximum_version = version
        self._begin()
        while not self._has_shaken():
            self.send()
        self.send()

    async def shake_in_turns(self) -> None:
        """Works as `shake`, with the server's steps in turns of the loop; the client's last bytes are not sent."""
        self._begin()
        while not self._has_shaken():
            self.send()
            await asyncio.sleep(0)
            self.take()

    def _begin(self) -> None:
        self.client = self.context.wrap_bio(self._from_server, self._to_server, server_hostname="localhost")

    def _has_shaken(self) -> bool:
        """Makes the client's next step of the handshake; returns whether it was the last."""
        try:
            self.client.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def from_client(self) -> bytes:
        """Returns the bytes that the client would send now."""
        return self._to_server.read()

    def send(self, size: int = 1 << 20) -> None:
        """Moves bytes both ways, the client's in pieces of this size."""
        data = self.from_client()
        for at in range(0, len(data), size):
            self.connection.data_received(data[at : at + size])
        self.take()

    def take(self) -> None:
        sent = self.wire.sent[self.taken :]
        self.taken += len(sent)
        self._from_server.write(sent)

    def read(self) -> bytes:
        """Returns the bytes that the client has got; `close_notify` ends them."""
        self.take()
        found = b""
        while True:
            try:
                data = self.client.read(1 << 16)
            except ssl.SSLWantReadError:
                return found
            except ssl.SSLZeroReturnError:  # both sides have ended
                data = b""
            if not data:
                return found + b"<end>"
            found += data


@pytest.fixture
def both(certificate: Certificate, authority: Authority) -> Both:
    return Both(certificate, authority)


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_go_both_ways_however_they_are_cut(both: Both, size: int, version: ssl.TLSVersion) -> None:
    both.shake(version=version)
    both.client.write(b"question" * 5000)
    both.send(size)
    assert both.above.data == b"question" * 5000
    both.connection.write(b"answer")
    both.connection.write(b"")
    assert both.read() == b"answer"
    assert both.above.calls == ["made"]


def test_records_of_a_byte_each_come_as_one_piece(both: Both) -> None:
    """A call of the protocol for each of them held up the loop: 39 to 71 ms for a read of 256 KiB."""
    both.shake()
    for octet in b"question" * 80:
        both.client.write(bytes([octet]))
    both.send()
    assert both.above.data == b"question" * 80
    assert both.above.reads == 1


def test_a_clients_end_waits_until_what_came_before_it_may_be_followed(both: Both) -> None:
    both.shake()
    both.above.on_data = both.connection.pause_reading
    both.client.write(b"question")
    with suppress(ssl.SSLWantReadError):
        both.client.unwrap()
    both.send()
    assert (both.above.data, both.above.calls) == (b"question", ["made"])
    both.connection._is_reading = True
    both.connection._read_pending()
    assert both.above.calls == ["made", "eof"]


def test_a_mistake_behind_a_record_is_found_after_the_record(both: Both) -> None:
    both.shake()
    both.client.write(b"question")
    both.connection.data_received(both.from_client() + b"\x17\x03\x03\x00\x11" + b"x" * 17)
    assert both.above.data == b"question"
    assert both.connection._drops_input


def test_the_protocol_is_there_before_the_handshake(both: Both) -> None:
    assert both.above.calls == ["made"]
    assert both.above.transport is both.connection
    assert not both.connection.can_write_eof()
    both.connection.write(b"to nobody yet")
    both.connection.close()
    assert (both.wire.sent, both.wire.calls) == (b"", ["close"])


@pytest.mark.parametrize("size", [LIMITS.tls_record, LIMITS.tls_record + 1, 20 * LIMITS.tls_record + 7])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_large_write_is_many_records(both: Both, size: int, kind: Callable[[bytes], Any]) -> None:
    both.shake()
    data = bytes(range(256)) * (size // 256 + 1)
    both.connection.write(kind(data[:size]))
    assert both.read() == data[:size]


async def test_a_turn_of_the_loop_makes_so_many_steps_of_handshakes(authority: Authority) -> None:
    made: list[int] = []

    class Step:
        def __init__(self, number: int) -> None:
            self.number = number

        def advance(self) -> None:
            made.append(self.number)
            if self.number == 1:
                raise ZeroDivisionError

    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))
    handshakes = ClientHandshakes(lambda remote: b"")
    for number in range(2 * LIMITS.tls_steps + 2):
        handshakes.queue(cast(Any, Step(number)))
    assert made == []
    counts = []
    for _ in range(4):
        await asyncio.sleep(0)
        counts.append(len(made))
    assert counts == [2, 2 + LIMITS.tls_steps, 2 + 2 * LIMITS.tls_steps, 2 + 2 * LIMITS.tls_steps]
    assert made == sorted(made)
    assert [type(each) for each in problems] == [ZeroDivisionError]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_client_that_leaves_before_its_turn_is_forgotten(
    certificate: Certificate, authority: Authority, is_closed: bool
) -> None:
    both = Both(certificate, authority, turns=ClientHandshakes)
    client = both.context.wrap_bio(ssl.MemoryBIO(), hello := ssl.MemoryBIO(), server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    both.connection.data_received(hello.read())
    both.connection.data_received(b"")
    assert both.wire.sent == b""
    if is_closed:
        both.connection.connection_lost(None)
    else:
        assert both.connection.eof_received()
    await asyncio.sleep(0)
    assert both.wire.calls == ([] if is_closed else ["close"])
    assert bool(both.wire.sent) is not is_closed


async def test_while_a_handshake_waits_no_more_is_read_than_allowed_and_nothing_is_lost(
    certificate: Certificate, authority: Authority
) -> None:
    both = Both(certificate, authority, turns=ClientHandshakes)
    await both.shake_in_turns()
    both.client.write(b"a" * (2 * LIMITS.tls_handshake))
    data = both.from_client()
    both.connection.data_received(data[: LIMITS.tls_handshake])
    assert both.wire.reading
    both.connection.data_received(data[LIMITS.tls_handshake :][:1])
    assert not both.wire.reading
    await asyncio.sleep(0)
    assert both.wire.reading
    both.connection.data_received(data[LIMITS.tls_handshake + 1 :])
    assert both.above.data == b"a" * (2 * LIMITS.tls_handshake)
    assert both.wire.calls == []


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), (None, None)])
def test_http_1_1_is_agreed_on(both: Both, offered: list[str] | None, chosen: str | None) -> None:
    both.shake(alpn=offered)
    assert both.client.selected_alpn_protocol() == chosen


def test_the_connection_says_what_it_is(both: Both, certificate: Certificate) -> None:
    assert both.connection.get_extra_info("ssl_object") is both.connection.get_extra_info("cipher") is None
    both.shake()
    about = both.connection.get_extra_info
    assert about("sslcontext") is certificate.context
    assert about("ssl_object").version() == "TLSv1.3"
    assert about("cipher") == about("ssl_object").cipher()
    assert about("peername") == ("192.0.2.1", 9)
    assert about("nothing", 5) == 5


def test_another_protocol_may_go_on(both: Both) -> None:
    both.shake()
    other = Above()
    both.connection.set_protocol(other)
    assert both.connection.get_protocol() is other
    both.client.write(b"x")
    both.send()
    both.connection.pause_writing()
    both.connection.resume_writing()
    assert (other.data, both.above.data, other.calls) == (b"x", b"", ["pause", "resume"])


# ---- ends ------------------------------------------------------------------------------------------------------------


def say_end(both: Both) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        both.client.unwrap()
    both.send()


def test_our_end_is_reported_in_tls(both: Both) -> None:
    both.shake()
    both.connection.write(b"last")
    both.connection.close()
    both.connection.close()
    both.connection.write(b"late")
    assert both.read() == b"last<end>"
    assert both.wire.calls == ["close", "close"]


def test_a_half_close_is_reported_and_drops_what_still_comes(both: Both) -> None:
    both.shake()
    both.connection.write(b"why")
    both.connection.write_eof()
    both.connection.write_eof()
    assert both.read() == b"why<end>"
    both.connection.data_received(b"whatever it is")
    assert (both.above.data, both.wire.calls) == (b"", ["eof"])
    assert not both.connection.eof_received()


@pytest.mark.parametrize("is_said", [True, False])
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_clients_end_is_the_protocols_however_it_comes(
    certificate: Certificate, authority: Authority, is_said: bool, goes_on: bool
) -> None:
    both = Both(certificate, authority, goes_on=goes_on)
    both.shake()
    both.client.write(b"all")
    both.send()
    if is_said:
        say_end(both)
    assert both.connection.eof_received() is goes_on, "the loop must not close what the protocol goes on with"
    assert (both.above.data, both.above.calls) == (b"all", ["made", "eof"])
    assert both.wire.calls == ([] if goes_on else ["close"])
    if goes_on:
        both.connection.write(b"answer")
        both.connection.close()
        assert both.read() == b"answer<end>"


def test_a_client_that_leaves_amid_the_handshake_ends_it(both: Both) -> None:
    both.connection.data_received(b"\x16\x03")
    assert not both.connection.eof_received()
    assert both.wire.calls == ["close"]
    assert both.above.calls == ["made"]


def test_nothing_of_a_connection_is_kept_by_a_cycle(certificate: Certificate, authority: Authority) -> None:
    both = Both(certificate, authority)
    both.shake()
    both.connection.connection_lost(None)
    both.connection.data_received(b"late")
    assert both.above.calls == ["made", "lost"]
    gone = weakref.ref(both.above)
    gc.disable()
    try:
        del both
        assert gone() is None
    finally:
        gc.enable()


# ---- reading ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_read_while_reading_is_paused(certificate: Certificate, authority: Authority) -> None:
    both = Both(certificate, authority)
    both.shake()
    both.above.on_data = both.connection.pause_reading
    both.client.write(b"a" * (2 * LIMITS.tls_record))
    both.client.write(b"b")
    both.send()
    both.connection.pause_reading()
    assert both.above.data == b"a" * LIMITS.tls_record
    assert not both.connection.is_reading()
    for expected in (2 * LIMITS.tls_record, 2 * LIMITS.tls_record + 1):
        both.connection.resume_reading()
        both.connection.resume_reading()
        assert both.wire.reading
        await asyncio.sleep(0)
        assert len(both.above.data) == expected
    assert not both.connection.is_reading()
    both.connection.close()
    both.connection.resume_reading()
    assert not both.wire.reading


async def test_a_connection_that_ends_before_it_is_read_again_is_over(
    certificate: Certificate, authority: Authority
) -> None:
    both = Both(certificate, authority)
    both.shake()
    both.connection.pause_reading()
    both.client.write(b"x")
    both.send()
    both.connection.resume_reading()
    both.connection.connection_lost(None)
    await asyncio.sleep(0)
    assert both.above.data == b""


async def test_nothing_is_read_once_the_protocol_has_ended_the_connection(
    certificate: Certificate, authority: Authority
) -> None:
    """The wire tells of its end a turn of the loop later, and a handshake may have its turn before."""
    for end in ("close", "abort"):
        both = Both(certificate, authority)
        both.shake()
        both.connection.pause_reading()
        both.client.write(b"x")
        both.send()
        both.connection.resume_reading()
        getattr(both.connection, end)()
        await asyncio.sleep(0)
        assert both.above.data == b""

        both = Both(certificate, authority, turns=ClientHandshakes)
        client = both.context.wrap_bio(ssl.MemoryBIO(), hello := ssl.MemoryBIO(), server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        both.connection.data_received(hello.read())
        getattr(both.connection, end)()
        await asyncio.sleep(0)
        assert (both.wire.sent, both.wire.calls) == (b"", [end])


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_bug_above_ends_the_connection_also_where_the_loop_does_not_see_whose_it_is(
    certificate: Certificate, authority: Authority, is_paused: bool
) -> None:
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["exception"]))

    def fail() -> None:
        raise ZeroDivisionError

    both = Both(certificate, authority, turns=ClientHandshakes)
    both.above.on_data = fail
    client = both.context.wrap_bio(both._from_server, both._to_server, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    both.send()
    await asyncio.sleep(0)
    both.take()
    client.do_handshake()
    if is_paused:
        both.send()
        await asyncio.sleep(0)
        both.connection.pause_reading()
    client.write(b"x")
    both.send()
    if is_paused:
        both.connection.resume_reading()
    await asyncio.sleep(0)
    assert both.above.data == b"x"
    assert [type(each) for each in problems] == [ZeroDivisionError]
    assert both.wire.calls == ["abort"]


# ---- clients that break the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"PUT"])
def test_plain_http_is_answered_in_plain_http(both: Both, method: bytes) -> None:
    both.connection.data_received(method + b" / HTTP/1.1\r\n\r\n")
    both.connection.data_received(b"more")
    assert (both.wire.sent, both.wire.calls) == (b"plain 192.0.2.1", ["eof"])
    both.connection.close()  # as the protocol above does when its time is over
    assert both.wire.calls == ["eof", "close"]
    assert plain_http().status == 400


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"\x00" * 100,
        b"\xff" * 20_000,
        b"\x16\x03\x01\xff\xff" + b"\x01" * 100,  # an oversized record
        b"\x16\x03\x01\x00\x00" * 1000,  # empty records
        b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\n",
    ],
)
def test_what_is_no_handshake_ends_the_connection(both: Both, data: bytes) -> None:
    both.connection.data_received(data)
    assert both.wire.calls == ["close"]
    assert len(both.wire.sent) < 100
    both.connection.data_received(data)
    assert both.above.data == b""


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")  # the old versions are
def test_old_versions_are_refused(both: Both) -> None:
    both.context.minimum_version = ssl.TLSVersion.TLSv1
    both.context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)version"):
        both.shake(version=ssl.TLSVersion.TLSv1_1)
    assert both.wire.calls == ["close"]


def test_a_damaged_record_ends_the_connection(both: Both) -> None:
    both.shake()
    both.client.write(b"hello")
    record = bytearray(both.from_client())
    record[-1] ^= 1
    both.connection.data_received(bytes(record))
    assert both.above.data == b""
    assert both.wire.calls == ["close"]
    with pytest.raises(ssl.SSLError, match=r"(?i)bad record mac"):
        both.read()
    both.connection.write(b"late")
    both.connection.write(bytes(2 * LIMITS.tls_record))
    assert both.taken == len(both.wire.sent)


def test_nothing_is_read_behind_a_damaged_record(both: Both) -> None:
    both.shake()
    both.client.write(b"a" * LIMITS.tls_record)
    both.client.write(b"b" * LIMITS.tls_record)
    both.client.write(b"c" * LIMITS.tls_record)
    records = bytearray(both.from_client())
    records[len(records) // 2] ^= 1
    both.connection.data_received(bytes(records))
    assert both.above.data == b"a" * LIMITS.tls_record
    assert both.wire.calls == ["close"]


def test_a_connection_that_has_failed_is_not_written_to(both: Both) -> None:
    """OpenSSL refuses to write after a fatal error; the wire may have been aborted by then."""
    both.shake()
    both.wire.abort()
    both.connection.data_received(b"\x17\x03\x03\x00\x05abcde")
    assert both.wire.calls == ["abort"]
    both.connection.close()
    assert both.wire.calls == ["abort", "close"]


def test_records_that_make_us_answer_have_an_end(
    certificate: Certificate, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Python cannot make a client ask for key updates: their answers are put where they would be."""
    both = Both(certificate, authority)
    both.shake()
    handshake = len(both.wire.sent)

    def answer_of(size: int) -> None:
        both.connection._outgoing.write(b"k" * size)
        both.client.write(b"x")
        both.send()

    answer_of(LIMITS.tls_answers)
    assert (len(both.wire.sent) - handshake, both.wire.calls) == (LIMITS.tls_answers, [])
    with caplog.at_level("INFO"):
        answer_of(1)
    assert both.wire.calls == ["abort"]
    assert "key updates" in caplog.text
