"""Writes registry-v2.parquet: what schema version 2 added, a tuning trial and one with its best point. Run once; never again.

The file is what the test reads for ever: a later schema must still load it. To see that this is how it was made, with the code
of then:
    python tests/data/make_registry_v2.py /tmp/again.parquet
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from make_registry_v1 import make_attempts as version_1

from harness.records import Attempt
from harness.registry import schema

RULE = {"trials": 8, "space": {"train.lr": [0.001, 0.1]}, "metric": "accuracy"}
POINT = {"point": 5, "values": {"train.lr": 0.0316}}


def make_attempts() -> list[Attempt]:
    plain, *_ = version_1()
    trial = replace(plain.trial, train={"batch": 64}, tuning=RULE)
    chosen = {**POINT, "score": 0.9375, "trials": 8, "failed": 1, "cost_s": 12.5}
    return [
        replace(plain, attempt_id="11", trial=replace(trial, kind="tuning", tuning={**RULE, "point": 5}, tuned=POINT)),
        replace(plain, attempt_id="12", trial=replace(trial, tuned=chosen)),
    ]


def main(path: Path) -> None:
    import pyarrow as pa

    rows = [schema.to_row(attempt) for attempt in make_attempts()]
    path.write_bytes(schema.encode_many(pa.Table.from_pylist(rows, schema=schema.attempt_schema())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
