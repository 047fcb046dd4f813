"""What the gate `guards` waits for: long texts, judges, and ledgers that workers share.

`gates.py` has what it does at once, `guards/input.py` what guards do, `kinds/` where texts stand.

1. A caller without a request or a stream left is refused before a guard looks, however small the body is: `gates.py`.
2. A request that a guard stops, or whose judge has failed, counts as a request without tokens, also one that would
   start no stream: nobody tries for free what a guard finds, or asks a judge without end.
3. Short texts that only need to be searched take no task. Others are searched a turn of the loop at a time.
4. A request in which guards find nothing goes on as it was planned: nothing of it is rewritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from gai_fast.core.requests.texts import Text
from gai_fast.guards.active import ActiveGuard
from gai_fast.guards.input import InputCheck
from gai_fast.ledger import NO_DEMAND
from gai_fast.model.errors import Error
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.ids import new_stream_id
from gai_fast.server.requests.early import read_rest
from gai_fast.server.requests.passage import Passage


class InputGuards:
    """Lets requests pass their guards later.

    Args:
        engine: The engine with the guards.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def wait(self, passage: Passage, looking: Sequence[ActiveGuard], *, must_look: bool = False) -> None:
        """Asks the ledger that workers share, and finds the texts of a large request beside the loop.

        Args:
            passage: The request, which is planned.
            looking: The guards that look at its texts.
            must_look: Whether the ledger must be asked.

        Raises:
            Error: A limit or a guard refuses the request.
        """
        incoming, engine = passage.incoming, self._engine
        if must_look and incoming.http.key is not None:
            await engine.ledger.look(incoming.http.key)
        if passage.is_long:
            texts = await engine.targets.beside.do(passage.texts, incoming.http.caller)
        else:
            texts = passage.texts()
        await self.go_on(passage, texts, passage.check(looking, texts, engine.guarding.tallies))

    async def go_on(self, passage: Passage, texts: Sequence[Text], check: InputCheck) -> None:
        """Finishes a check, and plans the request with what was let through.

        Raises:
            Error: A guard does not let the request through.
        """
        engine = self._engine
        try:
            await engine.guarding.finish(check)
        except Error as problem:
            await self.refuse(passage, problem)
        if passage.is_long:
            await engine.targets.beside.do(partial(passage.use_checked, texts, check), passage.incoming.http.caller)
        else:
            passage.use_checked(texts, check)
        await self.plan(passage, check)

    async def refuse(self, passage: Passage, problem: Error) -> NoReturn:
        """Refuses a request, which counts: rule 2.

        Args:
            passage: The request.
            problem: Why it is not let through.

        Raises:
            Error: The problem; or a limit refuses the request first.
        """
        key, ledger = passage.incoming.http.key, self._engine.ledger
        if key is not None and problem.guard is not None:
            stream_id = passage.stream_id or new_stream_id()
            await ledger.take(key, stream_id, NO_DEMAND)
            ledger.settle(stream_id, 0)
        raise problem

    async def plan(self, passage: Passage, check: InputCheck) -> None:
        """Reads the rest of the request, if it has one, and plans it with what was let through.

        Args:
            passage: The request, which has the new texts.
            check: Its check, which has ended.
        """
        if passage.rest is not None:
            await read_rest(passage, self._engine.targets.beside)
        passage.plan_checked(check)
