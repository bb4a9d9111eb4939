"""Where things lie in a registry, and how a file gets its name: written aside, flushed, linked, the folder flushed.

A file in `attempts`, `folded`, `manifests`, `facts`, `annotations` and `blobs` is named by the SHA-256 of its content. So a
retry is harmless, two writers cannot disagree, a merge is a union of names, and damage shows as a name that its content does
not have.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.registry import io

FORMAT = 1  # of the folder; what this program writes, and the newest that it reads
FORMAT_CONTENT = b'{"format": 1, "min_reader": 1}\n'
FOLDERS = ("attempts", "folded", "manifests", "blobs", "facts", "annotations", "started", "tmp", "quarantine", "index")
STALE_S = 24 * 3600.0
# A process on another host cannot be looked up: what it left is stale only when no trial can still be running.
STALE_ELSEWHERE_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Layout:
    """The folders of one registry.

    attempts: <sha256>.parquet, loose, one row each.   folded: <sha256>.parquet, many rows each.
    manifests: <sha256>.json, which files a folded one replaces.   blobs: <sha256>.   facts: <sha256>.json.
    annotations: <sha256>.json, what people said of attempts.   started: <attempt id>.json, markers of what runs now.
    tmp: files without their final name yet.
    quarantine: what failed its check; nothing there is ever read or deleted.   index: disposable.
    """

    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    @property
    def format(self) -> Path:
        return self.root / "FORMAT"


def min_reader_of(content: bytes) -> int:
    """The oldest format whose readers may read this registry, as its FORMAT file says. Raises ValueError for a damaged one."""
    try:
        told = json.loads(content)
        written, min_reader = told["format"], told["min_reader"]
        if not (isinstance(written, int) and isinstance(min_reader, int)):
            raise TypeError("no whole numbers")
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ValueError(f"does not say which format this is ({exc})") from exc
    if min_reader > written:  # the only trace of a flipped bit in a digit
        raise ValueError(f"says that format {written} can be read from format {min_reader} on, which cannot be")
    return min_reader


def content_name(content: bytes, suffix: str = "") -> str:
    return hashlib.sha256(content).hexdigest() + suffix


def ensure_folder(path: Path) -> None:
    """Make the folder and its parents, so that they survive a power cut."""
    if path.is_dir():
        return
    ensure_folder(path.parent)
    with contextlib.suppress(FileExistsError):  # another writer was faster
        io.mkdir(path)
    io.fsync_dir(path.parent)


def publish(layout: Layout, content: bytes, final: Path) -> None:
    """Make `content` appear under its final name, whole or not at all, and durable when this returns.

    The name taken by equal content is success. Taken by other content: that file is damaged (names are digests), so it goes
    to quarantine first. Raises OSError; then nothing bears the name that did not before.
    """
    tmp = layout / "tmp" / f"{owner()}-{secrets.token_hex(8)}"
    write_new(tmp, content, flush=True)
    try:
        try:
            give_name(tmp, final)
        except FileExistsError:
            if io.read(final) != content:
                quarantine(layout, final)
                give_name(tmp, final)
        io.fsync_dir(final.parent)
    finally:
        with contextlib.suppress(OSError):  # a file left in tmp is swept later; the record itself is safe or not by now
            io.unlink(tmp)


def write_new(path: Path, content: bytes, flush: bool = False) -> None:
    """A file that was not there before; with `flush` on the disk when this returns. After an error it is gone again."""
    fd = io.create(path)
    try:
        try:
            io.write(fd, content)
            if flush:
                io.fsync(fd)
        finally:
            io.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            io.unlink(path)
        raise


def give_name(tmp: Path, final: Path) -> None:
    """Link, or rename where the file system has no hard links. Raises FileExistsError where the name is taken."""
    try:
        io.link(tmp, final)
    except OSError as exc:
        if exc.errno not in io.NO_HARD_LINKS:
            raise
        if final.exists():
            raise FileExistsError(str(final)) from exc
        io.rename(tmp, final)


def quarantine(layout: Layout, path: Path) -> Path:
    """Move a damaged file out of sight of all readers. Keeps every one: a second of the same name gets a number."""
    ensure_folder(layout / "quarantine")
    target = layout / "quarantine" / path.name
    number = 1
    while target.exists():
        target = target.with_name(f"{path.name}.{number}")
        number += 1
    io.rename(path, target)
    return target


# Whose file is it, and does its owner still live? --------------------------------------------------------------------


@dataclass(frozen=True)
class Owner:
    """One process: a pid alone may be used again, pid + start + boot + host may not."""

    host: str
    boot_id: str
    pid: int
    started: int  # clock ticks since boot


def this_process() -> Owner:
    return describe_process(os.getpid())  # the pid is asked for each time: a forked child must not pass for its parent


@cache
def describe_process(pid: int) -> Owner:
    return Owner(platform.node(), boot_id(), pid, start_ticks(pid) or 0)


def owner() -> str:
    """This process as a part of a file name: host-pid-start. A host may hold '-' too, so it is read from the right."""
    me = this_process()
    host = "".join(c if c.isalnum() or c in "._-" else "_" for c in me.host)[:64]
    return f"{host}-{me.pid}-{me.started}"


@cache
def boot_id() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where there is no such process."""
    try:
        # The name in parentheses may hold spaces and parentheses: fields are counted after the last one.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def is_gone(process: Owner, age_s: float) -> bool:
    """Whether the process can no longer finish what it began. age_s: of the file that it left."""
    if process.host != platform.node():
        return age_s > STALE_ELSEWHERE_S
    if process.boot_id != boot_id():
        return True
    return start_ticks(process.pid) != process.started


def sweep_tmp(layout: Layout) -> None:
    """Delete what dead writers left in tmp more than a day ago."""
    for name in io.listdir(layout / "tmp"):
        path = layout / "tmp" / name
        with contextlib.suppress(OSError):  # gone already, or not ours to delete: the next sweep sees it again
            age_s = time.time() - io.size_and_time(path)[1] / 1e9
            if age_s > STALE_S and is_stale(name, age_s):
                io.unlink(path)


def is_stale(name: str, age_s: float) -> bool:
    """Whether the writer of a tmp file is gone; of a name that we did not give, after a week."""
    parts = name.rsplit("-", 3)
    if len(parts) != 4 or not (parts[1].isdigit() and parts[2].isdigit()) or parts[0] != owner().rsplit("-", 2)[0]:
        return age_s > STALE_ELSEWHERE_S
    return start_ticks(int(parts[1])) != int(parts[2])
