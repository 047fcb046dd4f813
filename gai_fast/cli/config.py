"""`gai-fast config`: writes a first configuration, shows the configuration in force, describes every key.

All texts come from the tables of `gai_fast.config`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import click
import msgspec
from msgspec.structs import asdict

from gai_fast.cli import ConfigFailure, Failure, config_option, json_option, load_config, option, print_json
from gai_fast.config import (
    DEFAULT_FILE,
    DEFAULTS,
    LISTS,
    REQUIRED,
    SECTIONS,
    ConfigError,
    Key,
    Loaded,
    Value,
    read,
)
from gai_fast.config.guard_keys import NEEDED, USES, USES_OF
from gai_fast.config.identity import EXAMPLES as IDENTITY_EXAMPLES
from gai_fast.config.identity import KEYS as IDENTITY_KEYS
from gai_fast.config.tool_keys import WAY_OF, WAYS
from gai_fast.config.values import LARGEST
from gai_fast.model.settings import GuardSettings
from gai_fast.processors import PROCESSORS, parameters, read_processor
from gai_fast.providers import get_provider, provider_names

REDACTED = "[redacted]"
STANDARD_OUTPUT = Path("-")


@click.group()
def command() -> None:
    """Write, show or describe the configuration."""


# ---- init ----------------------------------------------------------------------------------------------------------


@command.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="GAI_FAST_CONFIG",
    help="The file, if no FILE is named; by default gai-fast.toml here.",
)
@option("--force", is_flag=True, envvar="GAI_FAST_CONFIG_INIT_FORCE", help="Overwrite the file.")
def init(file: Path | None, config_path: Path | None, force: bool) -> None:
    """Write a configuration for the keys and local servers here.

    The keys come from the environment; servers are looked for on their usual ports. FILE can be - for the standard
    output.
    """
    file = file or config_path or DEFAULT_FILE
    from gai_fast.cli.local_upstreams import find_local_upstreams
    from gai_fast.cli.serve import run_async

    try:
        found = read(None)
    except ConfigError as problem:
        raise ConfigFailure(str(problem)) from None
    upstreams = list(found.upstreams)

    async def look() -> None:
        upstreams.extend(await find_local_upstreams([table["name"].value for table in found.upstreams]))

    run_async(look())
    if file == STANDARD_OUTPUT:
        click.echo(starter(upstreams), nl=False)
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as target:
            target.write(starter(upstreams))
    except FileExistsError:
        raise ConfigFailure(f"{file} exists: --force overwrites it") from None
    except OSError as problem:
        raise Failure(f"cannot write {file}: {problem.strerror}") from None
    names = [table["name"].value for table in upstreams]
    click.echo(f"wrote {click.format_filename(file)}, with {', '.join(names) or 'an example'}")


def starter(upstreams: Sequence[Mapping[str, Value]]) -> str:
    """Returns a configuration with every key in a comment.

    Args:
        upstreams: The upstreams to configure. If there are none, the configuration has a commented example.
    """
    known = [{name: value.value for name, value in table.items()} for table in upstreams]
    example = provider_names()[0]
    lines = [
        "# The configuration of gai-fast. `gai-fast check` validates it, `gai-fast config show` shows it resolved.",
        "# Times are seconds and sizes bytes, unless a comment says otherwise.",
    ]
    for section in SECTIONS:
        if section not in LISTS:
            lines += ["", f"[{section}]", *_comments(section, SECTIONS[section])]
    lines += [
        *_callers(),
        *_upstreams(known, example),
        *_models(known[0]["name"] if known else example),
        *_processors(),
        *_guards(known[0]["name"] if known else example),
        *_tools(),
    ]
    return "\n".join(lines) + "\n"


def _callers() -> list[str]:
    return [
        "",
        "# A caller: with one [[key]] or more, every request for a stream needs one.",
        *("# [[key]]", '# name = "website"', '# secret = "env:WEBSITE_KEY"'),
        *_comments("key_defaults", SECTIONS["key_defaults"]),
        "",
        "# An OIDC issuer: requests may have one of its tokens in place of a key. Needs gai-fast[jwt].",
        *("# [[issuer]]", '# name = "staff"'),
        *_comments("issuer", {name: key for name, key in SECTIONS["issuer"].items() if name != "name"}),
    ]


def _upstreams(known: Sequence[Mapping[str, Any]], example: str) -> list[str]:
    """Returns the lines of the upstreams.

    Args:
        known: The upstreams to configure.
        example: The provider of the examples.
    """
    lines = ["", f"# An upstream. Providers: {', '.join(provider_names())}."]
    mark = "" if known else "# "
    for table in known or [
        {"name": example, "provider": example, "api_key": f"env:{get_provider(example).key_variable}"}
    ]:
        lines += ["", f"{mark}[[upstream]]", *(f"{mark}{name} = {toml(value)}" for name, value in table.items())]
        own = {*table, *IDENTITY_KEYS, "python"}  # their tables follow
        rest = {name: key for name, key in SECTIONS["upstream"].items() if name not in own}
        lines += _comments("upstream", rest, base_url=get_provider(table["provider"]).base_url)
    lines += ["", "# Upstreams with tokens in place of a key. One key is sent alone: leave `api_key` out."]
    for given in IDENTITY_EXAMPLES:
        whole = {"name": given["name"], "provider": example, **given}
        lines += ["", "# [[upstream]]"]
        for name, value in whole.items():
            about = f"  # {SECTIONS['upstream'][name].about}" if name in IDENTITY_KEYS else ""
            lines.append(f"# {name} = {toml(value)}{about}")
    function = SECTIONS["upstream"]["python"]
    calls = next(name for name in provider_names() if get_provider(name).calls_function)
    lines += ["", "# A function of yours in place of a server.", "# [[upstream]]", '# name = "mine"']
    return [*lines, f"# provider = {toml(calls)}", f"# python = {toml(function.example)}  # {function.about}"]


def _models(upstream: str) -> list[str]:
    """Returns the lines of the models.

    Args:
        upstream: The upstream of the examples.
    """
    model = {"name": "fast", "upstream": upstream, "id": "the upstream's own name for it"}
    spread = ("targets", "balance", "hedge_after")
    shown = {*model, *spread, *SECTIONS["stream"]}
    targets = [{"upstream": upstream, "id": each} for each in ("one", "another")]
    return [
        "",
        "# A name of your own for a model; any key of [stream] may follow. Without one, ask for <upstream>/<id>.",
        *("# [[model]]", *(f"# {name} = {toml(value)}" for name, value in model.items())),
        *_comments("model", {name: key for name, key in SECTIONS["model"].items() if name not in shown}),
        "",
        "# A model of several upstreams, or of one under several ids.",
        *("# [[model]]", '# name = "spread"'),
        *_comments("model", {name: SECTIONS["model"][name] for name in spread}, targets=targets, hedge_after=1.5),
    ]


def _processors() -> list[str]:
    use, *others = PROCESSORS
    return [
        "",
        f"# Processors change the events of every stream, in order of the tables. Others: {', '.join(others)}.",
        *("# [[processor]]", f'# use = "{use}"'),
        *(f"# {name} = {toml(value)}" for name, value in asdict(parameters(use)()).items() if value is not None),
    ]


def _guards(upstream: str) -> list[str]:
    """Returns the lines of the guards, a table for each `use`; the first has the keys that all have.

    Args:
        upstream: The upstream of the examples.
    """
    lines = ["", "# Guards: what they find is not sent. Each use has keys of its own."]
    shown = {"name", "use"}
    for use in USES:
        lines += ["", "# [[guard]]", f"# name = {toml(use)}", f"# use = {toml(use)}"]
        own = {name: key for name, key in _keys_of_guard(use).items() if name not in shown}
        lines += _comments("guard", own, upstream=upstream)
        shown |= {*own}
    return lines


_TOOLS = {
    "tool_server": ("Tools of servers that speak MCP, which the gateway may call.", ("docs", "local")),
    "tool": ("Tools of yours: a web hook, or a function in Python.", ("weather", "invoice")),
}
"""Above the tables of tools: what they are, and a name for a table of each way."""


def _tools() -> list[str]:
    """Returns the lines of the tools, a table for each way; the first has the keys that all have."""
    lines: list[str] = []
    for section, (about, names) in _TOOLS.items():
        lines += ["", f"# {about}"]
        shown = {"name", "auth_command"}
        for name, way in zip(names, WAYS[section], strict=True):
            lines += ["", f"# [[{section}]]", f"# name = {toml(name)}"]
            own = {key: each for key, each in _keys_of_way(section, way).items() if key not in shown}
            lines += _comments(section, own)
            shown |= {*own}
    command = SECTIONS["tool_server"]["auth_command"]
    lines += ["", "# A server with tokens in place of a header.", "# [[tool_server]]", '# name = "tickets"']
    lines += [f"# url = {toml(SECTIONS['tool_server']['url'].example)}"]
    return [*lines, f"# auth_command = {toml(command.example)}  # {command.about}"]


def _keys_of_way(section: str, way: str) -> dict[str, Key]:
    """Returns the keys of a table of tools that go with one of its ways."""
    others = {each for each in WAYS[section] if each != way}
    return {
        name: key
        for name, key in SECTIONS[section].items()
        if name not in others and WAY_OF[section].get(name, way) == way
    }


def _keys_of_guard(use: str) -> dict[str, Key]:
    """Returns the keys that go with a `use`."""
    return {name: key for name, key in SECTIONS["guard"].items() if use in USES_OF.get(name, USES)}


def _comments(section: str, keys: Mapping[str, Key], **defaults: Any) -> Iterator[str]:
    for name, key in keys.items():
        default = {**DEFAULTS[section], **defaults}.get(name)
        yield f"# {name} = {toml(_example(key) if default is None else default)}  # {key.about}{_allowed(key.schema)}"


def _allowed(schema: Mapping[str, Any]) -> str:
    """Returns the valid values as the end of a comment; empty if the value's type shows them."""
    if "enum" in schema:
        return f" One of: {', '.join(schema['enum'])}."
    if "enum" in schema.get("items", ()):
        return f" Any of: {', '.join(schema['items']['enum'])}."
    if schema.get("type") != "integer":
        return ""
    least, most = schema["minimum"], schema["maximum"]
    return f" At least {least}." if most == LARGEST else f" {least} to {most}."


