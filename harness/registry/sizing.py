"""What rows take in memory, told by their values alone: so that equal rows are cut into equal groups, whoever folds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def row_bytes(table: pa.Table) -> np.ndarray:
    """Bytes, one figure a row. `Table.nbytes` also tells how the values happen to lie, which two that fold need not share."""
    import numpy as np

    total = np.zeros(table.num_rows, dtype=np.int64)
    for column in table.itercolumns():
        total += value_bytes(column.combine_chunks())
    return total


def value_bytes(values: pa.Array) -> np.ndarray:
    """The same for each value of an array: text, lists and structs of these, and what has a fixed width."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_list(kind):
        within = np.concatenate([[0], np.cumsum(value_bytes(values.values))])
        ends = values.offsets.to_numpy()
        lists: np.ndarray = within[ends[1:]] - within[ends[:-1]] + 4
        return lists
    if pa.types.is_struct(kind):
        return sum((value_bytes(member) for member in values.flatten()), np.zeros(len(values), dtype=np.int64))
    if pa.types.is_string(kind):
        text: np.ndarray = pc.fill_null(pc.binary_length(values), 0).to_numpy(zero_copy_only=False).astype(np.int64) + 4
        return text
    return np.full(len(values), max(1, kind.bit_width // 8), dtype=np.int64)
