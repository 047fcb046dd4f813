"""The process's environment: variables that set keys, the providers' usual variables, and secrets.

The only other module that reads the environment is the native/pure switch.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

from gai_fast.config.checks import PRINTABLE, REFERENCE
from gai_fast.config.keys import FLAGS, LISTS, SECTIONS, TABLES, read_value
from gai_fast.config.problems import Problems, Value, nearest
from gai_fast.config.values import Key
from gai_fast.model.addresses import address_of
from gai_fast.model.limits import SHARED
from gai_fast.model.settings import Secret
from gai_fast.net.upstream.proxy import Proxy
from gai_fast.providers import API, get_provider, provider_names
from gai_fast.runtime.files import open_file

Environment = Mapping[str, str]

_PREFIX: Final = "GAI_FAST_"
_SWITCHES: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def process_environment() -> Environment:
    """Returns the environment of this process."""
    return os.environ


def wants_color(environ: Environment | None = None) -> bool:
    """Returns whether the user allows colours: https://no-color.org.

    Args:
        environ: The environment; by default this process's.
    """
    return not (process_environment() if environ is None else environ).get("NO_COLOR")


def activated_sockets(process: int, environ: Environment | None = None) -> int:
    """Returns the number of sockets that systemd passed to a process, from descriptor 3 on (sd_listen_fds(3)).

    Args:
        process: The process's id. The variables may have been inherited from a parent process with another id.
        environ: The environment; by default this process's.

    Returns:
        0 if there are none.
    """
    environ = process_environment() if environ is None else environ
    count = environ.get("LISTEN_FDS", "")
    is_ours = environ.get("LISTEN_PID") == str(process)
    return int(count) if is_ours and re.fullmatch(r"[0-9]{1,3}", count) else 0


def variables(section: str, environ: Environment, problems: Problems) -> dict[str, Value]:
    """Returns the keys of a section that the environment sets. An empty variable counts as unset."""
    values: dict[str, Value] = {}
    for name, key in SECTIONS[section].items():
        names = [f"{_PREFIX}{section}__{name}".upper()]
        names[:0] = [f"{_PREFIX}{flag}".upper() for flag, place in FLAGS.items() if place == (section, name)]
        variable = next((variable for variable in names if environ.get(variable)), None)
        if variable is None:
            continue
        value = read_value(problems, section, name, _from_text(environ[variable], key), variable)
        if value is not None:
            values[name] = Value(value, variable)
    return values


def check_variables(environ: Environment, problems: Problems) -> None:
    """Reports the variables that look like settings but name no key."""
    known = {f"{_PREFIX}{section}__{name}".upper() for section in TABLES for name in SECTIONS[section]}
    typed = {name.replace("__", "_"): name for name in known}
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or not environ[variable] or variable in known:
            continue
        section, separator, _ = variable.removeprefix(_PREFIX).partition("__")
        meant = typed.get(variable)
        if meant is not None and not environ[variable].startswith("tcp://"):  # Kubernetes sets such names to URLs
            problems.add(variable, f"no such setting: two underscores follow the section, as in {meant}")
        elif not separator:
            continue  # sets a command's flag, or does not belong to gai-fast
        elif section.lower() in LISTS:
            problems.add(variable, f"[[{section.lower()}]] is set in the file only")
        else:
            problems.add(variable, f"no such setting{nearest(variable, known)}")


def usual_upstreams(environ: Environment, problems: Problems) -> list[dict[str, Value]]:
    """Returns an `[[upstream]]` for every provider whose usual variable is set: the configuration without a file."""
    upstreams = []
    for name in provider_names():
        api = get_provider(name)
        address = usual_address(api, environ, problems)
        if api.base_url and (environ.get(api.key_variable) or address is not None):
            variable = api.key_variable if address is None else api.host_variable
            values = {"name": Value(name, variable), "provider": Value(name, variable)}
            if environ.get(api.key_variable):
                values["api_key"] = Value(f"env:{api.key_variable}", api.key_variable)
            if address is not None:
                values["base_url"] = address
            upstreams.append(values)
    return upstreams


def usual_address(api: API, environ: Environment, problems: Problems) -> Value | None:
    """Returns the base URL from the variable that the provider's own SDK reads, or None if the variable is not set."""
    given = environ.get(api.host_variable)
    if not given:
        return None
    address = read_value(problems, "upstream", "base_url", api.address(given), api.host_variable)
    return None if address is None else Value(address, api.host_variable)


