"""Resolves all sources into one `Settings`: their precedence, and the references between tables of the file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from gai_fast.config.checks import CALLER, REFERENCE
from gai_fast.config.environment import (
    Environment,
    check_variables,
    checked_proxy,
    otel_variables,
    process_environment,
    secret,
    secret_headers,
    usual_address,
    usual_proxy,
    usual_upstreams,
    variables,
)
from gai_fast.config.file import ConfigFile
from gai_fast.config.guards import GuardBuilder, read_guards
from gai_fast.config.identity import KEYS, read_identity
from gai_fast.config.issuers import check_issuers
from gai_fast.config.keys import (
    FLAGS,
    LISTS,
    OF_MODELS,
    REQUIRED,
    SECTIONS,
    STREAM,
    TABLES,
    missing_keys,
    read_value,
    title,
    unknown_key,
    unknown_section,
)
from gai_fast.config.limits import LIMITS
from gai_fast.config.prices import build_price, read_price_list
from gai_fast.config.problems import Problems, Value, nearest, shortened, shown
from gai_fast.config.targets import read_targets
from gai_fast.config.tool_keys import WAYS
from gai_fast.config.tool_tables import ToolBuilder, check_ways
from gai_fast.config.tuning import request_with
from gai_fast.guards.waits import read_pattern
from gai_fast.model.addresses import is_loopback
from gai_fast.model.limits import SHARED
from gai_fast.model.money import amount_of
from gai_fast.model.settings import (
    DEMO,
    LIMITS_OF_KEY,
    BreakerSettings,
    CacheSettings,
    FunctionSettings,
    IdempotencySettings,
    IssuerSettings,
    KeyLimits,
    KeySettings,
    LimitSettings,
    ModelSettings,
    OTelSettings,
    Price,
    PriceSettings,
    ResponsesSettings,
    RunSettings,
    SealSettings,
    Secret,
    ServerSettings,
    Settings,
    SpendLimit,
    StoreSettings,
    StreamSettings,
    Tuning,
    UpstreamSettings,
    key_digest,
)
from gai_fast.model.tool_rules import AllowedTools, ToolPatterns
from gai_fast.net.upstream.tls import TLSFileError, TLSFiles
from gai_fast.processors import BadParameter, read_processor
from gai_fast.providers import API, get_provider
from gai_fast.providers.requests.facts import facts_of, usual_ids
from gai_fast.runtime.breathing import breathe
from gai_fast.runtime.functions import FunctionError, import_function
from gai_fast.stores import check_url

_SEAL_KEY: Final = (
    re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="),
    "no key of 32 bytes in base64: `openssl rand -base64 32` makes one",
)
"""The form of a key that seals the store. Of its last letter two bits are not used, and zero."""
DEFAULT_FILE: Final = Path("gai-fast.toml")
"""The file in the working directory that the command line reads if no other file is named."""
_TLS: Final = ("tls_cert", "tls_key")
_MODEL_KEYS: Final = (
    "fallback",
    "fallback_on",
    "prefill",
    "facts",
    "cache",
    "balance",
    "hedge_after",
    "wait_for_limit",
    "tools",
    "max_steps",
    "max_tool_calls",
    "parallel_tools",
    "run_timeout",
)
_OF_A_FUNCTION: Final = frozenset(
    ("name", "provider", "python", "first_event_timeout", "idle_timeout", "total_timeout", "max_connections")
) | {"pool_wait", "retries", "breaker", "extra", "reasoning_tags", "shared_ids"}
"""The keys of an upstream that calls a function."""

Table = dict[str, Value]
"""The given, valid keys of one table."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A resolved configuration, and the origin of each of its parts."""

    settings: Settings
    path: Path | None
    """The file of the configuration; None if there is no file."""
    server: Table
    keys: list[Table]
    key_defaults: Table
    issuers: list[Table]
    stream: Table
    store: Table
    idempotency: Table
    limits: Table
    prices: Table
    cache: Table
    responses: Table
    runs: Table
    otel: Table
    upstreams: list[Table]
    models: list[Table]
    processors: list[Table]
    guards: list[Table]
    tool_servers: list[Table]
    tools: list[Table]


