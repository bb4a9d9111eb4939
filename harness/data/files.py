"""From a declared data set to checked bytes: where its files lie, and their content once its digest is right.

A file that is absent, too large, truncated or different is a DataError that names it, what was expected, what was found
and the mend. Nothing is unpacked beyond its declared size.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import importlib.util
import io
import os
import stat
import zlib
from pathlib import Path
from typing import BinaryIO

from harness.catalogue import stays_inside
from harness.data.declared import File, dataset, files_of
from harness.data.sealing import require_open
from harness.errors import DataError
from harness.specs import Dataset

DATA_DIR = "HARNESS_DATA_DIR"


def data_folder(data_dir: Path | str | None) -> Path | None:
    """The data folder: the given one, else that of HARNESS_DATA_DIR, else None."""
    named = data_dir or os.environ.get(DATA_DIR)
    return Path(named).expanduser() if named else None


def place(set_: Dataset, file: File, data_dir: Path | str | None) -> Path:
    """Where a file should lie, whether or not it is there. Raises DataError where no folder is named."""
    if set_.where == "embedded":
        package, _, path = file.path.partition(":")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                f"data set {set_.name!r} comes with the package {package!r}, which is not installed: pip install it"
            )
        return below(Path(spec.submodule_search_locations[0]), path, set_)
    folder = data_folder(data_dir)
    if folder is None:
        raise DataError(
            f"data set {set_.name!r} needs the data folder: place {file.path} (from {set_.source}) in a folder "
            f"and name it by --data-dir or {DATA_DIR}"
        )
    return below(folder, file.path, set_)


def below(folder: Path, path: str, set_: Dataset) -> Path:
    """The path in the folder. A symbolic link on the way is followed: it is the owner's, and the content has its digest."""
    if not stays_inside(path):
        raise DataError(f"data set {set_.name!r}: path {path!r} leaves its folder; declare one inside: no '..', no leading '/'")
    return folder / path


def locate(name: str | Dataset, data_dir: Path | str | None = None) -> tuple[Path, ...]:
    """The paths of a set's files, all present; () for a generated set. Raises DataError with the mend."""
    set_ = dataset(name) if isinstance(name, str) else name
    paths = tuple(place(set_, file, data_dir) for file in files_of(set_))
    for path in paths:
        require(set_, path)
    return paths


def require(set_: Dataset, path: Path) -> None:
    """Raises DataError where a file of the set is not there."""
    if not path.is_file():
        setting = f" (the folder is set by --data-dir or {DATA_DIR})" if set_.where == "folder" else ""
        raise DataError(f"data set {set_.name!r}: {path} is not there{setting}; place it there, from {set_.source}")


def read_bytes(name: str | Dataset, data_dir: Path | str | None = None) -> list[bytes]:
    """The unpacked content of each file of a set, digests checked. Raises DataError; HarnessError while sealed."""
    set_ = dataset(name) if isinstance(name, str) else name
    require_open(f"harness.data.read_bytes({set_.name!r})")
    return [read_checked(set_, file, path) for file, path in zip(files_of(set_), locate(set_, data_dir), strict=True)]


def read_checked(set_: Dataset, file: File, path: Path) -> bytes:
    """The unpacked content of one file, its size and its digest being the declared ones. Raises DataError."""
    lying = read_bounded(set_, path, file.packed_bytes or file.size_bytes, unpack=not file.packed_bytes)
    found = hashlib.sha256(lying).hexdigest()
    if found != file.sha256:
        raise DataError(
            f"data set {set_.name!r}: {path}: SHA-256 of {'the file' if file.packed_bytes else 'its content'} is {found}, "
            f"expected {file.sha256}; the file is damaged or another version: {mend(set_)}"
        )
    # The very bytes that were hashed are unpacked: the file may have been replaced meanwhile.
    return read_bounded(set_, path, file.size_bytes, packed=io.BytesIO(lying)) if file.packed_bytes else lying


def read_bounded(set_: Dataset, path: Path, size: int, unpack: bool = True, packed: BinaryIO | None = None) -> bytes:
    """At most `size` bytes of a file's content, unpacked where it is packed (`.gz`) and `unpack` is true.

    packed: its bytes, where they were read before. Raises DataError where there is more, or where the packing is damaged.
    """
    try:
        with packed or open_regular(path) as file, gzip.open(file) if unpack and path.suffix == ".gz" else file as stream:
            content = stream.read(max(size, 0) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise DataError(f"data set {set_.name!r}: {path} cannot be unpacked ({exc}); {mend(set_)}") from exc
    except OSError as exc:
        raise DataError(f"data set {set_.name!r}: {path} cannot be read ({exc.strerror or exc}); make it readable") from exc
    if len(content) > size:
        raise DataError(f"data set {set_.name!r}: {path} holds more than its declared {size} bytes; {mend(set_)}")
    return content


def open_regular(path: Path) -> BinaryIO:
    """A plain file, for reading. Raises OSError for a pipe or a device, which might never answer or never end."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return file


def mend(set_: Dataset) -> str:
    if set_.where == "embedded":
        package = set_.path.partition(":")[0]
        return f"install a version of {package!r} whose file is the declared one"
    return f"place the file again, from {set_.source}"
