"""`Allowance`: the spend that is reserved for one stream, and how much of an answer it covers.

Owns the comparison of a stream's own count with its reservation: characters of the answer with one number. The ledger
decides what is reserved. A read that has no more bytes than the reservation covers characters is handled as all others;
the last reads before that end are handled in parts of `limits.spend_part` bytes.
"""

from __future__ import annotations

from typing import Final

from gai_fast.core.reading import CHARACTERS_PER_TOKEN, estimated_tokens
from gai_fast.ledger import Reservation
from gai_fast.model.money import PRICED_TOKENS, Amount, cost_of
from gai_fast.model.settings import Price

_ANY: Final = 1 << 62
"""Characters of an answer that costs nothing."""


class Allowance:
    """The reservation of one stream.

    Args:
        reserved: The spend that was reserved at the stream's admission.

    Attributes:
        characters: The characters of the attempt's answer that the reservation covers.
        is_asking: The ledger has been asked for more, and has not answered.
    """

    __slots__ = ("_base", "_largest", "_price", "_reserved", "_step", "characters", "is_asking")

    def __init__(self, reserved: Amount) -> None:
        self._reserved = reserved
        self._step = reserved
        self._base: Amount = 0
        self._price: Price | None = None
        self._largest = 0  # characters of one part so far
        self.characters = _ANY
        self.is_asking = False

    def begin(self, price: Price | None, prompt_characters: int, earlier: Amount) -> None:
        """Begins an attempt.

        Args:
            price: The price of the model that is asked; None if it costs nothing.
            prompt_characters: The length of the request's text.
            earlier: The cost of the attempts before.
        """
        self._price = price
        tokens = estimated_tokens(prompt_characters)
        self._base = earlier if price is None else earlier + cost_of({"input_tokens": tokens}, price)
        self._cover()

    def note(self, characters: int) -> None:
        """Notes the characters of a part of the body that was read."""
        if characters > self._largest:
            self._largest = characters

    def is_used_up(self, characters: int) -> bool:
        """Whether the reservation does not cover one more part.

        The next part is expected to be as large as the largest one so far, so that steady streams stay within their
        reservations: of several streams that end together, each would exceed its own.

        Args:
            characters: The characters of the answer so far.
        """
        return characters + self._largest > self.characters

    def wanted(self, characters: int) -> Reservation:
        """Returns what the stream needs for its next part, and what it would like to have: as much as at first.

        Args:
            characters: The characters of the answer so far.
        """
        least = max(1, self._base + self._cost(characters + self._largest) - self._reserved)
        return Reservation(least, max(least, self._step))

    def grow(self, more: Amount) -> None:
        """Adds to the reservation."""
        self._reserved += more
        self._cover()

    def _cost(self, characters: int) -> Amount:
        price = self._price
        return 0 if price is None else cost_of({"output_tokens": estimated_tokens(characters)}, price)

    def _cover(self) -> None:
        price = self._price
        if price is None or not price.output:
            self.characters = _ANY
        else:
            tokens = max(0, self._reserved - self._base) * PRICED_TOKENS // price.output
            self.characters = min(_ANY, tokens * CHARACTERS_PER_TOKEN)
