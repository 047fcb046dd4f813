"""gRPC servers in this process, and clients that protobuf's own compiler makes from the proto."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status
from grpc_tools import protoc

import gai_fast
from gai_fast.grpc.server import GrpcServer
from gai_fast.kernels import encode_json
from gai_fast.model.settings import Secret
from tests.waiting import SECONDS

Metadata = tuple[tuple[str, str], ...]


@cache
def made_from(proto: bytes) -> SimpleNamespace:
    """Returns the code that the compiler makes from a proto. One process loads one version of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "gai.proto").write_bytes(proto)
        asked = ["protoc", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}", "gai.proto"]
        assert protoc.main(asked) == 0
        made = [_load(folder, module) for module in ("gai_pb2", "gai_pb2_grpc")]
    return SimpleNamespace(messages=made[0], services=made[1])


def _load(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # the second one imports the first by its name
    spec.loader.exec_module(module)
    return module


class Rpc:
    """A client's channel to a server."""

    def __init__(self, made: SimpleNamespace, channel: grpc.aio.Channel, server: GrpcServer) -> None:
        self.made = made
        self.channel = channel
        self.server = server
        self.stub = made.services.GatewayStub(channel)

    def generate(self, request: Any, metadata: Metadata = (), timeout: float | None = SECONDS) -> Any:
        """Starts a call; an object is sent as JSON."""
        json = request if isinstance(request, bytes) else encode_json(request)
        return self.stub.Generate(self.made.messages.GenerateRequest(json=json), metadata=metadata, timeout=timeout)

    def follow(self, stream_id: str, after: int = 0, metadata: Metadata = ()) -> Any:
        request = self.made.messages.FollowRequest(stream_id=stream_id, after=after)
        return self.stub.Follow(request, metadata=metadata, timeout=SECONDS)

    async def cancel(self, stream_id: str, metadata: Metadata = ()) -> str:
        request = self.made.messages.CancelRequest(stream_id=stream_id)
        state: str = (await self.stub.Cancel(request, metadata=metadata, timeout=SECONDS)).state
        return state

    async def models(self, metadata: Metadata = ()) -> Any:
        request = self.made.messages.ListModelsRequest()
        return (await self.stub.ListModels(request, metadata=metadata, timeout=SECONDS)).models


class Refusal:
    """The status of a call that failed, with its details.

    Initial metadata is not in it: grpcio's client may give a call that fails at once an empty one.
    """

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.words = error.details()
        self.info, self.retry = ErrorInfo(), None
        status = rpc_status.from_call(error)
        if status is not None:
            assert (status.code, status.message) == (self.code.value[0], self.words)
            assert status.details[0].Unpack(self.info)
            for packed in status.details[1:]:
                retry = RetryInfo()
                assert packed.Unpack(retry)
                self.retry = retry.retry_delay.ToMilliseconds()

    @property
    def reason(self) -> str:
        return self.info.metadata.get("reason", "")


async def refused(call: Any) -> tuple[list[Message], Refusal]:
    """Returns the events of a call that fails, and its status; a call is iterated or awaited."""
    events: list[Message] = []
    with pytest.raises(grpc.aio.AioRpcError) as problem:
        if hasattr(call, "__aiter__"):
            async for event in call:
                events.append(event)  # noqa: PERF401  # those before the failure are kept
        else:
            await call
    return events, Refusal(problem.value)


@asynccontextmanager
async def serving_rpc(
    url: str, host: str = "127.0.0.1", *, key: str | None = None, needs_key: bool = False, options: Any = ()
) -> AsyncIterator[Rpc]:
    """Yields a server in front of a gateway, and a client of it."""
    proto = Path(gai_fast.__file__).parent / "client/gai.proto"
    async with gai_fast.connect(url) as gateway:
        secret = None if key is None else Secret(key)
        server = GrpcServer(gateway, f"{host}:0", key=secret, needs_key=needs_key)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"{host}:{server.port}", options) as channel:
                yield Rpc(made_from(proto.read_bytes()), channel, server)
        finally:
            await server.stop()