def secret(
    name: str,
    reference: Value,
    environ: Environment,
    folder: Path,
    problems: Problems,
    form: tuple[re.Pattern[str], str] = (PRINTABLE, "no key: one printable ASCII word"),
    owner: str = "",
) -> Secret | None:
    """Returns the secret for a reference, or None if it cannot be read, which is reported as a problem.

    Args:
        name: The key of the configuration that has the reference.
        reference: `env:NAME` or `file:PATH`.
        environ: The environment.
        folder: The folder of relative paths.
        problems: Collects mistakes.
        form: The pattern of a valid secret, and the words for an invalid one.
        owner: Where the key stands, such as ` in [[guard]] 'hook'`; empty if its place says it.
    """
    kind, _, place = reference.value.partition(":")
    if kind == "env":
        text = environ.get(place, "")
        missing = f"the environment variable {place} is not set"
    else:
        path = folder / place
        missing = f"the file {path} is empty"
        try:
            with open_file(path, may_be_piped=True) as file:
                text = file.read(SHARED.response_head).decode("ascii", "replace").strip()
        except OSError as problem:
            text, missing = "", f"the file {path} cannot be read: {problem.strerror}"
    if not text:
        problems.add(reference.origin, f"`{name}`{owner}: {missing}")
        return None
    pattern, otherwise = form
    if pattern is PRINTABLE and len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        text = f"`{name}`{owner}: what {reference.value} holds keeps its quotes (docker's `--env-file` does that)"
        problems.add(reference.origin, f"{text}: remove them")
        return None
    if not pattern.fullmatch(text):
        what = f"`{name}`{owner}: what {reference.value} holds is {otherwise}"
        problems.add(reference.origin, what)
        return None
    return Secret(text)


_QUOTES: Final = ("'", '"')
"""The quotes around a value that shells remove, and `--env-file` does not. No key has them."""
_HEADER_VALUE: Final = re.compile(r"[\t -~]+"), "no header value: printable ASCII"
"""The form of a secret that is a header's value, such as `Bearer …`."""


_VARIABLE_VALUE: Final = re.compile(r"[^\0]+"), "no value of a variable: it has a NUL"
INHERITED: Final = ("PATH", "HOME", "LANG")
"""The variables that a process of `[[tool_server]]` has from the gateway: none is a secret."""


def secret_headers(
    given: Value, environ: Environment, folder: Path, problems: Problems, owner: str = ""
) -> Mapping[str, Secret]:
    """Returns headers, each of whose values is given, or is a reference; a reference that cannot be read is reported.

    Args:
        given: Names and values, accepted by `checks.headers`.
        environ: The environment.
        folder: The folder of relative paths.
        problems: Collects mistakes.
        owner: As for `secret`.
    """
    return _secret_values("headers", given, environ, folder, problems, _HEADER_VALUE, owner)


def secret_variables(
    given: Value, environ: Environment, folder: Path, problems: Problems, owner: str
) -> Mapping[str, Secret]:
    """Returns the variables of a process, as `secret_headers` returns headers."""
    return _secret_values("env", given, environ, folder, problems, _VARIABLE_VALUE, owner)


def inherited_variables(environ: Environment) -> Mapping[str, str]:
    """Returns the variables that a process of `[[tool_server]]` has from the gateway."""
    return MappingProxyType({name: environ[name] for name in INHERITED if name in environ})


def _secret_values(
    key: str,
    given: Value,
    environ: Environment,
    folder: Path,
    problems: Problems,
    form: tuple[re.Pattern[str], str],
    owner: str,
) -> Mapping[str, Secret]:
    values: dict[str, Secret] = {}
    for name, text in given.value.items():
        value: Secret | None = Secret(text)
        if REFERENCE.fullmatch(text):
            value = secret(key, Value(text, given.origin), environ, folder, problems, form, owner)
        if value is not None:
            values[name] = value
    return MappingProxyType(values)


