"""The configuration: file, environment and flags in, one immutable `Settings` out.

`load` gives the settings; `read` also gives the origin of each value. A value comes from a flag, else the environment,
else the file, else its default. Everything wrong with a configuration is one `ConfigError`.

| module | owns |
|---|---|
| `problems` | `ConfigError`, and how a mistake is worded |
| `values` | the kinds of values: switch, number, seconds, choice, text |
| `checks` | what a text or a table must be: host, origin, URL, name, headers |
| `keys` | the table of all keys |
| `prices` | the price list |
| `file` | the TOML file, and the line of each key |
| `environment` | the process's environment; no other module reads it but the native/pure switch |
| `resolution` | which source wins, references between tables, the `Settings` |
| `editing` | changes of `[[key]]` tables in the file's text |

The package opens no socket and imports neither the server nor the command line: the library loads it alone.
"""

from gai_fast.config.environment import wants_color
from gai_fast.config.keys import DEFAULTS, FLAGS, LATER, LISTS, REQUIRED, SECTIONS, TABLES
from gai_fast.config.problems import ConfigError, Value
from gai_fast.config.resolution import DEFAULT_FILE, Loaded, find, load, read
from gai_fast.config.values import Key

__all__ = [
    "DEFAULTS",
    "DEFAULT_FILE",
    "FLAGS",
    "LATER",
    "LISTS",
    "REQUIRED",
    "SECTIONS",
    "TABLES",
    "ConfigError",
    "Key",
    "Loaded",
    "Value",
    "find",
    "load",
    "read",
    "wants_color",
]
