"""Many small files into few. A fold is: write the folded file, then a manifest that says what it replaces; later, delete that.

Each step leaves the registry whole: before the manifest the rows stand in both places and readers take each once; after it they
read the folded file; the replaced ones go when no reader can still hold a list with them. Manifests are named by their content
and created exclusively, like everything else: two that fold at once either make the same files, or overlapping ones whose
rows readers take once. So there is no loser that has to try again, and a merge of two registries is a union of names.

Compaction is tiered by size, so that years of nights cost each row few rewrites and readers see few files. A file's *share* is
the part that it fills of what one file may hold (MAX_ROWS rows, MAX_BYTES in memory). Above a half it is full and stays as it
is. Below, tier t holds the shares from 1/2 down to 1/2 / FAN_OUT, then down to 1/2 / FAN_OUT^2, and so on; FAN_OUT files of one
tier are made into one of a higher tier. What follows from that:
- at most MAX_LOOSE loose files, FAN_OUT - 1 small folded ones in each of 1 + log(MAX_ROWS / 2, FAN_OUT) = 8 tiers, which is
  24, and full ones: less than 2 for each MAX_ROWS rows or MAX_BYTES;
- a row is written again once a tier at most, and in the last one twice on average: 10 times if every invocation records a
  single attempt, 5 if each records a hundred;
- a fold holds MAX_BYTES of rows, and a copy of them while it sorts; never the registry.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.registry import io, schema
from harness.registry.conflicts import join, repeated_rows
from harness.registry.files import Layout, content_name, ensure_folder, publish
from harness.registry.reading import Changed, Entry, Reader, as_manifest
from harness.registry.sizing import row_bytes
from harness.registry.standing import Standing
from harness.registry.unfolded import Written

if TYPE_CHECKING:
    import pyarrow as pa

# How long replaced files stay: longer than any reader works on one list of files.
GRACE_S = 7 * 24 * 3600.0
MAX_LOOSE = 100
FAN_OUT = 4
MAX_ROWS = 100_000
MAX_BYTES = 256 << 20
# A table of one row costs 120 kB in pyarrow's own objects, 70 times what it holds: so they are joined as they come.
AT_ONCE = 100
COMPARED_AT_ONCE = 1000  # rows
# Files of before the note tell only their encoded size; in memory rows take several times that.
UNENCODED = 4

Piece = tuple[list[Entry], "pa.Table"]  # files, and the rows that they hold together


@dataclass(frozen=True)
class Weight:
    """What a file holds. size_bytes: of its rows in memory."""

    rows: int
    size_bytes: int

    @property
    def share(self) -> float:
        """Of what one file may hold."""
        return max(self.rows / MAX_ROWS, self.size_bytes / MAX_BYTES)

    @property
    def tier(self) -> int | None:
        """0 for the largest files that are still folded together; None for a full one."""
        return None if self.share > 0.5 else int(math.log(0.5 / max(self.share, 1 / MAX_ROWS), FAN_OUT))


@dataclass(frozen=True)
class Compaction:
    """What compacting did: the files that readers open before and after, their bytes on disk, and the rows written anew."""

    made: tuple[str, ...]
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    rows: int


# What is folded with what ---------------------------------------------------------------------------------------------


def compact(reader: Reader, layout: Layout, everything: bool = False) -> Compaction:
    """Fold until nothing is left to gain: loose files where there are too many, tiers that are full; or all that fits together.

    Raises OSError; Changed where another process folds the same files away: then ask again. The registry is whole then too.
    """
    before = after = reader.entries()
    bytes_before = size_on_disk(layout, before)
    made: list[str] = []
    while batches := choose(layout, after, everything):
        made += [name for batch in batches for name in fold_entries(reader, layout, batch)]
        still, after = after, reader.entries()
        if len(after) >= len(still):  # a manifest that cannot be read, say: the same again would help as little
            break
    rows = sum(weigh(layout, ("folded", name)).rows for name in made)
    bytes_after = size_on_disk(layout, after) if made else bytes_before
    return Compaction(tuple(made), len(before), len(after), bytes_before, bytes_after, rows)


def choose(layout: Layout, entries: Sequence[Entry], everything: bool) -> list[list[Entry]]:
    """The sets of files of which one each should be made; none where nothing is to be gained."""
    loose = [entry for entry in entries if entry[0] == "attempts"]
    folded = [entry for entry in entries if entry[0] == "folded"]
    if everything:
        return [batch for batch in pack(layout, entries) if len(batch) > 1]
    if len(loose) > MAX_LOOSE:
        return [loose]
    if len(folded) < FAN_OUT:
        return []
    tiers: dict[int, list[Entry]] = {}
    for entry in folded:
        tier = weigh(layout, entry).tier
        if tier is not None:
            tiers.setdefault(tier, []).append(entry)
    # The smallest files first: what becomes of them may fill the next tier, and is folded again with that.
    full = [tier for tier in sorted(tiers, reverse=True) if len(tiers[tier]) >= FAN_OUT][:1]
    return [batch for tier in full for batch in pack(layout, tiers[tier]) if len(batch) > 1]


def pack(layout: Layout, entries: Sequence[Entry]) -> list[list[Entry]]:
    """Sets of files that fit into one: the largest first, each into the first set with room. Any two sets would be too much."""
    weights = {entry: weigh(layout, entry) for entry in entries}
    sets: list[tuple[list[Entry], Weight]] = []
    for entry in sorted(entries, key=lambda e: (-weights[e].share, e)):
        more = weights[entry]
        for at, (batch, held) in enumerate(sets):
            together = Weight(held.rows + more.rows, held.size_bytes + more.size_bytes)
            if together.share <= 1:
                sets[at] = [*batch, entry], together
                break
        else:
            sets.append(([entry], more))
    return [batch for batch, _ in sets]


def weigh(layout: Layout, entry: Entry) -> Weight:
    """What a file holds, by its footer; a loose one by its size. Raises Changed where it is gone or no Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = layout / entry[0] / entry[1]
    try:
        if entry[0] == "attempts":
            return Weight(1, io.size_and_time(path)[0])
        with io.open_parquet(path) as file:
            metadata = pq.read_metadata(file)
    except (FileNotFoundError, pa.ArrowException) as exc:
        raise Changed from exc
    note = (metadata.metadata or {}).get(schema.BYTES_KEY.encode())
    if note is not None:
        return Weight(metadata.num_rows, int(note))
    encoded = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return Weight(metadata.num_rows, UNENCODED * encoded)


