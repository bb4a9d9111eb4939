"""Messages between processes: a length of four bytes, then JSON."""

from __future__ import annotations

import json
import struct
from typing import Any

Message = dict[str, Any]
MAX_BYTES = 256 << 20  # a message longer than this is a mistake, or an attack on memory
_LENGTH = struct.Struct("!I")


def pack(message: Message) -> bytes:
    body = json.dumps(message, default=str).encode()
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now. Raises ValueError for what is none."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_BYTES:
                raise ValueError(f"a message of {length} bytes; the limit is {MAX_BYTES}")
            if len(self._buffer) < _LENGTH.size + length:
                break
            body = bytes(self._buffer[_LENGTH.size : _LENGTH.size + length])
            del self._buffer[: _LENGTH.size + length]
            message = json.loads(body)
            if not isinstance(message, dict):
                raise ValueError(f"a message that is a {type(message).__name__}, no object")
            messages.append(message)
        return messages
