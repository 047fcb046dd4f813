"""The supervisor with workers that are a few lines each, in processes of their own."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from gai_fast.server.workers.supervisor import Supervisor
from tests.limits import LIMITS
from tests.waiting import SECONDS

PROGRAM = r"""
import errno, os, select, signal, socket, sys, time
from dataclasses import replace
from gai_fast.server.limits import LIMITS
from gai_fast.server.workers import link
from gai_fast.server.workers.link import LinkMessages, pack, receive_connections
from gai_fast.server.workers.supervisor import Supervisor, WorkerError

HOW = sys.argv[2]
if HOW.startswith("beats"):
    for name, seconds in {"worker_beat": 0.02, "worker_silent": 0.2, "worker_hung": 1.0}.items():
        object.__setattr__(LIMITS, name, seconds if HOW == "beats" or name != "worker_hung" else 600)
if HOW.startswith("stuck"):
    object.__setattr__(LIMITS, "worker_start", 1.0)
if HOW == "hung":
    link.LIMITS = replace(LIMITS, link_unsent=1_000_000)

class Listening(socket.socket):
    asked = 0

    def accept(self):
        '''Without a descriptor for a while, where the server is poor.'''
        self.asked += 1
        if HOW == "poor" and self.asked < 8:
            raise OSError(errno.EMFILE, "poor")
        return super().accept()

shared = Listening(fileno=int(sys.argv[1]))
shared.setblocking(False)

pair_of = socket.socketpair
def narrow_pair():
    '''A pair that holds only a few messages.'''
    made = pair_of()
    for each in made:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return made
if HOW == "narrow":
    socket.socketpair = narrow_pair

fork, forks = os.fork, []
def crowded_fork():
    '''Fails now and then.'''
    forks.append(0)
    if len(forks) in ((2,) if HOW == "crowded at first" else (3, 4)):
        raise OSError(errno.EAGAIN, "too many processes")
    return fork()
if HOW.startswith("crowded"):
    os.fork = crowded_fork

def work(ends):
    '''Says to each connection who it is; then does as `HOW` says.'''
    if HOW == "broken" or (HOW == "fragile" and ends.number > 2):
        ends.link.sendall(pack("failed", 2, "no luck"))
        return 1
    if HOW == "bug":
        1 / 0
    if HOW == "slow" and ends.number == 2:
        time.sleep(0.3)
    if HOW.startswith("stuck") and ends.number == (1 if HOW == "stuck at first" else 3):
        os.kill(os.getpid(), signal.SIGSTOP)
    if HOW == "leaves early" and ends.number == 2:
        ends.link.sendall(pack("leaving"))
        time.sleep(0.5)  # a third worker should be ready by then
        return 1
    ends.link.sendall(pack("ready"))
    messages, taken, is_draining, has_last = LinkMessages(), 0, False, False
    while not has_last:
        ready, _, _ = select.select([ends.link, ends.channel], [], [], LIMITS.worker_beat)
        if HOW not in ("hung", "narrow"):
            ends.link.sendall(pack("beat", HOW == "sealed" and ends.number == 2 and bool(taken)))
        if ends.channel in ready:
            for connection in receive_connections(ends.channel):
                if connection is None:
                    has_last = True
                    break
                taken += 1
                connection.sendall(b"%d %d" % (ends.number, os.getpid()))
                connection.close()
                if is_draining:
                    ends.link.sendall(pack("idle", taken))
                if ends.number == 1:
                    ends.link.sendall(SAID.get(HOW, b""))
        if ends.link in ready:
            data = ends.link.recv(65536)
            if not data:
                return 0
            for kind, *items in messages.feed(data):
                if kind == "drain" and HOW == "stubborn":
                    continue
                if kind == "drain":
                    is_draining = True
                    ends.link.sendall(pack("idle", taken))
                elif kind in ("wrong_keys", "sealed"):
                    print(f"told {ends.number} {items[0]}\n", end="", flush=True)  # workers' lines may not mix
                elif kind == "answer":
                    print("answered", items[1], flush=True)
                elif kind == "count":
                    ends.link.sendall(pack("counts", items[0], {"of": ends.number}))
    return 0

SAID = {
    "no list": b"\0\0\0\1\xc1", "too long": b"\xff" * 4, "empty": b"\0\0\0\1\x90",
    "no question": pack("ask", 1), "unkind": pack("ask", 1, "?", 2),
    "no counts": pack("counts", 1, "x"), "leaves": pack("leaving") * 2, "asks": pack("sum", 1),
    "guessed": pack("wrong_keys", {"192.0.2.1": 3}),
    "reloads": pack("ask", 1, "reload", []), "looks": pack("ask", 1, "workers", []),
}

