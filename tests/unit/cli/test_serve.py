"""`gai-fast serve`: the banner, the flags, and what keeps it from starting. `integration/test_cli.py` runs it."""

from __future__ import annotations

import ast
import asyncio
import errno
import json
import logging
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gai_fast.cli import serve
from gai_fast.cli.serve import banner, compiled_parts, kept_responses, run_async
from gai_fast.config import read
from gai_fast.model.settings import ResponsesSettings, SealSettings, Secret, Settings, StoreSettings
from gai_fast.server import serving
from gai_fast.server.edge.listening import CannotListen

from .conftest import Run

HANGUP_AS_IT_READS = """
import os, signal
from gai_fast.cli import main, serve

load = serve.load_config

def load_config(*given):
    loaded = load(*given)
    os.kill(os.getpid(), signal.SIGHUP)
    return loaded

serve.load_config = load_config
main()
"""
UPSTREAM = '[[upstream]]\nname = "main"\nprovider = "openai"\nbase_url = "http://127.0.0.1:9"\n'


class TestBanner:
    def lines(self, text: str, folder: Path, url: str = "http://127.0.0.1:8080") -> list[str]:
        (folder / "c.toml").write_text(text)
        return banner(url, read(folder / "c.toml", environ={})).splitlines()

    def test_it_names_the_url_the_playground_the_file_and_the_models(self, folder: Path) -> None:
        lines = self.lines(UPSTREAM, folder)
        assert "http://127.0.0.1:8080" in lines[0]
        assert lines[1] == compiled_parts()
        assert lines[2:6] == [
            "playground: http://127.0.0.1:8080/",
            f"configuration: {folder}/c.toml",
            "models: demo, main/<id>",
            "demo: a recorded answer, whatever is asked",
        ]

    @pytest.mark.parametrize(
        ("implementation", "simd", "modules", "in_clone", "line"),
        [
            ("native", "avx2", "compiled", True, "kernels compiled (avx2), modules compiled"),
            (
                "native",
                "sse",
                "interpreted",
                True,
                "kernels compiled (sse), modules interpreted: `make install` compiles them, "
                "and a request takes half the CPU",
            ),
            ("native", "sse", "interpreted", False, "kernels compiled (sse), modules interpreted"),
            ("pure", None, "interpreted", True, "kernels pure Python, modules interpreted"),
        ],
    )
    def test_its_second_line_names_what_is_compiled(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        implementation: str,
        simd: str | None,
        modules: str,
        in_clone: bool,
        line: str,
    ) -> None:
        monkeypatch.setattr(serve, "IMPLEMENTATION", implementation)
        monkeypatch.setattr(serve, "SIMD", simd)
        monkeypatch.setattr(serve, "MODULES", modules)
        monkeypatch.setattr(serve, "MAKEFILE", tmp_path / "Makefile")
        if in_clone:
            (tmp_path / "Makefile").touch()
        assert compiled_parts() == line

    @pytest.mark.parametrize("name", ["demo", "it's", 'a "b" \\ $HOME `x` é', "main/gpt-5"])
    def test_its_examples_survive_any_model_name(self, folder: Path, name: str) -> None:
        model = f'[[model]]\nname = {json.dumps(name)}\nupstream = "main"\n'
        lines = self.lines(UPSTREAM + model, folder)
        [curl] = [line for line in lines if line.startswith("curl ")]
        words = shlex.split(curl)
        assert words[:3] == ["curl", "-N", "http://127.0.0.1:8080/api/v1/stream"]
        assert json.loads(words[-1])["model"] == name
        snippet = ast.parse("\n".join(lines[lines.index("from openai import OpenAI  # pip install openai") :]))
        models = [
            keyword.value.value
            for node in ast.walk(snippet)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "model" and isinstance(keyword.value, ast.Constant)
        ]
        assert models == [name]

    def test_an_address_to_listen_on_becomes_one_to_call(self, folder: Path) -> None:
        for listening, calling in (("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")):
            lines = self.lines("", folder, f"http://{listening}:80")
            assert f"curl -N http://{calling}:80/api/v1/stream" in "\n".join(lines)

    @pytest.mark.parametrize(
        ("secret", "shell", "python"),
        [
            ("env:MINE", "$MINE", "os.environ['MINE']"),
            ("file:my key", "$(cat '{folder}/my key')", "Path('{folder}/my key').read_text().strip()"),
            (f"sha256:{'a1' * 32}", "$GAI_API_KEY", "os.environ['GAI_API_KEY']"),
        ],
    )
    def test_its_examples_have_a_key_where_one_is_needed(
        self, folder: Path, secret: str, shell: str, python: str
    ) -> None:
        (folder / "my key").write_text("sk-hidden-0123")
        (folder / "c.toml").write_text(f'[[key]]\nname = "a"\nsecret = "{secret}"\n')
        lines = banner("http://127.0.0.1:1", read(folder / "c.toml", environ={"MINE": "sk-hidden-0123"})).splitlines()
        assert "hidden" not in "".join(lines)
        [curl] = [line for line in lines if line.startswith("curl ")]
        assert f'"authorization: Bearer {shell.format(folder=folder)}"' in curl
        reported = [line for line in lines if line.startswith("key: ")]
        variable = shell.removeprefix("$")
        assert reported == (
            []
            if secret.startswith("file:")
            else [f"key: the examples read it from ${variable}; first export {variable}=<the secret>"]
        )
        begin = next(at for at, line in enumerate(lines) if line.startswith(("import ", "from pathlib ")))
        keywords = [node for node in ast.walk(ast.parse("\n".join(lines[begin:]))) if isinstance(node, ast.keyword)]
        [key] = [ast.unparse(keyword.value) for keyword in keywords if keyword.arg == "api_key"]
        assert key == python.format(folder=folder)

    def test_its_examples_have_a_token_where_only_tokens_are_known(self, folder: Path) -> None:
        issuer = '[[issuer]]\nname = "staff"\nurl = "https://login.example.com"\naudience = "gateway"\n'
        (folder / "c.toml").write_text(issuer)
        text = banner("http://127.0.0.1:1", read(folder / "c.toml", environ={}))
        assert '-H "authorization: Bearer $GAI_API_KEY"' in text
        assert 'api_key=os.environ["GAI_API_KEY"]' in text

    @pytest.mark.parametrize(("models", "variable"), [("[]", "NEW"), ('["demo"]', "ONE")])
    def test_its_examples_have_the_newest_secret_of_a_key_that_may_use_the_model(
        self, folder: Path, models: str, variable: str
    ) -> None:
        (folder / "c.toml").write_text(
            f'[[key]]\nname = "a"\nsecret = "env:ONE"\nmodels = {models}\n'
            '[[key]]\nname = "b"\nsecret = ["env:OLD", "env:NEW"]\n'
        )
        environ = {name: f"sk-hidden-{name}" for name in ("ONE", "OLD", "NEW")}
        lines = banner("http://127.0.0.1:1", read(folder / "c.toml", environ=environ)).splitlines()
        [curl] = [line for line in lines if line.startswith("curl ")]
        assert f'"authorization: Bearer ${variable}"' in curl

    def test_without_a_model_there_is_no_example(self, folder: Path) -> None:
        lines = self.lines("[server]\ndemo = false\n", folder)
        assert lines[-1] == "models: none: add an [[upstream]]"


