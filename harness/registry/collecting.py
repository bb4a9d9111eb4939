"""What a registry no longer needs, and its deletion. Never a record: what is deleted changes no answer of any query.

Nothing is deleted because of what was found earlier: each file is judged, and then goes at once. Where it cannot be told what
attempts name (a file is damaged, or of a newer schema), artefacts and facts stay.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.registry import folding, io, markers
from harness.registry.files import STALE_S, Layout, is_stale
from harness.registry.reading import BLOB_NAME, JSON_NAME, Changed, Reader, Vanished
from harness.registry.verifying import MARKER_NAME, blobs_of, is_back, plain_name

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["replaced", "manifest", "unfinished", "marker", "blob", "facts", "index", "quarantine"]
WHY: dict[Kind, str] = {
    "replaced": "a folded file, read to its end just now, holds its attempts",
    "manifest": "what it replaced is gone, and no other manifest needs it",
    "unfinished": "its writer is dead",
    "marker": "torn by a power cut; it says nothing",
    "blob": "no attempt names it",
    "facts": "no attempt names them, nor one that runs",
    "index": "a cache, older than the grace time or of a dead writer; it is made again when it is needed",
    "quarantine": "damaged, and has come back whole",
}


@dataclass(frozen=True)
class Garbage:
    """A file that may go. path: within the registry."""

    kind: Kind
    path: str
    size_bytes: int

    @property
    def why(self) -> str:
        return WHY[self.kind]


def garbage(reader: Reader, layout: Layout, grace_s: float = folding.GRACE_S) -> list[Garbage]:
    """What may go now. grace_s: what is younger stays, somebody may be at work with it. Raises OSError."""
    return list(found(reader, layout, grace_s))


def collect(reader: Reader, layout: Layout, grace_s: float = folding.GRACE_S) -> list[Garbage]:
    """Delete what may go; what went. Raises OSError, and leaves the rest then."""
    gone: list[Garbage] = []
    while True:
        before = len(gone)
        for one in found(reader, layout, grace_s):
            with contextlib.suppress(FileNotFoundError):  # another process collects too
                io.unlink(layout.root / one.path)
                gone.append(one)
        for folder in sorted({one.path.partition("/")[0] for one in gone[before:]}):
            io.fsync_dir(layout / folder)
        # A manifest is spent when what it replaced has gone, and the next when that manifest has.
        if not any(one.kind in ("replaced", "manifest") for one in gone[before:]):
            return gone


def found(reader: Reader, layout: Layout, grace_s: float) -> Iterator[Garbage]:
    """One after the other, each judged at the moment when it is asked for."""
    for folder, name in folding.surely_replaced(reader, layout, folding.long_replaced(reader, layout, grace_s)):
        yield from measured(layout, "replaced", f"{folder}/{name}")
    for name in folding.spent_manifests(layout, grace_s):
        yield from measured(layout, "manifest", f"manifests/{name}")
    yield from left_behind(layout, grace_s)
    yield from unnamed(reader, layout, grace_s)
    yield from come_back(reader, layout)


def measured(layout: Layout, kind: Kind, path: str) -> Iterator[Garbage]:
    """None where it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        yield Garbage(kind, path, io.size_and_time(layout.root / path)[0])


