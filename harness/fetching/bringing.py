"""`fetch`: a declared set into the data folder. Each file is whole and checked before it stands under its name.

Downloads are made in `.fetching` inside the data folder: what broke off is found there by the next call, which goes on with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from harness.data.declared import File
from harness.data.files import below, read_checked
from harness.errors import DataError, HarnessError, MissingError
from harness.fetching.archives import take_members
from harness.fetching.resuming import Resuming, Trouble
from harness.fetching.sources import Download, downloads_of
from harness.specs import Dataset

STAGING = ".fetching"
ATTEMPTS = 3  # at one address, without a MiB of progress between them
PROGRESS = 1 << 20
ROOM = 16 << 20  # bytes left over on the disk


class Watcher(Protocol):
    """Who is told how it goes."""

    def begin(self, name: str, total: int) -> None:
        """A download starts, or goes on."""

    def advance(self, done: int) -> None:
        """So many of its bytes are here."""

    def say(self, text: str) -> None:
        """A line for the reader: an address that failed, an attempt that is made again."""


class Silent:
    """Tells nobody."""

    def begin(self, name: str, total: int) -> None: ...

    def advance(self, done: int) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class Settings:
    """mirrors: addresses, or folders, that are asked before the published ones; each holds files under `Download.name`.

    offline: ask no server; folders among the mirrors are still asked. stall_s: seconds of silence to bear.
    """

    mirrors: tuple[str, ...] = ()
    offline: bool = False
    stall_s: float = 30.0


def fetch(
    set_: Dataset,
    folder: Path,
    settings: Settings,
    watcher: Watcher,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Bring what is missing or damaged of a set; the files that were written, [] where all was here and whole.

    Raises MissingError where no address brought the declared bytes (each is named with what it did) and where the disk is too
    small, HarnessError for what the user can mend.
    """
    downloads = downloads_of(set_)
    if not downloads:
        raise HarnessError(f"data set {set_.name!r} {why_not(set_)}")
    brought: list[Path] = []
    with staging(folder) as place:
        for download in downloads:
            lacking = {m: file for m, file in download.files.items() if not whole(set_, file, folder)}
            if lacking:
                require_room(folder, download, lacking.values(), place)
                brought += bring(set_, download, lacking, folder, place, settings, watcher, sleep)
    return brought


def why_not(set_: Dataset) -> str:
    if set_.where != "folder":
        return f"is {set_.where}: it is always here, and nothing has to be fetched"
    return (
        f"cannot be fetched: no published address has {set_.path} as it is declared; place it in the data folder by hand, "
        f"from {set_.source}"
    )


def whole(set_: Dataset, file: File, folder: Path) -> bool:
    """Whether a file lies there and is the declared one."""
    path = below(folder, file.path, set_)
    if not path.is_file():
        return False
    try:
        read_checked(set_, file, path)
    except DataError:
        return False
    return True


def bring(
    set_: Dataset, download: Download, lacking: dict[str, File], folder: Path, place: Path, settings: Settings,
    watcher: Watcher, sleep: Callable[[float], None],
) -> list[Path]:  # fmt: skip
    """One download from the first address that has the declared bytes, and its files in their places."""
    troubles = []
    for url in addresses(download, settings):
        try:
            got = from_address(set_, url, download, place, settings, watcher, sleep)
        except Trouble as exc:
            troubles.append(f"{url}: {exc}")
            watcher.say(f"{download.name}: {troubles[-1]}")
            continue
        return put(set_, got, download, lacking, folder)
    raise MissingError(not_brought(set_, download, troubles, settings))


def not_brought(set_: Dataset, download: Download, troubles: Sequence[str], settings: Settings) -> str:
    """What was tried, and the ways that are left."""
    tried = "".join(f"\n  {trouble}" for trouble in troubles)
    known = f" (SHA-256 {download.sha256})" if download.sha256 else ""
    hand = (
        f"  by hand: {download.urls[0]}{known}, as {download.name} in a folder; then "
        f"`harness data fetch {set_.name} --mirror FOLDER --offline`"
    )
    if settings.offline and not troubles:
        return f"data set {set_.name!r}: {download.name} is not here, and --offline asks no server; the mend:\n{hand}"
    if settings.offline:
        return f"data set {set_.name!r}: {download.name} is in none of the folders:{tried}\nthe mend:\n{hand}"
    return (
        f"data set {set_.name!r}: {download.name} could not be fetched:{tried}\nthe mend:\n"
        f"  the same command again: it goes on with what came\n  another server: --mirror ADDRESS\n{hand}"
    )


