"""The bodies of the admin API: what is written is what is described and read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from msgspec import Struct

from gai_fast.kernels import encode_json
from gai_fast.model.settings import LIMITS_OF_KEY
from gai_fast.server.admin import bodies
from gai_fast.server.admin.bodies import ErrorKind, Key, KeySpendLimit, MadeKey, Spent, plain, rows_of
from gai_fast.server.openapi.schemas import ref, schemas
from gai_fast.server.routes.table import ROUTES

LIMITS_ = {**dict.fromkeys(LIMITS_OF_KEY), "spend": KeySpendLimit(1.5, "month")}
KEY: dict[str, Any] = {
    "name": "website",
    "role": "user",
    "models": ["*"],
    "expires": datetime(2030, 1, 31, 18, tzinfo=UTC),
    "limits": LIMITS_,
    "spent": None,
    "spent_period": "month",
    "lane": [],
    "tools": [],
    "source": "store",
    "created": "2026-11-22T12:00:05.123Z",
    "grace_until": None,
}
ALL = schemas(kind for route in ROUTES for kind in route.operation.kinds)


def problems(kind: type, value: Any) -> list[str]:
    validator = jsonschema_rs.Draft202012Validator({**ref(kind), "components": {"schemas": ALL}}, validate_formats=True)
    return [str(problem) for problem in validator.iter_errors(value)]


def test_members_are_written_in_their_order_and_times_with_their_zone() -> None:
    written = encode_json(plain(MadeKey(**KEY, secret="sk")))
    assert [*json.loads(written)] == [*KEY, "secret"], "a member that is not there is not written"
    assert b'"expires":"2030-01-31T18:00:00+00:00"' in written
    assert encode_json(plain(Spent(model="m", amount=0.5, currency="USD", requests=3))) == (
        b'{"model":"m","amount":0.5,"currency":"USD","requests":3}'
    )


@pytest.mark.parametrize(
    ("member", "value", "is_valid"),
    [
        ("spent", 0.25, True),
        ("expires", "tomorrow", False),
        ("role", "root", False),
        ("limits", {**plain(LIMITS_), "streams": 5}, True),
        ("limits", {**plain(LIMITS_), "streams": -1}, False),
        ("limits", {"streams": 5}, False),
        ("source", None, False),
        ("later", 1, True),
    ],
)
def test_a_key_is_valid_as_it_is_described(member: str, value: Any, is_valid: bool) -> None:
    shown = json.loads(encode_json(plain(Key(**KEY))))
    assert not problems(Key, shown)
    assert bool(problems(Key, {**shown, member: value})) is not is_valid


def test_what_is_written_is_read_again() -> None:
    key = MadeKey(**KEY, secret="sk", warning="w")
    assert msgspec.json.decode(encode_json(plain(key)), type=MadeKey) == key


def test_values_of_derived_types_are_written_as_what_they_are() -> None:
    class Text(str):
        __slots__ = ()

    class Number(int):
        pass

    row = ErrorKind(Text("network"), "p", "up", "upstream", Number(2))
    assert encode_json(plain(row)) == (b'{"code":"network","provider":"p","upstream":"up","side":"upstream","count":2}')
    with pytest.raises(TypeError, match="has no object"):
        plain([object()])


def test_rows_of_other_processes_are_read_and_own_ones_stay() -> None:
    row = ErrorKind("network", "p", "up", "upstream", 2)
    own, other = rows_of([[row], [msgspec.msgpack.decode(msgspec.msgpack.encode(row))]], ErrorKind)
    assert own is row
    assert other == row


def test_every_body_is_described_with_its_sentence() -> None:
    kinds = [kind for kind in vars(bodies).values() if isinstance(kind, type) and issubclass(kind, Struct)]
    for kind in kinds:
        if kind is not Struct:
            assert ALL[kind.__name__]["description"] == kind.__doc__
