"""Limits of tools: what their servers may send, and how long they may take.

This folder and `net/toolbox/` use them. `serve` without tools imports nothing of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gai_fast.model.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds, unless the name says otherwise."""

    # ---- the list of tools

    listed_tools: int = 512
    """Tools of one server: four times as many as any provider accepts in a request (128)."""

    listed_bytes: int = 4 * MIB
    """Bytes of the tools of one list: as many characters as the longest contexts have, of a million tokens. They are
    read in a second of work, and kept in eight times the memory."""

    list_pages: int = 64
    """Pages of one list: eight tools a page fill the list. A server may name a next page for ever."""

    tool_name: int = 128
    """Characters of a tool's name: the most that the protocol recommends."""

    name_digits: int = 8
    """Hexadecimal digits that end a name for models that is cut: two of 512 tools have the same once in 30,000 lists.
    """

    message_depth: int = 240
    """Levels of a message: orjson writes 254. Of its values, those deeper than `tool_depth` are refused by themselves:
    one tool is left out, one result is an error."""

    list_answers: int = 4
    """Times `timeout` in which a whole list is there: to connect takes up to three answers, and most lists are one page
    more. Each page may take `timeout` itself."""

    list_turn: int = 64 * KIB
    """Bytes of a message above which it is read and checked beside the loop, and a list is read tool by tool: 10 ms."""

    messages_turn: int = 256
    """Messages of a stream that are read before other work has its turn: 2 ms."""

    message_batch: int = 256
    """Messages of a batch: as many as in a turn. They are handed on in the loop, at 0.1 ms each."""

    result_parts: int = 1024
    """Parts of a result with images or sounds: each is a part of the model's next request. Texts alone are joined."""

    list_cursor: int = 4 * KIB
    """Characters of the name of a next page; they are sent back."""

    list_ttl: float = 60.0
    """Seconds until a list is read again, if its server names no time: a new tool is there within a minute."""

    list_ttl_least: float = 10.0
    """The shortest time until a list is read again, whatever its server names, for each MiB of the list: a fortieth of
    the time is spent on it at most."""

    list_again: float = 0.1
    """Seconds that runs wait while a list is read again: the former one serves."""

    list_ttl_most: float = 86400.0
    """The longest: a day, after which a server that has changed is noticed."""

    list_warnings: int = 16
    """Tools of a list that are left out and have a line of the log each: a server may name others each second."""

    # ---- messages

    tool_message: int = 8 * MIB
    """Bytes of a whole body, of an event and of a line: as of an event of an upstream. A result of 1 MiB may stand in
    it twice, and its images beside it."""

    tool_progress: int = 1000
    """Notices of progress of a call; later ones are dropped and no longer renew its time: a server that reports
    progress for ever does not hold a call for ever."""

    session_id: int = 1 * KIB
    """Characters of the id of a session, or of an event; each request repeats them. Ids are mostly UUIDs, or tokens of
    some hundred characters."""

    unasked_body: int = 4 * KIB
    """Bytes of a body that nothing asked for, after a notice; its connection is closed then. Servers send none, or a
    few words."""

    answered_pings: int = 16
    """Questions of a server, during one call, that are answered: a ping each 30 s of a call of 8 minutes."""

    sessions: int = 64
    """Sessions of a server in a worker, of callers or runs: as many as the busiest minute of a worker has callers. Each
    is a page, a folder or a process at its server."""

    # ---- times

    session_idle: float = 600.0
    """Seconds without a call until such a session ends: a person reads, and asks again."""

    ping: float = 5.0
    """Seconds for the answer to a ping, which asks whether a session is still there."""

    discovery: float = 5.0
    """Seconds until a process that does not answer `server/discover` is also asked to begin a session: processes of
    before 2026 may ignore what they do not know. A later answer still counts."""

    farewell: float = 2.0
    """Seconds for what a server is told at the end: that a call is cancelled, or its session over."""

    resumption: float = 1.0
    """Seconds until a cut stream is resumed, if its server has named no time."""

    resumption_least: float = 0.05
    """The shortest time: a server that closes each stream at once is asked 20 times a second."""

    stream_end: float = 1.0
    """Seconds that a stream may stay open after its result. Its connection is kept for the next request, if it ends."""

    # ---- connections and processes

    tool_waiting: int = 1024
    """Calls that wait until one of `max_calls` has ended, half of them of one caller: more would wait for minutes."""

    unread_input: int = 1 * MIB
    """Bytes that a process may leave unread: four of the largest calls. Further calls fail at once."""

    output_turn: int = 4 * KIB
    """Bytes of a process's output that are read before other work has its turn: a thousand lines that are no messages
    take 10 ms."""

    lines_unasked: int = 100_000
    """Lines of a process between two answers, which end it: of one that logs a line each second, a day's. A flood is
    over after a second of work."""

    run_held: float = 0.05
    """Seconds between two looks whether processors still hold events of a run that waits: most hold none for longer."""

    run_places: int = 4
    """Runs that begin, calls that begin and results with which runs go on, in one turn of the loop: each is half a
    millisecond of work at most, and others' first tokens wait for two or three turns."""

    run_wishes: int = 1024
    """Pairs of a model and the tools of a key of which a process knows what they may use: a hundred bytes each."""

    run_offers: int = 64
    """Those of which it knows what they offer: 1 KiB for each tool, and 1 KiB for each form in which it is written, of
    which there are eight at most. With 128 tools these are 72 MiB."""

    run_patterns: int = 8
    """Patterns of a request that are compared with lists in the loop: with the 512 tools of each of four servers, 5 ms.
    """

    run_expiring: int = 100
    """Milliseconds before the end of an approval from which on its run stays in its session: it would leave and go on
    over and over."""

    short_text: int = 64
    """Characters of a text that is searched for all credentials at once, at 40 to 100 ns a character. A longer one is
    searched for each of them, at 60 ns and hardly more."""

    exit_wait: float = 2.0
    """Seconds in which a process must end once its input has ended, and again after SIGTERM; then it is killed."""

    tool_function_end: float = 0.05
    """Seconds in which a function that is cancelled may still clean up: a call ends within 0.1 s of its run's end."""

    crash_wait: float = 5.0
    """Seconds that a call of a caller in doubt waits for one of another: most calls are over, and who lets a call hang
    holds nobody for longer."""

    exit_check: float = 0.01
    """Seconds between two looks whether it has ended."""

    exit_look: float = 1.0
    """Seconds between two looks, while a request waits, whether the process has ended: a child may hold its output, and
    then only the operating system knows."""


LIMITS: Final = Limits()