def age_s(path: Path) -> float:
    """Seconds since it was last changed; of what is gone: none."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - io.size_and_time(path)[1] / 1e9
    return -1.0


# Leftovers ------------------------------------------------------------------------------------------------------------


def left_behind(layout: Layout, grace_s: float) -> Iterator[Garbage]:
    """Files of dead writers, torn markers, caches that nobody has renewed for long."""
    for name in io.listdir(layout / "tmp"):
        if is_left_behind(layout / "tmp" / name, name):
            yield from measured(layout, "unfinished", f"tmp/{name}")
    for name in io.listdir(layout / "attempts"):
        if name.startswith(".probe-") and is_left_behind(layout / "attempts" / name, name.removeprefix(".probe-")):
            yield from measured(layout, "unfinished", f"attempts/{name}")
    for name in io.listdir(layout / "started"):
        if MARKER_NAME.fullmatch(name) and age_s(layout / "started" / name) > STALE_S and is_torn(layout / "started" / name):
            yield from measured(layout, "marker", f"started/{name}")
    for name in io.listdir(layout / "index"):
        path = layout / "index" / name
        if name != ".gitignore" and (age_s(path) > max(grace_s, STALE_S) or is_left_behind(path, name)):
            yield from measured(layout, "index", f"index/{name}")


def is_left_behind(path: Path, name: str) -> bool:
    age = age_s(path)
    return age > STALE_S and is_stale(name, age)


def is_torn(path: Path) -> bool:
    try:
        markers.read_marker(path)
    except (ValueError, TypeError, KeyError):
        return True
    except OSError:
        return False
    return False


def come_back(reader: Reader, layout: Layout) -> Iterator[Garbage]:
    """What lies in quarantine and is whole in its place again; and torn markers, which were all that there was."""
    for name in io.listdir(layout / "quarantine"):
        if MARKER_NAME.fullmatch(plain_name(name)):
            yield from measured(layout, "marker", f"quarantine/{name}")
        elif is_back(reader, name):
            yield from measured(layout, "quarantine", f"quarantine/{name}")


# What attempts name ---------------------------------------------------------------------------------------------------


# Which column holds the name of which kind of facts.
COLUMNS = {"machine": "machine", "environment": "environment", "data": "data_digest"}


class Named:
    """The artefacts and facts that attempts name. `refresh` reads the files that have come since."""

    def __init__(self, reader: Reader, layout: Layout) -> None:
        self.reader = reader
        self.layout = layout
        self.blobs: set[str | None] = set()
        self.facts: set[tuple[str, str | None]] = set()
        self.read: set[tuple[str, str]] = set()
        self.readable = True

    def refresh(self) -> bool:
        """False where some file cannot be read: then nobody knows what its attempts name."""
        # Also files that are replaced: to leave out what stands for others is a reader's business, not a judge's.
        for folder in ("attempts", "folded"):
            for name in self.reader.names(folder):
                if (folder, name) not in self.read:
                    self.read.add((folder, name))
                    self.take_in(folder, name)
        return self.readable

    def take_in(self, folder: str, name: str) -> None:
        try:
            table = self.reader.read((folder, name), {"blobs", *COLUMNS.values()})
        except Vanished:
            return  # it was replaced, and who replaced it is or will be listed
        except Changed:
            self.readable = False
            return
        self.blobs.update(blobs_of(table))
        for kind, column in COLUMNS.items():
            self.facts.update((kind, value) for value in distinct(table, column))

    def take_in_running(self) -> None:
        """Attempts that run now: their facts were kept when they began, their rows come later."""
        for name in io.listdir(self.layout / "started"):
            with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):
                attempt = markers.read_marker(self.layout / "started" / name).attempt
                where = attempt.provenance
                self.facts |= {
                    ("machine", where.machine),
                    ("environment", where.environment),
                    ("data", attempt.trial.data_digest),
                }


def distinct(table: pa.Table, column: str) -> list[str | None]:
    values: list[str | None] = table[column].unique().to_pylist()
    return values


def unnamed(reader: Reader, layout: Layout, grace_s: float) -> Iterator[Garbage]:
    """Artefacts and facts that no attempt names. A writer publishes them before the row: young ones stay."""
    named = Named(reader, layout)
    blobs = [
        name for name in io.listdir(layout / "blobs") if BLOB_NAME.fullmatch(name) and age_s(layout / "blobs" / name) > grace_s
    ]
    told = {name: content for name, content in reader.named_facts() if JSON_NAME.fullmatch(name)}
    facts = [name for name in told if age_s(layout / "facts" / name) > grace_s]
    if not (blobs or facts) or not named.refresh() or has_losses(reader, layout):
        return
    for name in blobs:
        # Again: a row that names it may have come while the ones before it went.
        if name not in named.blobs and named.refresh() and name not in named.blobs and age_s(layout / "blobs" / name) > grace_s:
            yield from measured(layout, "blob", f"blobs/{name}")
    for name in facts:
        fact = (told[name]["kind"], told[name]["name"])
        if fact[0] not in COLUMNS or fact in named.facts:
            continue
        named.take_in_running()
        if named.refresh() and fact not in named.facts and age_s(layout / "facts" / name) > grace_s:
            yield from measured(layout, "facts", f"facts/{name}")


def has_losses(reader: Reader, layout: Layout) -> bool:
    """Whether records lie in quarantine that have not come back: what they name must be there when they do."""
    return any(
        plain_name(name).endswith(".parquet") and not is_back(reader, name) for name in io.listdir(layout / "quarantine")
    )
