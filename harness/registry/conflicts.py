"""Rows with one attempt id: copies, of which one is read, or a conflict, of which both stay on disk and one is read.

An id is made once, so rows that share one are copies: a row lies in a loose file and in a folded one, or in two folded ones.
Rows that share an id and differ (a forged file, a copied machine, a fault of ours) are a conflict. Which of them is read
must not depend on which file was made or met first, or two merged registries would answer differently: it is the one whose
content has the smallest digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

# Rows are compared many at once, column by column; only in a stretch this short that differs each is looked at.
SHORT = 16


@dataclass(frozen=True, order=True)
class Conflict:
    """Rows with one id that differ. files: folder/name of where they are, sorted; one name where one file holds them all."""

    attempt_id: str
    files: tuple[str, ...]

    def explain(self) -> str:
        return (
            f"attempt {self.attempt_id}: different rows bear this id, in {' and '.join(self.files)}; all are kept, and the one "
            "whose content has the smallest digest is read; "
            f"`harness annotate {self.attempt_id} --invalid REASON` takes it out of all rankings"
        )


def join(tables: Sequence[pa.Table], keep_conflicts: bool = False) -> pa.Table:
    """One table of these, whole rows with one schema: of equal rows one, of differing rows with one id the one that is read.

    keep_conflicts: each different row once, for what is written to disk, where nothing may be lost.
    """
    import numpy as np
    import pyarrow as pa

    whole = pa.concat_tables(tables).combine_chunks()
    repeated = repeated_rows(whole["attempt_id"])
    if not len(repeated):
        return whole
    kept = np.ones(whole.num_rows, dtype=bool)
    kept[repeated] = False
    for different in choose(whole.take(pa.array(repeated))):
        kept[repeated[different if keep_conflicts else different[:1]]] = True
    return whole.filter(pa.array(kept))


def repeated_rows(ids: pa.ChunkedArray) -> np.ndarray:
    """The positions, in order, of the rows whose id stands more than once."""
    import numpy as np

    if not len(ids):
        return np.array([], dtype=np.int64)
    codes = codes_of(ids)
    return np.flatnonzero(np.bincount(codes)[codes] > 1)


def codes_of(ids: pa.ChunkedArray) -> np.ndarray:
    """A small integer for each id: equal ids, equal integers. A missing id, which no writer of ours makes, counts as one id."""
    codes: np.ndarray = ids.fill_null("").combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def choose(rows: pa.Table) -> list[list[int]]:
    """For each id of these whole rows: the positions of the different rows that bear it, the one that is read first."""
    import numpy as np
    import pyarrow as pa

    codes = codes_of(rows["attempt_id"])
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)  # by code: the positions of each id, in order
    # Each further row of an id beside its first one: if they are all equal, which is all but always so, no text is made.
    first_of = np.array([group[0] for group in groups])[codes]
    further = np.flatnonzero(first_of != np.arange(len(codes)))
    a, b = rows.take(pa.array(first_of[further])), rows.take(pa.array(further))
    suspects = {code for start, end in unequal(a, b) for code in codes[further[start:end]].tolist()}
    return [different(rows, group) if code in suspects else [int(group[0])] for code, group in enumerate(groups)]


def different(rows: pa.Table, positions: np.ndarray) -> list[int]:
    """Of rows with one id: the first of each content, by digest."""
    import pyarrow as pa

    by_digest: dict[str, int] = {}
    for digest, position in zip(digests(rows.take(pa.array(positions))), positions.tolist(), strict=True):
        by_digest.setdefault(digest, position)
    return [position for _, position in sorted(by_digest.items())]


# Are rows equal? ------------------------------------------------------------------------------------------------------


def unequal(a: pa.Table, b: pa.Table) -> Iterator[tuple[int, int]]:
    """Stretches (start, end) outside of which the rows of two tables are equal one by one; found by halving."""
    waiting = [(0, a.num_rows)]
    while waiting:
        start, end = waiting.pop()
        if same(a.slice(start, end - start), b.slice(start, end - start)):
            continue
        if end - start <= SHORT:
            yield start, end
        else:
            middle = (start + end) // 2
            waiting += [(start, middle), (middle, end)]


def same(a: pa.Table, b: pa.Table) -> bool:
    """Whether these rows are equal one by one, in the sense of `digests`: NaN equals NaN, 0.0 is not -0.0."""
    return all(equal(one, other) for one, other in zip(a.itercolumns(), b.itercolumns(), strict=True))


def equal(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    return equal_arrays(a.combine_chunks(), b.combine_chunks())


def equal_arrays(a: pa.Array, b: pa.Array) -> bool:
    """Arrow's own equality says NaN != NaN and 0.0 == -0.0, at any depth: so the floats in lists and structs are taken out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if len(a) != len(b) or not a.is_null().equals(b.is_null()):
        return False
    if pa.types.is_list(a.type):
        return bool(pc.list_value_length(a).equals(pc.list_value_length(b))) and equal_arrays(a.flatten(), b.flatten())
    if pa.types.is_struct(a.type):
        return all(equal_arrays(one, other) for one, other in zip(a.flatten(), b.flatten(), strict=True))
    if pa.types.is_floating(a.type):
        return bool(as_bits(a).equals(as_bits(b)))
    return bool(a.equals(b))


def as_bits(values: pa.Array) -> pa.Array:
    """Doubles as the integers that they are in memory, every NaN as one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.is_nan(values), pa.scalar(float("nan")), values).view(pa.int64())


def digests(rows: pa.Table) -> list[str]:
    """The SHA-256 of each row's canonical text, in hex."""
    return [hashlib.sha256(canonical_text(row).encode()).hexdigest() for row in rows.to_pylist()]


def canonical_text(row: dict[str, Any]) -> str:
    """JSON with sorted keys; times as UTC text, floats by the shortest text that gives them back, NaN as NaN.

    Columns without a value are left out: one that a later schema adds does not change which row is read.
    """
    told = {name: value for name, value in row.items() if value is not None}
    return json.dumps(told, sort_keys=True, separators=(",", ":"), default=time_text)


def time_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    raise TypeError(f"{type(value).__name__} has no place in a row")
