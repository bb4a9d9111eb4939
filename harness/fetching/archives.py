"""Members of a tar archive, taken out by name and digest. Nothing of what an archive says decides where a file is written.

An archive is opened only after its own SHA-256 was found right. Still no member is extracted: the content of each expected one
is read, at most its declared size, and goes to the place that this project declares for it.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from harness.data.declared import File
from harness.errors import DataError

CHUNK = 1 << 20


def take_members(archive: Path, members: Mapping[str, File], folder: Path) -> list[Path]:
    """Write each member to `folder / file.path`, whole or not at all. Raises DataError; then earlier members stay, checked."""
    written, left = [], dict(members)
    try:
        with tarfile.open(archive, mode="r:gz") as tar:
            while left and (member := tar.next()) is not None:
                file = left.get(member.name)
                if file is None:
                    continue
                if not member.isreg() or member.size != file.size_bytes:
                    raise DataError(
                        f"{archive.name}: {member.name} is no plain file of {file.size_bytes:,} bytes; fetch the archive again"
                    )
                written.append(write_member(tar, member, file, folder))
                del left[member.name]
    except (tarfile.TarError, EOFError, zlib.error, OSError) as exc:
        raise DataError(f"{archive.name} cannot be unpacked: {exc}") from exc
    if left:
        raise DataError(f"{archive.name} lacks {', '.join(sorted(left))}; it is another archive than the declared one")
    return written


def write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, file: File, folder: Path) -> Path:
    """The content of one member, through a file beside its place. Raises DataError where its digest is not the declared one."""
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None, "a plain file has content"
    total = hashlib.sha256()
    with content, tempfile.NamedTemporaryFile(dir=target.parent, prefix=".member-", delete=False) as made:
        try:
            while chunk := content.read(CHUNK):
                total.update(chunk)
                made.write(chunk)
            made.flush()
            os.fsync(made.fileno())
            if total.hexdigest() != file.sha256:
                raise DataError(f"{member.name} in the archive: SHA-256 is {total.hexdigest()}, expected {file.sha256}")
            Path(made.name).chmod(0o644)
            Path(made.name).replace(target)
        except BaseException:
            Path(made.name).unlink(missing_ok=True)
            raise
    return target
