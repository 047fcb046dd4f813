"""The gate `guards`: the texts of a request before its guards, and its plan with what they let through.

Owns what of it is done at once. `guards/input.py` has what guards do, `passages.py` where texts stand.

1. A caller without a request or a stream left is refused before a guard looks, however small the body is.
2. A request that a guard stops counts as a request without tokens: nobody tries for free what a guard finds.
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
from gai_fast.guards.limits import LIMITS
from gai_fast.ledger import NO_DEMAND
from gai_fast.model.errors import Error
from gai_fast.net.stream.guarding import new_texts
from gai_fast.net.stream.streams import Engine
from gai_fast.server.requests.early import EarlyChecks, read_rest
from gai_fast.server.requests.passage import Passage, Wait


class InputGuards:
    """Lets requests pass their guards.

    Args:
        engine: The engine with the guards.
        checks: The limits of callers.
    """

    def __init__(self, engine: Engine, checks: EarlyChecks) -> None:
        self._engine = engine
        self._checks = checks

    def admit(self, passage: Passage, looking: Sequence[ActiveGuard]) -> Wait | None:
        """Lets a request on, if its guards do; as `Gate.admit`.

        Args:
            passage: The request, which is planned.
            looking: The guards that look at its texts.

        Raises:
            Error: A limit or a guard refuses it.
        """
        is_counted = bool(passage.stream_id)
        if is_counted and not self._checks.has_room(passage.incoming):
            return partial(self._wait, passage, looking, must_look=True)
        if passage.is_long:
            return partial(self._wait, passage, looking)
        texts = passage.texts()
        check = self._check(passage, looking, texts)
        try:
            waits = bool(check.judges) or check.size > LIMITS.slice or not check.turn()
        except Error as problem:
            return partial(self._refuse, passage, problem)
        if waits:
            return partial(self._go_on, passage, texts, check)
        _use(passage, texts, check)
        if passage.rest is not None:
            return partial(self._plan_beside, passage, check)
        self._plan(passage, check)
        return None

    def _check(self, passage: Passage, looking: Sequence[ActiveGuard], texts: Sequence[Text]) -> InputCheck:
        strings = [string for text in texts for string in text.strings]
        return self._engine.guarding.check(looking, strings, passage.info())

    async def _wait(self, passage: Passage, looking: Sequence[ActiveGuard], *, must_look: bool = False) -> None:
        """Asks the ledger that workers share, and finds the texts of a large request beside the loop."""
        incoming, engine = passage.incoming, self._engine
        if must_look and incoming.http.key is not None:
            await engine.ledger.look(incoming.http.key)
        if passage.is_long:
            texts = await engine.targets.beside.do(passage.texts, incoming.http.caller)
        else:
            texts = passage.texts()
        await self._go_on(passage, texts, self._check(passage, looking, texts))

    async def _go_on(self, passage: Passage, texts: Sequence[Text], check: InputCheck) -> None:
        engine = self._engine
        try:
            await engine.guarding.finish(check)
        except Error as problem:
            await self._refuse(passage, problem)
        if passage.is_long:
            await engine.targets.beside.do(partial(_use, passage, texts, check), passage.incoming.http.caller)
        else:
            _use(passage, texts, check)
        await self._plan_beside(passage, check)

    async def _refuse(self, passage: Passage, problem: Error) -> NoReturn:
        """Refuses a request, which counts if a guard stops it: rule 2.

        Args:
            passage: The request.
            problem: Why it is not let through.

        Raises:
            Error: The problem; or a limit refuses the request first.
        """
        key, ledger = passage.incoming.http.key, self._engine.ledger
        if key is not None and passage.stream_id and problem.code == "content_filtered":
            await ledger.take(key, passage.stream_id, NO_DEMAND)
            ledger.settle(passage.stream_id, 0)
        raise problem

    async def _plan_beside(self, passage: Passage, check: InputCheck) -> None:
        if passage.rest is not None:
            await read_rest(passage, self._engine.targets.beside)
        self._plan(passage, check)

    @staticmethod
    def _plan(passage: Passage, check: InputCheck) -> None:
        let = check.let_through()
        if let is not None:
            passage.plan_again(let)


def _use(passage: Passage, texts: Sequence[Text], check: InputCheck) -> None:
    """Gives a request what guards have let through of its texts. As `Passage.rest`, it may be done beside the loop."""
    new = new_texts(texts, check)
    if new is not None:
        passage.use_texts(new)