def _example(key: Key) -> Any:
    """Returns a value for a key without a default."""
    return key.schema["enum"][0] if "enum" in key.schema else key.example


def toml(value: Any) -> str:
    """Returns a value as TOML."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, except for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


# ---- show ----------------------------------------------------------------------------------------------------------


@command.command()
@config_option
@option("--origin", is_flag=True, envvar="GAI_FAST_CONFIG_SHOW_ORIGIN", help="Print the origin of each value.")
@json_option
def show(config_path: Path | None, origin: bool, json: bool) -> None:
    """Print the configuration in force, defaults filled in.

    Secrets are left out.
    """
    loaded = load_config(config_path)
    sections = in_force(loaded)
    if json:
        print_json(_plain(sections, origin))
        return
    for section, tables in sections.items():
        for table in tables if isinstance(tables, list) else [tables]:
            click.echo(f"[[{section}]]" if section in LISTS else f"[{section}]")
            for name, value in table.items():
                if value.value is not None:
                    click.echo(f"{name} = {toml(value.value)}{f'  # {value.origin}' if origin else ''}")
            click.echo()


def in_force(loaded: Loaded) -> dict[str, dict[str, Value] | list[dict[str, Value]]]:
    """Returns every key's value and origin, defaults included. Passwords in URLs, header values, credentials in raw
    members and digests are redacted; other secrets are references."""
    upstreams = []
    for table in loaded.upstreams:
        default = {"base_url": loaded.settings.upstreams[table["name"].value].base_url}
        whole = _with_defaults("upstream", table, **default)
        hidden = {
            "auth_command": _without_arguments(whole["auth_command"]),
            "extra": _without_credentials(whole["extra"]),
            "headers": _without_values(whole["headers"]),
            "proxy": _without_password(whole["proxy"]),
        }
        upstreams.append({**whole, **hidden})
    models = [
        table if "targets" in table else {"id": Value(table["name"].value, "default"), **table}
        for table in loaded.models
    ]
    store = _with_defaults("store", loaded.store)
    otel = _with_defaults("otel", loaded.otel)
    return {
        "server": _with_defaults("server", loaded.server),
        "key": [_shown_key({**loaded.key_defaults, **table}) for table in loaded.keys],
        "key_defaults": _shown_key(_with_defaults("key_defaults", loaded.key_defaults)),
        "issuer": [_with_defaults("issuer", table) for table in loaded.issuers],
        "stream": _with_defaults("stream", loaded.stream),
        "store": {
            **store,
            "url": _without_password(store["url"]),
            "encryption": _without_program_arguments(store["encryption"]),
        },
        "idempotency": _with_defaults("idempotency", loaded.idempotency),
        "limits": _with_defaults("limits", loaded.limits),
        "prices": _with_defaults("prices", loaded.prices),
        "cache": _with_defaults("cache", loaded.cache),
        "responses": _with_defaults("responses", loaded.responses),
        "runs": _with_defaults("runs", loaded.runs),
        "otel": {**otel, "headers": _without_values(otel["headers"])},
        "upstream": upstreams,
        "model": [
            {
                name: _without_credentials(table[name]) if name in _MEMBERS else table[name]
                for name in SECTIONS["model"]
                if name in table
            }
            for table in models
        ],
        "processor": [_with_parameters(table) for table in loaded.processors],
        "guard": [_shown_guard(table, each) for table, each in zip(loaded.guards, loaded.settings.guards, strict=True)],
        "tool_server": [_shown_tools("tool_server", table) for table in loaded.tool_servers],
        "tool": [
            _shown_tools("tool", table, description=each.description, approve=each.approve, idempotent=each.idempotent)
            for table, each in zip(loaded.tools, loaded.settings.tools, strict=True)
        ],
    }


def _shown_guard(table: Mapping[str, Value], guard: GuardSettings) -> dict[str, Value]:
    """Returns the table of a `[[guard]]` with the defaults of its `use`; values of headers are redacted."""
    defaults: dict[str, Any] = {"action": guard.action}
    if guard.judge is not None:
        defaults["on_failure"] = "open" if guard.judge.fails_open else "closed"
    shown = _with_defaults("guard", table, **defaults)
    if "headers" in table:
        shown["headers"] = _without_values(table["headers"])
    return {name: shown[name] for name in _keys_of_guard(guard.use)}


def _shown_tools(section: str, table: Mapping[str, Value], **defaults: Any) -> dict[str, Value]:
    """Returns the table of a server of tools, or of a tool, with its defaults; values that may be secrets are redacted.

    Args:
        section: The section.
        table: The given keys.
        defaults: The defaults that its function has.
    """
    shown = _with_defaults(section, table, **defaults)
    hide = {
        "url": _without_path,
        "headers": _without_values,
        "env": _without_values,
        "command": _without_arguments,
        "auth_command": _without_arguments,
    }
    [way] = [each for each in WAYS[section] if each in table]
    return {name: hide[name](shown[name]) if name in hide else shown[name] for name in _keys_of_way(section, way)}


def _without_path(url: Value) -> Value:
    """Returns a URL with its path and its query redacted: either may be a secret."""
    scheme, between, rest = url.value.partition("://")
    host, slash, path = rest.replace("?", "/?", 1).partition("/")
    return Value(f"{scheme}{between}{host}/{REDACTED}", url.origin) if slash and path else url


def _without_arguments(command: Value) -> Value:
    """Returns a program with its arguments redacted: one of them may be a secret."""
    if command.value is None:
        return command
    program, *arguments = command.value
    return Value((program, *(REDACTED for _ in arguments)), command.origin)


def _without_program_arguments(encryption: Value) -> Value:
    """Returns `[store.encryption]` with the arguments of its program redacted."""
    command = _without_arguments(Value(encryption.value["command"] or None, ""))
    return Value({**encryption.value, "command": command.value or ()}, encryption.origin)


def _without_values(headers: Value) -> Value:
    """Returns headers with their values redacted."""
    return Value(dict.fromkeys(headers.value, REDACTED), headers.origin)


_MEMBERS = ("defaults", "overrides", "extra")
"""The keys of a `[[model]]` that have members of requests."""
_CREDENTIAL = re.compile(r"(?i)(key|token|secret|password|authorization)$")
"""The ends of names of members that hold a credential: `api_key`, `authorization_token`, `clientSecret`."""


def _without_credentials(members: Value) -> Value:
    """Returns members of requests with credentials redacted, and the headers for the provider to send."""
    return Value(_redacted(members.value), members.origin)


def _redacted(value: Any, name: str = "") -> Any:
    if _CREDENTIAL.search(name):
        return REDACTED
    if isinstance(value, Mapping):
        if name == "headers":
            return dict.fromkeys(value, REDACTED)
        return {inner: _redacted(each, inner) for inner, each in value.items()}
    return [_redacted(each) for each in value] if isinstance(value, (list, tuple)) else value


def _shown_key(table: dict[str, Value]) -> dict[str, Value]:
    """Returns the table of a `[[key]]`, or of the defaults, with digests redacted and moments as text."""
    shown = {name: table[name] for name in SECTIONS["key"] if name in table}
    for name, form in (("secret", _without_digests), ("expires", _as_text)):
        if name in shown and shown[name].value is not None:
            shown[name] = Value(form(shown[name].value), shown[name].origin)
    return shown


def _without_digests(references: Sequence[str]) -> str | list[str]:
    """Returns the references to a caller's secrets with digests redacted."""
    kept = [f"sha256:{REDACTED}" if each.startswith("sha256:") else each for each in references]
    return kept[0] if len(kept) == 1 else kept


