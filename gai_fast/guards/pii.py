r"""Personal data and credentials: the form of each kind, its check, and what must not stand beside it.

A form that can be written as a pattern is one: then a text that can no longer become a match is not held. A check does
what patterns cannot: checksums, and what is inside a token. The longest text that passes counts.

Sources: ISO/IEC 7812-1 (Luhn), ISO 13616 and the IBAN registry of SWIFT (release 101), RFC 7519 (JWT), the rules of the
Social Security Administration, `ipaddress` of Python.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from gai_fast.guards.characters import ANYTHING, Neighbours, complement, of_text, union
from gai_fast.guards.limits import LIMITS
from gai_fast.guards.program import CheckGate, Rule
from gai_fast.guards.syntax import Alternatives, Node, Sequence, parse

_DIGITS: Final = of_text("0123456789")
_LETTERS: Final = of_text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

_IBAN_LENGTHS: Final = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
"""The countries of each length of an IBAN."""
_IBAN_HEAD: Final = 4
_IBAN_MODULUS: Final = 97


def rules(kinds: Iterable[str]) -> list[Rule]:
    """Returns the rules of some kinds, in their order. The category of each is its kind.

    Raises:
        KeyError: There is no such kind.
    """
    return [_RULES[kind]() for kind in kinds]


# -- forms --


def _email() -> Rule:
    return Rule(
        "email",
        parse(r"[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"),
        before=Neighbours(union([_LETTERS, _DIGITS, of_text("._%+-")])),
        after=Neighbours(union([_LETTERS, _DIGITS, of_text("-")])),
    )


def _phone() -> Rule:
    return Rule(
        "phone",
        parse(r"\+[1-9]([ .()-]{0,2}[0-9]){7,14}"),
        before=Neighbours(words=True),
        after=Neighbours(_DIGITS),
    )


def _iban() -> Rule:
    forms: list[Node] = [
        parse(f"({countries.replace(' ', '|')})[0-9]{{2}}( ?[A-Z0-9]){{{length - _IBAN_HEAD}}}")
        for length, countries in _IBAN_LENGTHS.items()
    ]
    return Rule(
        "iban",
        Sequence([Alternatives(forms), CheckGate(is_iban)]),
        before=Neighbours(words=True),
        after=Neighbours(words=True),
    )


def _card() -> Rule:
    return Rule(
        "card",
        Sequence([parse("[2-6]([ -]?[0-9]){12,18}"), CheckGate(is_card)]),
        before=Neighbours(of_text(".-"), words=True),
        after=Neighbours(of_text("-"), words=True),
    )


def _ip() -> Rule:
    return Rule(
        "ip",
        Alternatives([parse(_IPV4), *[parse(each) for each in _ipv6()]]),
        before=Neighbours(of_text(".:"), words=True),
        after=Neighbours(of_text(":"), words=True),
    )


_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4: Final = rf"{_OCTET}(\.{_OCTET}){{3}}"
_HEXTET: Final = "[0-9A-Fa-f]{1,4}"
_HEXTETS: Final = 8


def _ipv6() -> list[str]:
    """Returns the forms of an IPv6 address: whole, and with `::` in each place. `::` alone has no digit."""
    forms = [f"{_HEXTET}(:{_HEXTET}){{7}}", f"({_HEXTET}:){{6}}{_IPV4}"]
    for left in range(_HEXTETS):
        room = _HEXTETS - 1 - left  # for what follows: `::` stands for one at least
        start = f"{_HEXTET}(:{_HEXTET}){{{left - 1}}}::" if left else "::"
        ends = [f"{_HEXTET}(:{_HEXTET}){{0,{room - 1}}}"] if room else []
        if room > 1:
            ends.append(f"({_HEXTET}:){{0,{room - 2}}}{_IPV4}")
        if left:
            ends.append("")
        forms.append(f"{start}({'|'.join(ends)})" if len(ends) > 1 else start + ends[0])
    return forms


def _ssn() -> Rule:
    area = "(00[1-9]|0[1-9][0-9]|[1-57-8][0-9][0-9]|6[0-57-9][0-9]|66[0-57-9])"
    group = "(0[1-9]|[1-9][0-9])"
    serial = "(000[1-9]|00[1-9][0-9]|0[1-9][0-9][0-9]|[1-9][0-9][0-9][0-9])"
    return Rule(
        "ssn",
        parse(f"{area}-{group}-{serial}"),
        before=Neighbours(of_text("-"), words=True),
        after=Neighbours(of_text("-"), words=True),
    )


def _jwt() -> Rule:
    return Rule(
        "jwt",
        Sequence(
            [
                parse(r"eyJ[A-Za-z0-9_-]{8,}\."),
                CheckGate(is_jwt_header),
                parse(r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{8,}"),
                CheckGate(_is_short_token),
            ]
        ),
        before=Neighbours(of_text(".-"), words=True),
        after=Neighbours(of_text("-"), words=True),
        longest=LIMITS.jwt,
    )


def _api_key() -> Rule:
    forms = (
        "sk-[A-Za-z0-9_-]{20,200}",
        "AKIA[0-9A-Z]{16}",
        "gh[pousr]_[A-Za-z0-9]{36}",
        "xox[bp]-[A-Za-z0-9-]{20,100}",
        "AIza[A-Za-z0-9_-]{35}",
        "glpat-[A-Za-z0-9_-]{20}",
    )
    return Rule(
        "api_key",
        Alternatives([parse(each) for each in forms]),
        before=Neighbours(of_text("-"), words=True),
        after=Neighbours(of_text("-"), words=True),
    )


def _url_credentials() -> Rule:
    return Rule(
        "url_credentials",
        parse(r"[^\s/:@?#]{1,100}:[^\s/@]{1,200}"),
        before=ANYTHING,
        after=Neighbours(complement(of_text("@"))),
        lead="://",
        follow=True,
    )


_RULES: Final[dict[str, Callable[[], Rule]]] = {
    "email": _email,
    "phone": _phone,
    "iban": _iban,
    "card": _card,
    "ip": _ip,
    "ssn": _ssn,
    "jwt": _jwt,
    "api_key": _api_key,
    "url_credentials": _url_credentials,
}

KINDS: Final = tuple(_RULES)
"""The kinds, in the order in which the first one of two equal matches counts."""


# -- checks --


def is_card(text: str, start: int, end: int) -> bool:
    """Returns whether the digits of a part of a text pass Luhn's check; other characters do not count."""
    total = 0
    is_doubled = False
    for at in range(end - 1, start - 1, -1):
        digit = ord(text[at]) - _ZERO
        if 0 <= digit <= _NINE:
            total += _DOUBLED[digit] if is_doubled else digit
            is_doubled = not is_doubled
    return total % 10 == 0


_ZERO: Final = ord("0")
_NINE: Final = 9
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
"""The sum of the digits of each doubled digit."""


def is_iban(text: str, start: int, end: int) -> bool:
    """Returns whether the check digits of an IBAN in a part of a text are right; blanks do not count."""
    number = text[start:end].replace(" ", "")
    moved = number[_IBAN_HEAD:] + number[:_IBAN_HEAD]
    return int("".join([str(int(each, _IBAN_BASE)) for each in moved])) % _IBAN_MODULUS == 1


_IBAN_BASE: Final = 36
"""Letters are numbers from 10 on."""


def is_jwt_header(text: str, start: int, end: int) -> bool:
    """Returns whether a part of a text is the header of a JWT and the dot behind it: a JSON object with `alg`."""
    encoded = text[start : end - 1]
    if len(encoded) > LIMITS.jwt:
        return False
    try:
        header = msgspec.json.decode(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def _is_short_token(text: str, start: int, end: int) -> bool:
    return end - start <= LIMITS.jwt