def find(path: Path | None) -> Path | None:
    """Returns the file that the command line reads: the named one, else `gai-fast.toml` in the working directory, or
    None if it does not exist."""
    return path if path is not None or not DEFAULT_FILE.is_file() else DEFAULT_FILE


def load(
    path: Path | None,
    *,
    environ: Environment | None = None,
    flags: Mapping[str, Any] | None = None,
    functions: Collection[str] = (),
) -> Settings:
    """Reads a configuration.

    Args:
        path: The file; if None, the configuration comes from the environment alone.
        environ: The environment; by default this process's.
        flags: Keys of `FLAGS` that the command line sets; None values count as not given.
        functions: The names of a program's functions that are tools beside those of the configuration.

    Raises:
        ConfigError: The configuration cannot be used. All mistakes are reported at once if that is possible.
    """
    return read(path, environ=environ, flags=flags, functions=functions).settings


def read(
    path: Path | None,
    *,
    environ: Environment | None = None,
    flags: Mapping[str, Any] | None = None,
    functions: Collection[str] = (),
) -> Loaded:
    """Reads a configuration, as `load` does, and keeps the origin of each value.

    Raises:
        ConfigError: As `load`.
    """
    environ = process_environment() if environ is None else environ
    problems = Problems()
    given = _Given()
    if path is not None:
        file = ConfigFile(path)
        _read_tables(file, file.tables, given, problems)
    check_variables(environ, problems)
    for section, values in given.tables.items():
        values.update(variables(section, environ, problems))
    for name, value in (flags or {}).items():
        section, key = FLAGS[name]
        flag = f"--{name.replace('_', '-')}"
        if value is not None and (value := read_value(problems, section, key, value, flag)) is not None:
            given.tables[section][key] = Value(value, flag)
    if path is None:
        given.upstreams = usual_upstreams(environ, problems)
    folder = Path() if path is None else path.parent
    settings = _Resolution(given, environ, folder, problems, functions, has_file=path is not None).settings()
    problems.raise_if_any()
    tables = given.tables
    return Loaded(
        settings,
        path,
        **tables,
        keys=given.keys,
        issuers=given.issuers,
        upstreams=given.upstreams,
        models=given.models,
        processors=given.processors,
        guards=given.guards,
        tool_servers=given.tool_servers,
        tools=given.tools,
    )


def read_keys(file: ConfigFile) -> list[Table]:
    """Returns the `[[key]]` tables of a file, completed by `[key_defaults]`. Their secrets are not read.

    Raises:
        ConfigError: One of these tables has a mistake.
    """
    problems = Problems()
    given = _Given()
    tables = {name: table for name, table in file.tables.items() if name in ("key", "key_defaults")}
    _read_tables(file, tables, given, problems)
    problems.raise_if_any()
    return [{**given.tables["key_defaults"], **table} for table in given.keys]


@dataclass(slots=True)
class _Given:
    """The values from all sources."""

    tables: dict[str, Table] = field(default_factory=lambda: {section: {} for section in TABLES})
    keys: list[Table] = field(default_factory=list)
    issuers: list[Table] = field(default_factory=list)
    upstreams: list[Table] = field(default_factory=list)
    models: list[Table] = field(default_factory=list)
    processors: list[Table] = field(default_factory=list)
    guards: list[Table] = field(default_factory=list)
    tool_servers: list[Table] = field(default_factory=list)
    tools: list[Table] = field(default_factory=list)


# ---- the file's tables ---------------------------------------------------------------------------------------------


def _read_tables(file: ConfigFile, tables: Mapping[str, Any], given: _Given, problems: Problems) -> None:
    for name, value in tables.items():
        if name not in SECTIONS:
            problems.add(file.where(name), unknown_section(name, value))
        elif name in LISTS and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
            problems.add(file.where(name), f"[{name}] must be [[{name}]]: there may be several")
        elif name == "processor":
            given.processors.extend(_processor(file, item, index, problems) for index, item in enumerate(value))
        elif name == "guard":
            given.guards.extend(read_guards(file, value, problems))
        elif name in LISTS:
            lists = {
                "key": given.keys,
                "issuer": given.issuers,
                "upstream": given.upstreams,
                "model": given.models,
                "tool_server": given.tool_servers,
                "tool": given.tools,
            }
            found = lists[name]
            found.extend(_table(file, name, item, (name, index), problems) for index, item in enumerate(value))
        elif not isinstance(value, dict):
            problems.add(file.where(name), f"{shown(name)} must be one table, [{name}]")
        else:
            given.tables[name] = _table(file, name, value, (name,), problems)