_INTERVALS: Final = {"span_delay": "OTEL_BSP_SCHEDULE_DELAY", "metric_interval": "OTEL_METRIC_EXPORT_INTERVAL"}
_SERVICE: Final = "service.name"


def otel_variables(environ: Environment, problems: Problems) -> dict[str, Any]:
    """Returns the fields of `OTelSettings` that OpenTelemetry's own variables set.

    Args:
        environ: The environment.
        problems: Collects mistakes.
    """
    values: dict[str, Any] = {}
    for name, variable in _INTERVALS.items():
        given = environ.get(variable)
        if not given:
            continue
        if re.fullmatch(r"[0-9]{1,9}", given) and int(given):
            values[name] = int(given) / 1e3
        else:
            problems.add(variable, "must be milliseconds, more than 0")
    resource: dict[str, str] = {}
    for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        key, equals, text = (part.strip() for part in item.partition("="))
        if key and equals:
            resource[key] = unquote(text)
        elif item.strip():
            problems.add("OTEL_RESOURCE_ATTRIBUTES", "must be of the form key=value,key=value")
    if environ.get("OTEL_SERVICE_NAME"):
        resource[_SERVICE] = environ["OTEL_SERVICE_NAME"]
    return {**values, "resource": MappingProxyType(resource)}


def usual_proxy(base_url: str, environ: Environment, problems: Problems) -> Secret | None:
    """Returns the proxy that the environment names for an upstream, or None if it names none.

    The variables are read as curl reads them: a lower-case name comes first, and `HTTP_PROXY` in upper case is ignored,
    because a CGI server sets it to a header of its client.

    Args:
        base_url: The upstream's base URL.
        environ: The environment.
        problems: Collects mistakes.
    """
    url = urlsplit(base_url)
    names = ("https_proxy", "HTTPS_PROXY") if url.scheme == "https" else ("http_proxy",)
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    for name in (*names, "all_proxy", "ALL_PROXY"):
        proxy = environ.get(name, "")
        if proxy:
            if _is_excepted(url, excepted):
                return None
            return checked_proxy(proxy, name, problems)
    return None


def _is_excepted(url: SplitResult, names: str) -> bool:
    """Returns whether `NO_PROXY` has the host of a URL, a parent domain of the host, or a network that contains it."""
    host = url.hostname or ""  # an IPv6 address without its brackets
    if any(proxy_bypass_environment(each, {"no": names}) for each in (url.netloc, host)):
        return True
    address = address_of(host)
    if address is not None:
        for name in names.split(","):
            with contextlib.suppress(ValueError):  # not a network
                if address in ipaddress.ip_network(name.strip(), strict=False):
                    return True
    return False


def checked_proxy(url: str, origin: str, problems: Problems) -> Secret | None:
    """Returns the URL of a proxy, or None if it cannot be used, which is reported as a problem.

    Args:
        url: The URL.
        origin: The URL's origin.
        problems: Collects mistakes.
    """
    try:
        Proxy.parse(url)
    except ValueError as problem:
        problems.add(origin, f"`proxy`: the URL that it holds {problem}")
        return None
    return Secret(url)


def _from_text(text: str, key: Key) -> Any:
    """Returns a variable's text as a TOML value of the key's type, or unchanged if it is not a value of that type."""
    match key.schema.get("type"):
        case "boolean":
            return _SWITCHES.get(text.lower(), text)
        case "integer" if re.fullmatch(r"[0-9]{1,18}", text):
            return int(text)
        case "number" if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text):
            return float(text)
        case "object":
            with contextlib.suppress(tomllib.TOMLDecodeError):  # the value stays text, which the key refuses
                return tomllib.loads(f"value = {text}").get("value")
        case "array":
            return [item.strip() for item in text.split(",") if item.strip()]
    return text
