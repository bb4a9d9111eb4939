"""Writes registry-v1.parquet: attempts as schema version 1 keeps them. Run once, when version 1 was new; never again.

The file is what the test reads for ever: a later schema must still load it. To see that this is how it was made, with the code
of then:
    python tests/data/make_registry_v1.py /tmp/again.parquet
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from harness.records import (
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
)
from harness.registry import schema


def make_attempts() -> list[Attempt]:
    trial = Trial(
        kind="quality", track="classify", method="paper-harness/relu", method_params={}, role="baseline", paper="",
        task="paper-harness/digits", task_params={"fraction": 0.5}, net={"arch": "mlp", "width": 64}, train={"lr": 0.001},
        budget={"samples_seen": 30000}, tuning=None, device="cpu", dtype="float32", threads=1, seed=3, root_seed=0,
        measure=("accuracy", "nll"), matched=None, code_digest="c0de", data_digest="da7a", torch_version="2.13.0",
        series_key="5e", trial_id="71", pair_key="9a",
    )  # fmt: skip
    where = Provenance("inv-1", "vision", "m-1", "env-1", "host-1", "boot-1", "abc123", False, {}, {}, {})
    good = Outcome(
        status="ok",
        measurements=(
            Measurement("accuracy", "test", "1", "higher", 0.9375, 0.0),
            Measurement("nll", "test", "nat", "lower", 0.25),
            Measurement("peak", "resource", "bytes", "lower", None),
        ),
        series=(SeriesValue("sparsity", "test", "1", "layer", (0.0, 1.0), (0.5, math.nan)),),
        curve=(CurvePoint("accuracy", "validation", "1", {"samples_seen": 1000.0, "wall_s": 0.5}, 0.5),),
        spent={"samples_seen": 30000.0},
        diagnostics={"loss": 0.125, "note": "größer"},
        resources=Resources(1.5, 1.25, 1.0, 1 << 28, None, 12, 4810),
        started_at="2026-02-17T12:00:00.000001+00:00",
        log="epoch 1\n",
        environment={"threads": 1},
    )
    timed = Outcome(
        status="ok",
        timings=(Timing("train_step", (0.001, 0.002), (0.0011, 0.0019), 5, "precise"),),
        started_at="2026-02-17T12:01:00.000000+00:00",
    )
    bad = Outcome(
        status="diverged",
        error="loss is nan at step 17",
        measurements=(Measurement("nll", "test", "nat", "lower", math.inf),),
        exit_code=1,
        started_at="2026-02-17T12:02:00.000000+00:00",
    )
    declared = (Measurement("accuracy", "test", "1", "higher", None, 0.0),)
    blob = Blob("circuit.svg", "image/svg+xml", "ab" * 32, 120)
    return [
        Attempt("01", trial, good, where, blobs=(blob,), declared=declared),
        Attempt("02", trial, timed, where),
        Attempt("03", trial, bad, where, declared=declared),
    ]


def main(path: Path) -> None:
    import pyarrow as pa

    rows = [schema.to_row(attempt) for attempt in make_attempts()]
    path.write_bytes(schema.encode_many(pa.Table.from_pylist(rows, schema=schema.attempt_schema())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
