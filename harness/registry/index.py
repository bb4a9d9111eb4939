"""The index: a disposable DuckDB file that makes queries over large registries quick.

It holds what queries ask for most, in DuckDB's own format: the attempts without what is long and seldom read, and their
measurements as one long table. Every row of it was decoded from bytes whose SHA-256 was found to be their file's name. A note
beside it names those files; the index counts only while each of them is there and healthy, or replaced by a fold that is.
What is newer is read from its own files and added. Whatever is wrong with it, the answer comes from the Parquet files instead.

It is written to a name of its own and the note is renamed over the old one, so a reader sees one whole index or another.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import SCHEMA_VERSION
from harness.registry import io, schema
from harness.registry.conflicts import Conflict, join
from harness.registry.files import Layout, content_name, ensure_folder, is_stale, owner, write_new
from harness.registry.reading import RELISTS, Changed, Entry, Reader, as_manifest, checked_name
from harness.registry.standing import Standing
from harness.registry.views import MEASURED, OWED

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FORMAT = 3
# About 5,000 attempts in folded files. Reading less takes a tenth of a second, and an index would only be one more file.
WORTH_BYTES = 2 << 20
# Written at once: enough to be quick, few enough to hold in memory with all that they logged.
BATCH_ROWS = 50_000
BATCH_BYTES = 256 << 20
MEMORY = "1GiB"
NOTE = "rows.json"
FILE = "rows-{}.duckdb"
CATALOG = "_index"
# Long and seldom asked for: most of a row's bytes.
LEFT_OUT = ("log", "worker_environment", "curve", "series", "spent", "diagnostics", "blobs", "measurements")
MEMBERS = ", ".join(f"e.{name}" for name in MEASURED)
KEPT = (NOTE, ".gitignore")
HOLDERS = ("folded", "attempts")


@cache
def indexed_columns() -> tuple[str, ...]:
    """What the index knows of an attempt, besides its measurements."""
    return tuple(name for name in schema.attempt_schema().names if name not in LEFT_OUT)


def version() -> str:
    """Of what the file holds: another one is not read, whoever wrote it."""
    import duckdb

    return f"{FORMAT}/{SCHEMA_VERSION}/{duckdb.__version__}/{','.join(indexed_columns())}"


@dataclass(frozen=True)
class Note:
    """What an index was made of.

    file: its name; state: its size and time of change. covers: the files whose rows it holds. replaced: the names of those
    for which they stood. manifests: those that were known. conflicts: what is to be said of rows that differ.
    """

    file: str
    state: tuple[int, int]
    covers: frozenset[Entry]
    replaced: frozenset[str]
    manifests: frozenset[str]
    conflicts: tuple[str, ...]

    def encode(self) -> bytes:
        told = {
            "version": version(), "file": self.file, "state": self.state, "covers": sorted(self.covers),
            "replaced": sorted(self.replaced), "manifests": sorted(self.manifests), "conflicts": self.conflicts,
        }  # fmt: skip
        text = json.dumps(told, separators=(",", ":")).encode()
        return content_name(text).encode() + b"\n" + text

    @staticmethod
    def decode(content: bytes) -> Note:
        """Raises ValueError, KeyError or TypeError for what is torn, or was written by another version."""
        digest, _, text = content.partition(b"\n")
        told = json.loads(text)
        if content_name(text).encode() != digest or told["version"] != version():
            raise ValueError("no note of this version")
        covers = frozenset((str(folder), str(name)) for folder, name in told["covers"])
        size, changed = told["state"]
        replaced, manifests = frozenset(told["replaced"]), frozenset(told["manifests"])
        return Note(str(told["file"]), (size, changed), covers, replaced, manifests, tuple(told["conflicts"]))


@dataclass(frozen=True)
class Index:
    """A usable index. path: the file. lacks: the files that count and whose rows are not in it."""

    path: Path
    note: Note
    lacks: tuple[Entry, ...]


# Is it up to date? ----------------------------------------------------------------------------------------------------


def find(reader: Reader, layout: Layout) -> Index | None:
    """The index, if every file that it was made from still counts. Raises OSError."""
    note = read_note(layout)
    if note is None:
        return None
    try:
        path = layout / "index" / note.file
        if path.parent != layout / "index" or io.size_and_time(path) != note.state:
            return None
    except FileNotFoundError:
        return None
    lacks = what_it_lacks(reader, note)
    reader.save_index()
    return None if lacks is None else Index(path, note, tuple(lacks))


def read_note(layout: Layout) -> Note | None:
    try:
        return Note.decode(io.read(layout / "index" / NOTE))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # there is none, or it is torn: the index is made anew when it is worth it


def what_it_lacks(reader: Reader, note: Note) -> list[Entry] | None:
    """The files that count besides those covered; None where one of these is lost.

    Names are digests, so a listing says nearly all: what was known when the index was made need not be read again, neither
    covered files nor manifests, of which there may be as many as invocations, each with as many names as it had attempts.
    """
    listed = {folder: io.scan(reader.layout / folder) for folder in HOLDERS}
    folded = set(listed["folded"])
    lost = {entry[1] for entry in note.covers if not is_as_it_was(reader, entry, listed[entry[0]])}
    if lost and not lost <= reader.replaced(folded):
        return None
    later = later_manifests(reader, note)
    known = with_folds({name for _, name in note.covers} | note.replaced, later)
    replaced = Standing(later).replaced(lambda name: name in folded and reader.is_healthy(("folded", name)))
    present = [(folder, name) for folder in HOLDERS for name in reader.names(folder)]
    return [e for e in present if e[1] not in known and e[1] not in replaced and reader.is_healthy(e)]


def is_as_it_was(reader: Reader, entry: Entry, listed: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a file is there and healthy; asked of a thousand files, so nothing is opened that has not changed."""
    state = listed.get(entry[1])
    if state is None or entry in reader.left_out:
        return False
    return reader.index().get("/".join(entry)) == list(state) or reader.is_healthy(entry)


