"""`Allowance`: the spend that is reserved for one stream, how much of an answer it covers, and the bytes beyond.

Owns the comparison of a stream's own count with its reservation: characters of the answer with one number. The ledger
decides what is reserved.

1. A read that has no more bytes than the reservation covers characters is handled as all others. The last reads before
   the end of the reservation are handled in parts of `limits.spend_part` bytes.
2. If the reservation is used up, the ledger is asked for more. Until it answers, further bytes are held and the
   upstream is not read. Its time limits do not run.
3. If there is no more, the stream ends properly.
4. Held bytes belong to one attempt: they are dropped if it fails, or if another one takes its place.
5. Another turn of a run needs its prompt to be covered before it is asked.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from gai_fast.core.account import Account, Bill
from gai_fast.core.relay import Relay
from gai_fast.core.requests.reading import CHARACTERS_PER_TOKEN, estimated_tokens
from gai_fast.ledger import Reservation
from gai_fast.model.errors import Error
from gai_fast.model.events import FinishReason
from gai_fast.model.money import PRICED_TOKENS, Amount, cost_of, dearest_output
from gai_fast.model.settings import Price
from gai_fast.net.limits import LIMITS
from gai_fast.net.upstream.connection import Receiver

_ANY: Final = 1 << 62
"""Characters of an answer that costs nothing."""


@mypyc_attr(allow_interpreted_subclasses=True)
class LimitedStream(Receiver):
    """The part of a session that an allowance uses.

    Attributes:
        relay: The answer.
    """

    relay: Relay

    def feed(self, data: bytes) -> bool:
        """Handles bytes of the body. Returns whether the stream goes on."""
        raise NotImplementedError

    def receive_end(self, error: Error | None) -> None:
        """Handles the end of the body."""
        raise NotImplementedError

    def grow(self, wanted: Reservation) -> None:
        """Asks the ledger for more spend; it answers with `Allowance.grow`, at once or later."""
        raise NotImplementedError

    def hold_back(self) -> None:
        """Pauses reading the upstream."""
        raise NotImplementedError

    def read_on(self) -> None:
        """Reads the upstream again, unless its client is too slow."""
        raise NotImplementedError

    def stop(self, finish_reason: FinishReason, reason: str | None = None) -> None:
        """Ends the stream; as `Relay.stop`."""
        raise NotImplementedError


class Allowance:
    """The reservation of one stream.

    Args:
        reserved: The spend that was reserved at the stream's admission.

    Attributes:
        characters: The characters of the attempt's answer that the reservation covers.
        is_asking: The ledger has been asked for more, and has not answered.
    """

    def __init__(self, reserved: Amount) -> None:
        self._reserved = reserved
        self._step = reserved
        self._base: Amount = 0
        self._price: Price | None = None
        self._largest = 0  # characters of one part so far
        self._held = b""
        self._end: tuple[Error | None] | None = None  # the end of the body after the held bytes
        self._is_handling = False  # whether held bytes are being handled
        self.characters = _ANY
        self.is_asking = False

    def begin(self, account: Account | None, prompt_characters: int) -> None:
        """Begins an attempt, or compares the reservation again if another attempt has cost something.

        Args:
            account: The attempt's account. None if no upstream has been asked so far.
            prompt_characters: The length of the request's text.
        """
        self._price = price = None if account is None or account.is_free else account.price
        if account is not None and price is not None:
            self._base = cost_of({"input_tokens": estimated_tokens(prompt_characters)}, price) + price.request
            for charge in account.bill.charges_before(account):
                if charge.currency == price.currency:
                    self._base += charge.amount
        self._cover()

    def missing(self, bill: Bill, price: Price | None, prompt_characters: int) -> Reservation | None:
        """Returns the reservation that the prompt of another turn needs. None if the present one covers it.

        Args:
            bill: The stream's bill.
            price: The price of the turn's model. None if it has none.
            prompt_characters: The length of the text of the turn's request.
        """
        if price is None:
            return None
        spent = sum([charge.amount for charge in bill.charges if charge.currency == price.currency])
        prompt = cost_of({"input_tokens": estimated_tokens(prompt_characters)}, price) + price.request
        least = spent + prompt - self._reserved
        return None if least <= 0 else Reservation(least, max(least, self._step))

    def take(self, more: Amount) -> None:
        """Adds the ledger's reservation for another turn."""
        self._reserved += more
        self._step = self._step or more

    def covers(self, characters: int) -> bool:
        """Returns whether bytes can be handled at once with which the answer has this number of characters."""
        return characters <= self.characters and not self._held

    def receive(self, stream: LimitedStream, data: bytes) -> None:
        """Handles bytes of the body as far as the reservation covers them, and holds the rest."""
        self._held += data
        self._handle(stream)
        if self.is_asking:
            stream.hold_back()

    def holds_end(self, error: Error | None) -> bool:
        """Returns whether the end of the body is held, because bytes before it are."""
        if self._held:
            self._end = (error,)
        return self._end is not None

    def drop(self) -> None:
        """Drops held bytes, whose attempt has ended."""
        self._held, self._end = b"", None

    def grow(self, stream: LimitedStream, more: Amount) -> None:
        """Takes what the ledger has reserved, and handles the held bytes.

        Args:
            stream: The stream.
            more: The additional spend. 0 if there is no more.
        """
        self.is_asking = False
        if more:
            self._reserved += more
            self._cover()
        elif self._held:  # else another attempt has begun since
            self.drop()
            stream.stop("length", "spend")
            return
        if not self._is_handling:
            self._handle(stream)
            if not self.is_asking:
                stream.read_on()

    def _handle(self, stream: LimitedStream) -> None:
        relay = stream.relay
        self._is_handling = True
        try:
            while self._held and not self.is_asking:
                before, size = relay.characters, len(self._held)
                if before + size > self.characters and not relay.is_over:
                    if self._is_used_up(before):
                        self.is_asking = True
                        stream.grow(self._wanted(before))
                        continue
                    size = LIMITS.spend_part
                part, self._held = self._held[:size], self._held[size:]
                if not stream.feed(part):
                    self.drop()
                self._largest = max(self._largest, relay.characters - before)
        finally:
            self._is_handling = False
        if self._end is not None and not self._held:
            end, self._end = self._end, None
            stream.receive_end(end[0])

    def _is_used_up(self, characters: int) -> bool:
        """Returns whether the reservation does not cover one more part.

        The next part is expected to be as large as the largest one so far, so that steady streams stay within their
        reservations: of several streams that end together, each would exceed its own.

        Args:
            characters: The characters of the answer so far.
        """
        return characters + self._largest > self.characters

    def _wanted(self, characters: int) -> Reservation:
        """Returns the spend that the stream needs for its next part, and the spend it asks for: as much as at first."""
        least = max(1, self._base + self._cost(characters + self._largest) - self._reserved)
        return Reservation(least, max(least, self._step))

    def _cost(self, characters: int) -> Amount:
        price = self._price
        return 0 if price is None else cost_of(dearest_output(estimated_tokens(characters), price), price)

    def _cover(self) -> None:
        price = self._price
        dearest = 0 if price is None else max(price.output, price.reasoning)
        if not dearest:
            self.characters = _ANY
        else:
            tokens = max(0, self._reserved - self._base) * PRICED_TOKENS // dearest
            self.characters = min(_ANY, tokens * CHARACTERS_PER_TOKEN)
