"""Personal data: forms and checks, judged by `stdnum`, `ipaddress` and the table of the documentation."""

from __future__ import annotations

import ipaddress
import json
import re
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import iban, luhn
from stdnum.iso7064 import mod_97_10

from gai_fast.guards import pii
from gai_fast.guards.automaton import compile_rules
from gai_fast.guards.limits import LIMITS
from tests.unit.guards.searching import cut, put_back, searched, sizes, spans

AUTOMATA = {kind: compile_rules(pii.rules([kind])) for kind in pii.KINDS}
ALL = compile_rules(pii.rules(pii.KINDS))


def found(kind: str, text: str, sizes: list[int] | None = None) -> list[str]:
    pieces = searched(AUTOMATA[kind].scan(), cut(text, sizes or [len(text) or 1]))
    assert put_back(pieces, text) == text
    return [text[start:end] for start, end in spans(pieces)]


# The forms of the table, as Python reads them; a check judges each candidate of each length.
FORMS = {
    "email": r"[A-Za-z0-9._%+-]{1,64}@([A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}",
    "phone": r"\+[1-9]([ .()-]{0,2}[0-9]){7,14}",
    "iban": r"[A-Z]{2}[0-9]{2}( ?[A-Z0-9]){11,30}",
    "card": r"[2-6]([ -]?[0-9]){12,18}",
    "ip": r"[0-9A-Fa-f:.]{2,45}",
    "ssn": r"[0-9]{3}-[0-9]{2}-[0-9]{4}",
    "jwt": r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{8,}",
    "api_key": r"sk-[A-Za-z0-9_-]{20,200}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|xox[bp]-[A-Za-z0-9-]{20,100}"
    r"|AIza[A-Za-z0-9_-]{35}|glpat-[A-Za-z0-9_-]{20}",
    "url_credentials": r"[^\s/:@?#]{1,100}:[^\s/@]{1,200}",
}
BESIDE = {
    "email": (r"(?<![A-Za-z0-9._%+-])", r"(?![A-Za-z0-9-])"),
    "phone": (r"(?<!\w)", "(?![0-9])"),
    "iban": (r"(?<!\w)", r"(?!\w)"),
    "card": (r"(?<![\w.-])", r"(?![\w-])"),
    "ip": (r"(?<![\w.:])", r"(?![\w:])"),
    "ssn": (r"(?<![\w-])", r"(?![\w-])"),
    "jwt": (r"(?<![\w.-])", r"(?![\w-])"),
    "api_key": (r"(?<![\w-])", r"(?![\w-])"),
    "url_credentials": ("(?<=://)", "(?=@)"),
}


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return re.search("[0-9A-Fa-f]", text) is not None


def is_account(text: str) -> bool:
    number = text.replace(" ", "")
    known = iban._ibandb.info(number)[0][1].get("bban", "")
    length = sum(int(each) for each in re.findall(r"(\d+)!?[nace]", known))
    return bool(known) and len(number) == length + 4 and mod_97_10.is_valid(number[4:] + number[:4])


HEADER = urlsafe_b64encode(b'{"alg":"HS256"}').decode()
CHECKS = {
    "card": lambda text: luhn.is_valid(re.sub("[ -]", "", text)),
    "iban": is_account,
    "ip": is_address,
    "ssn": lambda text: not re.match("000|666|9..|...-00|.{7}0000", text),
    "jwt": lambda text: text.startswith(HEADER) and len(text) <= 4000,
}


def judged(kind: str, text: str) -> list[str]:
    """Returns the matches, from the table: at each place the longest text that passes its check and its neighbours."""
    form, check = re.compile(FORMS[kind]), CHECKS.get(kind, lambda text: True)
    before, after = (re.compile(each) for each in BESIDE[kind])
    matches, at = [], 0
    while at < len(text):
        for end in range(len(text), at, -1):
            if (
                form.fullmatch(text, at, end)
                and check(text[at:end])
                and before.match(text, at)
                and after.match(text, end)
            ):
                matches.append(text[at:end])
                at = end
                break
        else:
            at += 1
    return matches