def later_manifests(reader: Reader, note: Note) -> list[dict[str, Any]]:
    """The manifests that were made since. A damaged one is no loss: more files are read, and `entries` will name it."""
    found = []
    for name in reader.names("manifests"):
        if name not in note.manifests:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                content = io.read(reader.layout / "manifests" / name)
                if content_name(content, ".json") == name:
                    found.append(as_manifest(content))
    return found


def with_folds(names: Iterable[str], manifests: Sequence[Mapping[str, Any]]) -> set[str]:
    """These names, and those of the folded files that were made of them alone: they hold the same rows."""
    known = set(names)
    while made := {str(m["folded"]) for m in manifests if known.issuperset(m["replaces"])} - known:
        known |= made
    return known


# Making it ------------------------------------------------------------------------------------------------------------


def refresh(reader: Reader, layout: Layout, bearable_bytes: int = 0) -> Index | None:
    """The index, brought up to date first where that is worth its cost; None where there is none.

    bearable_bytes: of files that it may lack. A folder that cannot be written has no index; that is no error.
    """
    found = None
    with contextlib.suppress(OSError):  # the disk is full, or the folder read-only
        for _ in range(RELISTS):
            with contextlib.suppress(Changed):  # another process folds, or damage was found: list anew
                found = find(reader, layout)
                lacking = size_on_disk(layout, None if found is None else found.lacks)
                if reader.hands_off or lacking <= (WORTH_BYTES if found is None else bearable_bytes):
                    break
                make(reader, layout, found)
                found = find(reader, layout)
                break
    return found


def size_on_disk(layout: Layout, entries: Sequence[Entry] | None) -> int:
    """Of these files; None: of all that may hold rows."""
    if entries is None:
        return sum(size for folder in HOLDERS for size, _ in io.scan(layout / folder).values())
    listed = {folder: io.scan(layout / folder) for folder in {folder for folder, _ in entries}}
    return sum(listed[folder].get(name, (0, 0))[0] for folder, name in entries)


