"""A disk that loses power: every call of harness.registry.io in order, and each folder that may be found when power is back.

The model of a file system is a pessimist's. What was written is on the disk after `fsync` of the file, no sooner. A name (made,
linked, moved, deleted) is on the disk after `fsync_dir` of its folder, no sooner; until then each change of a name may have
happened or not, whatever happened to later ones, and a rename is two such changes. Real file systems promise more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.registry import io

# `touch` changes a time, which is no content: whether it reaches the disk decides nothing that is promised.
READING = frozenset(
    {"read", "read_regular", "read_chunks", "open_parquet", "size_and_time", "mode", "listdir", "scan", "touch"}
)
WRITING = frozenset({"create", "write", "fsync", "close", "link", "rename", "unlink", "mkdir", "fsync_dir", "touch"})
# DuckDB writes its own file into this folder; what lies there is disposable and is modelled as never flushed.
DISPOSABLE = "index"

ROOT = 0
Call = tuple[str, tuple[Any, ...]]


@cache
def operations_called() -> frozenset[str]:
    """What the registry's modules call of io, by their text."""
    modules = [path for path in Path(io.__file__).parent.glob("*.py") if path.name != "io.py"]
    return frozenset(name for path in modules for name in re.findall(r"(?<![\w.])io\.(\w+)\(", path.read_text()))


