"""The parent of several workers: it owns the listening sockets, hands connections over, and keeps workers running.

A process without a loop. Its only thread writes its log (`log_queue.py`), so that it may fork at any time.
It serves no HTTP request.

1. It accepts connections, and hands each to the next worker in turn. Workers that share a listening socket get unequal
   shares: of two workers, one got 99 of 100 clients that connected one after the other, and 65 of 100 if twenty
   connected at a time. Accepting and handing over costs 36 us of CPU for each connection (docs/performance.md). While
   no worker has room in its channel, no connection is accepted: clients wait in the kernel's queue and are not closed.
2. If a worker dies, it is replaced at once, or after a wait that grows with the number of recent deaths. Connections in
   its channel go to another worker. If workers cannot start, the server ends: at its start at once, later after
   `limits.worker_starts` attempts in a row, but not while another worker runs, whose streams go on. If the system
   cannot make another process now, the other workers go on, and the start is retried.
3. SIGTERM and SIGINT drain: the workers accept and answer requests until all are idle (`drain.py`). A second signal
   ends them at once. A worker that does not end in time is killed. At any time, a worker is killed if it does not read
   its messages, or sends an invalid one.
4. Workers send heartbeats, which say whether a worker has met a record of the store whose key it lacks: `/readyz` of
   every worker says so. A silent worker gets no new connections, and connections in its channel go to another
   worker. If it stays silent, it is killed and replaced, as is a worker that never starts. If the supervisor itself
   stood still, as on a paused machine, the workers' times start again.
5. SIGHUP, or a worker's request, reloads the configuration and sends it to the workers.
6. Workers notice the end of the supervisor by their links, and drain.
7. An exception in a function that was passed to the supervisor is logged, and the server goes on. An exception in
   `answer` ends the worker that sent the request, as in rule 3.
"""

from __future__ import annotations

import enum
import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from gai_fast.server.drain import seconds_without_accepting
from gai_fast.server.edge.listening import AcceptFailureLog, accept, start_listening
from gai_fast.server.limits import LIMITS
from gai_fast.server.observe import log_queue
from gai_fast.server.workers.gathered import GatheredCounts
from gai_fast.server.workers.link import Link, LinkGone, receive_connections, send_connection, send_last

_log: Final = logging.getLogger("gai_fast.server")
_T = TypeVar("_T")

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_DOUBLINGS: Final = math.ceil(math.log2(LIMITS.worker_wait_most / LIMITS.worker_wait))
"""The number of times that the wait for a worker is doubled until it is the longest."""
BEAT: Final = "beat"
"""The heartbeat of a worker that accepts connections."""
WORKERS: Final = "workers"
"""The request for the numbers of all workers, including workers that start: these may already answer other workers."""
RELOAD: Final = "reload"
"""The request that reloads the configuration; its answer is the report."""
_START_FAILED: Final = 3
"""The exit code of a server that cannot start, if the worker reported none."""


class Loader(Protocol):
    """Reloads the configuration."""

    def __call__(self, *, by_signal: bool) -> tuple[bytes | None, Any]:
        """Returns the configuration for the workers, and a report. The configuration is None if nothing changes.

        Args:
            by_signal: Whether SIGHUP causes the reload. Otherwise a worker requests it.
        """


class WorkerEnds(NamedTuple):
    """The number of a worker, its place, and its ends of the two channels.

    Attributes:
        number: A number from 1, unique among all workers of a server.
        place: A number from 0, below the number of workers. A worker inherits the place of the worker that it replaces.
        link: The socket for messages.
        channel: The socket for connections.
    """

    number: int
    place: int
    link: socket.socket
    channel: socket.socket


