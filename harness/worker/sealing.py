"""Held parts under seal while a method runs: encrypted bytes in this process, the key outside it.

This guards against mistakes and temptation: nothing that `solve` can reach by attributes, closures, frames or the garbage
collector holds the test part. It does not guard against malice: a plugin is code with the user's rights, and one that
speaks to the key's keeper can open the seal. The keystream is fast, not cryptographic, for the same reason.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import numpy as np
import torch

from harness import data
from harness.errors import HarnessError

KEY_BYTES = 32
ALIGNMENT = 64  # bytes: tensors read from a buffer start on a cache line
CHUNK_WORDS = 1 << 17  # 1 MiB of keystream at a time stays in the cache


class Keeper(Protocol):
    """Holds one short text for this process, outside its memory."""

    def put(self, text: str) -> None:
        """Replace what is held."""

    def get(self) -> str:
        """What is held; it stays held."""


class PipeKeeper:
    """A keeper where there is no fork server: the text waits in a pipe's buffer, in the kernel."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._length = 0
        self._owner = os.getpid()

    def put(self, text: str) -> None:
        self._drain()
        self._length = os.write(self._writer, text.encode())

    def get(self) -> str:
        text = self._drain()
        self._length = os.write(self._writer, text)
        return text.decode()

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def _drain(self) -> bytes:
        require_owner(self._owner)
        text = os.read(self._reader, self._length) if self._length else b""
        self._length = 0
        return text


def require_owner(owner: int) -> None:
    """Raises HarnessError in a process that a method forked: only the trial's own process scores."""
    if os.getpid() != owner:
        raise HarnessError(f"process {os.getpid()} was forked by the method; only the trial's own process {owner} is scored")


class Vault:
    """The held parts of one trial, and `harness.data`: both closed but while scoring."""

    def __init__(self, held: Mapping[str, Any], keeper: Keeper) -> None:
        """Seal. The caller drops its own references to `held` and then calls `collect`."""
        key = os.urandom(KEY_BYTES)
        self._parts = {name: encrypt(flatten(name, part), key, name) for name, part in held.items()}
        self._keeper = keeper
        keeper.put(json.dumps({"held": key.hex(), "data": data.seal()}))

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._parts)

    @contextlib.contextmanager
    def opened(self) -> Iterator[_Opened]:
        """Inside, parts can be read and `harness.data` loads; afterwards both are closed again."""
        keys = json.loads(self._keeper.get())
        data.unseal(keys["data"])
        opened = _Opened(self._parts, bytes.fromhex(keys["held"]))
        try:
            yield opened
        finally:
            opened.close()
            self._keeper.put(json.dumps({**keys, "data": data.seal()}))

    def destroy(self) -> None:
        """Forget the parts and open `harness.data`, at the end of the trial."""
        self._parts = {}
        data.unseal(json.loads(self._keeper.get())["data"])
        self._keeper.put("")


class _Opened:
    def __init__(self, parts: Mapping[str, bytes], key: bytes) -> None:
        self._parts: Mapping[str, bytes] = parts
        self._key = key

    def read(self, name: str) -> Any:
        """A fresh copy of a part: what a score does to it, the next score does not see."""
        return unflatten(decrypt(self._parts[name], self._key, name))

    def close(self) -> None:
        self._parts, self._key = {}, b""


def collect() -> None:
    """Free what only reference cycles still hold, so that no plain copy of a held part outlives `load`."""
    gc.collect()


# Bytes <-> objects ------------------------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Plain tensors as raw buffers: several times faster than torch's own reduction, and without a copy when read."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not torch.Tensor or obj.layout != torch.strided or obj.requires_grad or obj.is_conj() or obj.is_neg():
            return NotImplemented
        if obj.is_quantized or obj.is_meta:
            return NotImplemented
        flat = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(flat.data), obj.dtype, tuple(obj.shape), str(obj.device))


def _tensor(buffer: memoryview, dtype: torch.dtype, shape: tuple[int, ...], device: str) -> torch.Tensor:
    if not len(buffer):
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape).to(device)


