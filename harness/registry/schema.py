"""The row of an attempt: its Arrow schema, Attempt <-> row, rows <-> Parquet bytes, older versions brought up to date.

One attempt is one row: scalars are columns, what repeats is a list of structs. JSON-valued fields are canonical JSON text, so
that equal values are equal strings. Null is not measured; NaN and infinities are kept as they are. Seconds, bytes, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from harness.identity import canonical
from harness.records import (
    SCHEMA_VERSION,
    Attempt,
    Blob,
    CurvePoint,
    Measurement,
    Outcome,
    Provenance,
    Resources,
    SeriesValue,
    Timing,
    Trial,
)  # fmt: skip
from harness.registry.sizing import row_bytes

if TYPE_CHECKING:
    import pyarrow as pa

VERSION_KEY = "harness_schema_version"
BYTES_KEY = "harness_rows_bytes"
GROUP_BYTES = 32 << 20

# Part of a trial's identity, and mappings: kept as canonical JSON.
IDENTITY_JSON = ("method_params", "task_params", "net", "train", "budget", "tuning", "matched", "tuned")
JSON_COLUMNS = (*IDENTITY_JSON, "worker_environment")
TRIAL_TEXT = (
    "kind", "track", "method", "role", "paper", "task", "device", "dtype", "code_digest", "data_digest", "torch_version",
    "series_key", "trial_id", "pair_key",
)  # fmt: skip
TRIAL_INTEGERS = ("threads", "seed", "root_seed")
PROVENANCE_TEXT = ("invocation", "suite", "machine", "environment", "host", "boot_id", "git_commit")
OUTCOME_TEXT = ("status", "error", "log")
OUTCOME_INTEGERS = ("exit_code", "signal", "log_dropped_bytes")
RESOURCE_SECONDS = ("wall_s", "solve_s", "cpu_s")
RESOURCE_INTEGERS = ("peak_rss_bytes", "peak_device_bytes", "minor_faults", "params")

# The members of what repeats, in the order of the file. A row holds each as a tuple in this order: Arrow converts a tuple in
# half the time of a dict.
METRIC = ("quantity", "part", "unit")
DECLARED = (*METRIC, "better", "worst")
MEASUREMENT = (*METRIC, "better", "value", "worst")
SERIES = (*METRIC, "axis", "x", "y")
CURVE = (*METRIC, "at", "value")
TIMING = ("region", "wall_s", "cpu_s", "warmup", "stop_reason")
AMOUNT = ("clock", "amount")
DIAGNOSTIC = ("name", "value", "text")
BLOB = ("name", "media_type", "sha256", "size_bytes")


@cache
def attempt_schema() -> pa.Schema:
    """The columns, in the order of the file. Adding, removing or retyping one needs a new SCHEMA_VERSION and an up-cast."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()

    def lists(of: pa.DataType) -> pa.DataType:
        # Parquet's own name for what is in a list: with Arrow's ("item") each read would have to cast each list.
        return pa.list_(pa.field("element", of))

    def structs(*names: str, **types: pa.DataType) -> pa.DataType:
        """text, unless `types` says otherwise."""
        return lists(pa.struct([(name, types.get(name, text)) for name in names]))

    amounts = structs(*AMOUNT, amount=real)
    return pa.schema(
        [
            ("attempt_id", text),
            *((name, text) for name in PROVENANCE_TEXT),
            ("git_dirty", pa.bool_()),
            *((name, text) for name in TRIAL_TEXT),
            *((name, text) for name in IDENTITY_JSON),
            *((name, whole) for name in TRIAL_INTEGERS),
            ("measure", lists(text)),
            ("started_at", pa.timestamp("us", tz="UTC")),
            *((name, text) for name in OUTCOME_TEXT),
            ("limit_fired", text),
            *((name, whole) for name in OUTCOME_INTEGERS),
            *((name, real) for name in RESOURCE_SECONDS),
            *((name, whole) for name in RESOURCE_INTEGERS),
            ("worker_environment", text),
            ("declared", structs(*DECLARED, worst=real)),
            ("measurements", structs(*MEASUREMENT, value=real, worst=real)),
            ("series", structs(*SERIES, x=lists(real), y=lists(real))),
            ("curve", structs(*CURVE, at=amounts, value=real)),
            ("timings", structs(*TIMING, wall_s=lists(real), cpu_s=lists(real), warmup=whole)),
            ("spent", amounts),
            ("diagnostics", structs(*DIAGNOSTIC, value=real)),
            ("blobs", structs(*BLOB, size_bytes=whole)),
        ]
    )


