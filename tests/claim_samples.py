"""A paper with one claim, a suite that lists it, attempts for its series: for tests that fix claims and judge them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from helpers import PluginSite
from registry_samples import MACHINE, WHERE, make_trial

from harness.catalogue import Catalogue
from harness.claims.fixing import Place, Protocol, Unfixed, find_protocols
from harness.plan import Here, make_plan
from harness.provenance import new_id
from harness.records import Attempt, Measurement, Outcome, Resources, Trial
from harness.registry import Registry
from harness.suite import load_suite_text

METHODS = '''
    def near(problem, ctx, params):
        """A threshold close to the right one, at another place with each seed."""
        ctx.spend(steps=1)
        return Threshold(0.05 + 0.05 * float(torch.rand((), generator=ctx.generator("place"))))

    def far(problem, ctx, params):
        ctx.spend(steps=1)
        return Threshold(0.5 * params.scale + 0.1 * float(torch.rand((), generator=ctx.generator("place"))))

    def breaks(problem, ctx, params):
        raise RuntimeError("by intent")
'''
RULE = 'harness.better("near", "far", "signs", "accuracy")'
PAPER = """
    @harness.hookimpl
    def harness_papers():
        claim = harness.Claim(name="near-wins", says="near is more accurate than far", rule=RULE, seeds=10, value="much",
                              place="table 1", source="https://example.org", MORE)
        return [harness.Paper(name="toypaper", title="Toys", arxiv="0000.00000", year=2020, claims=(claim,))]
"""
SUITE = """\
schema: harness/suite/1
name: toys
tasks: [signs]
methods: [near, {use: far, role: baseline}, {use: breaks, role: ablation}]
seeds: 10
budget: {steps: 20}
measure: {quality: [accuracy]}
claims: [toypaper.near-wins]
"""


def write_paper(site: PluginSite, rule: str = RULE, more: str = "") -> Catalogue:
    """The toy plugin with its paper; more: further arguments of its claim."""
    declared = PAPER.replace("RULE", rule).replace("MORE", more)
    site.write_toy(METHODS, ("near", "far", "breaks"), declared=declared)
    return site.catalogue()


def write_suite(folder: Path, text: str = SUITE) -> Path:
    path = folder / "toys.yaml"
    path.write_text(text)
    return path


def found(catalogue: Catalogue, text: str = SUITE) -> list[Protocol | Unfixed]:
    """What the suite's claims would be fixed on."""
    suite = load_suite_text(text, "toys.yaml", catalogue)
    plan = make_plan(suite, catalogue, Here("2.0", {"cpu": "", "cuda": "no GPU"}), {}, {})
    return list(find_protocols(suite, plan, catalogue))


def protocol(catalogue: Catalogue, text: str = SUITE) -> Protocol:
    (one,) = found(catalogue, text)
    assert isinstance(one, Protocol), one
    return one


# Attempts for a protocol ----------------------------------------------------------------------------------------------

Numbers = Mapping[str, Sequence[float | str | None]]  # by method, one a seed; text: how the attempt ended; None: it did not run
METRIC = Measurement("accuracy", "test", "1", "higher", None, 0.0)


def record(
    registry: Registry, one: Protocol, numbers: Numbers, *, machine: str = MACHINE, torch: str = "2.13.0",
    commit: str = "abc", at: datetime | None = None, **trial: Any,
) -> None:  # fmt: skip
    """Attempts of a protocol's series, each a microsecond after the one before it; at: when they start, None: now."""
    start = at or datetime.now(UTC)
    for place in one.places:
        for i, value in enumerate(numbers[place.cell.method]):
            if value is not None:
                start += timedelta(microseconds=1)
                made = trial_of(place, one.all_seeds[i], place.series[i], torch_version=torch, **trial)
                registry.append(attempt_of(made, place.cell.metric, value, start, machine, commit))


def trial_of(place: Place, seed: int, series: str, **changes: Any) -> Trial:
    role = "method" if place.cell.method == "near" else "baseline"
    made = make_trial(seed=seed, **place.shared, role=role, measure=(place.cell.metric,), series_key=series)
    return replace(made, trial_id=f"trial-{series}", **changes)


def attempt_of(trial: Trial, metric: str, value: float | str, start: datetime, machine: str, commit: str) -> Attempt:
    status = value if isinstance(value, str) else "ok"
    measured = () if isinstance(value, str) else (replace(METRIC, quantity=metric, value=value),)
    owed = replace(METRIC, quantity=metric, worst=0.0 if metric == "accuracy" else None)
    outcome = Outcome(
        status, error="it needs a telescope" if status == "unsupported" else "", measurements=measured,
        started_at=start.isoformat(timespec="microseconds"),
        resources=Resources(solve_s=2.0 if trial.role == "method" else 1.0),
    )  # fmt: skip
    return Attempt(new_id(), trial, outcome, replace(WHERE, machine=machine, git_commit=commit), declared=(owed,))


def spread(mean: float, n: int = 10, sd: float = 0.01) -> list[float]:
    """n numbers of this mean and standard deviation."""
    steps = [i - (n - 1) / 2 for i in range(n)]
    scale = sd / math.sqrt(sum(s * s for s in steps) / (n - 1))
    return [mean + scale * s for s in steps]
