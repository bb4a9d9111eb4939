"""Attempts of kernel trials with made-up times, as the worker records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.identity import pair_key, series_key, trial_id
from harness.records import KERNELS, Attempt, Measurement, Provenance, Timing
from tests.registry_samples import WHERE, make_attempt, make_trial

CASE = {"elements": 10_000, "layout": "contiguous"}
BOTH = ("forward", "forward_backward")


def kernel_trial(kernel: str = "bump", implementation: str = "ours", seed: int = 0, **changes: Any) -> Any:
    case = changes.pop("case", CASE)
    made = make_trial(
        kind="kernel", track=KERNELS, task=f"papers/{kernel}", task_params=case, net=None, train=None, budget={},
        method_params={}, role="method" if implementation == "ours" else "baseline", seed=seed, measure=BOTH,
    )  # fmt: skip
    made = replace(made, method=f"papers/{kernel}/{implementation}", **changes)
    fields = made.__dict__
    return replace(made, series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair_key(fields))


def kernel_attempt(
    number: int,
    trial: Any,
    times: Mapping[str, float],
    where: Provenance = WHERE,
    more: tuple[Measurement, ...] = (),
    **outcome: Any,
) -> Attempt:
    """times: region -> median seconds. The floor is at a microsecond. more: stands for what is made up here of that name."""
    told = []
    for region, seconds in times.items():
        told += [
            Measurement("time", region, "s", "lower", seconds),
            Measurement("floor_multiple", region, "1", "lower", seconds / 1e-6),
            Measurement("contended", region, "1", "neither", 0.0),
            Measurement("spread", region, "1", "lower", 0.01),
        ]
    told.append(Measurement("error_forward", "check", "1", "lower", 1e-7))
    told.append(Measurement("copy_rate", "ceiling", "B/s", "higher", 2e10))
    given_names = {(m.quantity, m.part) for m in more}
    told = [m for m in told if (m.quantity, m.part) not in given_names]
    timings = tuple(Timing(r, (s, s * 1.01, s * 0.99), (s, s, s), 3, "precise") for r, s in times.items())
    given = {"measurements": (*told, *more), "timings": timings, **outcome}
    return make_attempt(number, trial, where, **given)