@cache
def column_names() -> tuple[str, ...]:
    return tuple(attempt_schema().names)


@lru_cache(maxsize=256)
def attempt_struct(names: tuple[str, ...]) -> pa.DataType:
    """A row of these columns as one Arrow type."""
    import pyarrow as pa

    return pa.struct([attempt_schema().field(name) for name in names])


# Attempt <-> row ----------------------------------------------------------------------------------------------------


provenance_text, trial_text = attrgetter(*PROVENANCE_TEXT), attrgetter(*TRIAL_TEXT)
trial_integers, identity_json = attrgetter(*TRIAL_INTEGERS), attrgetter(*IDENTITY_JSON)
outcome_values = attrgetter(*OUTCOME_TEXT, *OUTCOME_INTEGERS)
resource_values = attrgetter(*RESOURCE_SECONDS, *RESOURCE_INTEGERS)
declared_members, measurement_members, blob_members = attrgetter(*DECLARED), attrgetter(*MEASUREMENT), attrgetter(*BLOB)
series_members, timing_members = attrgetter(*SERIES), attrgetter(*TIMING)


def to_row(attempt: Attempt) -> dict[str, Any]:
    """The attempt as plain values, by column; structs are tuples. Raises ValueError for an identity field that is no JSON."""
    trial, outcome, where = attempt.trial, attempt.outcome, attempt.provenance
    row: dict[str, Any] = {"attempt_id": attempt.attempt_id}
    row.update(zip(PROVENANCE_TEXT, provenance_text(where), strict=True))
    row["git_dirty"] = where.git_dirty
    row.update(zip(TRIAL_TEXT, trial_text(trial), strict=True))
    row.update(zip(IDENTITY_JSON, map(to_json, identity_json(trial)), strict=True))
    row.update(zip(TRIAL_INTEGERS, trial_integers(trial), strict=True))
    row.update(zip(OUTCOME_TEXT + OUTCOME_INTEGERS, outcome_values(outcome), strict=True))
    row.update(zip(RESOURCE_SECONDS + RESOURCE_INTEGERS, resource_values(outcome.resources), strict=True))
    row |= {
        "measure": list(trial.measure),
        "started_at": to_time(outcome.started_at),
        "limit_fired": outcome.limit,
        # Not part of any identity, and written by whoever runs the worker: NaN or a Path in it must not lose the attempt.
        "worker_environment": json.dumps(dict(outcome.environment), sort_keys=True, default=str),
        "declared": [declared_members(m) for m in attempt.declared],
        "measurements": [measurement_members(m) for m in outcome.measurements],
        "series": [series_members(s) for s in outcome.series],
        "curve": [(p.quantity, p.part, p.unit, list(p.at.items()), p.value) for p in outcome.curve],
        "timings": [timing_members(t) for t in outcome.timings],
        "spent": list(outcome.spent.items()),
        "diagnostics": [to_diagnostic(name, value) for name, value in outcome.diagnostics.items()],
        "blobs": [blob_members(b) for b in attempt.blobs],
    }
    return row


def to_json(value: Any) -> str | None:
    return None if value is None else canonical(dict(value))


def to_time(text: str) -> datetime | None:
    """UTC from ISO 8601; a time without a zone is UTC already."""
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def to_diagnostic(name: str, value: float | str) -> tuple[str, float | None, str | None]:
    return (name, None, value) if isinstance(value, str) else (name, value, None)


