"""A view of the registry as one file: CSV for spreadsheets, Parquet for programs. Nothing is computed here.

CSV is for people: text that a spreadsheet would compute (it begins with = + - @, a tab or a carriage return) starts with an
apostrophe, control characters are written as escapes (`\\x1b`), lists and structs are JSON, times are ISO 8601 in UTC, an empty
cell is null. Numbers are written in full and never quoted. Parquet keeps every value and type as it is.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from harness.catalogue import did_you_mean
from harness.errors import HarnessError
from harness.registry import Registry
from harness.registry.views import VIEWS
from harness.showing import cell, finite, visible

if TYPE_CHECKING:
    import pyarrow as pa

TIMEOUT_S = 600.0
BATCH_ROWS = 10_000


def read_view(registry: Registry, view: str) -> pa.Table:
    """All rows of a view of `harness query`. Raises HarnessError for a name that is none, or too much for one query."""
    if view not in VIEWS:
        raise HarnessError(
            f"--view {view!r}: there is no such view{did_you_mean(view, VIEWS)}; the views are {', '.join(VIEWS)}"
        )
    try:
        return registry.query(f"SELECT * FROM {view}", timeout_s=TIMEOUT_S)
    except HarnessError as exc:
        raise HarnessError(f'--view {view}: {exc} (a part of it: `harness query "SELECT ... FROM {view}" --csv`)') from exc


def write_csv(table: pa.Table, out: TextIO) -> None:
    """A line of names, then a line a row."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in table.column_names])
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        columns = [map(csv_cell, column.to_pylist()) for column in batch.columns]
        writer.writerows(zip(*columns, strict=True))


def csv_cell(value: Any) -> Any:
    """What the module's docstring says of a value."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple | Mapping):
        value = json.dumps(finite(value), default=str, ensure_ascii=False)
    return cell(visible(value)) if isinstance(value, str) else value


def write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")