ALPHABETS = {
    "email": st.sampled_from(["a", "b@", ".", "co", "-", "_", " ", "@", "x.org", "é", "%"]),
    "phone": st.sampled_from(["+", "1", "49", " ", "-", "(0)", "123", "4567", ".", "a", "é"]),
    "iban": st.sampled_from(
        ["GB82", "WEST", "1234", "5698", "7654", "32", " ", "NO93", "8601", "1117", "947", "a", "."]
    ),
    "card": st.sampled_from(["4111", "1111", " ", "-", "1", "5", "4242", "0", ".", "a", "378282246310005"]),
    "ip": st.sampled_from(["1", "25", ".", ":", "::", "a", "f", "10.0.0.1", "256", "0", "01", "g", " ", "1:2:3:4"]),
    "jwt": st.sampled_from([HEADER, ".", "eyJ", "abcd", "efghijkl", "-", " ", "é", "_", "eyJhbGci"]),
    "api_key": st.sampled_from(["sk-", "AKIA", "ghp_", "xoxb-", "glpat-", "a" * 20, "B" * 16, "c" * 36, "-", " ", "é"]),
    "url_credentials": st.sampled_from(["://", "a", ":", "@", "/", "user:pass", " ", "?", "é", "b" * 99, ":/"]),
    "ssn": st.sampled_from(["123", "-", "45", "6789", "000", "666", "9", "0000", " ", "00", "a"]),
}


@pytest.mark.parametrize("kind", FORMS)
@given(data=st.data(), sizes=sizes)
@settings(max_examples=settings().max_examples * 3 // 4)
def test_a_kind_is_what_its_row_of_the_table_says(kind: str, data: st.DataObject, sizes: list[int]) -> None:
    text = "".join(data.draw(st.lists(ALPHABETS[kind], max_size=16)))
    assert found(kind, text, sizes) == judged(kind, text)


@given(st.integers(10**11, 10**18 - 1), st.sampled_from("23456"), st.sampled_from(["", " ", "-"]), sizes)
def test_a_number_with_its_check_digit_is_a_card(number: int, first: str, blank: str, sizes: list[int]) -> None:
    digits = f"{first}{number}"[:18]
    digits += luhn.calc_check_digit(digits)
    wrong = digits[:-1] + str((int(digits[-1]) + 1) % 10)
    card, other = (blank.join(re.findall("..?.?.?", each)) for each in (digits, wrong))
    first, *others = found("card", f"card {card}. Or {other}.", sizes)
    assert first == card
    assert other not in others  # a part of it may be one, at a blank


@given(st.sampled_from(sorted(each for line in pii._IBAN_LENGTHS.values() for each in line.split())), st.data(), sizes)
def test_a_number_of_any_country_with_its_check_digits_is_an_iban(
    country: str, data: st.DataObject, sizes: list[int]
) -> None:
    known = iban._ibandb.info(country)[0][1]["bban"]
    length = sum(int(each) for each in re.findall(r"(\d+)!?[nace]", known))
    account = "".join(data.draw(st.sampled_from("0123456789ABCXYZ")) for _ in range(length))
    number = country + mod_97_10.calc_check_digits(account + country) + account
    spaced = " ".join(re.findall("..?.?.?", number))
    assert found("iban", f"to {number}, {spaced}; {number}0", sizes) == [number, spaced]


def test_every_country_of_the_registry_is_known() -> None:
    ours = {country: length for length, line in pii._IBAN_LENGTHS.items() for country in line.split()}
    assert len(ours) > 80
    for country, length in ours.items():
        (_, known), *_ = iban._ibandb.info(country)
        assert length == 4 + sum(int(each) for each in re.findall(r"(\d+)!?[nace]", known["bban"]))
    countries = (chr(first) + chr(second) for first in range(65, 91) for second in range(65, 91))
    assert {each for each in countries if iban._ibandb.info(each)[0][1]} == ours.keys()


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), sizes)
def test_an_address_is_found_however_it_is_written(address: ipaddress.IPv4Address, sizes: list[int]) -> None:
    forms = {address.compressed, address.exploded, address.compressed.upper()}
    for form in forms:
        expected = [form] if re.search("[0-9A-Fa-f]", form) else []
        assert found("ip", f"({form}) {form}, x{form}", sizes) == expected * 2