def broken():
    raise OSError(errno.EMFILE, "poor")

def ready():
    print("up", flush=True)
    if HOW == "unheard":
        broken()

def reload(*, by_signal):
    return bytes(1_000_000) if HOW == "hung" else broken() if HOW == "no configuration" else None, {"problem": "none"}

def add(counts):
    '''Fails for what are no counts.'''
    return [each["of"] for each in counts]

def answer(kind, items):
    '''Fails for what is no list.'''
    return [kind, *items]

started = time.monotonic()
try:
    Supervisor(
        [shared], count=2, work=work, grace=0.2 if HOW in ("stubborn", "leaves") else 30,
        ready=ready, reload=reload,
        counts=broken if HOW == "asks" else lambda: {"of": 0},
        add=add,
        answer=answer,
        ended=lambda number: None,
    ).run()
except WorkerError as problem:
    print(f"failed {problem.code} {problem}", flush=True)
print("ended", flush=True)
"""


class Supervised:
    """A supervisor that runs."""

    def __init__(self, process: subprocess.Popen[str], address: tuple[str, int]) -> None:
        self.process = process
        self.address = address

    def says(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def connect(self) -> tuple[int, int]:
        """Returns the number and the process of the worker that a connection gets."""
        with socket.create_connection(self.address, SECONDS) as client:
            number, process = client.recv(100).split()
        return int(number), int(process)

    def errors(self) -> str:
        """Returns all that it has logged, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def supervised(how: str = "") -> Iterator[Supervised]:
    with socket.create_server(("127.0.0.1", 0)) as shared:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(shared.fileno()), how],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=(shared.fileno(),),
        )  # fmt: skip
        address = shared.getsockname()
    try:
        yield Supervised(process, address)
    finally:
        process.kill()
        process.communicate()


def ask_until(server: Supervised, workers: set[int]) -> None:
    """Returns when these are the workers that answer."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if {server.connect()[0] for _ in range(4)} == workers:
            return
        time.sleep(0.01)
    raise AssertionError


def wait_for(process: int, ask: Callable[[], object] = lambda: None) -> None:
    """Returns when a process is gone, or a zombie; asks for its end again and again."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        ask()
        time.sleep(0.01)
    raise AssertionError


@pytest.mark.parametrize("how", ["", "slow"])
def test_connections_are_handed_over_in_turn_and_a_signal_ends_all(how: str) -> None:
    with supervised(how) as server:
        assert server.says() == "up"
        assert Counter(server.connect()[0] for _ in range(10)) == {1: 5, 2: 5}
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert server.process.wait(SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_a_worker_that_dies_is_replaced_and_no_number_is_used_twice() -> None:
    with supervised() as server:
        assert server.says() == "up"
        before = {server.connect() for _ in range(2)}
        number, killed = before.pop()
        os.kill(killed, signal.SIGKILL)
        wait_for(killed)
        seen = {server.connect() for _ in range(20)}
        while len(seen) < 2:
            seen.add(server.connect())
        assert before < seen
        assert number not in {each for each, _ in seen}
        server.process.send_signal(signal.SIGINT)
        assert server.says() == "ended"
        assert f"worker {number} (process {killed}) was killed by signal 9: another takes its place" in server.errors()


def test_what_a_dead_worker_has_not_taken_goes_to_another() -> None:
    """A worker that hangs has connections in its channel when it is killed."""
    with supervised() as server:
        assert server.says() == "up"
        (_, first), (_, second) = sorted({server.connect() for _ in range(2)})
        os.kill(first, signal.SIGSTOP)
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(server.address, SECONDS)) for _ in range(4)]
            os.kill(first, signal.SIGKILL)
            answers = [int(client.recv(100).split()[1]) for client in clients]
        assert answers.count(second) >= 2
        assert first not in answers


def test_a_silent_worker_gets_no_connections_and_what_it_has_not_taken_goes_to_others_while_it_lives() -> None:
    """Half of all clients waited for it for ever."""
    with supervised("beats and lives") as server:
        assert server.says() == "up"
        (_, first), (_, second) = sorted({server.connect() for _ in range(2)})
        os.kill(first, signal.SIGSTOP)
        assert {server.connect()[1] for _ in range(10)} == {second}
        os.kill(first, signal.SIGCONT)
        ask_until(server, {1, 2})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert server.errors() == ""