def _table(
    file: ConfigFile, section: str, given: Mapping[str, Any], at: tuple[str | int, ...], problems: Problems
) -> Table:
    """Reads the known keys of one table of the file."""
    values: Table = {}
    for name, value in given.items():
        where = file.where(*at, name)
        if name not in SECTIONS[section]:
            problems.add(where, unknown_key(name, section))
            continue
        read = read_value(problems, section, name, value, where)
        if read is not None:
            values[name] = Value(read, where)
    required = REQUIRED.get(section, {})
    for name in missing_keys(section, given, required):
        problems.add(file.where(*at), f"`{name}` is missing in {title(section)}: {required[name]}")
    if section in WAYS:
        check_ways(section, given, values, file.where(*at), problems)
    if "provider" in values and "auth" not in given and missing_keys(section, given, ["base_url"]):
        api = get_provider(values["provider"].value)
        if api.calls_function:
            if "python" not in given:
                what = "`python` is missing in [[upstream]]: the function that answers"
                problems.add(file.where(*at), f'{what}, such as python = "my_model:answer"')
        elif not api.base_url and not api.recording:
            what = f"`base_url` is missing in [[upstream]]: {api.provider} has no usual address"
            problems.add(file.where(*at), f'{what}; write its own, such as base_url = "{api.base_url_form}"')
    return values


def _processor(file: ConfigFile, given: Mapping[str, Any], index: int, problems: Problems) -> Table:
    """Reads one `[[processor]]`."""
    try:
        read_processor(given)
    except BadParameter as problem:
        problems.add(file.where("processor", index, problem.key), f"[[processor]]: {shortened(str(problem))}")
    return {name: Value(value, file.where("processor", index, name)) for name, value in given.items()}


# ---- from values to settings ---------------------------------------------------------------------------------------


