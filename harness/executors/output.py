"""What a process prints, capped: its beginning and its end are kept, what lies between is counted."""

from __future__ import annotations

HEAD_BYTES = 16 << 10
TAIL_BYTES = 240 << 10


class CappedOutput:
    """Takes bytes for ever in bounded memory."""

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._head_bytes, self._tail_bytes = head_bytes, tail_bytes
        self._head, self._tail = bytearray(), bytearray()
        self.dropped_bytes = 0

    def write(self, data: bytes) -> None:
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._tail_bytes:  # seldom, so that each byte is moved at most once
            self._trim()

    def text(self) -> str:
        """Head and tail, in order; a line between them says how much is missing."""
        self._trim()
        head, tail = self._head.decode(errors="replace"), self._tail.decode(errors="replace")
        gap = f"\n[... {self.dropped_bytes} bytes dropped ...]\n" if self.dropped_bytes else ""
        return head + gap + tail

    def _trim(self) -> None:
        over = len(self._tail) - self._tail_bytes
        if over > 0:
            del self._tail[:over]
            self.dropped_bytes += over