class WorkerError(Exception):
    """Workers cannot start. The text is the reason.

    Attributes:
        code: The exit code that the worker reported.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _State(enum.Enum):
    """The state of the server."""

    STARTING = "not all workers have started once"
    UP = "workers answer"
    DRAINING = "workers end when they have answered everybody"


class _Worker:
    """One worker, seen from the supervisor.

    Attributes:
        number: As for `WorkerEnds`.
        place: As for `WorkerEnds`.
        pid: The worker's process.
        far: The worker's end of the channel. The supervisor reads the connections back from it if the worker dies.
        is_ready: Whether the worker accepts connections.
        is_leaving: Whether the worker drains by itself. Other workers are preferred then.
        handed: The number of connections that were sent to it.
        is_sealed: Whether it lacks a key of the store.
        idle_after: The number of connections that it had accepted when it was last idle. -1 if it never was.
        has_last: Whether its channel was closed for further connections.
        kill_at: The time at which it is killed. None if it may go on.
        heard_at: The time of its last heartbeat, or of its fork. None if no heartbeat is expected any more.
        failure: The exit code and the reason if it could not start. None if there is none.
    """

    def __init__(self, number: int, place: int, link: Link, channel: socket.socket, far: socket.socket) -> None:
        self.number = number
        self.place = place
        self.pid = 0
        self.link = link
        self.channel = channel
        self.far = far
        self.started_at = time.monotonic()
        self.is_ready = self.is_leaving = self.has_last = self.is_sealed = False
        self.handed = 0
        self.idle_after = -1
        self.kill_at: float | None = None
        self.heard_at: float | None = self.started_at
        self.failure: tuple[int, str] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether the worker has answered every connection that was sent to it."""
        return self.idle_after == self.handed

    def is_silent(self, now: float, seconds: float) -> bool:
        """Returns whether the worker's last heartbeat is older than some seconds."""
        return self.heard_at is not None and now - self.heard_at > seconds

    def end_by(self, when: float) -> None:
        """Sets the time at which the worker is killed, unless an earlier time is set."""
        self.kill_at = when if self.kill_at is None else min(when, self.kill_at)

    def close(self) -> None:
        """Closes the worker's channels."""
        self.link.close()
        self.channel.close()
        self.far.close()