def _as_text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _without_password(url: Value) -> Value:
    """Returns the URL of a store or a proxy with its password redacted.

    A user's name without a password is redacted, too: it may be a key.
    """
    if url.value is None:
        return url
    parts = urlsplit(url.value)
    credentials, at, host = parts.netloc.rpartition("@")
    if not at:
        return url
    user, _, password = credentials.partition(":")
    shown = f"{user}:{REDACTED}" if password else REDACTED
    return Value(parts._replace(netloc=f"{shown}@{host}").geturl(), url.origin)


def _with_defaults(section: str, table: Mapping[str, Value], **defaults: Any) -> dict[str, Value]:
    known = {**DEFAULTS[section], **defaults}
    return {name: table.get(name, Value(known.get(name), "default")) for name in SECTIONS[section]}


def _with_parameters(table: Mapping[str, Value]) -> dict[str, Value]:
    entry = {name: value.value for name, value in table.items()}
    whole = {"use": entry["use"], **asdict(cast("msgspec.Struct", read_processor(entry)))}
    return {name: table.get(name, Value(value, "default")) for name, value in whole.items()}


def _plain(value: Any, origin: bool) -> Any:
    if isinstance(value, Value):
        plain = dict(value.value) if isinstance(value.value, Mapping) else value.value
        return {"value": plain, "origin": value.origin} if origin else plain
    if isinstance(value, dict):
        return {name: _plain(item, origin) for name, item in value.items()}
    return [_plain(item, origin) for item in value]