def size_on_disk(layout: Layout, entries: Iterable[Entry]) -> int:
    total = 0
    for folder, name in entries:
        with contextlib.suppress(FileNotFoundError):
            total += io.size_and_time(layout / folder / name)[0]
    return total


# Folding --------------------------------------------------------------------------------------------------------------


def fold_entries(reader: Reader, layout: Layout, entries: Sequence[Entry]) -> list[str]:
    """Make one file of these, or as many as the bound asks for; their names. None where there is nothing to gain.

    Every file is checked as it is read: what is written anew gets a name of its own, which would vouch for damage for ever.
    Raises OSError, and Changed where a file is gone or damaged: then list anew.
    """
    return fold_pieces(layout, pieces_of(reader, sorted(entries)))


def fold_written(reader: Reader, layout: Layout, written: Written) -> tuple[list[str], list[str]]:
    """The same for the loose files that this process wrote, from memory as far as their rows are kept there.

    Also the ids of attempts whose files were gone or damaged: they are folded all the same. Raises as `fold_entries` does.
    """
    there = {name for folder, name in reader.entries() if folder == "attempts"} & written.names
    gone = written.kept - there
    if gone:
        gone -= reader.replaced(set(reader.names("folded")))  # what another process has folded is not gone
    restored: list[str] = []

    def pieces() -> Iterator[Piece]:
        for names, table in written.batches(there | gone):
            restored.extend(table["attempt_id"][row].as_py() for row, name in enumerate(names) if name in gone)
            yield [("attempts", name) for name in names], table
        yield from pieces_of(reader, [("attempts", name) for name in sorted(there - written.kept)])

    # A single file stays as it is, but a row that has none gets one.
    return fold_pieces(layout, pieces(), least=1 if gone else 2), restored


def fold_pieces(layout: Layout, pieces: Iterable[Piece], least: int = 2) -> list[str]:
    """Write the rows of these as one file or several; their names. Of fewer than `least` files nothing is made."""
    made: list[str] = []
    taken: list[Entry] = []
    tables: list[pa.Table] = []
    held = Weight(0, 0)
    for some, table in pieces:
        more = Weight(table.num_rows, int(row_bytes(table).sum()))
        together = Weight(held.rows + more.rows, held.size_bytes + more.size_bytes)
        if tables and together.share > 1:
            made += write_folded(layout, taken, tables, least)
            taken, together = [], more
        taken += some
        tables.append(table)
        held = together
        del table  # it is in `tables`, and must not live longer than it does there
    return made + write_folded(layout, taken, tables, least)