@given(st.text(alphabet="0123456789abcdef:.", min_size=2, max_size=24))
@settings(max_examples=settings().max_examples * 3 // 2)
def test_what_ipaddress_takes_is_an_address(text: str) -> None:
    assert (found("ip", text) == [text]) == is_address(text)


def token(header: object, size: int = 0) -> str:
    parts = [
        urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in (header, {"sub": "12345678"})
    ]
    text = ".".join([*parts, "c2lnbmF0dXJl"])
    return text + "a" * (size - len(text))


@pytest.mark.parametrize(
    ("header", "size", "is_found"),
    [
        ({"alg": "HS256"}, 0, True),
        ({"typ": "JWT", "alg": "none"}, 0, True),
        ({"typ": "JWT", "kid": "x"}, 0, False),
        ({"alg": "HS256"}, 4000, True),
        ({"alg": "HS256"}, 4001, False),
        ({"a" * 4000: 1}, 0, False),
    ],
)
@pytest.mark.parametrize("sizes", [[1], [5], [10_000]])
def test_a_token_has_a_header_with_alg(header: object, size: int, is_found: bool, sizes: list[int]) -> None:
    text = token(header, size)
    assert found("jwt", f"x {text}. {text} y {text}é", sizes) == [text, text] * is_found


def test_a_header_that_is_no_json_is_none() -> None:
    nested = urlsafe_b64encode(b'{"a":' + b"[" * 2000).decode().rstrip("=")
    for header in ("eyJ" + "A" * 12, nested, urlsafe_b64encode(b'{"alg').decode()):
        assert found("jwt", f"{header}.eyJhYmNk.c2lnbmF0dXJl ") == []


def test_a_token_is_held_while_it_may_be_one() -> None:
    scan = AUTOMATA["jwt"].scan()
    scan.feed(token({"typ": "JWT"}).partition(".")[0])
    assert scan.held > 0
    scan.feed(".")
    assert scan.held == 0  # its header has no `alg`
    scan = AUTOMATA["jwt"].scan()
    scan.feed(" " + token({"alg": "x"}, LIMITS.jwt))
    assert scan.held == LIMITS.jwt
    scan.feed("a")
    assert scan.held == 0
    scan = AUTOMATA["jwt"].scan()
    scan.feed("eyJ" + "A" * 3975)
    assert scan.held == 3978  # `.eyJAAAA.AAAAAAAA` has 17 characters
    assert [scan.feed("A")[0:0], scan.held][1] == 3979
    scan.feed("A" * 4)
    assert scan.held == 3983
    scan.feed("A")
    assert scan.held == 0


@pytest.mark.parametrize(
    "key",
    [
        "sk-" + "a" * 20,
        "sk-proj-" + "a_b-" * 40,
        "AKIA" + "A1" * 8,
        "ghp_" + "a" * 36,
        "xoxb-" + "1-" * 20,
        "AIza" + "-_" * 17 + "a",
        "glpat-" + "a" * 20,
    ],
)
@pytest.mark.parametrize("size", [1, 3, 300])
def test_keys_of_services(key: str, size: int) -> None:
    assert found("api_key", f"key={key}, ({key}) x{key} {key}é", [size]) == [key, key]
    assert found("api_key", f"{key[:-1]}", [size]) == ([key[:-1]] if key.startswith(("sk-p", "xox")) else [])


@pytest.mark.parametrize(
    ("text", "credentials"),
    [
        ("https://user:pass@host/x", ["user:pass"]),
        ("redis://:pass@host", []),
        ("a://b:c@ d:e@f ://g:h@i", ["b:c", "g:h"]),
        ("https://user:pa:ss@host", ["user:pa:ss"]),
        ("https://user@host:80/a@b", []),
        ("https://user:pass", []),
        ("://://user:pass@", ["user:pass"]),
        (":///a:b@", []),
        ("https://" + "u" * 100 + ":" + "p" * 200 + "@", ["u" * 100 + ":" + "p" * 200]),
        ("https://" + "u" * 101 + ":p@", []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_credentials_stand_between_the_scheme_and_the_host(text: str, credentials: list[str], size: int) -> None:
    assert found("url_credentials", text, [size]) == credentials


def test_the_scheme_itself_is_not_held() -> None:
    scan = AUTOMATA["url_credentials"].scan()
    assert scan.feed("see https://") == ["see https://"]
    assert scan.feed("u") == []


def test_all_kinds_at_once_give_each_its_own_category() -> None:
    text = (
        "bob@example.com +49 170 1234567 GB82 WEST 1234 5698 7654 32 4111 1111 1111 1111 10.0.0.1 2001:db8::1 "
        f"123-45-6789 {token({'alg': 'x'})} sk-aaaaaaaaaaaaaaaaaaaaaa https://u:p@h"
    )
    for size in (1, 2, 3, 50, 1000):
        pieces = searched(ALL.scan(), cut(text, [size]))
        assert put_back(pieces, text) == text
        kinds = [each.category for each in pieces if not isinstance(each, str)]
        assert kinds == ["email", "phone", "iban", "card", "ip", "ip", "ssn", "jwt", "api_key", "url_credentials"]


@given(st.text(alphabet="1 4:-.@+abGB8eyJ/\n", max_size=60), sizes)
def test_all_kinds_find_the_same_over_any_cut(text: str, sizes: list[int]) -> None:
    pieces = searched(ALL.scan(), cut(text, sizes))
    assert pieces == searched(ALL.scan(), [text])
    assert put_back(pieces, text) == text
