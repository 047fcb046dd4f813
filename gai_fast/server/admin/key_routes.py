"""The handlers of `/admin/v1/keys`: callers' keys, which an admin makes, changes, rotates and revokes at run time.

Owns what these requests do. `admission/run_time_keys.py` has the keys.

1. A secret is in one response: that to the request which made it. Only its digest is kept.
2. A key of the file is changed in the file: 409, reason `file`; what it has used may be reset. The first key closes the
   server; without an admin's key in the file it could no longer be operated: 409, reason `no_admin`.
3. The body is read before the response waits for anything, since nothing keeps it until then.
4. An edit of a key may run again for another state of it, so it depends on nothing that a former run has done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, UnsetType

from gai_fast.config.stored_keys import read_name, read_values
from gai_fast.core.requests.reading import decode_json
from gai_fast.ledger import Period
from gai_fast.model.errors import Error
from gai_fast.model.money import Amount, units
from gai_fast.model.settings import LIMITS_OF_KEY, KeySettings, key_digest
from gai_fast.net.engine.engine import Engine
from gai_fast.runtime.ids import new_key_secret, new_request_id
from gai_fast.server.admin.bodies import Key, Keys, KeySpendLimit, MadeKey, RevokedKey, Rotation, plain
from gai_fast.server.admin.running_streams import timestamp
from gai_fast.server.admission.reads import reader_of
from gai_fast.server.admission.run_time_keys import RunTimeKeys, too_many_keys
from gai_fast.server.http.replies import Reply
from gai_fast.server.limits import LIMITS
from gai_fast.server.requests.incoming import Incoming
from gai_fast.server.requests.pending import Work
from gai_fast.stores.backend import StoreError
from gai_fast.stores.health import out_of_reach
from gai_fast.stores.stored_keys import StoredKey

_log: Final = logging.getLogger("gai_fast.server")
_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_ENDS: Final = "the keys that are made at run time end with this server: its [store] is memory://"


class KeyRoutes:
    """The handlers for one engine.

    Args:
        engine: Has the ledger and the configuration.
        keys: The keys of the store.
        hear_of_spend: Updates the ledger with all streams that have ended so far.
        wait: Answers a request when its work is done.
        wall: Seconds since the epoch.
    """

    def __init__(
        self,
        engine: Engine,
        keys: RunTimeKeys,
        hear_of_spend: Callable[[], Awaitable[None]],
        wait: Callable[[Incoming, Work], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._hear_of_spend = hear_of_spend
        self._wait = wait
        self._wall = wall

    def list_all(self, incoming: Incoming) -> None:
        """`GET /admin/v1/keys`: all keys without their secrets; those of the file, then those of the store by name."""
        self._wait(incoming, self._list_all(incoming))

    def show(self, incoming: Incoming) -> None:
        """`GET /admin/v1/keys/{name}`: one key."""
        self._wait(incoming, self._show(incoming))

    def create(self, incoming: Incoming) -> None:
        """`POST /admin/v1/keys`: makes a key; the response has its secret."""
        self._wait(incoming, self._create(incoming, _body(incoming)))

    def update(self, incoming: Incoming) -> None:
        """`PATCH /admin/v1/keys/{name}`: changes what the key may use."""
        self._wait(incoming, self._update(incoming, _body(incoming)))

    def revoke(self, incoming: Incoming) -> None:
        """`DELETE /admin/v1/keys/{name}`: removes the key, and ends its streams."""
        self._wait(incoming, self._revoke(incoming))

    def rotate(self, incoming: Incoming) -> None:
        """`POST /admin/v1/keys/{name}/rotate`: gives the key another secret in addition to its present one."""
        self._wait(incoming, self._rotate(incoming, _grace(_body(incoming) if incoming.http.body else {})))

    def reset(self, incoming: Incoming) -> None:
        """`POST /admin/v1/keys/{name}/reset`: counts what the key uses of its limits from zero again.

        The name may belong to a caller of an issuer.
        """
        if incoming.http.body and _body(incoming):
            raise Error("invalid_request", "a reset has no members: it resets all limits of the key", reason="reset")
        self._wait(incoming, self._reset(incoming))

    async def _list_all(self, incoming: Incoming) -> Reply:
        keys = [*self._engine.settings.keys, *self._keys.keys.values()]
        return incoming.json_reply(plain(Keys(await self._rows(keys))))

    async def _show(self, incoming: Incoming) -> Reply:
        return incoming.json_reply(plain(await self._row(incoming.tail)))

    async def _create(self, incoming: Incoming, given: dict[str, Any]) -> Reply:
        name = read_name(given.pop("name", None))
        _aim(incoming, name)
        if not any(key.role == "admin" for key in self._engine.settings.keys):
            text = (
                "the first key at run time closes the server, and no admin could operate it: "
                'add a [[key]] with role = "admin" to the file'
            )
            raise Error("invalid_request", text, reason="no_admin", status=409)
        self._check_file(name)
        values = self._read(given)
        secret = new_key_secret()
        key = StoredKey(name, new_request_id(), self._wall(), key_digest(secret), _without_nulls(values))

        def edit(there: StoredKey | None) -> StoredKey:
            if there is not None:
                text = f"there is a key {name!r} already: rotate it to give it another secret"
                raise Error("invalid_request", text, reason="exists", status=409)
            if len(self._keys.keys) >= LIMITS.run_time_keys:
                raise too_many_keys()
            return key

        await self._keys.change(name, edit)
        if self._keys.end_with_server:
            _log.warning("%s", _ENDS)
        made = _made(await self._row(name), secret, _ENDS if self._keys.end_with_server else UNSET)
        return incoming.json_reply(plain(made), status=201)

    async def _update(self, incoming: Incoming, given: dict[str, Any]) -> Reply:
        name = incoming.tail
        self._check_there(name)
        if given.pop("name", name) != name:
            raise Error("invalid_request", "a key keeps its name: make another one", reason="name")
        values = self._read(given)

        def edit(there: StoredKey | None) -> StoredKey:
            found = _found(there)
            return msgspec.structs.replace(found, values=_without_nulls({**found.values, **values}))

        await self._keys.change(name, edit)
        return incoming.json_reply(plain(await self._row(name)))

    async def _revoke(self, incoming: Incoming) -> Reply:
        name = incoming.tail
        self._check_there(name)

        def edit(there: StoredKey | None) -> None:
            _found(there)

        await self._keys.change(name, edit)
        return incoming.json_reply(plain(RevokedKey(name, revoked=True)))

    async def _rotate(self, incoming: Incoming, grace: float) -> Reply:
        name = incoming.tail
        self._check_there(name)
        secret = new_key_secret()
        digest, until = key_digest(secret), self._wall() + grace

        def edit(there: StoredKey | None) -> StoredKey:
            found = _found(there)
            former = found.digest if grace else b""
            return msgspec.structs.replace(found, digest=digest, former=former, former_until=until if grace else 0.0)

        await self._keys.change(name, edit)
        return incoming.json_reply(plain(_made(await self._row(name), secret)))

    async def _reset(self, incoming: Incoming) -> Reply:
        key = self._key(unquote(incoming.tail))
        await self._hear_of_spend()
        try:
            for name in (key.name, reader_of(key).name):
                await self._engine.ledger.reset(name)
        except StoreError:
            raise out_of_reach("the limits") from None
        return incoming.json_reply(plain((await self._rows([key]))[0]))

    # -- own --

    def _read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Reads what a request says about a key; as `read_values`.

        A time that has passed is most often a mistake, which would lock out the caller: it is refused.
        """
        values = read_values(given, self._engine.settings)
        expires = values.get("expires")
        if expires is not None and datetime.fromisoformat(expires).timestamp() <= self._wall():
            text = f"`expires`: {expires} has passed: give a later time, or none"
            raise Error("invalid_request", text, reason="expires")
        return values

    def _check_file(self, name: str) -> None:
        if self._keys.is_of_file(name):
            text = f"the name {name!r} is that of a [[key]] or an [[issuer]] of the file: change it there"
            raise Error("invalid_request", text, reason="file", status=409)

    def _check_there(self, name: str) -> None:
        """Refuses a name that is the file's. Whether the store has the key is known after it has been asked."""
        self._check_file(name)
        if len(name) > LIMITS.audited:
            raise _no_key()

    async def _row(self, name: str) -> Key:
        return (await self._rows([self._key(name)]))[0]

    def _key(self, name: str) -> KeySettings:
        """Returns a key of the file or the store, or a caller of an issuer: `<issuer>:<claim>`."""
        settings = self._engine.settings
        issuer, _, claim = name.partition(":")
        for each in settings.issuers:
            if claim and each.name == issuer and len(name) <= LIMITS.audited:
                return each.caller(claim)
        key = next((each for each in settings.keys if each.name == name), None) or self._keys.keys.get(name)
        if key is None:
            raise _no_key()
        return key

    async def _rows(self, keys: Sequence[KeySettings]) -> list[Key]:
        """Returns the rows of keys that are shown. Streams go on between `limits.keys_shown` of them."""
        stored = [self._keys.stored(key.name) for key in keys]  # a key may be revoked during the wait
        await self._hear_of_spend()
        rows: list[Key] = []
        is_known = True  # else the store does not answer
        for at in range(0, len(keys), LIMITS.keys_shown):
            some = keys[at : at + LIMITS.keys_shown]
            spent: Sequence[Amount | None] = [None] * len(some)
            try:
                if is_known:
                    spent = await self._spent(some)
            except* StoreError:
                is_known = False
            now = self._wall()
            rows += [
                _row(key, _period(key), amount, record, now)
                for key, amount, record in zip(some, spent, stored[at:], strict=False)
            ]
            await asyncio.sleep(0)
        return rows

    async def _spent(self, keys: Sequence[KeySettings]) -> list[Amount]:
        """Returns the spend of keys. The first failure cancels the others."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._engine.ledger.spent(key.name, _period(key))) for key in keys]
        return [each.result() for each in asked]


def _body(incoming: Incoming) -> dict[str, Any]:
    """Returns the JSON object of a request.

    Raises:
        InvalidRequest: The body is not a JSON object, or too large.
    """
    body = incoming.json_body()
    if len(body) > LIMITS.key_body:
        text = f"a request about a key has at most {LIMITS.key_body} bytes"
        raise Error("invalid_request", text, reason="max_body", status=413)
    return decode_json(_DECODER, body)


def _aim(incoming: Incoming, name: str) -> None:
    """Names the key in the line of the audit log."""
    if incoming.http.action is not None:
        incoming.http.action = incoming.http.action[0], name


def _grace(given: Mapping[str, Any]) -> float:
    for name in given:
        if name != "grace":
            raise Error("invalid_request", "a rotation has one member, `grace`", reason="grace")
    try:
        return msgspec.convert(given, Rotation).grace
    except msgspec.ValidationError:
        text = f"`grace` must be seconds, 0 to {LIMITS.key_grace:.0f}"
        raise Error("invalid_request", text, reason="grace") from None


def _period(key: KeySettings) -> Period:
    """Returns the period whose spend is shown: the limit's period."""
    return "total" if key.limits.spend is None else key.limits.spend.period


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _found(key: StoredKey | None) -> StoredKey:
    if key is None:
        raise _no_key()
    return key


def _no_key() -> Error:
    return Error("not_found", "there is no such key", reason="key")


def _made(key: Key, secret: str, warning: str | UnsetType = UNSET) -> MadeKey:
    return MadeKey(**msgspec.structs.asdict(key), secret=secret, warning=warning)


def _row(key: KeySettings, period: Period, spent: Amount | None, stored: StoredKey | None, now: float) -> Key:
    spend = key.limits.spend
    limits: dict[str, Any] = {name: getattr(key.limits, name) for name in LIMITS_OF_KEY}
    limits["spend"] = None if spend is None else KeySpendLimit(units(spend.amount), spend.period)
    has_former = stored is not None and stored.former and stored.former_until > now
    return Key(
        name=key.name,
        role=key.role,
        models=list(key.models),
        expires=key.expires,
        limits=limits,
        spent=None if spent is None else units(spent),
        spent_period=period,
        lane=list(key.pass_upstreams),
        tools=list(key.tools),
        source="file" if stored is None else "store",
        created=None if stored is None else timestamp(stored.created),
        grace_until=timestamp(stored.former_until) if stored is not None and has_former else None,
    )
