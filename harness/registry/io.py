"""Every call by which the registry touches the disk. Thin on purpose: a test replaces one of them and fails its n-th call.

The rest of the package calls these as `io.write(...)`, never the operating system itself, so that nothing slips past.
All raise OSError as the system does; what an error means is decided by the caller.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_BYTES = 1 << 22

OPERATIONS = (
    "create", "write", "fsync", "close", "link", "rename", "unlink", "mkdir", "fsync_dir", "touch",
    "read", "read_regular", "read_chunks", "open_parquet", "size_and_time", "mode", "listdir", "scan",
)  # fmt: skip

# What file systems without hard links answer (FAT, some network and overlay mounts).
NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def create(path: Path) -> int:
    """Open a file that must not exist yet, for writing; the descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def write(fd: int, content: bytes) -> None:
    """All of it: the system may take less than it is given."""
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def fsync(fd: int) -> None:
    os.fsync(fd)


def close(fd: int) -> None:
    os.close(fd)


def link(source: Path, target: Path) -> None:
    """Give a file its final name. Raises FileExistsError where the name is taken; never replaces."""
    os.link(source, target)


def rename(source: Path, target: Path) -> None:
    """Move; replaces what bears the name."""
    source.rename(target)


def unlink(path: Path) -> None:
    path.unlink()


def mkdir(path: Path) -> None:
    path.mkdir()


def fsync_dir(path: Path) -> None:
    """Names are content of their folder: without this a power cut may take a new file's name away."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def touch(path: Path) -> None:
    """Make it new, so that who looks for what is long unused does not take it."""
    os.utime(path)


def read(path: Path) -> bytes:
    """All of a plain file; a pipe or a device, which might never end, is an OSError."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read()


def read_regular(path: Path, limit_bytes: int) -> bytes:
    """At most limit_bytes + 1 bytes of a plain file: not through a symbolic link, never from a device or a pipe."""
    with os.fdopen(open_plain(path, os.O_NOFOLLOW), "rb") as file:
        return file.read(limit_bytes + 1)


def read_chunks(path: Path) -> Iterator[bytes]:
    """A plain file of any size, piece by piece."""
    with os.fdopen(open_plain(path), "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def open_plain(path: Path, flags: int = 0) -> int:
    """A descriptor for reading; it never waits for the other end of a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return fd


def open_parquet(path: Path) -> pa.NativeFile:
    """For reading at any place; pyarrow then reads only the columns that are asked for."""
    import pyarrow as pa

    return pa.OSFile(str(path))


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and the time of the last change in nanoseconds since 1970."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def mode(path: Path) -> int:
    """What lies there and who may use it, as `stat.S_ISREG` and its like ask; of a symbolic link, not of what it leads to."""
    return path.lstat().st_mode


def listdir(path: Path) -> list[str]:
    """Names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        return []


def scan(path: Path) -> dict[str, tuple[int, int]]:
    """The plain files of a folder: name -> bytes, and the time of the last change in nanoseconds since 1970.

    A third of the cost of `listdir` and a `size_and_time` each. What vanishes meanwhile is left out.
    """
    found = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    state = entry.stat()
                    found[entry.name] = (state.st_size, state.st_mtime_ns)
    return found
