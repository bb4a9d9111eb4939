"""Attempts to fill registries with. Apart from the tests, so that a writer process need not import pytest."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.records import Attempt, Measurement, Outcome, Provenance, Trial
from harness.registry import Registry

MACHINE = "m-1"
WHERE = Provenance(
    invocation="inv-1", suite="vision", machine=MACHINE, environment="env-1", host="host-1", boot_id="boot-1", git_commit="abc",
    git_dirty=False, machine_facts={"cpu": "a CPU"}, environment_facts={"packages": {"torch": "2.13.0"}},
    data_facts={"da7a": {"digits": {"licence": "CC0"}}},
)  # fmt: skip


def name_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def make_trial(method: str = "relu", seed: int = 0, **changes: Any) -> Trial:
    kind = changes.get("kind", "quality")
    made = Trial(
        kind=kind, track="classify", method=f"paper-harness/{method}", method_params={}, role="method", paper="", seed=seed,
        task="paper-harness/digits", task_params={"fraction": 1.0}, net={"arch": "mlp", "width": 64}, train={"lr": 0.001},
        budget={"samples_seen": 30000}, tuning=None, device="cpu", dtype="float32", threads=1, root_seed=0,
        measure=("accuracy",), matched=None, code_digest="c0de", data_digest="da7a", torch_version="2.13.0",
        series_key=name_of("series", kind, method, seed), trial_id=name_of("trial", kind, method, seed),
        pair_key=name_of("pair", kind, seed),
    )  # fmt: skip
    return replace(made, **changes)


ACCURACY = Measurement("accuracy", "test", "1", "higher", 0.5, 0.0)


def make_attempt(number: int, trial: Trial | None = None, where: Provenance = WHERE, **outcome: Any) -> Attempt:
    """The number orders attempts: it makes the id and the start time (one second apart)."""
    started = datetime.fromtimestamp(1_790_000_000 + number, UTC).isoformat(timespec="microseconds")
    given = {"status": "ok", "started_at": started, "measurements": (ACCURACY,), **outcome}
    if given["status"] != "ok":
        given["measurements"] = outcome.get("measurements", ())
    return Attempt(f"{number:032x}", trial or make_trial(seed=number), Outcome(**given), where)


def ids(registry: Registry) -> list[str]:
    """Of all attempts that a fresh reader sees, sorted; a doubled attempt is there twice."""
    return sorted(Registry.open(registry.path, create=False).table({"attempt_id"})["attempt_id"].to_pylist())


def flip_a_bit(path: Path, at: int = 200) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