def from_row(row: Mapping[str, Any]) -> Attempt:
    """The inverse of `to_row`, without the facts of machine, environment and data, which are kept apart."""
    trial = {name: row[name] for name in TRIAL_TEXT + TRIAL_INTEGERS}
    trial |= {name: None if row[name] is None else json.loads(row[name]) for name in IDENTITY_JSON}
    outcome = Outcome(
        **{name: row[name] for name in OUTCOME_TEXT + OUTCOME_INTEGERS},
        limit=row["limit_fired"],
        measurements=tuple(Measurement(**m) for m in row["measurements"]),
        series=tuple(SeriesValue(**{**s, "x": tuple(s["x"]), "y": tuple(s["y"])}) for s in row["series"]),
        curve=tuple(CurvePoint(**{**p, "at": {a["clock"]: a["amount"] for a in p["at"]}}) for p in row["curve"]),
        timings=tuple(Timing(**{**t, "wall_s": tuple(t["wall_s"]), "cpu_s": tuple(t["cpu_s"])}) for t in row["timings"]),
        spent={a["clock"]: a["amount"] for a in row["spent"]},
        diagnostics={d["name"]: d["value"] if d["text"] is None else d["text"] for d in row["diagnostics"]},
        resources=Resources(**{name: row[name] for name in RESOURCE_SECONDS + RESOURCE_INTEGERS}),
        started_at="" if row["started_at"] is None else row["started_at"].isoformat(timespec="microseconds"),
        environment=json.loads(row["worker_environment"]),
    )
    provenance = Provenance(
        **{name: row[name] for name in PROVENANCE_TEXT},
        git_dirty=row["git_dirty"],
        machine_facts={},
        environment_facts={},
        data_facts={},
    )
    return Attempt(
        row["attempt_id"],
        Trial(**trial, measure=tuple(row["measure"])),
        outcome,
        provenance,
        blobs=tuple(Blob(**b) for b in row["blobs"]),
        declared=tuple(Measurement(**d, value=None) for d in row["declared"]),
    )


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for people and for JSON: its JSON text as values, its time as text. Text that is no JSON stays what it is."""
    shown = {name: value_of(v) if name in JSON_COLUMNS and v is not None else v for name, v in row.items()}
    if row.get("started_at") is not None:
        shown["started_at"] = row["started_at"].isoformat(timespec="microseconds")
    return shown


def value_of(text: str) -> Any:
    """A record from elsewhere may hold anything, nested as deep as it likes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# Rows <-> Parquet ---------------------------------------------------------------------------------------------------


def to_table(attempt: Attempt) -> pa.Table:
    """One row, of those columns that hold something: not null, no empty list. `conform` puts the others back.

    Raises ValueError, TypeError or OverflowError for values that no column can hold; pyarrow's errors are among these.
    """
    import pyarrow as pa

    row = to_row(attempt)
    held = tuple(name for name in column_names() if row[name] is not None and row[name] != [])
    # As one struct array: half the time of Table.from_pylist, which converts column by column.
    return pa.Table.from_struct_array(pa.array([tuple(row[name] for name in held)], type=attempt_struct(held)))


def encode_one(row: pa.Table) -> bytes:
    """A loose file, of one row of `to_table`, written for speed.

    Dictionaries and statistics of a single row cost more time and bytes than the row, and help no reader. So do columns that
    hold nothing: each column costs 10 us and 100 bytes.
    """
    return to_parquet(row, compression="snappy", use_dictionary=False, write_statistics=False)


def encode_many(table: pa.Table) -> bytes:
    """A folded file: many rows, written to be small and quick to query, in groups that can be read one by one."""
    size_bytes = int(row_bytes(table).sum())
    rows = group_rows(table.num_rows, size_bytes)
    return encode_groups((table.slice(at, rows) for at in range(0, table.num_rows, rows)), size_bytes, table.schema)


