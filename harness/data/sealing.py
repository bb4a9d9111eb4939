"""The seal: while a method runs, data by name is closed.

A guard rail against a method that loads the test part by its name, not a wall: a method is code, and can read
scikit-learn's files itself. The wall is the split, whose random stream is closed in `solve`.
"""

from __future__ import annotations

import hashlib
import secrets

from harness.errors import HarnessError

_seals: list[str] = []  # the SHA-256 of the key in force: the key itself stays with the caller


def close() -> str:
    """Close. Returns the key that `open_with` asks for."""
    if _seals:
        raise HarnessError("harness.data is sealed already; unseal it with the key of the first seal")
    key = secrets.token_hex(16)
    _seals.append(hashlib.sha256(key.encode()).hexdigest())
    return key


def open_with(key: str) -> None:
    """Open. Raises HarnessError where the key is not the seal's."""
    if not _seals:
        raise HarnessError("harness.data is not sealed")
    if hashlib.sha256(str(key).encode()).hexdigest() != _seals[0]:
        raise HarnessError("harness.data stays sealed: the key is not the seal's")
    _seals.clear()


def require_open(call: str) -> None:
    """Raises HarnessError while sealed."""
    if _seals:
        raise HarnessError(f"data is loaded by the task, not by the method: {call} is closed in solve")
