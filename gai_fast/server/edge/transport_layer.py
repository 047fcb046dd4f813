"""A transport over another transport: the base of layers between a socket's transport and a server's protocol.

Owns no state: every call goes to the transport below, which keeps the state of reading, writing and limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NoReturn


class TransportLayer(asyncio.Transport):
    """Forwards every call to the transport below.

    Args:
        wire: The transport below.

    Attributes:
        wire: The transport below.
    """

    def __init__(self, wire: asyncio.Transport) -> None:
        super().__init__()
        self.wire = wire

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Works as `asyncio.BaseTransport.get_extra_info`."""
        return self.wire.get_extra_info(name, default)

    @property
    def _sendfile_compatible(self) -> NoReturn:
        """Raises, for asyncio's `loop.sendfile`: aiohttp then reads a file itself."""
        raise NotImplementedError

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Works as `asyncio.BaseTransport.set_protocol`."""
        self.wire.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Works as `asyncio.BaseTransport.get_protocol`."""
        return self.wire.get_protocol()

    def is_closing(self) -> bool:
        """Works as `asyncio.BaseTransport.is_closing`."""
        return self.wire.is_closing()

    def close(self) -> None:
        """Works as `asyncio.BaseTransport.close`."""
        self.wire.close()

    def abort(self) -> None:
        """Works as `asyncio.WriteTransport.abort`."""
        self.wire.abort()

    def is_reading(self) -> bool:
        """Works as `asyncio.ReadTransport.is_reading`."""
        return self.wire.is_reading()

    def pause_reading(self) -> None:
        """Works as `asyncio.ReadTransport.pause_reading`."""
        self.wire.pause_reading()

    def resume_reading(self) -> None:
        """Works as `asyncio.ReadTransport.resume_reading`."""
        self.wire.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Works as `asyncio.WriteTransport.write`."""
        self.wire.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Works as `asyncio.WriteTransport.writelines`."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Works as `asyncio.WriteTransport.write_eof`."""
        self.wire.write_eof()

    def can_write_eof(self) -> bool:
        """Works as `asyncio.WriteTransport.can_write_eof`."""
        return self.wire.can_write_eof()

    def get_write_buffer_size(self) -> int:
        """Works as `asyncio.WriteTransport.get_write_buffer_size`."""
        return self.wire.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Works as `asyncio.WriteTransport.get_write_buffer_limits`."""
        return self.wire.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Works as `asyncio.WriteTransport.set_write_buffer_limits`."""
        self.wire.set_write_buffer_limits(high, low)