def group_rows(rows: int, size_bytes: int) -> int:
    """How many rows of a folded file make a group. size_bytes: of all its rows, by `row_bytes`."""
    return max(1, GROUP_BYTES * rows // max(1, size_bytes))


def encode_groups(groups: Iterable[pa.Table], size_bytes: int, of: pa.Schema) -> bytes:
    """The same, group by group: the rows of a large file need not all lie sorted in memory.

    It says how many bytes its rows take there, so that who folds it again knows without reading it.
    """
    split, others = measured_leaves(of)
    options = {"compression": "zstd", "compression_level": 3, "use_dictionary": others, "use_byte_stream_split": split}
    return write_parquet(groups, of, {BYTES_KEY: str(size_bytes)}, **options)


@lru_cache(maxsize=8)
def measured_leaves(of: pa.Schema) -> tuple[list[str], list[str]]:
    """Parquet's columns of what was measured, as doubles, and all the others.

    A dictionary of measured numbers is as long as they are; byte by byte (their exponents, their leading digits, ...) they
    compress to nearly half of that. `worst` is declared, and the same on every row.
    """
    import pyarrow as pa

    found = [leaf for field in of for leaf in leaves(field.name, field.type)]
    split = [path for path, kind in found if pa.types.is_floating(kind) and not path.endswith(".worst")]
    return split, [path for path, _ in found if path not in split]


def leaves(path: str, of: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """Parquet's columns of a column, by path."""
    import pyarrow as pa

    if pa.types.is_list(of):
        yield from leaves(f"{path}.list.element", of.value_type)
    elif pa.types.is_struct(of):
        for member in of:
            yield from leaves(f"{path}.{member.name}", member.type)
    else:
        yield path, of


def to_parquet(table: pa.Table, **options: Any) -> bytes:
    return write_parquet([table], table.schema, {}, **options)


def write_parquet(groups: Iterable[pa.Table], of: pa.Schema, notes: Mapping[str, str], **options: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # The Arrow schema is not stored a second time (6 kB a file): `conform` restores what Parquet's own types do not say.
    with pq.ParquetWriter(sink, of, store_schema=False, **options) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(1, group.num_rows))
        writer.add_key_value_metadata({VERSION_KEY: str(SCHEMA_VERSION), **notes})
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


class NewerSchema(Exception):
    """A file of a schema version that this program does not know; args: the version."""


def decode(source: Any, columns: Iterable[str] | None = None) -> pa.Table:
    """Read a registry file (bytes or an open file) in today's schema; columns None: all.

    Raises NewerSchema, and what pyarrow raises for a file that is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pa.BufferReader(source) if isinstance(source, bytes) else source
    with pq.ParquetFile(source) as file:
        groups = range(file.metadata.num_row_groups)
        rows, size = max(file.metadata.num_rows, sum(file.metadata.row_group(i).num_rows for i in groups)), source.size()
        if rows > size:  # ids are told apart by more than a byte each; runs of nothing cost nothing, until they are unpacked
            raise ValueError(f"{rows} rows in {size} bytes: this is no registry file")
        version = int((file.metadata.metadata or {}).get(VERSION_KEY.encode(), b"0"))
        if version > SCHEMA_VERSION:
            raise NewerSchema(version)
        # An older file may hold a column under another name: it is read whole and cut to size after the up-cast.
        # Asked for in the order of the schema: any other has to be put right column by column, 2 ms a file.
        named = None if columns is None or version < SCHEMA_VERSION else set(columns) & set(file.schema_arrow.names)
        wanted = None if named is None else [name for name in attempt_schema().names if name in named]
        table = file.read(columns=wanted, use_threads=False)
    return conform(upcast(table, version), columns)


# version -> the function that turns a table of that version into one of the next.
UPCASTS: dict[int, Callable[[pa.Table], pa.Table]] = {
    1: lambda table: table,  # without `tuned`: nothing was tuned
}


def upcast(table: pa.Table, version: int) -> pa.Table:
    """Step by step to today's version. Raises ValueError for a version that never was."""
    for step in range(version, SCHEMA_VERSION):
        if step not in UPCASTS:
            raise ValueError(f"schema version {step}: there never was one; this is no registry file")
        table = UPCASTS[step](table)
    return table


def conform(table: pa.Table, columns: Iterable[str] | None = None) -> pa.Table:
    """Exactly the columns of today's schema (or the named ones of it), in its order and types.

    What a file does not have is null, or an empty list where the column holds lists: what is not there was not measured.
    """
    import pyarrow as pa

    schema = attempt_schema()
    if columns is not None:
        named = set(columns)
        schema = pa.schema([field for field in schema if field.name in named])
    if table.schema.equals(schema):
        return table
    present = dict(zip(table.column_names, table.columns, strict=True))
    arrays = [column_of(present.get(field.name), table.num_rows, field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def column_of(column: pa.ChunkedArray | None, rows: int, of: pa.DataType) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa

    if column is None:
        return pa.array([[]] * rows, of) if pa.types.is_list(of) else pa.nulls(rows, of)
    return column if column.type.equals(of) else column.cast(of)  # a cast to its own type copies all the same