@contextlib.contextmanager
def intercepted(wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace every operation of harness.registry.io by wrap(its name, itself), as long as this lasts.

    Raises AssertionError where io has an operation that is neither known to read nor to write: it would pass unseen.
    """
    unknown = (set(io.OPERATIONS) | operations_called()) - ((READING | WRITING) & set(io.OPERATIONS))
    if unknown:
        raise AssertionError(
            f"harness.registry.io: {sorted(unknown)}: add it to io.OPERATIONS and to READING or WRITING of "
            "tests/faults/simulated_disk.py; one that writes needs a rule in Disk too"
        )
    real = {name: getattr(io, name) for name in io.OPERATIONS}
    for name, function in real.items():
        setattr(io, name, wrap(name, function))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(io, name, function)


@dataclass
class Folder:
    """One folder: what programs see, what is surely on the disk, and the changes since (name -> node, None: deleted)."""

    now: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, int | None]] = field(default_factory=list)

    def change(self, name: str, node: int | None) -> None:
        apply_change(self.now, name, node)
        self.pending.append((name, node))

    def flush(self) -> None:
        self.kept, self.pending = dict(self.now), []


def apply_change(names: dict[str, int], name: str, node: int | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


@dataclass
class Content:
    """One file. flushed: how many of its first bytes are surely on the disk."""

    written: bytearray = field(default_factory=bytearray)
    flushed: int = 0


class Disk:
    """All that lies below one folder, as a file system would know it. Paths are relative to it."""

    def __init__(self) -> None:
        self.folders: dict[int, Folder] = {ROOT: Folder()}
        self.files: dict[int, Content] = {}
        self._open: dict[int, int] = {}
        self._count = ROOT

    def new_node(self) -> int:
        self._count += 1
        return self._count

    def place(self, path: str) -> tuple[Folder, str]:
        """The folder that holds path, and the last part of it."""
        *above, name = path.split("/")
        node = ROOT
        for part in above:
            node = self.folders[node].now[part]
        return self.folders[node], name

    def node(self, path: str) -> int:
        if path in ("", "."):
            return ROOT
        folder, name = self.place(path)
        return folder.now[name]

    def apply(self, call: Call) -> None:
        operation, arguments = call
        getattr(self, f"_{operation}")(*arguments)

    def _create(self, path: str, descriptor: int) -> None:
        node = self.new_node()
        self.files[node] = Content()
        self._open[descriptor] = node
        folder, name = self.place(path)
        folder.change(name, node)

    def _write(self, descriptor: int, content: bytes) -> None:
        self.files[self._open[descriptor]].written += content

    def _fsync(self, descriptor: int) -> None:
        file = self.files[self._open[descriptor]]
        file.flushed = len(file.written)

    def _close(self, descriptor: int) -> None:
        del self._open[descriptor]

    def _link(self, source: str, target: str) -> None:
        folder, name = self.place(target)
        folder.change(name, self.node(source))

    def _rename(self, source: str, target: str) -> None:
        self._link(source, target)
        self._unlink(source)

    def _unlink(self, path: str) -> None:
        folder, name = self.place(path)
        folder.change(name, None)

    def _mkdir(self, path: str) -> None:
        node = self.new_node()
        self.folders[node] = Folder()
        folder, name = self.place(path)
        folder.change(name, node)

    def _fsync_dir(self, path: str) -> None:
        self.folders[self.node(path)].flush()

    def _touch(self, path: str) -> None:
        """Times are no part of the model: states are laid out anew, and all that they hold is young."""
        self.node(path)

    def _foreign(self, path: str, content: bytes) -> None:
        """A file that something else than harness.registry.io wrote, and nobody flushed."""
        self._create(path, -1)
        self._write(-1, content)
        self._close(-1)

    def _durable(self, path: str, content: bytes) -> None:
        self._foreign(path, content)
        self.files[self.node(path)].flushed = len(content)

    def found(self, cut: Cut) -> dict[str, bytes | None]:
        """Path -> content (None: a folder) of what a power cut leaves, as `cut` draws it."""
        tree: dict[str, bytes | None] = {}
        waiting = [("", ROOT)]
        while waiting:
            above, node = waiting.pop()
            folder = self.folders[node]
            names = dict(folder.kept)
            for name, change in folder.pending:
                if cut.keeps_name():
                    apply_change(names, name, change)
            for name, held in sorted(names.items()):
                if held in self.folders:
                    tree[above + name] = None
                    waiting.append((f"{above}{name}/", held))
                else:
                    tree[above + name] = cut.content(self.files[held])
        return tree


class Cut:
    """How a power cut falls: which changes of names happened, and what is left of what was not flushed."""

    def __init__(self, names: float, data: tuple[str, ...], dice: random.Random) -> None:
        """names: the chance that a change not flushed happened (0 and 1: surely). data: what may be left of a file, drawn."""
        self._names, self._data, self._dice = names, data, dice

    def keeps_name(self) -> bool:
        return self._dice.random() < self._names

    def content(self, file: Content) -> bytes:
        flushed, rest = bytes(file.written[: file.flushed]), bytes(file.written[file.flushed :])
        if not rest:
            return flushed
        left = self._dice.choice(self._data)
        if left == "half":
            return flushed + rest[: len(rest) // 2]
        # As many bytes as there were, but zeros: what file systems that allocate late leave.
        return flushed + {"whole": rest, "dropped": b"", "zeros": bytes(len(rest))}[left]


ANY = ("dropped", "half", "whole", "zeros")
# Name of a kind of cut -> chance of a name, what is left of data. Random ones are drawn as often as all others together.
CUTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "nothing that was not flushed": (0.0, ("dropped",)),
    "all": (1.0, ("whole",)),
    "names without data": (1.0, ("dropped",)),
    "names with half the data": (1.0, ("half",)),
    "names with zeros": (1.0, ("zeros",)),
    "few names": (0.2, ANY),
    "half the names": (0.5, ANY),
    "half the names again": (0.5, ANY),
    "most names": (0.8, ANY),
    "most names again": (0.8, ANY),
}


class Recorder:
    """Lets every operation through and writes down, in order, those that change something below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[Call] = []
        self._disk = Disk()  # to know what a path names at this moment
        self._ours: set[int] = set()
        there = read_tree(folder)  # what lies there already is on the disk
        for path, content in there.items():
            self._log(("mkdir", (path,)) if content is None else ("durable", (path, content)))
        for path in ("", *(path for path, content in there.items() if content is None)):
            self._log(("fsync_dir", (path,)))
        self.starts = len(self.calls)

    def _log(self, call: Call) -> None:
        self._disk.apply(call)
        self.calls.append(call)

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        if name in READING:
            return real

        def call(*arguments: Any) -> Any:
            result = real(*arguments)
            self.record(name, arguments, result)
            return result

        return call

    def record(self, name: str, arguments: tuple[Any, ...], result: Any = None) -> None:
        """Of a call that was made: what it changed. Files outside the folder are none of the registry's."""
        if name in ("write", "fsync", "close"):
            descriptor = arguments[0]
            if descriptor in self._ours:
                self._log((name, (descriptor, *(bytes(a) for a in arguments[1:]))))
                if name == "close":
                    self._ours.remove(descriptor)
            return
        paths = [self.relative(path) for path in arguments]
        if name == "create":
            self._ours.add(result)
            paths.append(result)
        elif name in ("link", "rename", "unlink"):
            self._meet(paths[0], arguments[-1] if name != "unlink" else None)
        self._log((name, tuple(paths)))

    def _meet(self, source: str, lies_at: Path | None) -> None:
        """A file that io did not make is taken note of when it is first named; only disposable ones may be such."""
        folder, name = self._disk.place(source)
        if name in folder.now:
            return
        if f"/{DISPOSABLE}/" not in f"/{source}":
            raise AssertionError(f"{source}: was written past harness.registry.io, so no test can fail or replay that write")
        self._log(("foreign", (source, lies_at.read_bytes() if lies_at else b"")))

    def relative(self, path: Path) -> str:
        text = os.path.relpath(path, self.folder)
        if text.startswith(".."):
            raise AssertionError(f"{path}: a write outside {self.folder}, which the campaign cannot replay")
        return "" if text == "." else text

    def check(self) -> None:
        """The model, with nothing lost, is the folder as it lies there: else a write went past io, and the campaign is void."""
        modelled = replay(self.calls).found(Cut(1.0, ("whole",), random.Random(0)))
        there = read_tree(self.folder)
        differ = sorted(p for p in modelled.keys() | there.keys() if modelled.get(p, b"?") != there.get(p, b"?"))
        differ = [p for p in differ if f"/{DISPOSABLE}/" not in f"/{p}"]
        if differ:
            raise AssertionError(f"{differ[:5]}: on the disk otherwise than harness.registry.io wrote it")


def replay(calls: list[Call]) -> Disk:
    """The disk after these calls."""
    disk = Disk()
    for call in calls:
        disk.apply(call)
    return disk


def read_tree(folder: Path) -> dict[str, bytes | None]:
    """Relative path -> content (None: a folder) of all that is below; folders before what is in them."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def write_tree(folder: Path, tree: dict[str, bytes | None]) -> None:
    """Make the folder hold exactly this."""
    folder.mkdir(parents=True)
    for path, content in sorted(tree.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def digest(tree: dict[str, bytes | None]) -> str:
    """Equal for equal trees."""
    total = hashlib.sha256()
    for path, content in sorted(tree.items()):
        total.update(f"{path}\0{-1 if content is None else len(content)}\0".encode())
        total.update(content or b"")
    return total.hexdigest()