def addresses(download: Download, settings: Settings) -> Iterator[str]:
    """In the order in which they are asked. Raises HarnessError for a mirror that is neither an address nor a folder."""
    for mirror in settings.mirrors:
        scheme = urlsplit(mirror).scheme
        if scheme in ("http", "https"):
            if not settings.offline:
                yield f"{mirror.rstrip('/')}/{download.name}"
        elif scheme == "file" or Path(mirror).is_dir():
            base = mirror.rstrip("/") if scheme == "file" else Path(mirror).resolve().as_uri()
            yield f"{base}/{download.name}"
        else:
            raise HarnessError(
                f"--mirror {mirror!r}: no folder here, and no address; write https://..., or a folder that exists"
            )
    if not settings.offline:
        yield from download.urls


def from_address(
    set_: Dataset, url: str, download: Download, place: Path, settings: Settings, watcher: Watcher,
    sleep: Callable[[float], None],
) -> Path:  # fmt: skip
    """The downloaded file, its digest right where one is known. Raises Trouble once more attempts are of no use."""
    import pooch

    pooch.get_logger().setLevel("ERROR")
    got = place / download.name.replace("/", "+")
    part = got.with_name(f"{got.name}.part")
    resuming = Resuming(part, download.size_bytes, bool(download.sha256), settings.stall_s, watcher.advance)
    left, before = ATTEMPTS, resuming.held()
    while True:
        resumed = before > 0
        watcher.begin(download.name, download.size_bytes if download.sha256 else 0)
        got.unlink(missing_ok=True)  # pooch keeps what is there where it knows no digest
        try:
            pooch.retrieve(
                url, f"sha256:{download.sha256}" if download.sha256 else None, got.name, got.parent, downloader=resuming
            )
            return require_content(set_, download, got)
        except ValueError as exc:  # pooch's word for a digest that is not the known one; the file is gone then
            part.unlink(missing_ok=True)
            trouble = Trouble("sent other bytes than were published (their SHA-256 differs)", again=resumed)
            trouble.__cause__ = exc
        except Trouble as exc:
            trouble = exc
        have = resuming.held()
        left = ATTEMPTS - 1 if have - before >= PROGRESS else left - 1
        before = have
        if not trouble.again or not left:
            raise trouble
        watcher.say(f"{download.name}: {trouble}; once more")
        sleep(float(2 ** (ATTEMPTS - 1 - left)))


def require_content(set_: Dataset, download: Download, got: Path) -> Path:
    """The file, where its content is the declared one. Raises Trouble: another address may have it."""
    if download.is_archive:
        return got
    try:
        read_checked(set_, download.files[""], got)
    except DataError as exc:
        got.unlink(missing_ok=True)
        raise Trouble(
            "sent another content than the declared one (its SHA-256 differs, or it does not unpack)", again=False
        ) from exc
    return got


def put(set_: Dataset, got: Path, download: Download, lacking: dict[str, File], folder: Path) -> list[Path]:
    """The files in their places; the download itself goes."""
    if download.is_archive:
        written = take_members(got, lacking, folder)
        got.unlink()
        return written
    target = below(folder, download.files[""].path, set_)
    target.parent.mkdir(parents=True, exist_ok=True)
    got.replace(target)
    return [target]


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """The folder of what is under way, for this process alone. Raises HarnessError where it cannot be had."""
    place = folder / STAGING
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise HarnessError(
            f"{folder} cannot be written ({exc.strerror or exc}); make it writable, or name another by --data-dir"
        ) from exc
    try:
        # The folder itself is locked: a lock file would have to be removed, and then two processes may hold two of that name.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        place.mkdir(exist_ok=True)
        yield place
        with contextlib.suppress(OSError):  # not empty: what broke off waits there
            place.rmdir()
    except BlockingIOError as exc:
        raise HarnessError(f"another `harness data fetch` writes into {folder}; wait until it has ended") from exc
    finally:
        os.close(handle)


def require_room(folder: Path, download: Download, lacking: Iterable[File], place: Path) -> None:
    """Raises MissingError where the disk cannot hold the download and what it unpacks to."""
    need = download.size_bytes + (sum(file.size_bytes for file in lacking) if download.is_archive else 0) + ROOM
    free = shutil.disk_usage(place).free
    if free < need:
        raise MissingError(
            f"{folder}: {download.name} needs {need / 1e6:.0f} MB, {free / 1e6:.0f} MB are free; free some, or name another "
            f"folder by --data-dir"
        )