def test_a_worker_that_stays_silent_is_killed_and_replaced() -> None:
    with supervised("beats") as server:
        assert server.says() == "up"
        number, silent = server.connect()
        os.kill(silent, signal.SIGSTOP)
        wait_for(silent)
        ask_until(server, {3 - number, 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert f"worker {number} gives no sign of life: it is killed" in server.errors()


def test_a_worker_that_is_never_ready_is_killed_and_replaced() -> None:
    with supervised("stuck") as server:
        assert server.says() == "up"
        number, process = server.connect()
        os.kill(process, signal.SIGKILL)
        ask_until(server, {3 - number, 4})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert "worker 3 does not start: it is killed" in server.errors()


def test_a_server_whose_first_worker_is_never_ready_ends() -> None:
    with supervised("stuck at first") as server:
        assert server.says() == "failed 3 was killed by signal 9"
        assert server.says() == "ended"
        assert "worker 1 does not start: it is killed" in server.errors()


def test_a_machine_that_was_paused_kills_nobody() -> None:
    with supervised("beats") as server:
        assert server.says() == "up"
        workers = {server.connect() for _ in range(2)}
        paused = [server.process.pid, *(process for _, process in workers)]
        for process in paused:
            os.kill(process, signal.SIGSTOP)
        time.sleep(1.5)  # longer than a worker may be silent
        for process in paused:
            os.kill(process, signal.SIGCONT)
        assert {server.connect() for _ in range(20)} == workers
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert server.errors() == ""


def test_workers_that_cannot_start_end_the_server_with_their_code_and_reason() -> None:
    with supervised("broken") as server:
        assert server.says() == "failed 2 no luck"
        assert server.says() == "ended"
        assert server.errors() == ""


def test_workers_that_can_start_no_more_end_it_after_some_attempts_if_no_other_answers() -> None:
    """A store that was out of reach ended the server, with the streams of its other workers, if one worker died."""
    with supervised("fragile") as server:
        assert server.says() == "up"
        first, second = {server.connect()[1] for _ in range(4)}
        os.kill(first, signal.SIGKILL)
        for _ in range(10):
            time.sleep(0.1)  # others fail to take its place
            assert server.connect()[1] == second
        os.kill(second, signal.SIGKILL)
        assert server.says() == "failed 2 no luck"
        assert server.says() == "ended"
        assert server.errors().count("no luck: another takes its place") >= 3


def test_a_worker_that_does_not_end_is_killed() -> None:
    with supervised("stubborn") as server:
        assert server.says() == "up"
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert server.errors().count("does not end: it is killed") == 2


def test_a_worker_that_no_longer_reads_its_messages_is_replaced() -> None:
    with supervised("hung") as server:
        assert server.says() == "up"
        number, hung = server.connect()
        os.kill(hung, signal.SIGSTOP)
        wait_for(hung, lambda: server.process.send_signal(signal.SIGHUP))
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert f"worker {number} does not read its messages: it is killed" in server.errors()


@pytest.mark.parametrize("how", ["no list", "too long", "no question", "unkind", "empty"])
def test_a_worker_that_sends_what_cannot_be_handled_is_replaced_and_harms_no_other(how: str) -> None:
    with supervised(how) as server:
        assert server.says() == "up"
        ask_until(server, {2, 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert server.process.wait(SECONDS) == 0
        assert "worker 1 has sent what cannot be handled" in server.errors()


def test_counts_that_cannot_be_added_are_left_out() -> None:
    with supervised("no counts") as server:
        assert server.says() == "up"
        # Two connections for each: the first worker reported its counts before it took the second one.
        first = min(server.connect() for _ in range(4))[1]
        os.kill(first, signal.SIGKILL)
        ask_until(server, {2, 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert "the counts of worker 1 cannot be added" in server.errors()


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("no configuration", "the configuration is not reloaded"),
        ("unheard", "the start of the server could not be announced"),
    ],
)
def test_a_function_that_fails_ends_neither_the_server_nor_a_worker(how: str, line: str) -> None:
    with supervised(how) as server:
        assert server.says() == "up"
        server.process.send_signal(signal.SIGHUP)
        assert {server.connect()[0] for _ in range(4)} == {1, 2}
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert server.process.wait(SECONDS) == 0
        assert server.errors().count(f"{line}: a bug, or a lack of the system") == 1


def test_counts_of_its_own_that_the_supervisor_cannot_have_are_left_out() -> None:
    with supervised("asks") as server:
        assert server.says() == "up"
        assert {server.connect()[0] for _ in range(2)} == {1, 2}
        # The counts have no order: either worker may be the first that a client reaches.
        assert server.says() in ("answered [{'of': 1}, {'of': 2}]", "answered [{'of': 2}, {'of': 1}]")
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert "the counts of the supervisor cannot be had" in server.errors()


@pytest.mark.parametrize(("how", "answer"), [("reloads", "{'problem': 'none'}"), ("looks", "[1, 2]")])
def test_a_worker_may_ask_for_the_configuration_and_for_the_other_workers(how: str, answer: str) -> None:
    with supervised(how) as server:
        assert server.says() == "up"
        assert {server.connect()[0] for _ in range(2)} == {1, 2}
        assert server.says() == f"answered {answer}"
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"


def test_workers_know_whether_any_of_them_lacks_a_key_of_the_store() -> None:
    with supervised("sealed") as server:
        assert server.says() == "up"
        (_, first), (_, second) = sorted({server.connect() for _ in range(2)})
        assert {server.says(), server.says()} == {"told 1 True", "told 2 True"}
        os.kill(first, signal.SIGKILL)
        assert server.says() == "told 3 True"
        os.kill(second, signal.SIGKILL)
        assert server.says() == "told 3 False"
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"


def test_wrong_keys_of_a_worker_are_reported_to_the_others() -> None:
    with supervised("guessed") as server:
        assert server.says() == "up"
        assert {server.connect()[0] for _ in range(2)} == {1, 2}
        assert server.says() == "told 2 {'192.0.2.1': 3}"
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"


def test_a_system_without_room_for_a_worker_harms_no_other_and_is_tried_again() -> None:
    with supervised("crowded") as server:
        assert server.says() == "up"
        os.kill(min(server.connect() for _ in range(2))[1], signal.SIGKILL)
        ask_until(server, {2, 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"
        assert server.errors().count("no other worker can be started: too many processes: it is tried again") == 2


def test_a_system_without_room_for_the_first_workers_starts_no_server() -> None:
    with supervised("crowded at first") as server:
        assert server.says() == "failed 3 no other worker can be started: too many processes"
        assert server.says() == "ended"


def test_the_wait_for_a_worker_has_a_longest_however_many_have_died() -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    supervisor = Supervisor(
        [], count=1, work=never, grace=0, ready=never, reload=never, counts=never, add=never, answer=never, ended=never
    )
    now = time.monotonic()
    supervisor._deaths = [now] * 5000
    supervisor._spawn_later()
    assert now <= supervisor._respawns[0] <= time.monotonic() + LIMITS.worker_wait_most
    supervisor._selector.close()


@pytest.mark.parametrize("dies", [False, True])
def test_connections_wait_where_no_worker_has_room(dies: bool) -> None:
    """They were closed. A worker that is forked before that must not keep them open."""
    with supervised("narrow") as server:
        assert server.says() == "up"
        pids = {process for _, process in (server.connect(), server.connect())}
        for process in pids:
            os.kill(process, signal.SIGSTOP)
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(server.address, SECONDS)) for _ in range(100)]
            time.sleep(10 * LIMITS.channel_pause)  # the supervisor may do wrong what it does
            if dies:
                os.kill(pids.pop(), signal.SIGKILL)
                assert select.select(clients, [], [], SECONDS)[0], "another has taken its place"
            for process in pids:
                os.kill(process, signal.SIGCONT)
            assert pids <= {int(client.recv(100).split()[1]) for client in clients}
            assert [client.recv(100) for client in clients] == [b""] * 100


def test_clients_that_cannot_be_accepted_for_now_are_answered_before_the_server_ends() -> None:
    """Closing the socket would reset them."""
    with supervised("poor") as server:
        assert server.says() == "up"
        with socket.create_connection(server.address, SECONDS) as client:
            server.process.send_signal(signal.SIGTERM)
            assert client.recv(100)
        assert server.says() == "ended"
        assert server.errors().count("no connection can be accepted for now: poor") == 1


def test_a_worker_that_leaves_is_replaced_once_and_killed_if_it_does_not_end() -> None:
    with supervised("leaves") as server:
        assert server.says() == "up"
        ask_until(server, {2, 3})
        lines = iter(server.process.stderr or ())
        assert "worker 1 does not end: it is killed" in next(lines)
        ask_until(server, {2, 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"


def test_a_server_whose_worker_leaves_before_it_was_ready_starts_with_another() -> None:
    """The others were ready before it was gone, and the state was not checked again."""
    with supervised("leaves early") as server:
        assert server.says() == "up"
        ask_until(server, {1, 3})
        server.process.send_signal(signal.SIGTERM)
        assert server.says() == "ended"


def test_the_log_says_why_a_worker_has_failed() -> None:
    with supervised("bug") as server:
        assert server.says() == "failed 3 ended with exit code 1"
        assert server.says() == "ended"
        assert "ZeroDivisionError" in server.errors()