# ---- schema --------------------------------------------------------------------------------------------------------


@command.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    print_json(json_schema())


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of `gai-fast.toml`."""
    properties: dict[str, Any] = {}
    for section, keys in SECTIONS.items():
        table: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
        for name, key in keys.items():
            default = DEFAULTS[section].get(name)
            default_member = {} if default is None else {"default": default}
            table["properties"][name] = {"description": key.about, **key.schema, **default_member}
        if section in REQUIRED:
            table["required"] = list(REQUIRED[section])
        if section == "model":
            table["required"].remove("upstream")
            table["oneOf"] = [{"required": ["upstream"]}, {"required": ["targets"]}]
        if section in WAYS:
            table["oneOf"] = [_way_schema(section, way) for way in WAYS[section]]
        if section == "guard":
            table = {"oneOf": [_guard_schema(table, use) for use in USES]}
        if section == "processor":
            table = {"oneOf": [_processor_schema(use) for use in PROCESSORS]}
        properties[section] = {"type": "array", "items": table} if section in LISTS else table
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gai-fast.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _guard_schema(whole: dict[str, Any], use: str) -> dict[str, Any]:
    """Returns the JSON Schema of a `[[guard]]` with a `use`.

    Args:
        whole: The schema with the keys of all uses.
        use: The `use`.
    """
    properties = {name: whole["properties"][name] for name in _keys_of_guard(use)}
    properties["use"] = {"const": use, "description": properties["use"]["description"]}
    needed, _ = NEEDED.get(use, ((), ""))
    either = {"anyOf": [{"required": [name]} for name in needed]} if needed else {}
    return {**whole, "title": use, "properties": properties, **either}


def _way_schema(section: str, way: str) -> dict[str, Any]:
    """Returns what a table of tools with one of its ways has, and what it has not."""
    others = [name for name in SECTIONS[section] if name not in _keys_of_way(section, way)]
    return {"required": [way], "not": {"anyOf": [{"required": [name]} for name in others]}}


def _processor_schema(use: str) -> dict[str, Any]:
    """Returns the JSON Schema of a `[[processor]]` entry."""
    _, components = msgspec.json.schema_components([parameters(use)])
    table: dict[str, Any]
    (table,) = components.values()
    table["title"], table["description"] = use, table["description"].partition("\n")[0]
    table["properties"] = {"use": {"const": use}, **table["properties"]}
    table["required"] = ["use", *table["required"]]
    return table
