"""Ratios of kernel times: intervals over processes, honest about sameness and about what else differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_samples import kernel_attempt, kernel_trial
from registry_samples import WHERE
from scipy import stats

from harness.comparing.kernels import compare_kernels, half_width, verdict
from harness.errors import HarnessError
from harness.registry import Registry


@pytest.mark.parametrize("sizes", [(3, 3), (3, 7), (10, 4)])
def test_the_interval_is_welchs(sizes):
    """Against SciPy's, with its fractional degrees of freedom rounded down: never narrower, and hardly wider."""
    rng = np.random.default_rng(sum(sizes))
    a, b = (rng.normal(0.0, scale, n) for scale, n in zip((1.0, 2.0), sizes, strict=True))

    theirs = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    ours = half_width(list(a), list(b))

    assert ours is not None
    assert (theirs.high - theirs.low) / 2 <= ours <= 1.5 * (theirs.high - theirs.low) / 2


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.98, 1.02, "same"), (1.01, 1.2, "slower"), (0.7, 0.9, "faster"), (0.9, 1.2, "ambiguous"), (None, None, "ambiguous")],
)
def test_no_significance_is_no_sameness(low, high, said):
    """`same` is a claim like the others: it needs the whole interval."""
    assert verdict(low, high) == said


@pytest.fixture
def registry(tmp_path):
    return Registry.open(tmp_path / "registry")


def night(registry, commit, factor, start, machine=WHERE.machine, torch="2.13.0"):
    for seed, noise in enumerate((0.995, 1.0, 1.005)):
        trial = kernel_trial(seed=seed, torch_version=torch)
        where = replace(WHERE, git_commit=commit, machine=machine)
        registry.append(kernel_attempt(start + seed, trial, {"forward": 1e-6 * factor * noise}, where))


def test_commits_are_compared_by_their_prefix(registry):
    """Each with its own processes; the implementation is part of what must be the same."""
    night(registry, "a" * 40, 1.0, 0)
    night(registry, "b" * 40, 1.15, 10)

    (ratio,) = compare_kernels(registry, "aaaaaaa", "bbbbbbb").ratios

    assert ratio.verdict == "slower"
    assert ratio.ratio == pytest.approx(1.15)
    assert ratio.where["implementation"] == "ours"


def test_machines_are_compared_with_a_warning(registry):
    night(registry, "a" * 40, 1.0, 0)
    night(registry, "a" * 40, 1.0, 10, machine="m-2", torch="2.11.0")

    found = compare_kernels(registry, "m-1", "m-2")

    assert [r.verdict for r in found.ratios] == ["same"]
    assert found.differs == ("machine: m-1 against m-2", "torch_version: 2.13.0 against 2.11.0")


def test_one_process_gives_no_interval(registry):
    for number, name in enumerate(("eager", "ours")):
        registry.append(kernel_attempt(number, kernel_trial(implementation=name), {"forward": 1e-6}))

    (ratio,) = compare_kernels(registry, "eager", "ours").ratios

    assert (ratio.low, ratio.high, ratio.verdict) == (None, None, "ambiguous")


def test_an_empty_registry_says_what_to_run(registry):
    with pytest.raises(HarnessError, match="run `harness run kernels` first"):
        compare_kernels(registry, "eager", "ours")
