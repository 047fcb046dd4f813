"""Counts what guards add to requests: `gai-fast serve` with guards and without, from socket to socket.

The lists, the kinds and the bounds are those of `benchmarks/macro/guards.py`. Its figures are times; here is what of
them can be counted.
"""

from __future__ import annotations

import gc
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import CDLL
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.instructions.bounds import Added, Ratio
from benchmarks.instructions.counting import ROOT, TIMEOUT, build_marks, counted_environment, mark_of, read
from benchmarks.instructions.path import BODY_END, BURST, NATIVE, UPSTREAMS, Server, Upstream, answer_of, one_by_one
from benchmarks.macro.guards import KINDS, MOST, TRANSFORM, beginnings, patterns, words
from benchmarks.macro.scenarios import WORDS

PROVIDER: Final = "openai-compatible"
WARM_UP: Final = 20
REQUESTS: Final = 10
ROUNDS: Final = 3
"""As in `path.py`. The cheapest round counts."""
FIRSTS: Final = 10
"""Answers whose beginnings are counted, of which the cheapest counts."""
FIRST: Final = {"nothing found": 90_000, "input masked": 160_000}
"""Instructions that guards may add before the first text, by what they find in the request: it is planned again if
they mask it. Without guards there are 132,000 to 171,000. The bound of time is 0.3 ms."""
SHARE: Final = 0.02
"""How much of the lists is built and searched: `re` takes minutes for all of them here."""
UNSEEN: Final = 2_000
"""Characters that no state has seen."""
PLAIN_QUERY: Final = "Write to Anna about the lighthouse."
OWN_QUERY: Final = "Write to anna@example.com about the lighthouse."
_TABLES: Final = """\
[[model]]
name = "{model}"
upstream = "{provider}"

[[guard]]
name = "{model}-{use}"
models = ["{model}"]
use = "{use}"
{more}

"""
_LISTS: Final = {"patterns": 'patterns_file = "patterns.txt"', "words": 'words_file = "words.txt"'}
_PII: Final = f"kinds = {json.dumps(KINDS)}"
_TEXT: Final = b'"type":"text.delta"'