def pieces_of(reader: Reader, entries: Sequence[Entry]) -> Iterator[Piece]:
    """The rows of these files, with which they are: small ones together."""
    loose = [entry for entry in entries if entry[0] == "attempts"]
    for at in range(0, len(loose), AT_ONCE):
        some = loose[at : at + AT_ONCE]
        yield some, join([reader.read_checked(entry) for entry in some], keep_conflicts=True)
    for entry in entries:
        if entry[0] != "attempts":
            yield [entry], reader.read_checked(entry)


def write_folded(layout: Layout, entries: Sequence[Entry], tables: list[pa.Table], least: int) -> list[str]:
    """One file of the rows of these entries, sorted by id, and the manifest that says so. Empties `tables`: memory is dear."""
    import pyarrow as pa

    if len(entries) < least:
        tables.clear()
        return []
    if len(repeated_rows(pa.chunked_array([chunk for table in tables for chunk in table["attempt_id"].chunks], pa.string()))):
        tables[:] = [join(tables, keep_conflicts=True)]
    rows = sum(table.num_rows for table in tables)
    size_bytes = sum(int(row_bytes(table).sum()) for table in tables)
    groups = sorted_groups(tables, schema.group_rows(rows, size_bytes))
    content = schema.encode_groups(groups, size_bytes, schema.attempt_schema())
    tables.clear()
    return [publish_folded(layout, content, rows, {name for _, name in entries})]


def sorted_groups(tables: Sequence[pa.Table], group_rows: int) -> Iterator[pa.Table]:
    """The rows of these by id, so many at a time: sorted whole they would lie in memory three times."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pa.concat_tables([table.select(["attempt_id"]) for table in tables])["attempt_id"].combine_chunks()
    order = pc.sort_indices(ids).to_numpy().astype(np.int64)  # stable: of rows with one id the order stays
    ends = np.cumsum([0, *(table.num_rows for table in tables)])
    for at in range(0, len(order), group_rows):
        wanted = order[at : at + group_rows]
        places = [np.flatnonzero((wanted >= start) & (wanted < end)) for start, end in pairwise(ends)]
        parts = [table.take(pa.array(wanted[place] - start)) for table, place, start in zip(tables, places, ends, strict=False)]
        yield pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))


def publish_folded(layout: Layout, content: bytes, rows: int, replaces: Iterable[str]) -> str:
    """The folded file, then the manifest by which it stands for others; its name. Raises OSError."""
    name = content_name(content, ".parquet")
    for folder in ("tmp", "folded", "manifests"):
        ensure_folder(layout / folder)  # git keeps no empty folders
    publish(layout, content, layout / "folded" / name)
    # One file already, and it held all the rows: it must not be named as what it replaces itself.
    others = sorted(set(replaces) - {name})
    manifest = json.dumps({"format": 1, "folded": name, "rows": rows, "replaces": others}, sort_keys=True).encode()
    publish(layout, manifest, layout / "manifests" / content_name(manifest, ".json"))
    return name


def entries_of(reader: Reader, entries: Sequence[Entry], invocation: str) -> list[Entry]:
    """Those loose files that this invocation wrote."""
    return [e for e in entries if e[0] == "attempts" and invocations(reader.read(e, {"invocation"})) == {invocation}]


def invocations(table: pa.Table) -> set[str]:
    return set(table["invocation"].to_pylist())


# Deleting what was replaced -------------------------------------------------------------------------------------------


def remove_replaced(reader: Reader, layout: Layout, grace_s: float = GRACE_S) -> int:
    """Delete files that have been replaced for longer than the grace time, and manifests that replace nothing any more.

    Returns how many files with rows went. Raises OSError.
    """
    removed = 0
    for folder, name in surely_replaced(reader, layout, long_replaced(reader, layout, grace_s)):
        with contextlib.suppress(FileNotFoundError):  # another process deletes too
            io.unlink(layout / folder / name)
            removed += 1
    while spent := spent_manifests(layout, grace_s):
        for name in spent:
            with contextlib.suppress(FileNotFoundError):
                io.unlink(layout / "manifests" / name)
        # In this order also after a power cut: one that comes back without the next would miss the file that the next explains.
        io.fsync_dir(layout / "manifests")
    return removed


def surely_replaced(reader: Reader, layout: Layout, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Those of these for which a folded file stands that was just now read from end to end and holds each of their rows.

    Neither the index of checked files nor a manifest is believed: deleting is the one act that cannot be made good.
    Holds the rows of one folded file at a time. Raises OSError.
    """
    present, standing = set(io.listdir(layout / "folded")), Standing(reader.manifests())
    asks: dict[str, list[Entry]] = {}
    for entry in entries:
        for name in present.intersection(standing.keepers(entry[1])):
            asks.setdefault(name, []).append(entry)
    found: set[Entry] = set()
    for name, asking in sorted(asks.items()):
        left = [entry for entry in asking if entry not in found]
        with contextlib.suppress(Changed):  # damaged or gone: it stands for nothing
            whole = reader.read_checked(("folded", name))
            for at in range(0, len(left), AT_ONCE):  # and deleted meanwhile, one by one
                held = held_in(reader, whole, left[at : at + AT_ONCE])
                found.update(held)
                yield from held