class _Resolution:
    """Builds the settings. A part with a problem is left out, and the problem is reported."""

    def __init__(
        self,
        given: _Given,
        environ: Environment,
        folder: Path,
        problems: Problems,
        functions: Collection[str],
        *,
        has_file: bool,
    ) -> None:
        self._has_file = has_file
        self._given = given
        self._functions = functions
        self._environ = environ
        self._folder = folder
        self._problems = problems

    def settings(self) -> Settings:
        server, stream, store, idempotency, limits, key_defaults, prices, cache, responses, runs, otel = (
            self._given.tables[section] for section in TABLES
        )
        named = self._by_name("upstream", self._given.upstreams)
        upstreams = {name: built for name, table in named.items() if (built := self._upstream(table)) is not None}
        price_list = self._price_list(prices)
        models = self._models(upstreams, named, price_list.currency)
        usual = _usual_models(upstreams, _stream(stream))
        if not self._has_file:
            models |= usual
        if "demo" not in server or server["demo"].value:
            models.setdefault(DEMO, ModelSettings(DEMO, UpstreamSettings(DEMO, DEMO, ""), DEMO, _stream(stream)))
        default_model = server.get("default_model")
        tools = ToolBuilder(self._environ, self._folder, self._problems)
        settings = Settings(
            server=self._server(server),
            keys=self._keys(key_defaults),
            issuers=self._issuers(),
            key_defaults=new_key("", (), _plain(key_defaults)),
            stream=_stream(stream),
            store=self._store(store),
            idempotency=IdempotencySettings(**_plain(idempotency)),
            limits=LimitSettings(**_plain(limits)),
            otel=self._otel(otel),
            prices=replace(price_list, own=MappingProxyType(_own_prices(models))),
            cache=CacheSettings(**_plain(cache)),
            responses=ResponsesSettings(**_plain(responses)),
            runs=RunSettings(**_plain(runs)),
            processors=tuple(MappingProxyType(_plain(table)) for table in self._given.processors),
            guards=GuardBuilder(upstreams, [*named], self._environ, self._folder, _positions, self._problems).build(
                self._given.guards
            ),
            tool_servers=tools.servers(self._by_name("tool_server", self._given.tool_servers)),
            tools=tools.tools(self._by_name("tool", self._given.tools)),
            upstreams=MappingProxyType(upstreams),
            models=MappingProxyType(models),
            default_model=None if default_model is None else default_model.value,
            usual=MappingProxyType(_names_by_id(usual.values())),
        )
        self._check_fallbacks(settings)
        self._check_key_models(settings)
        self._check_passed_upstreams(settings)
        self._check_tool_patterns(settings)
        self._check_credentials(settings)
        if default_model is not None:
            self._check_model(settings, default_model.value, default_model.origin, "`default_model` in [server]")
        self._check_host(settings.server)
        return settings

    def _server(self, table: Table) -> ServerSettings:
        values = _plain(table, but=("demo", "default_model"))
        for name in _TLS:
            if name in values:
                values[name] = str(self._folder / values[name])
        for name, other in (_TLS, _TLS[::-1]):
            if name in values and other not in values:
                what = f"`{name}` in [server] needs `{other}`"
                self._problems.add(table[name].origin, f"{what}: TLS takes a certificate and its key")
        if values.get("proxy_protocol") and not values.get("forwarded_allow_ips"):
            what = "`proxy_protocol` in [server] needs `forwarded_allow_ips`"
            self._problems.add(table["proxy_protocol"].origin, f"{what}: the proxies that send the header")
        return ServerSettings(**values)

    def _store(self, table: Table) -> StoreSettings:
        values = _plain(table)
        if "url" in values:
            values["url"] = check_url(values["url"], self._folder)
        if "encryption" in values:
            values["encryption"] = self._encryption(values["encryption"], table["encryption"].origin)
        return StoreSettings(**values)

    def _encryption(self, given: Mapping[str, Any], origin: str) -> SealSettings:
        keys = [
            secret("keys", Value(reference, origin), self._environ, self._folder, self._problems, _SEAL_KEY)
            for reference in given["keys"]
        ]
        return SealSettings(tuple(key for key in keys if key is not None), given["command"], given["required"])

    def _otel(self, table: Table) -> OTelSettings | None:
        if "endpoint" not in table:
            return None
        values = _plain(table)
        if "headers" in table:
            values["headers"] = secret_headers(table["headers"], self._environ, self._folder, self._problems)
        return OTelSettings(**values, **otel_variables(self._environ, self._problems))

    def _price_list(self, table: Table) -> PriceSettings:
        if "file" not in table:
            return PriceSettings()
        return read_price_list(self._folder / table["file"].value, table["file"].origin, self._problems)

    def _by_name(self, section: str, tables: Iterable[Table]) -> dict[str, Table]:
        found: dict[str, Table] = {}
        for table in tables:
            name = table.get("name")
            if name is not None and found.setdefault(name.value, table) is not table:
                first = found[name.value]["name"].origin
                what = f"a second {title(section)} is named {shown(name.value)}, as at {first}"
                self._problems.add(name.origin, what)
        return found

    def _keys(self, defaults: Table) -> tuple[KeySettings, ...]:
        keys: list[KeySettings] = []
        owners: dict[bytes, str] = {}
        for name, table in self._by_name("key", self._given.keys).items():
            if "secret" not in table:
                continue
            references, origin = table["secret"].value, table["secret"].origin
            found = [self._digest(Value(reference, origin)) for reference in references]
            digests = tuple(dict.fromkeys(digest for digest in found if digest is not None))
            for digest in digests:
                if owners.setdefault(digest, name) != name:
                    owner = next(
                        key for key in self._given.keys if "name" in key and key["name"].value == owners[digest]
                    )
                    what = f"`secret` in [[key]] is also that of {shown(owners[digest])}, at {owner['secret'].origin}"
                    self._problems.add(origin, what)
            values = _plain({**defaults, **table}, but=("name", "secret"))
            if values.get("role") == "metrics":
                values = self._of_metrics(table, values)
            keys.append(new_key(name, digests, values))
        return tuple(keys)

    def _of_metrics(self, table: Table, values: dict[str, Any]) -> dict[str, Any]:
        """Returns the values of a key of the role `metrics`, which uses no model."""
        for each in OF_MODELS:
            if each in table:
                what = f"`{each}` in [[key]] has no meaning for the role metrics, which may read /metrics alone"
                self._problems.add(table[each].origin, what)
        return {**{each: value for each, value in values.items() if each not in OF_MODELS}, "models": ()}

    def _issuers(self) -> tuple[IssuerSettings, ...]:
        given = self._given.issuers
        keys = {table["name"].value for table in self._given.keys if "name" in table}
        check_issuers(given, keys, self._problems)
        issuers: list[IssuerSettings] = []
        for name, table in self._by_name("issuer", given).items():
            if all(each in table for each in REQUIRED["issuer"]):
                values = _plain(table, but=("name",))
                own = {each: values.pop(each) for each in ("url", "audience", "claim") if each in values}
                rights = new_key(name, (), values)
                issuers.append(IssuerSettings(name, rights=rights, **own))
        return tuple(issuers)

    @property
    def _callers(self) -> Iterable[Table]:
        """The tables with rights of callers."""
        return (self._given.tables["key_defaults"], *self._given.keys, *self._given.issuers)

    def _check_key_models(self, settings: Settings) -> None:
        """Reports models in `models` of a key that do not exist; patterns may match no model."""
        for table in self._callers:
            for name in table["models"].value if "models" in table else ():
                if "*" not in name:
                    self._check_model(settings, name, table["models"].origin, "`models` of a key")

    def _check_passed_upstreams(self, settings: Settings) -> None:
        """Reports upstreams in `lane` of a key that do not exist, or offer no path."""
        for table in self._callers:
            for name in table["lane"].value if "lane" in table else ():
                if name not in settings.upstreams:
                    what = f"`lane` of a key: no [[upstream]] is named {shown(name)}{nearest(name, settings.upstreams)}"
                    self._problems.add(table["lane"].origin, what)
                elif not settings.upstreams[name].pass_paths:
                    what = f"`lane` of a key: [[upstream]] {shown(name)} offers no path: give it a `lane`"
                    self._problems.add(table["lane"].origin, what)

    def _check_tool_patterns(self, settings: Settings) -> None:
        """Reports patterns in `tools` of models and keys that name no tool of the configuration."""
        given = self._given
        labels = {table["name"].value for table in given.tool_servers if "name" in table}
        own = {table["name"].value for table in given.tools if "name" in table} | {*self._functions}
        if any("name" not in table for table in (*given.tool_servers, *given.tools)):
            return  # a mistake that is reported
        for section, tables in (("[[model]]", given.models), ("a key", self._callers)):
            for table in tables:
                for pattern in table["tools"].value if "tools" in table else ():
                    allowed = AllowedTools([ToolPatterns([pattern])])
                    if not allowed.servers(labels) and not allowed.own(own):
                        near = nearest(pattern.partition(".")[0], labels | own)
                        what = f"`tools` of {section}: {shown(pattern)} names no tool of a [[tool_server]] or [[tool]]"
                        if "." not in pattern and not near:
                            near = "; a function of `Gateway(tools=…)` is known to its program alone: "
                            near += 'for commands too, name it in a [[tool]] with python = "module:function"'
                        self._problems.add(table["tools"].origin, f"{what}{near}")

    def _check_credentials(self, settings: Settings) -> None:
        """Reports models whose requests would carry a caller's credential to two hosts."""
        for table in self._given.models:
            model = settings.models.get(table["name"].value) if "name" in table else None
            if model is None:
                continue
            asked = [each.upstream for each in settings.may_answer(model) if each.upstream.takes_credentials]
            hosts = sorted({_host_of(each.base_url) for each in asked})
            if len(hosts) > 1:
                key = "fallback" if "fallback" in table or "targets" not in table else "targets"
                origin = table[key if key in table else "name"].origin
                what = f'upstreams of {shown(hosts[0])} and {shown(hosts[1])} that have api_key = "{CALLER}"'
                self._problems.add(origin, f"`{key}` in [[model]]: {what}: a credential is one host's")

    def _digest(self, reference: Value) -> bytes | None:
        """Returns the digest of a caller's secret, or None if it cannot be used, which is reported as a problem."""
        kind, _, place = reference.value.partition(":")
        if kind == "sha256":
            digest = bytes.fromhex(place)
            if digest != key_digest(""):
                return digest
            self._problems.add(reference.origin, "`secret`: this is the digest of an empty secret")
            return None
        found = secret("secret", reference, self._environ, self._folder, self._problems)
        if found is None:
            return None
        key = found.reveal()
        if LIMITS.shortest_key <= len(key) <= SHARED.longest_key:
            return key_digest(key)
        bounds = f"{LIMITS.shortest_key} to {SHARED.longest_key} characters"
        why = "a short one is guessed" if len(key) < LIMITS.shortest_key else "each one that is sent is hashed"
        self._problems.add(reference.origin, f"`secret`: what {reference.value} holds must have {bounds}: {why}")
        return None

    def _upstream(self, table: Table) -> UpstreamSettings | None:
        if "provider" not in table:
            return None
        values = _plain(table, but=(*KEYS, "python"))
        api = get_provider(values["provider"])
        if api.calls_function:
            return self._function_upstream(table, values, api)
        if "python" in table:
            what = f"`python` in [[upstream]] names a function, which {api.provider} does not call"
            self._problems.add(table["python"].origin, f'{what}: write provider = "python"')
        place, values["identity"] = read_identity(table, api, self._environ, self._problems)
        values |= place
        if "api_key" in table and table["api_key"].value == CALLER:
            del values["api_key"]
            values["takes_credentials"] = True
        elif "api_key" in table:
            values["api_key"], *more = self._secrets(table["api_key"])
            values["more_api_keys"] = tuple(key for key in more if key is not None)
        elif values["identity"] is None and "base_url" not in values and self._environ.get(api.key_variable):
            # The provider's own SDK reads this variable too. With another `base_url`, the host must not get the key.
            values["api_key"] = self._secret(Value(f"env:{api.key_variable}", api.key_variable))
        if "base_url" not in values:
            address = usual_address(api, self._environ, self._problems)
            values["base_url"] = api.base_url if address is None else address.value
        elif "base_url" in table and (repeated := _repeated(values["base_url"], api.path)):
            what = f"`base_url` in [[upstream]] must not end in {repeated}: requests add {api.path}"
            self._problems.add(table["base_url"].origin, what)
        if "proxy" in table:
            values["proxy"] = self._proxy(table["proxy"], values["base_url"])
        if "quirks" in table and not api.has_quirks:
            what = "`quirks` in [[upstream]] needs a provider of the chat dialect, such as openai-compatible"
            self._problems.add(table["quirks"].origin, what)
        if "lane" in values:
            values["pass_paths"] = values.pop("lane")
        self._read_tls(table, values)
        if "breaker" in values:
            values["breaker"] = BreakerSettings(**values["breaker"]) if values["breaker"] else None
        return UpstreamSettings(**values)

    def _function_upstream(self, table: Table, values: dict[str, Any], api: API) -> UpstreamSettings | None:
        """Returns an upstream whose answers come from a function. Imports it, so that a mistake is found now."""
        for key in table:
            if key not in _OF_A_FUNCTION:
                what = f"`{key}` in [[upstream]] is of a server, and {api.provider} asks none"
                self._problems.add(table[key].origin, f"{what}: remove it")
        if "python" not in table:
            return None
        function = FunctionSettings(table["python"].value, str(self._folder.resolve()))
        try:
            import_function(function.reference, Path(function.folder))
        except FunctionError as problem:
            what = f"`python` in [[upstream]] {shortened(str(problem))}"
            self._problems.add(table["python"].origin, f"{what}; correct the name, or what it names")
            return None
        if "breaker" in values:
            values["breaker"] = BreakerSettings(**values["breaker"]) if values["breaker"] else None
        own = {key: value for key, value in values.items() if key in _OF_A_FUNCTION}
        return UpstreamSettings(base_url="", function=function, **own)

    def _read_tls(self, table: Table, values: dict[str, Any]) -> None:
        """Reads an upstream's TLS files once, so that a mistake in them is found now."""
        given = [key for key in ("ca_file", "client_cert", "client_key") if key in table]
        if not given:
            return
        if not values["base_url"].startswith("https:"):
            self._problems.add(table[given[0]].origin, f"`{given[0]}` needs a base_url that begins with https://")
        elif "client_key" in table and "client_cert" not in table:
            self._problems.add(table["client_key"].origin, "`client_key` needs client_cert")
        else:
            values.update({key: str(self._folder / values[key]) for key in given})
            try:
                TLSFiles(*map(values.get, ("ca_file", "client_cert", "client_key"))).context()
            except TLSFileError as problem:
                self._problems.add(table[problem.key].origin, f"`{problem.key}`: {problem}")

    def _secrets(self, given: Value) -> list[Secret | None]:
        """Returns the keys of an upstream, each once; at least one entry."""
        if isinstance(given.value, str):
            return [self._secret(given)]
        if CALLER in given.value:
            what = f'`api_key` in [[upstream]]: "{CALLER}" cannot stand in a list: each caller sends one credential'
            self._problems.add(given.origin, what)
            return [None]
        keys = [self._secret(Value(reference, given.origin)) for reference in given.value]
        return [*{None if key is None else key.reveal(): key for key in keys}.values()]

    def _secret(self, reference: Value) -> Secret | None:
        return secret("api_key", reference, self._environ, self._folder, self._problems)

    def _proxy(self, given: Value, base_url: str) -> Secret | None:
        if given.value == "env":
            return usual_proxy(base_url, self._environ, self._problems)
        if not REFERENCE.fullmatch(given.value):
            return Secret(given.value)
        found = secret("proxy", given, self._environ, self._folder, self._problems)
        return None if found is None else checked_proxy(found.reveal(), given.origin, self._problems)

    def _models(
        self, upstreams: Mapping[str, UpstreamSettings], named: Mapping[str, Table], currency: str
    ) -> dict[str, ModelSettings]:
        """Returns the models whose upstreams are usable.

        Args:
            upstreams: The usable upstreams.
            named: All upstreams with a name; mistakes in them are already reported.
            currency: The currency of the models' prices.
        """
        models: dict[str, ModelSettings] = {}
        for name, table in self._by_name("model", self._given.models).items():
            targets = read_targets(name, table, upstreams, named, self._problems)
            if not targets:
                continue
            own = {key: value for key, value in table.items() if key in STREAM}
            more: dict[str, Any] = {key: table[key].value for key in _MODEL_KEYS if key in table}
            if "price" in table:
                more["price"] = build_price(table["price"].value, currency)
            if "targets" in table:
                more["targets"] = targets
            tuning = _tuning(table)
            if tuning is not None:
                more["tuning"] = tuning
            stream = _stream({**self._given.tables["stream"], **own})
            models[name] = model = ModelSettings(name, targets[0].upstream, targets[0].id, stream, **more)
            if model.prefill:
                self._check_prefill(model, table["prefill"].origin)
        return models

    def _check_prefill(self, model: ModelSettings, origin: str) -> None:
        """Reports a target of a model that refuses the `prefill` that the model has."""
        for place in model.targets or (model,):
            provider = place.upstream.provider.partition(":")[0]
            if model.facts.get("prefill", facts_of(provider, place.id).prefill) is False:
                what = f"`prefill` in [[model]]: {shown(place.id)} continues no assistant message"
                self._problems.add(origin, f"{what}; if it does, add facts = {{prefill = true}}")

    def _check_fallbacks(self, settings: Settings) -> None:
        """Reports fallbacks that are not a model, or are the model itself."""
        for table in self._given.models:
            for key in ("fallback", "fallback_on"):
                given = table[key].value if key in table else ()
                for name in given.values() if isinstance(given, Mapping) else given:
                    if "name" in table and name == table["name"].value:
                        what = f"`{key}` in [[model]] must name another model than itself"
                        self._problems.add(table[key].origin, what)
                    else:
                        self._check_model(settings, name, table[key].origin, f"`{key}` in [[model]]")

    def _check_model(self, settings: Settings, name: str, origin: str, what: str) -> None:
        if settings.model(name) is None and not self._is_reported(name):
            known = {*settings.models, *(table["name"].value for table in self._given.models if "name" in table)}
            self._problems.add(origin, f"{what}: no model is named {shown(name)}{nearest(name, known)}")

    def _is_reported(self, name: str) -> bool:
        """Returns whether a model's name may mean a table with a mistake. That mistake is already reported; a second
        report would mislead."""
        upstream, slash, _ = name.partition("/")
        meant = [(self._given.models, name), (self._given.upstreams if slash else [], upstream)]
        return any("name" not in table or table["name"].value == one for tables, one in meant for table in tables)

    def _check_host(self, server: ServerSettings) -> None:
        if server.uds is not None or server.fd is not None:
            return  # the server does not listen on the host; the kind of `fd` is checked when the server opens it
        if not is_loopback(server.host) and not server.insecure and not (self._given.keys or self._given.issuers):
            what = f"{server.host} is open to other machines, and there are no keys"
            how = "add a [[key]], or allow that by `insecure = true` in [server] (GAI_FAST_SERVER__INSECURE=true)"
            self._problems.add(self._given.tables["server"]["host"].origin, f"{what}: {how}")


