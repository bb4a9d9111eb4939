"""The rows that this process has appended and not folded yet, in memory: a fold of them then reads no file.

What is here was acknowledged, so it is right whatever has happened to its file since: a row whose file is gone or damaged is
folded from memory all the same. Rows beyond MAX_BYTES are not kept, only the names of their files, from which they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.registry import schema

if TYPE_CHECKING:
    import pyarrow as pa

# Packed, a row takes 0.5 kB, with a curve of 160 points 6 kB: some thousand rows, and a parent that stays small in long runs.
MAX_BYTES = 16 << 20
# A row by itself takes 80 kB in pyarrow's own objects, so rows are joined as soon as there are some.
AT_ONCE = 25
JOINED = 1000

# The rows of a table, in order, are those of these files.
Batch = tuple[tuple[str, ...], "pa.Table"]


@dataclass
class Written:
    """What one invocation wrote. names: of all its loose files."""

    names: set[str] = field(default_factory=set)
    single: dict[str, pa.Table] = field(default_factory=dict)
    packed: list[tuple[tuple[str, ...], pa.Buffer]] = field(default_factory=list)

    @property
    def kept(self) -> set[str]:
        """Those of them whose rows are in memory."""
        return {*self.single, *(name for names, _ in self.packed for name in names)}

    def batches(self, wanted: Collection[str]) -> Iterator[Batch]:
        """The kept rows of these files, in today's schema, some thousand at a time."""
        names: list[str] = []
        tables: list[pa.Table] = []
        for some, table in self._batches():
            rows = [row for row, name in enumerate(some) if name in wanted]
            if not rows:
                continue
            names += [some[row] for row in rows]
            tables.append(table if len(rows) == len(some) else table.take(rows))
            if len(names) >= JOINED:
                yield tuple(names), joined(tables)
                names, tables = [], []
        if names:
            yield tuple(names), joined(tables)

    def _batches(self) -> Iterator[Batch]:
        for names, buffer in self.packed:
            yield names, unpack(buffer)
        if self.single:
            yield join(self.single)


class Unfolded:
    """All of it, by invocation."""

    def __init__(self) -> None:
        self._written: dict[str, Written] = {}
        self._packed_bytes = 0

    def add(self, invocation: str, name: str, row: pa.Table) -> None:
        """A row (of `schema.to_table`) that is on the disk, in the loose file of this name. The same again changes nothing."""
        written = self._written.setdefault(invocation, Written())
        if name in written.names:
            return
        written.names.add(name)
        if self._packed_bytes >= MAX_BYTES:
            return
        written.single[name] = row
        if len(written.single) >= AT_ONCE:
            names, table = join(written.single)
            written.single.clear()
            buffer = pack(table)
            written.packed.append((names, buffer))
            self._packed_bytes += buffer.size

    def of(self, invocation: str) -> Written | None:
        return self._written.get(invocation)

    def forget(self, invocation: str) -> None:
        """It is folded."""
        written = self._written.pop(invocation, Written())
        self._packed_bytes -= sum(buffer.size for _, buffer in written.packed)


def join(rows: dict[str, pa.Table]) -> Batch:
    """One table in today's schema. Rows that hold the same columns are joined first: `conform` works column by column."""
    import pyarrow as pa

    alike: dict[tuple[str, ...], list[str]] = {}
    for name, row in rows.items():
        alike.setdefault(tuple(row.column_names), []).append(name)
    tables = [schema.conform(joined(rows[name] for name in names)) for names in alike.values()]
    return tuple(name for names in alike.values() for name in names), pa.concat_tables(tables).combine_chunks()


def joined(tables: Iterable[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables).combine_chunks()


def pack(table: pa.Table) -> pa.Buffer:
    """A third of the bytes, for 10 us a row."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack(buffer: pa.Buffer) -> pa.Table:
    import pyarrow as pa

    with pa.ipc.open_stream(buffer) as reader:
        return reader.read_all()