class TestCommand:
    @pytest.fixture
    def served(self, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
        """Returns the arguments that the server was started with."""
        served: list[Settings] = []

        async def serve(settings: Settings, *, ready: Any, record: Path | None, load_settings: Any) -> None:
            served.append(settings)
            ready("http://127.0.0.1:1")

        monkeypatch.setattr(serving, "serve", serve)
        return served

    def test_flags_win_over_the_environment_and_that_over_the_file(
        self, run: Run, served: list[Settings], folder: Path
    ) -> None:
        (folder / "gai-fast.toml").write_text("[server]\nport = 1\nheader_timeout = 2\n")
        two = {"GAI_FAST_PORT": "2"}
        for arguments, environ, port in (([], {}, 1), ([], two, 2), (["--port", "3"], two, 3)):
            assert run("serve", *arguments, env=environ).exit_code == 0
            assert served[-1].server.port == port
            assert served[-1].server.header_timeout == 2.0

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--host", "0.0.0.0"], "error: --host: 0.0.0.0 is open to other machines"),
            (["--workers", "257"], "must be a whole number, 1 to 256"),
            (["--port", "65536"], "is not in the range"),
            (["--store", "postgres://h"], "error: --store: `url` in [store] must be the address of a store"),
            (["--prot", "1"], "No such option '--prot'"),
            (["-c", "none.toml"], "none.toml: cannot be read"),
            (["--app", "shop"], 'error: --app: `app` in [server] must be "module:function"'),
            (["--app", "no_shop:f"], "error: --app: `app` in [server] names the module no_shop, which neither"),
            (["--app", "json:no_f"], "error: --app: `app` in [server] names no_f, which json does not have\n"),
            (
                ["--app", "json:__name__"],
                "error: --app: `app` in [server] names __name__ of json, which is no function",
            ),
        ],
    )
    def test_what_is_wrong_is_reported_before_anything_listens(
        self, run: Run, served: list[Settings], arguments: list[str], said: str
    ) -> None:
        result = run("serve", *arguments)
        assert result.exit_code == 2
        assert said in result.output
        assert not served

    def test_the_users_function_is_named_by_a_flag_a_variable_or_the_file(
        self, run: Run, served: list[Settings], folder: Path
    ) -> None:
        (folder / "a.toml").write_text('[server]\napp = "json:dumps"\n')
        for arguments, environ, name in (
            (["-c", "a.toml"], {}, "json:dumps"),
            (["-c", "a.toml"], {"GAI_FAST_APP": "json:loads"}, "json:loads"),
            (["--app", "json:load"], {"GAI_FAST_APP": "json:loads"}, "json:load"),
            ([], {}, None),
        ):
            assert run("serve", *arguments, env=environ).exit_code == 0
            assert served[-1].server.app == name
        (folder / "a.toml").write_text('[server]\napp = "json:none"\n')
        for command in ("serve", "check"):
            result = run(command, "-c", "a.toml")
            assert (result.exit_code, result.output) == (
                2,
                "error: a.toml:2: `app` in [server] names none, which json does not have\n",
            )

    @pytest.mark.parametrize(
        ("problem", "said"),
        [
            (
                CannotListen(errno.EADDRINUSE, "Address already in use"),
                "in use by another program: choose another with --port",
            ),
            (
                CannotListen(errno.EADDRNOTAVAIL, "Cannot assign requested address"),
                "Cannot assign requested address: --host must be an address of this machine",
            ),
            (
                CannotListen(errno.EACCES, "Permission denied"),
                "Permission denied: a port below 1024 needs a privilege, choose another with --port",
            ),
            (CannotListen(errno.EIO, "Input/output error"), "Input/output error"),
        ],
    )
    def test_an_address_that_cannot_be_bound_is_a_start_up_failure(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, problem: OSError, said: str
    ) -> None:
        async def serve(settings: Settings, *, ready: Any, record: Path | None, load_settings: Any) -> None:
            raise problem

        monkeypatch.setattr(serving, "serve", serve)
        result = run("serve")
        assert (result.exit_code, result.output) == (3, f"error: cannot listen on 127.0.0.1:8080: {said}\n")

    def test_a_failure_of_the_users_function_is_none_of_the_address(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def serve(settings: Settings, *, ready: Any, record: Path | None, load_settings: Any) -> None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the database is not there")

        monkeypatch.setattr(serving, "serve", serve)
        result = run("serve")
        said = f"the server cannot start: [Errno {errno.ECONNREFUSED}] the database is not there"
        assert (result.exit_code, result.output.splitlines()[-1]) == (3, f"error: {said}")
        assert "Traceback" in caplog.text

    def test_a_folder_that_cannot_be_written_to_is_refused(
        self, run: Run, served: list[Settings], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write to any
        result = run("serve", "--record", "a")
        assert (result.exit_code, result.output) == (3, "error: cannot record to a: Permission denied\n")
        assert not served

    def test_a_folder_for_recordings_is_made(self, run: Run, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        recorded: list[Path | None] = []

        async def serve(settings: Settings, *, ready: Any, record: Path | None, load_settings: Any) -> None:
            recorded.append(record)
            ready("http://127.0.0.1:1")

        monkeypatch.setattr(serving, "serve", serve)
        assert "recording what upstreams answer to a/b\n" in run("serve", "--record", "a/b").output
        assert (folder / "a" / "b").is_dir()
        assert run("serve", env={"GAI_FAST_RECORD": "a"}).exit_code == 0
        assert run("serve").exit_code == 0
        assert recorded == [Path("a/b"), Path("a"), None]
        (folder / "file").touch()
        result = run("serve", "--record", "file/x")
        assert (result.exit_code, result.output) == (3, "error: cannot record to file/x: Not a directory\n")

    def test_a_banner_that_cannot_be_printed_ends_no_server(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        went_on = []

        async def serve(settings: Settings, *, ready: Any, record: Path | None, load_settings: Any) -> None:
            with monkeypatch.context() as patch:
                patch.setattr("click.echo", full)
                ready("http://127.0.0.1:1")
            went_on.append(settings)

        def full(*message: object, **how: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(serving, "serve", serve)
        assert run("serve").exit_code == 0
        assert went_on
        assert "cannot write to the standard output: No space left on device" in caplog.text

    def test_a_failure_of_the_running_server_is_a_failure(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        async def serve(settings: Settings, *, ready: Any, record: Path | None, load_settings: Any) -> None:
            ready("http://127.0.0.1:1")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(serving, "serve", serve)
        result = run("serve")
        assert result.exit_code == 1
        assert "error: the server stopped: [Errno 28] No space left on device\n" in result.output

    @pytest.mark.parametrize(("level", "root"), [("debug", "WARNING"), ("error", "ERROR")])
    def test_the_log_level_is_ours_and_access_lines_are_off_by_default(
        self, run: Run, served: list[Settings], level: str, root: str
    ) -> None:
        logging.getLogger().handlers.clear()
        assert run("serve", env={"GAI_FAST_SERVER__LOG_LEVEL": level}).exit_code == 0
        assert logging.getLevelName(logging.getLogger().level) == root
        assert logging.getLevelName(logging.getLogger("gai_fast").level) == level.upper()
        assert logging.getLogger("gai_fast.access").disabled
        assert run("serve", env={"GAI_FAST_SERVER__ACCESS_LOG": "true"}).exit_code == 0
        assert not logging.getLogger("gai_fast.access").disabled

    def test_a_missing_key_is_logged(
        self, run: Run, served: list[Settings], folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (folder / "gai-fast.toml").write_text('[[upstream]]\nname = "main"\nprovider = "openai"\n')
        assert run("serve").exit_code == 0
        [message] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert message.startswith("upstream.main: it has no key, and openai refuses requests without one: set ")

    @pytest.mark.parametrize("level", ["warning", "error"])
    def test_the_log_level_does_not_silence_the_access_log(
        self, run: Run, served: list[Settings], level: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        variables = {"GAI_FAST_SERVER__LOG_LEVEL": level, "GAI_FAST_SERVER__ACCESS_LOG": "true"}
        assert run("serve", env=variables).exit_code == 0
        logging.getLogger("gai_fast.access").info("a request")
        logging.getLogger("gai_fast.net").info("anything else")
        assert [record.getMessage() for record in caplog.records] == ["a request"]


def test_without_uvloop_asyncio_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loops.append(type(asyncio.get_running_loop()).__module__.partition(".")[0])

    loops: list[str] = []
    run_async(main())
    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    run_async(main())
    assert loops == ["uvloop", "asyncio"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_during_the_start_is_a_reload_after_it(folder: Path, workers: str) -> None:
    command = [sys.executable, "-c", HANGUP_AS_IT_READS, "serve", "--port", "0", "--workers", workers]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        lines = []
        for line in server.stderr:
            lines.append(line)
            if b"the configuration has been reloaded" in line:
                server.send_signal(signal.SIGTERM)
        assert server.wait() == 0, lines


@pytest.mark.parametrize(
    ("url", "keys", "kept", "words"),
    [
        ("memory://", (), ResponsesSettings(), None),
        ("sqlite:////a.db", (), ResponsesSettings(store=False), None),
        ("sqlite:////a.db", (), ResponsesSettings(), "for 604800 s, not sealed: `store = false` in [responses]"),
        ("redis://h", (Secret("k"),), ResponsesSettings(ttl=9.0), "for 9 s, sealed: `store = false` in [responses]"),
    ],
)
def test_the_log_says_what_a_store_keeps(
    url: str, keys: tuple[Secret, ...], kept: ResponsesSettings, words: str | None
) -> None:
    store = StoreSettings(url, encryption=SealSettings(keys))
    notice = kept_responses(Settings(store=store, responses=kept))
    assert (words is None and notice is None) or (words is not None and words in (notice or ""))
