"""`Account` and `Bill`: what each attempt of a stream costs, and their sum.

Owns which attempts are charged, and how much (docs/limits.md, "What a stream costs"). Must not know ledgers, providers
or answers: the reader of an attempt's answer closes its account with the tokens that it counted.

The progress of an attempt decides its cost, if it ends now:

    asked     nothing: the request waits for a connection, or for one to be established
    sent      its prompt, if it is abandoned; nothing, if its upstream fails
    content   its prompt and what it generated, however it ends
    counted   the provider's count: the provider has sent its finish reason and its count

1. An account is closed exactly once, at the end of its attempt; later calls of `close` and `give_up` do nothing. Its
   charge does not change afterwards. Reading a figure changes nothing.
2. The end of a stream closes all its accounts: a running hedge is abandoned before the cost is reported.
3. The provider's own figure takes precedence, unless the price is in another currency. Without either nothing is
   charged.
4. An answer that another stream has requested costs nothing.
5. Amounts of two currencies are never added: the stream's cost is the sum in the currency of its last charge.
"""

from __future__ import annotations

from typing import Any, Protocol

from gai_fast.core.requests.reading import estimated_tokens
from gai_fast.model.money import USD, Amount, Charge, cost_of, total_of
from gai_fast.model.settings import ModelSettings, Price


class SentRequest(Protocol):
    """The part of an exchange that an account reads."""

    @property
    def sent(self) -> bool:
        """Whether the request was handed to an established connection. The value does not change after the end."""


class Bill:
    """The charges of one stream, in the order in which its accounts were closed.

    Attributes:
        absurd_tokens: The largest count of an upstream that was absurd. 0 if there was none.
        charges: The charges of the closed accounts.
    """

    def __init__(self) -> None:
        self.absurd_tokens = 0
        self.charges: tuple[Charge, ...] = ()
        self._open: list[Account] = []

    def opened(self, account: Account) -> None:
        """Notes an account."""
        self._open.append(account)

    def closed(self, account: Account, charge: Charge | None) -> None:
        """Notes that an account is closed, and its charge."""
        self._open.remove(account)
        if charge is not None:
            self.charges = (*self.charges, charge)

    def give_up_others(self, account: Account) -> None:
        """Abandons all open accounts except the one with which the stream ends: rule 2."""
        if len(self._open) > 1:  # streams seldom have more than one attempt at a time
            for each in self._open.copy():
                if each is not account:
                    each.give_up()

    def charges_with(self, account: Account, charge: Charge | None) -> tuple[Charge, ...]:
        """Returns the charges that the stream would have if it ended now.

        Args:
            account: The account that the stream would end with.
            charge: The account's charge.
        """
        if account.is_closed:
            return self.charges
        others = [each.charge_of(each.prompt_usage(), None) for each in self._open if each is not account]
        return (*self.charges, *[each for each in (*others, charge) if each is not None])

    def charges_before(self, account: Account) -> tuple[Charge, ...]:
        """Returns the charges of all closed accounts but one."""
        return tuple([each for each in self.charges if each is not account.charge])

    def total(self) -> tuple[Amount, str] | None:
        """Returns the cost of the closed accounts and its currency. `None` if nothing was charged."""
        return total_of(self.charges)


class Account:
    """The cost of one attempt at an answer.

    Args:
        bill: The stream's bill.
        request: The attempt's request.
        provider: As for `Charge`.
        upstream: As for `Charge`.
        price: The model's price. `None` if it has none.
        prompt_characters: Length of the request's text. `None` if the prompt is not charged.
        is_free: Whether another stream is charged for the answer. The cost is then 0.
        model: The model that is asked. `None` if it is not known.

    Attributes:
        bill: The stream's bill.
        is_closed: Whether the attempt has ended.
        is_free: Whether another stream is charged for the answer.
        model: The model that is asked. None if it is not known.
        price: The price of the model that is asked. None if it has none.
        usage: The tokens that it was closed with. None if it is open, or was closed without cost.
        charge: Its charge. None if it is open, or nothing was charged.
    """

    def __init__(
        self,
        bill: Bill,
        request: SentRequest,
        provider: str,
        upstream: str,
        price: Price | None,
        *,
        prompt_characters: int | None,
        is_free: bool = False,
        model: ModelSettings | None = None,
    ) -> None:
        self.bill = bill
        self.charge: Charge | None = None
        self.is_closed = False
        self.usage: dict[str, Any] | None = None
        self.is_free = is_free
        self.model = model
        self.price = price
        self._prompt_characters = prompt_characters
        self._provider = provider
        self._request = request
        self._upstream = upstream
        bill.opened(self)

    @property
    def is_sent(self) -> bool:
        """Whether the prompt was sent to the upstream."""
        return self._request.sent

    def prompt_usage(self) -> dict[str, Any] | None:
        """Returns the tokens of an attempt that is abandoned now without an answer. `None` if they cost nothing."""
        if self._prompt_characters is None or not self.is_sent:
            return None
        return {"input_tokens": estimated_tokens(self._prompt_characters)}

    def with_searches(self, usage: dict[str, Any], searches: int) -> dict[str, Any]:
        """Returns usage with the provider's searches, if they have a price."""
        price = self.price
        if not searches or price is None or not price.web_search:
            return usage
        return {**usage, "web_search_requests": searches}

    def charge_of(self, usage: dict[str, Any] | None, own: Amount | None) -> Charge | None:
        """Returns the charge for an attempt that ends with these tokens; arguments as for `close`."""
        price = self.price
        if usage is None:
            return None
        if own is not None and (price is None or price.currency == USD):
            return Charge(self._provider, self._upstream, 0 if self.is_free else own, USD)
        if price is None or not usage:
            return None
        amount = 0 if self.is_free else cost_of(usage, price) + price.request
        return Charge(self._provider, self._upstream, amount, price.currency)

    def close(self, usage: dict[str, Any] | None, own: Amount | None) -> None:
        """Charges the attempt, which has ended.

        Args:
            usage: The attempt's tokens. `None` if they cost nothing.
            own: The provider's own figure, in US dollars. `None` if there is none.
        """
        if not self.is_closed:
            self.is_closed = True
            self.usage = usage
            self.charge = self.charge_of(usage, own)
            self.bill.closed(self, self.charge)

    def give_up(self) -> None:
        """Closes the account of an attempt that is abandoned without an answer. Its upstream may have the prompt."""
        self.close(self.prompt_usage(), None)