def _positions(pattern: str, normal: bool) -> int:
    """Returns the positions of a guard's pattern.

    Raises:
        ValueError: The pattern is refused.
    """
    return read_pattern(pattern, normal=normal, pause=breathe).positions()


def _plain(table: Table, but: Sequence[str] = ()) -> dict[str, Any]:
    return {name: value.value for name, value in table.items() if name not in but}


def _usual_models(upstreams: Mapping[str, UpstreamSettings], stream: StreamSettings) -> dict[str, ModelSettings]:
    """Returns the usual models of each upstream that has a key."""
    return {
        f"{name}/{each}": ModelSettings(f"{name}/{each}", upstream, each, stream)
        for name, upstream in upstreams.items()
        if upstream.api_key is not None
        for each in usual_ids(upstream.provider)
    }


def _names_by_id(models: Iterable[ModelSettings]) -> dict[str, str]:
    """Returns the names of models by their ids, but for an id that two upstreams have."""
    names: dict[str, list[str]] = {}
    for model in models:
        names.setdefault(model.id, []).append(model.name)
    return {each: found[0] for each, found in names.items() if len(found) == 1}


def _own_prices(models: Mapping[str, ModelSettings]) -> dict[tuple[str, str], Price]:
    """Returns the models' own prices by upstream and id, for all targets. If several models share an upstream and id,
    the first model's price is used."""
    prices: dict[tuple[str, str], Price] = {}
    for model in models.values():
        if model.price is not None:
            for place in model.targets or (model,):
                prices.setdefault((place.upstream.name, place.id), model.price)
    return prices