def make(reader: Reader, layout: Layout, old: Index | None) -> None:
    """Write an index of all that counts now, from the old one if there is one. Raises OSError, Changed."""
    import duckdb

    folder = layout / "index"
    prepare(folder)
    before = read_note(layout)
    path = folder / FILE.format(f"{owner()}-{secrets.token_hex(8)}")
    # Listed before they are read: what is new in between is none of the index's, and is added to it by each query.
    manifests = frozenset(reader.names("manifests"))
    present = {name for holder in HOLDERS for name in reader.names(holder)}
    entries = reader.entries()
    replaced = reader.replaced(set(reader.names("folded"))) & present - {name for _, name in entries}
    conflicts = find_conflicts(reader, entries, old)
    if old is not None and any({"/".join(entry) for entry in old.lacks}.intersection(c.files) for c in conflicts):
        old = None  # it may be another row that is read now
    try:
        if old is not None:
            copy(old.path, path)
        with duckdb.connect(str(path)) as con:
            if old is None:
                fill(con, reader, in_order(reader, entries), conflicts, anew=True)
            else:
                fill(con, reader, in_order(reader, old.lacks), (), anew=False)
        said = tuple(f"registry {layout.root}: {conflict.explain()}" for conflict in conflicts)
        note = Note(path.name, io.size_and_time(path), frozenset(entries), frozenset(replaced), manifests, said)
        aside = folder / f"{owner()}-{secrets.token_hex(8)}"
        write_new(aside, note.encode())
        io.rename(aside, folder / NOTE)
    except BaseException as exc:
        remove(path)
        if not isinstance(exc, duckdb.Error):
            raise
        if old is not None:
            discard(layout, old)  # it may be its copy that cannot be read: the next one starts from nothing
        raise OSError(f"{path}: {exc}") from exc
    if before is not None:
        remove(folder / before.file)
    remove_stale(folder)


def prepare(folder: Path) -> None:
    """Make the folder, and prove that it can be written before all is read for nothing. Raises OSError."""
    ensure_folder(folder)
    aside = folder / f"{owner()}-{secrets.token_hex(8)}"
    write_new(aside, b"*\n")
    io.rename(aside, folder / ".gitignore")


def find_conflicts(reader: Reader, entries: list[Entry], old: Index | None) -> list[Conflict]:
    """The ids that different rows bear. Only where an id is repeated is more than the new files looked at."""
    if old is not None and not old.note.conflicts:
        if not old.lacks:
            return []
        ids, conflicts = reader.once_each(list(old.lacks), {"attempt_id"})
        if not conflicts and not repeats(old.path, ids):
            return []
    return reader.once_each(entries, {"attempt_id"})[1]


def repeats(path: Path, ids: pa.Table) -> bool:
    """Whether the index knows one of these attempts. Raises OSError where it cannot be read."""
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True) as con:
            con.register("_new", ids)
            return bool(con.execute("SELECT 1 FROM rows SEMI JOIN _new USING (attempt_id) LIMIT 1").fetchall())
    except duckdb.Error as exc:  # another process has made a newer one and deleted this one, or it is damaged
        raise OSError(f"{path}: {exc}") from exc


def in_order(reader: Reader, entries: Iterable[Entry]) -> list[Entry]:
    """By the first id, so by time: attempts that belong together then lie together, and most of the file need not be read."""
    first = {entry: reader.read(entry, {"attempt_id"})["attempt_id"].slice(0, 1).to_pylist() for entry in entries}
    return sorted(first, key=lambda entry: (str(first[entry]), entry))


def copy(source: Path, target: Path) -> None:
    fd = io.create(target)
    try:
        for chunk in io.read_chunks(source):
            io.write(fd, chunk)
    finally:
        io.close(fd)


def remove(path: Path) -> None:
    """A file of the index and what DuckDB keeps beside it; as far as that is possible."""
    for name in (path.name, f"{path.name}.wal"):
        with contextlib.suppress(OSError):
            io.unlink(path.with_name(name))


