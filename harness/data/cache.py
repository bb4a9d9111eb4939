"""Arrays that take seconds to make (60,000 decoded JPEG images), kept on disk between processes.

One `.npy` file an array, named by a digest of what it was made from, with the SHA-256 of its numbers beside it; read with
`allow_pickle=False` and mapped, so that all trials of a machine share its pages. A file whose numbers are not what they
were is made anew.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness.data.arrays import Array
from harness.identity import digest


def cache_root() -> Path:
    """What can be made again is kept here: HARNESS_CACHE_DIR, else `paper-harness` in XDG_CACHE_HOME, else in ~/.cache."""
    named = os.environ.get("HARNESS_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paper-harness"


def cache_folder() -> Path:
    return cache_root() / "data"


def cached(name: str, made_from: object, make: Callable[[], Array]) -> Array:
    """The array that `make` gives; from disk where it was made before from the same `made_from` (any JSON value)."""
    path = cache_folder() / f"{name}-{digest(made_from)}.npy"
    kept = read(path)
    if kept is not None:
        return kept
    array = np.ascontiguousarray(make())
    try:
        write(path, array)
    except OSError as exc:
        warnings.warn(
            f"{path} cannot be written ({exc.strerror or exc}), so {name!r} is made anew in each process; "
            f"set HARNESS_CACHE_DIR to a folder that can be written",
            stacklevel=2,
        )
    return array


def read(path: Path) -> Array | None:
    """The array of a file, or None where there is none that is whole."""
    try:
        expected = path.with_suffix(".sha256").read_text()
        array = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError):
        return None
    return array if checksum(array) == expected else None


def write(path: Path, array: Array) -> None:
    """Both files appear whole or not at all: two processes that make the same array write the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        np.save(Path(folder) / "array.npy", array, allow_pickle=False)
        (Path(folder) / "sha256").write_text(checksum(array))
        (Path(folder) / "array.npy").replace(path)
        (Path(folder) / "sha256").replace(path.with_suffix(".sha256"))


def checksum(array: Array) -> str:
    """SHA-256 of type, shape and numbers."""
    total = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()