def flatten(name: str, part: Any) -> bytearray:
    """One block of bytes: the number of buffers, their lengths, then the pickle and the buffers, each aligned.

    Raises HarnessError for a part that cannot be pickled.
    """
    stream, buffers = io.BytesIO(), []

    def keep(buffer: pickle.PickleBuffer) -> None:
        buffers.append(buffer.raw())

    try:
        _Pickler(stream, protocol=5, buffer_callback=keep).dump(part)
    except Exception as exc:
        raise HarnessError(
            f"held part {name!r} ({type(part).__name__}) cannot be pickled: {exc}; let load return plain data in `held`"
        ) from exc
    pieces = [memoryview(stream.getvalue()), *buffers]
    header = np.array([len(pieces), *(p.nbytes for p in pieces)], dtype=np.int64).tobytes()
    starts, end = _layout(len(header), [p.nbytes for p in pieces])
    block = bytearray(-(-end // 8) * 8)  # whole 64-bit words for the keystream
    block[: len(header)] = header
    for start, piece in zip(starts, pieces, strict=True):
        block[start : start + piece.nbytes] = piece
    return block


def unflatten(block: bytearray) -> Any:
    """The inverse of `flatten`; arrays and tensors share the block's memory, which is theirs alone."""
    count = int(np.frombuffer(block, dtype=np.int64, count=1)[0])
    sizes = np.frombuffer(block, dtype=np.int64, count=count, offset=8).tolist()
    starts, _ = _layout(8 + 8 * count, sizes)
    view = memoryview(block)
    pickled, *buffers = (view[start : start + size] for start, size in zip(starts, sizes, strict=True))
    return pickle.loads(pickled, buffers=buffers)  # noqa: S301  (bytes that this process wrote itself, in `flatten`)


def _layout(end: int, sizes: list[int]) -> tuple[list[int], int]:
    starts = []
    for size in sizes:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        starts.append(start)
        end = start + size
    return starts, end


def encrypt(block: bytearray, key: bytes, name: str) -> bytes:
    """XOR with the part's keystream; the plain block is overwritten."""
    _xor(block, key, name)
    return bytes(block)


def decrypt(sealed: bytes, key: bytes, name: str) -> bytearray:
    block = bytearray(sealed)
    _xor(block, key, name)
    return block


def _xor(block: bytearray, key: bytes, name: str) -> None:
    # One stream for each part: the same keystream over two parts would tell their difference.
    stream = np.random.SFC64([int.from_bytes(key, "little"), *name.encode()])
    words = np.frombuffer(block, dtype=np.uint64)
    for start in range(0, len(words), CHUNK_WORDS):
        chunk = words[start : start + CHUNK_WORDS]
        chunk ^= stream.random_raw(len(chunk))


# The problem ------------------------------------------------------------------------------------------------------------


def own_storage(value: Any) -> Any:
    """The problem with every tensor and array in memory of its own.

    A slice of a larger array still holds the whole: `problem.x` cut from the full data would carry the test part along.
    Looks into dataclasses, mappings, lists and tuples; other objects are the task's own affair.
    """
    if isinstance(value, torch.Tensor):
        return _own_tensor(value)
    if isinstance(value, np.ndarray):
        return value if value.base is None else value.copy()
    if is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            _replace(value, f.name, own_storage(getattr(value, f.name, None)))
        return value
    if isinstance(value, dict):
        for name in value:
            value[name] = own_storage(value[name])
        return value
    if isinstance(value, list):
        value[:] = [own_storage(v) for v in value]
        return value
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(own_storage(v) for v in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(own_storage(v) for v in value))
    return value


def _own_tensor(value: torch.Tensor) -> torch.Tensor:
    if type(value) is not torch.Tensor or value.layout != torch.strided:
        return value
    used = value.numel() * value.element_size()
    if value._base is None and value.untyped_storage().nbytes() <= used:
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


def _replace(holder: Any, name: str, value: Any) -> None:
    if hasattr(holder, name) and getattr(holder, name) is not value:
        object.__setattr__(holder, name, value)  # the dataclass may be frozen; load has just made it and no one else holds it