def remove_stale(folder: Path) -> None:
    """What processes left behind that died while they made an index, and the lists of files that were checked in other boots."""
    for name in set(io.listdir(folder)) - {*KEPT, checked_name()}:
        stem = name.removeprefix("rows-").partition(".duckdb")[0]
        with contextlib.suppress(OSError):
            if is_stale(stem, time.time() - io.size_and_time(folder / name)[1] / 1e9):
                io.unlink(folder / name)


def discard(layout: Layout, index: Index) -> None:
    """It proved broken: it is made from nothing when it is next worth it."""
    note = read_note(layout)
    if note is not None and note.file == index.note.file:
        with contextlib.suppress(OSError):
            io.unlink(layout / "index" / NOTE)


# What is in it --------------------------------------------------------------------------------------------------------


def fill(
    con: duckdb.DuckDBPyConnection, reader: Reader, entries: Iterable[Entry], conflicts: Sequence[Conflict], anew: bool
) -> None:
    """Insert the rows of these files. Raises Changed where one is gone or damaged.

    Each batch is a transaction, for one of all would be held in memory: nobody knows the file by name until it is whole.
    """
    con.execute(f"SET threads = {min(4, os.cpu_count() or 1)}")
    con.execute(f"SET memory_limit = '{MEMORY}'")
    con.execute("SET temp_directory = ''")
    con.execute("SET enable_progress_bar = false")
    if anew:
        create(con)
    contested = {conflict.attempt_id for conflict in conflicts}
    beside: list[pa.Table] = []  # the rows of conflicts: which of them is read is known when all are there
    waiting: list[pa.Table] = []
    rows = size_bytes = 0
    for entry in entries:
        table = reader.read_checked(entry)
        if contested:
            beside.append(among(table, contested, True))
            table = among(table, contested, False)
        waiting.append(table)
        rows, size_bytes = rows + table.num_rows, size_bytes + table.nbytes
        if rows >= BATCH_ROWS or size_bytes >= BATCH_BYTES:
            insert(con, join(waiting))
            waiting, rows, size_bytes = [], 0, 0
    if waiting := [*waiting, *beside]:
        insert(con, join(waiting))
    con.execute("CHECKPOINT")


def among(table: pa.Table, ids: set[str], wanted: bool) -> pa.Table:
    """The rows with these ids, or those without."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.is_in(table["attempt_id"].fill_null(""), pa.array(sorted(ids)))
    return table.filter(found if wanted else pc.invert(found))


def create(con: duckdb.DuckDBPyConnection) -> None:
    con.register("_new", schema.attempt_schema().empty_table())
    con.execute(f"CREATE TABLE rows AS SELECT 0::INTEGER AS id, {', '.join(indexed_columns())}, {OWED} AS owed FROM _new")
    con.execute(
        f"CREATE TABLE measured AS SELECT 0::INTEGER AS id, {MEMBERS} FROM (SELECT unnest(measurements) AS e FROM _new)"
    )
    con.unregister("_new")


def insert(con: duckdb.DuckDBPyConnection, table: pa.Table) -> None:
    """The rows whose attempts are not there yet."""
    con.register("_new", table.select([*indexed_columns(), "measurements"]))
    con.execute(
        """CREATE TEMP TABLE batch AS
        SELECT ((SELECT coalesce(max(id), 0) FROM rows) + row_number() OVER (ORDER BY attempt_id))::INTEGER AS id, *
        FROM _new ANTI JOIN rows USING (attempt_id)"""
    )
    con.execute(f"INSERT INTO rows SELECT id, {', '.join(indexed_columns())}, {OWED} FROM batch ORDER BY id")
    con.execute(f"INSERT INTO measured SELECT id, {MEMBERS} FROM (SELECT id, unnest(measurements) AS e FROM batch) ORDER BY id")
    con.execute("DROP TABLE batch")
    con.unregister("_new")
