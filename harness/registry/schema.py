"""The row of an attempt: its Arrow schema, Attempt <-> row, rows <-> Parquet bytes, older versions brought up to date.

One attempt is one row: scalars are columns, what repeats is a list of structs. JSON-valued fields are canonical JSON text, so
that equal values are equal strings. Null is not measured; NaN and infinities are kept as they are. Seconds, bytes, UTC.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
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

if TYPE_CHECKING:
    import pyarrow as pa

VERSION_KEY = "harness_schema_version"

# Part of a trial's identity, and mappings: kept as canonical JSON.
IDENTITY_JSON = ("method_params", "task_params", "net", "train", "budget", "tuning", "matched")
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


@cache
def attempt_schema() -> pa.Schema:
    """The columns, in the order of the file. Adding, removing or retyping one needs a new SCHEMA_VERSION and an up-cast."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()

    def lists(of: pa.DataType) -> pa.DataType:
        # Parquet's own name for what is in a list: with Arrow's ("item") each read would have to cast each list.
        return pa.list_(pa.field("element", of))

    def structs(**members: pa.DataType) -> pa.DataType:
        return lists(pa.struct(list(members.items())))

    metric = {"quantity": text, "part": text, "unit": text}
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
            ("declared", structs(**metric, better=text, worst=real)),
            ("measurements", structs(**metric, better=text, value=real, worst=real)),
            ("series", structs(**metric, axis=text, x=lists(real), y=lists(real))),
            ("curve", structs(**metric, at=structs(clock=text, amount=real), value=real)),
            ("timings", structs(region=text, wall_s=lists(real), cpu_s=lists(real), warmup=whole, stop_reason=text)),
            ("spent", structs(clock=text, amount=real)),
            ("diagnostics", structs(name=text, value=real, text=text)),
            ("blobs", structs(name=text, media_type=text, sha256=text, size_bytes=whole)),
        ]
    )


@cache
def attempt_struct() -> pa.DataType:
    """A whole row as one Arrow type."""
    import pyarrow as pa

    return pa.struct(list(attempt_schema()))


# Attempt <-> row ----------------------------------------------------------------------------------------------------


def to_row(attempt: Attempt) -> dict[str, Any]:
    """The attempt as plain values, by column. Raises ValueError for an identity field that is no JSON (NaN in it, say)."""
    trial, outcome, where = attempt.trial, attempt.outcome, attempt.provenance
    row: dict[str, Any] = {"attempt_id": attempt.attempt_id, "git_dirty": where.git_dirty, "measure": list(trial.measure)}
    row.update((name, getattr(where, name)) for name in PROVENANCE_TEXT)
    row.update((name, getattr(trial, name)) for name in TRIAL_TEXT + TRIAL_INTEGERS)
    row.update((name, to_json(getattr(trial, name))) for name in IDENTITY_JSON)
    row.update((name, getattr(outcome, name)) for name in OUTCOME_TEXT + OUTCOME_INTEGERS)
    row.update((name, getattr(outcome.resources, name)) for name in RESOURCE_SECONDS + RESOURCE_INTEGERS)
    return row | {
        "started_at": to_time(outcome.started_at),
        "limit_fired": outcome.limit,
        # Not part of any identity, and written by whoever runs the worker: NaN or a Path in it must not lose the attempt.
        "worker_environment": json.dumps(dict(outcome.environment), sort_keys=True, default=str),
        "declared": [members(m, "quantity", "part", "unit", "better", "worst") for m in attempt.declared],
        "measurements": [members(m, "quantity", "part", "unit", "better", "value", "worst") for m in outcome.measurements],
        "series": [members(s, "quantity", "part", "unit", "axis", "x", "y") for s in outcome.series],
        "curve": [members(p, "quantity", "part", "unit", "value") | {"at": to_amounts(p.at)} for p in outcome.curve],
        "timings": [members(t, "region", "wall_s", "cpu_s", "warmup", "stop_reason") for t in outcome.timings],
        "spent": to_amounts(outcome.spent),
        "diagnostics": [to_diagnostic(name, value) for name, value in outcome.diagnostics.items()],
        "blobs": [members(b, "name", "media_type", "sha256", "size_bytes") for b in attempt.blobs],
    }


def members(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def to_json(value: Any) -> str | None:
    return None if value is None else canonical(dict(value))


def to_time(text: str) -> datetime | None:
    """UTC from ISO 8601; a time without a zone is UTC already."""
    if not text:
        return None
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def to_amounts(amounts: Mapping[str, float]) -> list[dict[str, Any]]:
    return [{"clock": clock, "amount": amount} for clock, amount in amounts.items()]


def to_diagnostic(name: str, value: float | str) -> dict[str, Any]:
    is_text = isinstance(value, str)
    return {"name": name, "value": None if is_text else value, "text": value if is_text else None}


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
    """A row for people and for JSON: its JSON text as values, its time as text."""
    shown = {name: json.loads(v) if name in JSON_COLUMNS and v is not None else v for name, v in row.items()}
    if row.get("started_at") is not None:
        shown["started_at"] = row["started_at"].isoformat(timespec="microseconds")
    return shown


# Rows <-> Parquet ---------------------------------------------------------------------------------------------------


def encode_one(row: Mapping[str, Any]) -> bytes:
    """A loose file: one row, written for speed.

    Dictionaries and statistics of a single row cost more time and bytes than the row, and help no reader.
    """
    import pyarrow as pa

    # As one struct array: half the time of Table.from_pylist, which converts column by column.
    whole = pa.array([row], type=attempt_struct())
    return to_parquet(pa.Table.from_struct_array(whole), compression="snappy", use_dictionary=False, write_statistics=False)


def encode_many(table: pa.Table) -> bytes:
    """A folded file: many rows, written to be small and quick to query."""
    return to_parquet(table, compression="zstd", use_dictionary=True, write_statistics=True)


def to_parquet(table: pa.Table, **options: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    # The Arrow schema is not stored a second time (6 kB a file): `conform` restores what Parquet's own types do not say.
    with pq.ParquetWriter(sink, table.schema, store_schema=False, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({VERSION_KEY: str(SCHEMA_VERSION)})
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


class NewerSchema(Exception):
    """A file of a schema version that this program does not know; args: the version."""


def decode(source: Any, columns: Iterable[str] | None = None) -> pa.Table:
    """Read a registry file (bytes or an open file) in today's schema; columns None: all.

    Raises NewerSchema, and what pyarrow raises for a file that is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source) as file:
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
UPCASTS: dict[int, Callable[[pa.Table], pa.Table]] = {}


def upcast(table: pa.Table, version: int) -> pa.Table:
    """Step by step to today's version. Raises ValueError for a version that never was."""
    for step in range(version, SCHEMA_VERSION):
        if step not in UPCASTS:
            raise ValueError(f"schema version {step}: there never was one; this is no registry file")
        table = UPCASTS[step](table)
    return table


def conform(table: pa.Table, columns: Iterable[str] | None = None) -> pa.Table:
    """Exactly the columns of today's schema (or the named ones of it), in its order and types."""
    import pyarrow as pa

    schema = attempt_schema()
    if columns is not None:
        named = set(columns)
        schema = pa.schema([field for field in schema if field.name in named])
    if table.schema.equals(schema):
        return table
    return pa.Table.from_arrays([column_of(table, field) for field in schema], schema=schema)


def column_of(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    import pyarrow as pa

    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table[field.name]
    return column if column.type.equals(field.type) else column.cast(field.type)  # a cast to its own type copies all the same