def _host_of(base_url: str) -> str:
    """Returns the host of an upstream, with a port that is not the scheme's own."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    return host if parts.port in (None, _PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


_PORTS: Final = {"http": 80, "https": 443}


def new_key(name: str, digests: tuple[bytes, ...], values: Mapping[str, Any]) -> KeySettings:
    """Builds a key.

    Args:
        name: Its name.
        digests: The digests of its secrets.
        values: The values of `keys.KEY_DEFAULTS` that it has, as their `read` returns them.
    """
    rules = dict(values)
    upstreams = rules.pop("lane", ())
    return KeySettings(name, digests, limits=_key_limits(rules), pass_upstreams=upstreams, **rules)


def _key_limits(rules: dict[str, Any]) -> KeyLimits:
    """Builds the limits of a key, and removes them from `rules`."""
    limits = {name: rules.pop(name) for name in LIMITS_OF_KEY if name in rules}
    if "spend" in limits:
        amount = amount_of(limits["spend"]["amount"], LIMITS.largest_spend)
        assert amount is not None  # `checks.spend` has accepted it
        limits["spend"] = SpendLimit(amount, limits["spend"]["period"])
    return KeyLimits(**limits)


def _tuning(table: Table) -> Tuning | None:
    """Returns the changes that a model makes to its requests. None if it changes nothing."""
    values: dict[str, Any] = {name: table[name].value for name in ("extra", "drop") if name in table}
    for name, names in (("defaults", "default_names"), ("overrides", "override_names")):
        if name in table:
            fields = table[name].value
            values[name], values[names] = request_with(fields), tuple(fields)
    return Tuning(**values) if values else None


def _stream(table: Table) -> StreamSettings:
    return StreamSettings(**_plain(table))


def _repeated(base_url: str, path: str) -> str:
    """Returns the end of a base URL that requests would add again: their path, or its version; empty: none."""
    version = _VERSION.match(path)
    ends = (path, version[0] if version else "")
    return next((end for end in ends if end and base_url.endswith(end)), "")


_VERSION: Final = re.compile(r"\S*?/v\d+(?=/)")
"""The beginning of a path up to its version, such as `/v1` or `/openai/v1`."""