def held_in(reader: Reader, whole: pa.Table, entries: Sequence[Entry]) -> list[Entry]:
    """Those of these files all of whose rows are among `whole`; one that cannot be read is not."""
    loose = [entry for entry in entries if entry[0] == "attempts"]
    some = [loose[at : at + AT_ONCE] for at in range(0, len(loose), AT_ONCE)]
    some += [[entry] for entry in entries if entry[0] != "attempts"]
    return [entry for those in some for entry in held_together(reader, whole, those)]


def held_together(reader: Reader, whole: pa.Table, entries: Sequence[Entry]) -> list[Entry]:
    tables: list[pa.Table] = []
    readable: list[Entry] = []
    for entry in entries:
        with contextlib.suppress(Changed):
            tables.append(reader.read_checked(entry))
            readable.append(entry)
    if not tables or not lacks_rows(whole, tables):
        return readable
    return [entry for entry, table in zip(readable, tables, strict=True) if not lacks_rows(whole, [table])]


def lacks_rows(whole: pa.Table, tables: Sequence[pa.Table]) -> bool:
    """Whether these hold a row that `whole` does not, be it under an id that `whole` knows too."""
    import pyarrow as pa
    import pyarrow.compute as pc

    asked = pa.concat_tables(tables)
    for at in range(0, asked.num_rows, COMPARED_AT_ONCE):
        some = asked.slice(at, COMPARED_AT_ONCE)
        same_ids = whole.filter(pc.is_in(whole["attempt_id"], value_set=some["attempt_id"].combine_chunks()))
        held = join([same_ids], keep_conflicts=True).num_rows
        if join([same_ids, some], keep_conflicts=True).num_rows > held:
            return True
    return False


def long_replaced(reader: Reader, layout: Layout, grace_s: float) -> list[Entry]:
    """The files with rows that some manifest has replaced for longer than the grace time; whether it is right is not asked."""
    gone_for = replaced_for_s(layout)
    present = [(folder, name) for folder in ("attempts", "folded") for name in reader.names(folder)]
    return [entry for entry in present if gone_for.get(entry[1], -math.inf) > grace_s]


def replaced_for_s(layout: Layout) -> dict[str, float]:
    """For how many seconds each name has been replaced, by the newest manifest that names it."""
    found: dict[str, float] = {}
    for _, told, age_s in manifests_with_age(layout):
        for name in told["replaces"]:
            found[name] = min(age_s, found.get(name, age_s))
    return found


def spent_manifests(layout: Layout, grace_s: float) -> list[str]:
    """Manifests past the grace time that replace nothing that is there, nor explain where another one's file has gone.

    Without this they would outweigh what they speak of: 67 bytes for every attempt ever recorded, read by each query.
    Should a merge bring one of the files back, its attempts are read once all the same, and it is folded again.
    """
    present = {*io.listdir(layout / "attempts"), *io.listdir(layout / "folded")}
    known = list(manifests_with_age(layout))
    sought = present | {told["folded"] for _, told, _ in known}
    return [name for name, told, age_s in known if age_s > grace_s and sought.isdisjoint(told["replaces"])]


def manifests_with_age(layout: Layout) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Name, content and age in seconds of the manifests that are whole."""
    for name in io.listdir(layout / "manifests"):
        path = layout / "manifests" / name
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            content = io.read(path)
            if content_name(content, ".json") == name:
                yield name, as_manifest(content), time.time() - io.size_and_time(path)[1] / 1e9