class Supervisor:
    """Keeps workers running. `run` must be called once, in a process without a loop and without other threads.

    Args:
        sockets: The listening sockets, which the supervisor closes.
        count: The number of workers.
        work: Runs a worker in its own process; returns the exit code.
        grace: Seconds for which workers may drain.
        ready: Called once, when all workers have started.
        reload: Reloads the configuration.
        counts: Returns the counts of the supervisor's process.
        add: Adds up counts of workers.
        answer: Answers a worker's request of another kind.
        ended: Called with the number of each worker that has ended, after all its messages were handled.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        count: int,
        work: Callable[[WorkerEnds], int],
        grace: float,
        ready: Callable[[], None],
        reload: Loader,
        counts: Callable[[], Any],
        add: Callable[[Sequence[Any]], Any],
        answer: Callable[[str, list[Any]], Any],
        ended: Callable[[int], None],
    ) -> None:
        self._sockets = list(sockets)
        self._count = count
        self._work = work
        self._grace = grace
        self._ready = ready
        self._reload = reload
        self._counts = GatheredCounts(lambda: _result(counts, "the counts of the supervisor cannot be had"), add)
        self._answer = answer
        self._on_end = ended
        self._selector = selectors.DefaultSelector()
        self._state = _State.STARTING
        self._workers: dict[int, _Worker] = {}  # by process
        self._started_workers = 0
        self._turns = 0
        self._failed_starts = 0
        self._deaths: list[float] = []  # times within the last `worker_settled` seconds
        self._settings: bytes | None = None
        self._is_sealed = False  # as the workers know it
        self._signals: list[int] = []
        self._respawns: list[float] = []  # times at which workers are started
        self._accept_until = math.inf
        self._listened_at = time.monotonic()  # the last check of heartbeats
        self._accept_at: float | None = None  # the next accept while the sockets are not watched
        self._held: deque[socket.socket] = deque()  # accepted connections that no worker has got yet
        self._lacks = AcceptFailureLog()
        self._failure: WorkerError | None = None

    def run(self) -> None:
        """Runs until the server has ended.

        Raises:
            CannotListen: A socket cannot listen.
            WorkerError: Workers cannot start.
        """
        wake, waker = socket.socketpair()
        wake.setblocking(False)
        waker.setblocking(False)
        former = {number: signal.getsignal(number) for number in _SIGNALS}
        heard = [each for each in _SIGNALS if each != signal.SIGHUP or former[each] != signal.SIG_IGN]
        former_waker = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        try:
            _handle(heard, lambda number, _: self._signals.append(number))
            self._selector.register(wake, selectors.EVENT_READ, lambda: _empty(wake))
            start_listening(self._sockets)
            for _ in range(self._count):
                if self._failure is None:
                    self._spawn()
            while self._workers or self._respawns:
                self._turn()
        finally:
            for worker in self._workers.values():
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                worker.close()
            for connection in self._held:
                connection.close()
            signal.set_wakeup_fd(former_waker)
            for number in heard:
                signal.signal(number, former[number] or signal.SIG_DFL)
            self._close_sockets()
            self._selector.close()
            wake.close()
            waker.close()
        if self._failure is not None:
            raise self._failure

    def _turn(self) -> None:
        """Waits for events, and handles them."""
        for key, _ in self._selector.select(self._seconds_left()):
            key.data()
        self._bury()
        while self._signals:
            self._signalled(self._signals.pop(0))
        now = time.monotonic()
        self._listen(now)
        while self._respawns and self._respawns[0] <= now:
            self._respawns.pop(0)
            self._spawn()
        if self._accept_at is not None and now >= self._accept_at:
            self._accept_at = None
            if now < self._accept_until:
                self._accept()
            else:
                self._hand_over()
            if self._state is _State.DRAINING:
                self._accept_at = now + LIMITS.drain_check
            elif self._accept_at is None:
                self._watch_sockets()
        for worker in self._workers.values():
            if worker.kill_at is not None and now >= worker.kill_at:
                worker.kill_at = None
                self._kill(worker, "does not end")
        self._release_idle()
        self._answer_sums(now)

    def _seconds_left(self) -> float | None:
        kills = (each.kill_at for each in self._workers.values())
        due = [each for each in (self._accept_at, *self._respawns[:1], *kills) if each is not None]
        due += self._counts.due
        if any(each.heard_at is not None for each in self._workers.values()):
            due.append(self._listened_at + LIMITS.worker_beat)
        return max(0.0, min(due) - time.monotonic()) if due else None

    # -- workers --

    def _spawn(self) -> None:
        """Starts a worker. If the system cannot make a process, the start of the server fails, or is retried later."""
        try:
            self._fork()
        except OSError as problem:
            why = f"no other worker can be started: {problem.strerror}"
            if self._state is _State.STARTING:
                self._fail(_START_FAILED, why)
            else:
                _log.error("%s: it is tried again", why)
                self._spawn_later()

    def _fork(self) -> None:
        """Forks a worker.

        Raises:
            OSError: The system cannot make its sockets or its process.
        """
        number = self._started_workers + 1
        with ExitStack() as opened:
            near, far, channel, its_channel = (
                opened.enter_context(each) for _ in ("messages", "connections") for each in socket.socketpair()
            )
            for each in (near, channel, its_channel):
                each.setblocking(False)
            place = self._free_place()
            worker = _Worker(number, place, Link(near), channel, its_channel)
            self._selector.register(worker.link, selectors.EVENT_READ, lambda: self._receive(worker))
            opened.callback(self._selector.unregister, worker.link)
            worker.pid = os.fork()
            if not worker.pid:
                self._become_worker(WorkerEnds(number, place, far, its_channel), near, channel)
            opened.pop_all()
        far.close()
        self._workers[worker.pid] = worker
        self._started_workers = number
        if self._settings is not None:
            self._send([worker], "settings", self._settings)
        if self._is_sealed:
            self._send([worker], "sealed", True)
        self._send(self._workers.values(), "made", self._started_workers)

    def _free_place(self) -> int:
        """Returns the first free place. A worker that leaves has none, because it begins no streams."""
        taken = {each.place for each in self._workers.values() if not each.is_leaving}
        return min(set(range(len(taken) + 1)) - taken)

    def _become_worker(self, ends: WorkerEnds, *others: socket.socket) -> None:
        """Runs a worker in the forked process, and exits it. Closes the supervisor's descriptors first."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A terminal sends these to all of its processes. The supervisor handles them, and sends messages.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._selector.close()
            for worker in self._workers.values():
                worker.close()
            for each in (*self._sockets, *self._held, *others):
                each.close()
            code = self._work(ends)
        finally:
            if sys.exception() is not None:
                _log.error("worker %d has failed: a bug, or a lack of the system", ends.number, exc_info=True)
            log_queue.drain()
            os._exit(code)

    def _bury(self) -> None:
        """Reaps the workers that have ended."""
        for pid, worker in list(self._workers.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self._workers[pid]  # the system may reuse the number from now on
                self._receive(worker)  # its last messages
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: _Worker, code: int) -> None:
        self._forget(worker)
        self._tell_sealed()
        for connection in receive_connections(worker.far):
            if connection is not None:
                self._held.append(connection)
        worker.close()
        if self._held:
            self._leave_sockets(0)  # these connections go first, before new ones are accepted
        _result(lambda: self._counts.keep(worker.pid), f"the counts of worker {worker.number} cannot be added")
        _result(lambda: self._on_end(worker.number), f"the end of worker {worker.number} cannot be noted")
        if self._state is not _State.DRAINING and not worker.is_leaving:
            self._replace(worker, code)
        elif code and self._failure is None:
            _log.error("worker %d %s", worker.number, _how_it_ended(code))
        self._begin_if_all_are_ready()  # all other workers may be ready

    def _begin_if_all_are_ready(self) -> None:
        """Starts to accept connections, once all first workers are ready."""
        if self._state is not _State.STARTING or self._respawns:
            return
        if all(each.is_ready for each in self._workers.values()):
            self._state = _State.UP
            _result(self._ready, "the start of the server could not be announced")
            self._watch_sockets()

    def _replace(self, worker: _Worker, code: int) -> None:
        """Replaces a worker that has died, or ends the server: rule 2."""
        why = worker.failure[1] if worker.failure is not None else _how_it_ended(code)
        if worker.is_ready and time.monotonic() - worker.started_at >= LIMITS.worker_early:
            self._failed_starts = 0
        else:
            self._failed_starts += 1
            is_alone = not any(each.is_ready for each in self._workers.values())
            if self._state is _State.STARTING or (is_alone and self._failed_starts >= LIMITS.worker_starts):
                self._fail(_START_FAILED if worker.failure is None else worker.failure[0], why)
                return
        _log.error("worker %d (process %d) %s: another takes its place", worker.number, worker.pid, why)
        self._spawn_later()

    def _spawn_later(self) -> None:
        """Schedules a worker: at once, or after a wait that grows with the number of recent deaths."""
        now = time.monotonic()
        self._deaths = [each for each in self._deaths if now - each < LIMITS.worker_settled]
        times = len(self._deaths)
        wait = LIMITS.worker_wait * 2 ** min(times - 1, _DOUBLINGS) if times else 0.0
        self._deaths.append(now)
        self._respawns = sorted([*self._respawns, now + min(wait, LIMITS.worker_wait_most)])

    def _fail(self, code: int, why: str) -> None:
        """Ends the server, because workers cannot start."""
        self._failure = WorkerError(code, why)
        self._drain()

    def _listen(self, now: float) -> None:
        """Takes connections back from silent workers, and kills those that stay silent: rule 4."""
        stood_still = now - self._listened_at > LIMITS.worker_silent
        self._listened_at = now
        for worker in self._workers.values():
            if stood_still and worker.heard_at is not None:
                worker.heard_at = now
            elif worker.is_silent(now, LIMITS.worker_hung if worker.is_ready else LIMITS.worker_start):
                worker.heard_at = None
                self._kill(worker, "gives no sign of life" if worker.is_ready else "does not start")
            elif worker.is_ready and worker.is_silent(now, LIMITS.worker_silent):
                self._take_back(worker)

    def _take_back(self, worker: _Worker) -> None:
        """Takes back the connections in a silent worker's channel, if other workers accept connections."""
        if worker.has_last or worker in self._takers():
            return
        for connection in receive_connections(worker.far):
            if connection is not None:
                worker.handed -= 1
                self._held.append(connection)
        self._hand_over()

    def _kill(self, worker: _Worker, why: str) -> None:
        if worker.pid in self._workers:
            _log.error("worker %d %s: it is killed", worker.number, why)
            os.kill(worker.pid, signal.SIGKILL)

    def _forget(self, worker: _Worker) -> None:
        with suppress(KeyError, ValueError):  # the link may be unregistered or closed already
            self._selector.unregister(worker.link)

    # -- connections --

    def _takers(self) -> list[_Worker]:
        """Returns the workers that get connections. Silent and leaving workers get them only if there is no other."""
        now = time.monotonic()
        takers = [each for each in self._workers.values() if each.is_ready and not each.has_last]
        takers = [each for each in takers if not each.is_silent(now, LIMITS.worker_silent)] or takers
        return [each for each in takers if not each.is_leaving] or takers

    def _watch_sockets(self) -> None:
        for listening in self._sockets:
            with suppress(KeyError):  # already watched
                self._selector.register(listening, selectors.EVENT_READ, self._accept)

    def _leave_sockets(self, seconds: float) -> None:
        """Stops accepting connections for some seconds."""
        for listening in self._sockets:
            with suppress(KeyError):  # not watched
                self._selector.unregister(listening)
        self._accept_at = time.monotonic() + seconds

    def _accept(self) -> bool:
        """Hands over waiting connections, at most `limits.accepted` of each socket; returns whether none wait."""
        was_empty = True
        for listening in self._sockets:
            for _ in range(LIMITS.accepted):
                if not self._hand_over():
                    return False
                try:
                    accepted = accept(listening)
                except OSError as problem:  # the connection still waits: to watch the socket would be a busy loop
                    self._lacks.note(problem)
                    self._leave_sockets(LIMITS.accept_pause)
                    return False
                if accepted is None:
                    break
                was_empty = False
                self._held.append(accepted[0])
        return self._hand_over() and was_empty

    def _hand_over(self) -> bool:
        """Hands accepted connections to the next workers in turn; returns whether there is room for another one.

        If there is none, no connection is accepted for a while.
        """
        takers = self._takers()
        while takers and self._held:
            first = self._turns % len(takers)
            for worker in (*takers[first:], *takers[:first]):
                self._turns += 1
                if send_connection(worker.channel, self._held[0]):
                    worker.handed += 1
                    self._held.popleft().close()
                    break
            else:
                self._leave_sockets(LIMITS.channel_pause)
                return False
        if not takers:
            self._leave_sockets(LIMITS.accept_pause)
        return bool(takers)

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            with suppress(KeyError):  # not watched
                self._selector.unregister(listening)
            listening.close()
        self._sockets.clear()

    # -- messages --

    def _send(self, workers: Iterable[_Worker], kind: str, *items: Any) -> None:
        for worker in workers:
            if worker.link.is_stuck:
                worker.link.discard()
                self._kill(worker, "does not read its messages")
            else:
                worker.link.send(kind, *items)
            self._watch_link(worker)

    def _watch_link(self, worker: _Worker) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.link.is_full else 0)
        with suppress(KeyError):  # the link is no longer registered
            key = self._selector.get_key(worker.link)
            if key.events != events:
                self._selector.modify(worker.link, events, key.data)

    def _receive(self, worker: _Worker) -> None:
        if worker.link.is_full:
            worker.link.flush()
            self._watch_link(worker)
        try:
            for kind, *items in worker.link.receive():
                self._heard(worker, kind, items)
        except LinkGone:  # the worker has ended, or drains without its link
            self._forget(worker)
            worker.heard_at = None
            worker.end_by(time.monotonic() + self._grace + LIMITS.worker_end)
        except Exception as problem:  # noqa: BLE001  # one worker's bug must not end the others
            self._forget(worker)
            self._kill(worker, f"has sent what cannot be handled ({problem!r})")

    def _heard(self, worker: _Worker, kind: str, items: list[Any]) -> None:
        if kind == BEAT:
            worker.heard_at = time.monotonic()
            worker.is_sealed = items[0]
            self._tell_sealed()
        elif kind == "ready":
            worker.is_ready = True
            worker.heard_at = time.monotonic()
            self._begin_if_all_are_ready()
        elif kind == "failed":
            worker.failure = items[0], items[1]
        elif kind == "leaving":
            if self._state is not _State.DRAINING and not worker.is_leaving:
                self._respawns.insert(0, 0.0)
            worker.is_leaving = True
            worker.end_by(time.monotonic() + self._grace + LIMITS.worker_end)
        elif kind == "idle":
            worker.idle_after = items[0]
        elif kind == "wrong_keys":
            # Skips workers with unsent messages, which must not pile up: they still count the wrong keys they receive.
            others = [each for each in self._workers.values() if each.is_ready and each is not worker]
            self._send([each for each in others if not each.link.is_full], kind, items[0])
        elif kind == "ask":
            self._send([worker], "answer", items[0], self._answer_of(items[1], items[2]))
        elif kind == "counts":
            self._counts.note(worker.pid, items[0], items[1])
        elif kind == "sum":
            asked = [each for each in self._workers.values() if each.is_ready]
            self._send(asked, "count", self._counts.ask(worker.pid, items[0], (each.pid for each in asked)))

    def _tell_sealed(self) -> None:
        is_sealed = any(each.is_sealed for each in self._workers.values())
        if is_sealed != self._is_sealed:
            self._is_sealed = is_sealed
            self._send(self._workers.values(), "sealed", is_sealed)

    def _answer_of(self, kind: str, items: list[Any]) -> Any:
        """Returns the answer to a worker's request."""
        if kind == WORKERS:
            return [each.number for each in self._workers.values()]
        return self._reload_settings() if kind == RELOAD else self._answer(kind, items)

    def _answer_sums(self, now: float) -> None:
        """Sends the counts of all workers to the workers that requested them."""
        for asker, name, counts in self._counts.answers(now):
            self._send([self._workers[asker]], "answer", name, counts)

    # -- the end --

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload_settings(by_signal=True)
        elif number != signal.SIGCHLD:
            if self._state is _State.DRAINING:
                self._hurry()
            else:
                self._drain()

    def _reload_settings(self, *, by_signal: bool = False) -> Any:
        """Reloads the configuration: rule 5. Returns the report. None after a bug."""
        reloaded = _result(partial(self._reload, by_signal=by_signal), "the configuration is not reloaded")
        if reloaded is None:
            return None
        settings, report = reloaded
        if settings is not None:
            self._settings = settings
            self._send(self._workers.values(), "settings", settings)
        return report

    def _drain(self) -> None:
        """Starts the drain: rule 3."""
        self._state = _State.DRAINING
        self._respawns.clear()
        self._accept_until = time.monotonic() + self._grace - seconds_without_accepting(self._grace)
        self._leave_sockets(0)
        self._send_end("drain", self._grace)

    def _hurry(self) -> None:
        self._accept_until = -math.inf
        self._send_end("hurry", 0.0)

    def _send_end(self, kind: str, grace: float) -> None:
        """Sends a message to all workers. Workers that have not ended after `grace` seconds are killed."""
        for worker in self._workers.values():
            worker.end_by(time.monotonic() + grace + LIMITS.worker_end)
        self._send(self._workers.values(), kind)

    def _release_idle(self) -> None:
        """Sends the last byte to idle workers, if another worker accepts connections, or none will be accepted."""
        for worker in self._workers.values():
            if not worker.is_idle or worker.has_last:
                continue
            if self._takers() == [worker]:
                if self._state is not _State.DRAINING:
                    continue  # until another worker has started
                if time.monotonic() < self._accept_until and not self._accept():
                    continue
                self._close_sockets()
            worker.has_last = send_last(worker.channel)


def _result(function: Callable[[], _T], failure: str) -> _T | None:
    """Calls a function that was passed to the supervisor: rule 7.

    Args:
        function: The function, without arguments.
        failure: The log line if it raises.

    Returns:
        Its result. None if it raises.
    """
    try:
        return function()
    except Exception:  # noqa: BLE001  # rule 7
        _log.exception("%s: a bug, or a lack of the system", failure)
        return None


def _how_it_ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _handle(numbers: Sequence[signal.Signals], handler: Callable[[int, object], object]) -> None:
    """Handles signals from now on. The caller of the supervisor may have blocked SIGHUP until then."""
    for number in numbers:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))


def _empty(wake: socket.socket) -> None:
    """Reads the signal numbers that woke the selector. The handlers have noted the signals."""
    with suppress(BlockingIOError):  # all are read
        while wake.recv(LIMITS.accepted):
            pass
