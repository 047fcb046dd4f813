"""The configuration: reads file, environment and flags into one immutable `Settings`.

`load` returns the settings; `read` also returns the origin of each value. A value comes from a flag, else the
environment, else the file, else its default. All mistakes in a configuration are reported in one `ConfigError`.

| module | owns |
|---|---|
| `problems` | `ConfigError` and the wording of mistakes |
| `values` | the kinds of values: switch, number, seconds, choice, text |
| `checks` | the rules for texts and tables: host, origin, URL, name, headers |
| `keys` | the table of all keys |
| `guard_keys` | the keys of a `[[guard]]` |
| `guards` | what guards must not have together, the lists that they name |
| `tool_keys` | the keys of `[[tool_server]]` and `[[tool]]` |
| `tool_tables` | what tools must not have together, their secrets, files and functions |
| `prices` | the price list |
| `file` | the TOML file, and the line of each key |
| `faults` | the words for a file that is no TOML |
| `environment` | the process's environment; the only other module that reads it is the native/pure switch |
| `resolution` | the precedence of sources, references between tables, the `Settings` |
| `stored_keys` | the values of a key that an admin makes at run time |
| `editing` | changes to `[[key]]` tables in the file's text |

The package opens no socket and imports neither the server nor the command line: the library uses it without them.
"""

from gai_fast.config.environment import wants_color
from gai_fast.config.keys import DEFAULTS, FLAGS, LISTS, REQUIRED, SECTIONS, TABLES
from gai_fast.config.problems import ConfigError, Value
from gai_fast.config.resolution import DEFAULT_FILE, Loaded, find, load, read
from gai_fast.config.values import Key

__all__ = [
    "DEFAULTS",
    "DEFAULT_FILE",
    "FLAGS",
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