def measure_guards(folder: Path) -> dict[str, Ratio | Added]:
    """Returns the instructions of each pair.

    Args:
        folder: An empty folder.

    Raises:
        RuntimeError: As `measure_path`.
    """
    found: dict[str, Ratio | Added] = {**_measure_lists(folder)}
    for name in ("transform", "guards"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        transform = _Server(stack, folder / "transform", {PROVIDER}, TRANSFORM).answer(PROVIDER, OWN_QUERY)
    with ExitStack() as stack:
        server = _Server(stack, folder / "guards", {PROVIDER}, _guards(folder / "guards"))
        for name in ("lists", "pii", "restore"):
            found[f"an answer of {BURST} deltas, {name}"] = Ratio(server.answer(name, OWN_QUERY), transform, MOST[name])
        plain = server.first_text(PROVIDER, PLAIN_QUERY)
        for name, query in (("nothing found", PLAIN_QUERY), ("input masked", OWN_QUERY)):
            found[f"to the first text, {name}"] = Added(server.first_text("all", query), plain, FIRST[name])
    return found


def _guards(folder: Path) -> str:
    """Returns models with the guards of the benchmark, one with all of them."""
    (folder / "patterns.txt").write_text("\n".join(patterns(Random(1))))
    (folder / "words.txt").write_text("\n".join(words(Random(2))))
    own = f'{_PII}\non = ["input"]\nrestore = true'
    models = {"lists": _LISTS, "pii": {"pii": _PII}, "restore": {"pii": own}, "all": {**_LISTS, "pii": _PII}}
    tables: list[str] = []
    for model, guards in models.items():
        table = _TABLES
        for use, more in guards.items():
            tables.append(table.format(model=model, provider=PROVIDER, use=use, more=more))
            table = _TABLES[_TABLES.index("[[guard]]") :]
    return "".join(tables)


class _Server(Server):
    """A server that is asked for answers of models with guards."""

    def answer(self, model: str, query: str) -> float:
        """Returns the instructions of an answer that comes at once."""
        upstream = Upstream(b"", _delta, UPSTREAMS[PROVIDER].closing)
        pieces = answer_of(upstream, BURST)
        with self.connected() as client:
            for _ in range(WARM_UP):
                self._asked(client, model, query, pieces)
            self.begin()
            self._asked(client, model, query, pieces)
            self.counted()
            counts: list[int] = []
            for _ in range(ROUNDS):
                for _ in range(REQUESTS):
                    self._asked(client, model, query, pieces)
                counts.append(self.counted().without_libc)
        return min(counts) / REQUESTS

    def first_text(self, model: str, query: str) -> float:
        """Returns the instructions from a request to the first text of its answer."""
        # A word alone may become an address, and is held. The chunk keeps its length.
        pieces = [piece.replace(b'"first"', b'"a, bc"') for piece in one_by_one(PROVIDER, 1)]
        counts: list[int] = []
        with self.connected() as client:
            for _ in range(WARM_UP):
                self._asked(client, model, query, pieces)
            self.begin()
            for _ in range(FIRSTS):
                # Answered within the same second: what is made anew each second (a head's date) is 15,000 instructions.
                self._asked(client, model, query, pieces)
                self.counted()
                self._asked(client, model, query, pieces, lambda: counts.append(self.counted().without_libc))
        return min(counts)

    def _asked(
        self,
        client: socket.socket,
        model: str,
        query: str,
        pieces: list[bytes],
        mark: Callable[[], None] | None = None,
    ) -> None:
        """One exchange, checked.

        Args:
            client: The client's connection.
            model: The model.
            query: The request's text.
            pieces: The bytes that the upstream sends, each after the text of the one before.
            mark: Called behind the first text.
        """
        body = json.dumps({"model": model, "query": query}).encode()
        start = f"POST {NATIVE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        client.sendall(b"%bContent-Length: %d\r\n\r\n%b" % (start.encode(), len(body), body))
        upstream, answer = self.asked_upstream(client), b""
        for number, piece in enumerate(pieces, 1):
            upstream.sendall(piece)
            while answer.count(_TEXT) < number < len(pieces):
                answer += self.receive(client)
            if number == 1 and mark is not None:
                mark()
        while not answer.endswith(BODY_END):
            answer += self.receive(client)
        if not answer.startswith(b"HTTP/1.1 200 ") or b'"finished":true' not in answer:
            raise RuntimeError(f"the answer is not what it must be:\n{answer[:2000].decode(errors='replace')}")


def _delta(text: str, number: str) -> bytes:
    return UPSTREAMS[PROVIDER].delta(json.loads(f'"{WORDS[int(number) % len(WORDS)]}"'), number)


# ---- lists -----------------------------------------------------------------------------------------------------------


def _measure_lists(folder: Path) -> dict[str, Ratio]:
    marks = build_marks(folder)
    counted = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/lists"]
    done = subprocess.run(
        [*counted, sys.executable, "-m", "benchmarks.instructions", "lists", str(marks)],
        cwd=ROOT,
        env={**counted_environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"valgrind failed ({done.returncode}):\n{done.stderr[-2000:]}")
    cost = {mark_of(file): float(read(file).everything) for file in folder.glob("lists.*")}
    return {
        "lists built, beside `re.compile`": Ratio(cost["built"], cost["re"], MOST["build"]),
        "unseen text, beside known text": Ratio(cost["unseen"], cost["known"], MOST["unseen"]),
    }


def run_lists(marks_path: str) -> None:
    """Under valgrind: builds lists and searches them, and marks each."""
    from gai_fast.guards.automaton import Automaton, compile_rules  # only the process that is counted needs them
    from gai_fast.guards.program import Rule, Words
    from gai_fast.guards.waits import read_pattern

    marks = CDLL(marks_path)
    gc.disable()
    some_patterns, some_words = (each[: int(len(each) * SHARE)] for each in (patterns(Random(1)), words(Random(2))))

    def build() -> list[Automaton]:
        rules = [Rule("p", read_pattern(each)) for each in some_patterns]
        return [compile_rules(rules), compile_rules([Words("w", some_words)])]

    def compile_each() -> None:
        for each in [*some_patterns, *[rf"\b{word}\b" for word in some_words]]:
            re.compile(each)
            re.purge()

    text = beginnings(Random(3), UNSEEN, SHARE)

    def search(automata: list[Automaton]) -> None:
        for each in automata:
            scan = each.scan()
            for at in range(0, len(text), 4):
                scan.feed(text[at : at + 4])
            scan.end()

    def counted(name: str, work: Callable[[], object]) -> None:
        marks.gai_count_from_here()
        work()
        marks.gai_dump(name.encode())

    build()  # warm-up: folding of case, and the modules
    compile_each()
    counted("built", build)
    counted("re", compile_each)
    automata = build()
    counted("unseen", lambda: search(automata))
    counted("known", lambda: search(automata))
