"""`make soak-charged`: servers are killed while streams run, and each key is charged what the provider has counted.

    python -m tests.soak.outlive.charged --kills 300 --seed 1
    python -m tests.soak.outlive.charged --kills 20 --stores sqlite --sync batched

The streams and kills of `make soak-outlive`, with a key for each stream; every third has a limit of spend. The upstream
counts tokens in its own way, so that no count is taken for an estimate by length.

The exit code is also 1 if a key was charged otherwise:

* For an answer that came to its end, the upstream's count, once.
* For one whose server was killed, its prompt and text by length: at most all that was sent, at least what was sent
  before the server's last second. What ended in that second may be charged in either way, or in part.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from gai_fast.core.requests.reading import estimated_tokens
from tests.soak.client import Connection
from tests.soak.outlive.__main__ import Outlive, main
from tests.soak.outlive.readers import Reader, bearer
from tests.soak.outlive.upstream import Answer, Asked

KILLS: Final = 300
LAST: Final = 1.0
"""Seconds whose use a killed server may not have charged: docs/limits.md."""
BUSY: Final = 1.0
"""Seconds for which a delta may be on its way to a server, or a charge to the store, on a busy machine."""
REPORTED: Final = 2.0
"""Seconds after which the last charge is in the report."""
INPUT: Final = 1
OUTPUT: Final = 100_000
"""What a token costs, in 10^-6 of the currency: no number of prompts is a token of output."""
KEYS: Final = 1000
_ADMIN: Final = "administrator"


class Charged(Outlive):
    """Streams whose charges are compared with what their upstream has counted. Arguments as for `Outlive`."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._words = (200, 700)
        self._judged: list[Answer] = []
        limit = 'spend = {amount = 1000000, period = "total"}\n'
        keys = [_key(f"k{number}", limit if number % 3 == 0 else "") for number in range(KEYS)]
        self._keys = "".join([*keys, _key(_ADMIN, 'role = "admin"\n')])

    def _configuration(self, number: int) -> str:
        price = f"price = {{input = {INPUT}, output = {OUTPUT}}}\n"
        return super()._configuration(number).replace('upstream = "up"\n', f'upstream = "up"\n{price}') + self._keys

    def _secret(self, number: int) -> str:
        return _secret(f"k{number % KEYS}")

    async def _judge(self, answer: Answer, readers: Sequence[Reader]) -> None:
        self._judged.append(answer)
        await super()._judge(answer, readers)

    async def _ended(self) -> None:
        await asyncio.sleep(REPORTED)
        report = await self._report()
        by_key: dict[str, list[Answer]] = {}
        for answer in self._judged:
            by_key.setdefault(answer.secret, []).append(answer)
        for secret, answers in by_key.items():
            self._compare(answers, report.pop(secret, 0))
        if report:
            self.faults.append(f"charged without a stream: {report}")

    async def _report(self) -> dict[str, int]:
        """Returns what each key was charged, by secret, in 10^-6 of the price of a token of input."""
        connection = await Connection.open(self._host)
        headers = {**bearer(_secret(_ADMIN)), "connection": "close"}
        reply = await connection.ask("GET", "/admin/v1/spend?by=key", None, headers)
        body = await reply.rest()
        connection.close()
        rows = json.loads(body, parse_float=Decimal)["data"]
        return {_secret(row["key"]): int(Decimal(row["amount"]) * 10**6) for row in rows}

    def _compare(self, answers: Sequence[Answer], charged: int) -> None:
        """Compares what a key was charged with what the upstream has counted of its streams."""
        least = most = 0
        dead: list[Asked] = []
        for answer in answers:
            for asked in answer.requests:
                killed = self._killed.get(asked.server)
                if asked.finished is not None and (killed is None or killed - asked.finished > LAST + BUSY):
                    least += _cost(*asked.usage)
                    most += _cost(*asked.usage)
                    self._tally["whole attempts"] += 1
                    continue
                dead.append(asked)
                most += _most(asked)
                if killed is not None:
                    least += _least(asked, killed - LAST - BUSY)
        self._tally["dead attempts"] += len(dead)
        self._tally["charged"] += charged
        if not least <= charged <= most:
            tags = [(answer.tag, [self._told(asked) for asked in answer.requests]) for answer in answers]
            self.faults.append(f"charged {charged}, not {least} to {most}: {tags}")
        if len(answers) == len(dead) == 1 and dead[0].finished is None:
            name = "latest charge, ms"
            self._tally[name] = max(self._tally[name], self._late(dead[0], charged - most))

    def _late(self, asked: Asked, missing: int) -> int:
        """Returns the milliseconds before the kill in which what was sent has cost as much as is missing."""
        killed = self._killed.get(asked.server, asked.began)
        cost = _most(asked) + missing
        sent = [at for at, _ in asked.sent if at < killed]
        uncharged = [at for at in sent if _least(asked, at) > cost]
        return round((killed - uncharged[0]) * 1000) if uncharged else 0

    def _told(self, asked: Asked) -> str:
        killed = self._killed.get(asked.server)
        end = "" if killed is None else f", killed after {killed - asked.began:.2f} s"
        whole = "" if asked.finished is None else f", sent after {asked.finished - asked.began:.2f} s"
        return f"server {asked.server}, {asked.characters} characters behind {asked.prefill}{whole}{end}"


def _cost(into: int, out: int) -> int:
    return into * INPUT + out * OUTPUT


def _most(asked: Asked) -> int:
    """Returns the most that an answer costs whose server was killed."""
    by_length = _cost(estimated_tokens(asked.prompt + asked.prefill), estimated_tokens(asked.characters))
    return by_length if asked.finished is None else max(by_length, _cost(*asked.usage))


def _least(asked: Asked, at: float) -> int:
    """Returns the least that it costs if all was charged until a time."""
    if at <= asked.began:
        return 0
    return _cost(estimated_tokens(asked.prompt), estimated_tokens(asked.sent_by(at)))


def _secret(name: str) -> str:
    return f"the secret of {name}"


def _key(name: str, more: str) -> str:
    digest = hashlib.sha256(_secret(name).encode()).hexdigest()
    return f'[[key]]\nname = "{name}"\nsecret = "sha256:{digest}"\n{more}'


if __name__ == "__main__":
    sys.exit(main(kind=Charged, kills=KILLS))
