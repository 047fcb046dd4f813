"""`config/tool_tables.py`: what `[[tool_server]]` and `[[tool]]` become, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gai_fast.config import ConfigError
from gai_fast.model.settings import FunctionSettings, IdentitySettings, Secret, ToolServerSettings, ToolSettings
from tests.integration.certificates import Authority
from tests.unit.config.folders import Folder

SERVER = '[[tool_server]]\nname = "docs"\nurl = "https://tools.example.com/mcp"\n'
PROCESS = '[[tool_server]]\nname = "local"\ncommand = ["docs-mcp", "--read-only"]\n'
HOOK = '[[tool]]\nname = "weather"\nurl = "https://api.example.com/weather"\n'
FUNCTION = '[[tool]]\nname = "invoice"\npython = "tools_of_mine:invoice"\n'
SECRETS = {"TOKEN": "sk-canary-0123"}


@pytest.fixture(autouse=True)
def functions(folder: Folder) -> None:
    (folder.path / "tools_of_mine.py").write_text(
        "import gai_fast\n"
        "@gai_fast.tool(approve=True)\n"
        "def invoice(customer: str, amount: float = 1.0):\n"
        '    """Sends an invoice."""\n'
        "def bad(*names): ...\n"
        "@gai_fast.tool(name='send_invoice')\n"
        "def named(customer: str): ...\n"
    )


def test_a_server_on_http(folder: Folder) -> None:
    Authority(folder.path)
    (folder.path / "good.pem").rename(folder.path / "ca.pem")
    more = 'headers = {authorization = "env:TOKEN", x-team = "search"}\nca_file = "ca.pem"\ntools = ["get_*"]\n'
    more += 'approve = ["write_*"]\nidempotent = ["put_*"]\nconnect_timeout = 2\n'
    more += "timeout = 3\nmax_result = 4\nmax_calls = 5\n"
    assert folder.read(SERVER + more, SECRETS).settings.tool_servers == (
        ToolServerSettings(
            "docs",
            Secret("https://tools.example.com/mcp"),
            {"authorization": Secret("sk-canary-0123"), "x-team": Secret("search")},
            plain=frozenset({"x-team"}),
            ca_file=str(folder.path / "ca.pem"),
            tools=("get_*",),
            approve=("write_*",),
            idempotent=("put_*",),
            connect_timeout=2.0,
            timeout=3.0,
            max_result=4,
            max_calls=5,
        ),
    )


def test_a_server_with_tokens_of_a_program(folder: Folder) -> None:
    [server] = folder.read(f'{SERVER}auth_command = ["print-token", "-x"]').settings.tool_servers
    assert server.identity == IdentitySettings(command=("print-token", "-x"))


def test_a_process_has_its_own_variables_and_three_of_the_gateways(folder: Folder) -> None:
    environ = {**SECRETS, "PATH": "/bin", "LANG": "C", "OPENAI_API_KEY": "sk"}
    [server] = folder.read(f'{PROCESS}env = {{DOCS_TOKEN = "env:TOKEN", MODE = "read"}}', environ).settings.tool_servers
    assert server.command == ("docs-mcp", "--read-only")
    assert server.env == {"DOCS_TOKEN": Secret("sk-canary-0123"), "MODE": Secret("read")}
    assert server.inherited == {"PATH": "/bin", "LANG": "C"}
    assert "sk-canary" not in repr(server)


def test_values_of_the_file_itself_are_plain_unless_their_names_say_what_they_are(folder: Folder) -> None:
    env = 'env = {DOCS = "env:TOKEN", ROOT = "/srv/docs", API_KEY = "sk-written-0123", DB = "pg://u:written-0@db"}'
    assert folder.read(f"{PROCESS}{env}", SECRETS).settings.tool_servers[0].plain == {"ROOT"}
    headers = 'headers = {x-team = "env:TOKEN", x-project = "project-1", Authorization = "Bearer sk-written-0123"}'
    assert folder.read(f"{SERVER}{headers}", SECRETS).settings.tool_servers[0].plain == {"x-project"}
    assert folder.read(f"{HOOK}{headers}", SECRETS).settings.tools[0].plain == {"x-project"}


def test_a_variable_may_have_lines(folder: Folder) -> None:
    pem = "-----BEGIN KEY-----\nä\n-----END KEY-----"
    [server] = folder.read(f'{PROCESS}env = {{KEY = "env:PEM"}}', {"PEM": pem}).settings.tool_servers
    assert server.env == {"KEY": Secret(pem)}


def test_the_name_of_a_decorator_is_the_table_s(folder: Folder) -> None:
    table = '[[tool]]\nname = "{}"\npython = "tools_of_mine:named"\n'
    [tool] = folder.read(table.format("send_invoice")).settings.tools
    assert tool.name == "send_invoice"
    with pytest.raises(ConfigError) as raised:
        folder.read(table.format("invoice"))
    assert "tools_of_mine:named is named 'send_invoice' by its decorator: name the table so" in str(raised.value)


def test_a_hook_and_a_function(folder: Folder) -> None:
    schema = 'parameters = {type = "object", properties = {city = {type = "string"}}, required = ["city"]}\n'
    text = (
        f'{HOOK}description = "The weather"\n{schema}idempotent = true\nheaders = {{x-key = "env:TOKEN"}}\n{FUNCTION}'
    )
    hook, function = folder.read(text, SECRETS).settings.tools
    assert hook == ToolSettings(
        "weather",
        "The weather",
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        Secret("https://api.example.com/weather"),
        {"x-key": Secret("sk-canary-0123")},
        idempotent=True,
    )
    assert function.function == FunctionSettings("tools_of_mine:invoice", str(folder.path.resolve()))
    assert (function.description, function.approve, function.idempotent) == ("Sends an invoice.", True, False)
    assert function.parameters["required"] == ["customer"]


def test_the_table_wins_over_the_decorator(folder: Folder) -> None:
    text = f'{FUNCTION}approve = false\nidempotent = true\ndescription = "Another"'
    [tool] = folder.read(text).settings.tools
    assert (tool.description, tool.approve, tool.idempotent) == ("Another", False, True)


def test_a_tool_without_parameters_has_no_arguments(folder: Folder) -> None:
    [tool] = folder.read(HOOK).settings.tools
    assert tool.parameters == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SERVER + SERVER, "5: a second [[tool_server]] is named 'docs', as at gai-fast.toml:2"),
        (HOOK + HOOK, "5: a second [[tool]] is named 'weather', as at gai-fast.toml:2"),
        (
            SERVER + HOOK.replace("weather", "docs", 1),
            "5: a [[tool]] is named 'docs', as the [[tool_server]] at gai-fast.toml:2",
        ),
        (
            SERVER + HOOK.replace("weather", "docs__search", 1),
            "5: `name` in [[tool]] must not begin with docs__: so models see the tools of 'docs'; choose another",
        ),
        (
            '[[tool_server]]\nname = "docs"\n',
            "1: `url` is missing in [[tool_server]] 'docs': where it speaks MCP, or `command`, the program that does",
        ),
        (
            '[[tool]]\nname = "a"\n',
            "1: `url` is missing in [[tool]] 'a': where its arguments are posted, or `python`, the function that is "
            "called",
        ),
        ('[[tool_server]]\nname = "docs"\ncomand = ["a"]\n', "3: unknown key 'comand' in [[tool_server]]"),
        (f'{SERVER}command = ["a"]', "4: `command` in [[tool_server]] 'docs' beside `url`: it is one of them"),
        (f'{SERVER}env = {{A = "1"}}', "4: `env` in [[tool_server]] 'docs' goes with `command`, not with `url`"),
        (f'{PROCESS}ca_file = "a"', "4: `ca_file` in [[tool_server]] 'local' goes with `url`, not with `command`"),
        (
            f'{FUNCTION}parameters = {{type = "object"}}',
            "4: `parameters` in [[tool]] 'invoice' goes with `url`, not with `python`",
        ),
        (
            f'{SERVER}headers = {{authorization = "env:NONE"}}',
            "4: `headers` in [[tool_server]] 'docs': the environment variable NONE is not set",
        ),
        (
            f'{PROCESS}env = {{A = "file:none"}}',
            "4: `env` in [[tool_server]] 'local': the file none cannot be read: No such file or directory",
        ),
        (
            f'{SERVER}auth_command = ["a"]\nheaders = {{Authorization = "env:TOKEN"}}',
            "5: `headers` in [[tool_server]] 'docs' has authorization beside `auth_command`, which writes it",
        ),
        (f'{SERVER}ca_file = "none.pem"', "4: `ca_file` in [[tool_server]] 'docs': "),
        (
            '[[tool_server]]\nname = "docs"\nurl = "http://a/"\nca_file = "ca.pem"',
            "4: `ca_file` in [[tool_server]] 'docs' needs a url that begins with https://",
        ),
        (
            FUNCTION.replace(":invoice", ":none"),
            "3: `python` in [[tool]] 'invoice' names none, which tools_of_mine does not have; correct the name, or "
            "what it names",
        ),
        (
            FUNCTION.replace(":invoice", ":bad"),
            "3: `python` in [[tool]] 'invoice': tools_of_mine:bad has the parameter 'names', and each must be given by "
            "its name",
        ),
    ],
)
def test_what_is_refused_is_named_with_its_line(folder: Folder, text: str, problem: str) -> None:
    [message] = folder.problems(text, SECRETS)
    assert message.startswith(f"gai-fast.toml:{problem}")


@pytest.mark.parametrize("key", ["url", "headers", "command", "env", "auth_command"])
def test_a_wrong_value_that_may_be_a_secret_is_not_repeated(folder: Folder, key: str) -> None:
    problems = folder.problems(f'[[tool_server]]\nname = "docs"\n{key} = {{"sk-canary 1" = 1}}')
    assert problems
    assert not [each for each in problems if "canary" in each]


def test_without_tools_nothing_is_there(folder: Folder) -> None:
    settings = folder.read("").settings
    assert (settings.tool_servers, settings.tools) == ((), ())
    assert Path(folder.file).exists()


MODEL = (
    '[[upstream]]\nname = "up"\nprovider = "openai"\napi_key = "env:TOKEN"\n[[model]]\nname = "m"\nupstream = "up"\n'
)


def test_a_model_and_a_key_say_which_tools_may_be_used(folder: Folder) -> None:
    bounds = "max_steps = 2\nmax_tool_calls = 3\nparallel_tools = 1\nrun_timeout = 5\n"
    text = f'{SERVER}{HOOK}{MODEL}tools = ["docs.*", "weather"]\n{bounds}[[key]]\nname = "k"\nsecret = "env:TOKEN"\n'
    settings = folder.read(text + '[key_defaults]\ntools = ["*"]\n', {"TOKEN": "sk-canary-" + "0" * 32}).settings
    model = settings.models["m"]
    assert (model.tools, model.max_steps, model.max_tool_calls) == (("docs.*", "weather"), 2, 3)
    assert (model.parallel_tools, model.run_timeout) == (1, 5.0)
    assert settings.keys[0].tools == settings.key_defaults.tools == ("*",)


def test_without_a_word_nothing_may_be_used(folder: Folder) -> None:
    settings = folder.read(SERVER + MODEL, SECRETS).settings
    assert settings.models["m"].tools == settings.key_defaults.tools == ()


def test_a_pattern_that_only_a_program_could_mean_is_refused_with_what_names_its_function(folder: Folder) -> None:
    said = r'for commands too, name it in a \[\[tool\]\] with python = "module:function"'
    for pattern in ("invoice", "*"):
        with pytest.raises(ConfigError, match=said):
            folder.read(f'{MODEL}tools = ["{pattern}"]\n', SECRETS)
    with pytest.raises(ConfigError) as refused:
        folder.read(f'{SERVER}{HOOK}{MODEL}tools = ["other.*"]\n', SECRETS)
    assert "[[tool]] with" not in str(refused.value)


@pytest.mark.parametrize("pattern", ["weater", "doc.search", "other.*", "Docs.x"])
def test_a_pattern_that_names_nothing_is_refused(folder: Folder, pattern: str) -> None:
    for text in (f'{MODEL}tools = ["{pattern}"]\n', f'{MODEL}[key_defaults]\ntools = ["{pattern}"]\n'):
        with pytest.raises(ConfigError, match="names no tool of a"):
            folder.read(SERVER + HOOK + text, SECRETS)
