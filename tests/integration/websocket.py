"""A WebSocket client in bytes: it may break every rule of the protocol."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from tests.integration.gateway import Client, Gateway, Response
from tests.waiting import SECONDS

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0
PROTOCOL = "gai.events.v1"
_MASK = b"\x01\x02\x03\x04"


def frame(payload: bytes | str, opcode: int = TEXT, *, final: bool = True, masked: bool = True) -> bytes:
    """Returns one frame of a client."""
    data = payload.encode() if isinstance(payload, str) else payload
    first = opcode | (0x80 if final else 0)
    bit = 0x80 if masked else 0
    if len(data) < 126:
        head = bytes((first, bit | len(data)))
    elif len(data) < 65536:
        head = bytes((first, bit | 126)) + len(data).to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + len(data).to_bytes(8, "big")
    if not masked:
        return head + data
    return head + _MASK + masked_data(data)


def masked_data(data: bytes) -> bytes:
    """Masks data as one long number: octet by octet, 16 MiB take 3 s."""
    size = len(data)
    key = (_MASK * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def handshake(protocols: str | None = PROTOCOL, **more: str) -> dict[str, str]:
    """Returns the headers of a handshake; an empty one is left out."""
    headers = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": base64.b64encode(b"0123456789abcdef").decode(),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    if protocols is not None:
        headers["sec-websocket-protocol"] = protocols
    return {name: value for name, value in headers.items() if value}


class Socket:
    """An open WebSocket.

    Attributes:
        client: Its connection.
        response: The answer to its handshake.
        messages: Every message, read and parsed.
        closed: The code and the reason of the server's close, once it has come.
    """

    def __init__(self, client: Client, response: Response) -> None:
        self.client = client
        self.response = response
        self.messages: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.pings = 0
        self.pongs: list[bytes] = []
        self.closed: tuple[int, str] | None = None

    def send(self, **message: Any) -> None:
        """Sends a message."""
        self.client.send(frame(json.dumps(message)))

    def ask(self, stream: str, **request: Any) -> None:
        """Sends a request."""
        self.send(stream=stream, type="request", request=request or {"query": "Tell me a story"})

    async def read(self) -> dict[str, Any] | None:
        """Returns the next message. None if the server closes, or has gone."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    head = await self.client.reader.readexactly(2)
                    size = head[1]
                    assert size < 128, "a server's frames are not masked"
                    if size >= 126:
                        size = int.from_bytes(await self.client.reader.readexactly(2 if size == 126 else 8), "big")
                    data = await self.client.reader.readexactly(size)
                except (asyncio.IncompleteReadError, ConnectionError):
                    return None
                opcode = head[0] & 0xF
                assert head[0] & 0xF0 == 0x80, "whole messages, none compressed"
                assert self.closed is None, "nothing follows a close"
                if opcode == TEXT:
                    message: dict[str, Any] = json.loads(data)
                    self.messages.append(message)
                    self.sizes.append(size)
                    return message
                if opcode == PING:
                    self.pings += 1
                    self.client.send(frame(data, PONG))
                elif opcode == PONG:
                    self.pongs.append(data)
                    return {"type": "(pong)"}
                elif opcode == CLOSE:
                    self.closed = int.from_bytes(data[:2], "big"), data[2:].decode()
                    self.client.send(frame(data[:2], CLOSE))
                    return None

    async def until(self, **members: Any) -> dict[str, Any]:
        """Reads up to a message with these members."""
        while True:
            message = await self.read()
            assert message is not None, f"closed before {members}: {self.closed}, {self.messages[-3:]}"
            if members.items() <= message.items():
                return message

    async def until_done(self, *streams: str) -> None:
        """Reads up to the end of each of these streams."""
        left = set(streams)
        while left:
            left.discard((await self.until(type="done"))["stream"])

    async def close_code(self) -> int:
        """Reads up to the server's close; 1006 without one."""
        while await self.read() is not None:
            pass
        return 1006 if self.closed is None else self.closed[0]

    def of(self, stream: str) -> list[dict[str, Any]]:
        """Returns the messages of a stream."""
        return [message for message in self.messages if message.get("stream") == stream]

    def types(self, stream: str) -> list[str]:
        return [message["type"] for message in self.of(stream)]

    def text(self, stream: str) -> str:
        return "".join(each["text"] for each in self.of(stream) if each["type"] == "text.delta")

    def error(self, stream: str) -> dict[str, Any]:
        """Returns the error that ends a stream; nothing follows but its `done`."""
        *_, error, done = self.of(stream)
        assert done == {"stream": stream, "type": "done", "finished": False}
        found: dict[str, Any] = error["error"]
        return found


async def refused(gateway: Gateway, headers: dict[str, str], path: str = "/ws/stream") -> Response:
    """Returns the answer to a handshake that is refused."""
    client = await gateway.connect()
    response = await client.ask("GET", path, headers=headers)
    client.close()
    return response


async def connect(
    gateway: Gateway,
    protocols: str | None = PROTOCOL,
    path: str = "/ws/stream",
    *,
    early: bytes = b"",
    receive_buffer: int | None = None,
    **headers: str,
) -> Socket:
    """Opens a WebSocket; `early` is sent in one piece with the handshake."""
    return await upgrade(await gateway.connect(receive_buffer), protocols, path, early=early, **headers)


async def upgrade(
    client: Client, protocols: str | None = PROTOCOL, path: str = "/ws/stream", *, early: bytes = b"", **headers: str
) -> Socket:
    """Makes a connection a WebSocket; as `connect`."""
    client.request("GET", path, headers=handshake(protocols, **headers))
    if early:
        client.send(early)
    response = await client.response()
    assert response.status == 101, response.status
    return Socket(client, response)
