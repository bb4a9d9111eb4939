"""Ceilings and the roofline; what a check of a machine keeps, which one counts, and the noise that it tells of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from harness.kernels.ceilings import (
    KIND,
    MATMUL_SIZES,
    Ceilings,
    copy_rate,
    latest_checks,
    matmul_rate,
    measure_ceilings,
    measure_copy,
    measure_matmul,
    noise_floor,
    read_check,
    roofline_s,
)
from harness.kernels.checkup import agree
from harness.timing import Samples, StopRule

CPU = torch.device("cpu")
QUICK = StopRule(limit_s=0.2, min_total_s=0.02)


def samples_of(*wall_s: float, cpu_s: tuple[float, ...] = (), **changes: Any) -> Samples:
    return Samples(wall_s, cpu_s or wall_s, 3, 1, "precise", **changes)


@pytest.mark.parametrize(("flops", "moved", "least_s"), [(0, 0, 0.0), (10, 8_000, 4.0), (5_000, 8, 5.0), (1_000, 2_000, 1.0)])
def test_a_kernel_takes_at_least_the_longer_of_its_two_kinds_of_work(flops, moved, least_s):
    """Arithmetic and memory run at the same time: neither is added to the other."""
    assert roofline_s(flops, moved, Ceilings(copy_bytes_per_s=2_000, matmul_flops_per_s=1_000)) == least_s


def test_a_copy_reads_and_writes_each_element_once():
    """4 MB in, 4 MB out in the median millisecond: 8 GB/s, not 4."""
    assert copy_rate(1_000_000, torch.float32, samples_of(1e-3, 1e-3, 9e-3)) == pytest.approx(8e9)
    assert copy_rate(1_000_000, torch.bfloat16, samples_of(1e-3)) == pytest.approx(4e9)
    assert matmul_rate(100, samples_of(1e-3)) == pytest.approx(2e9)  # a multiplication and an addition each


def test_a_ceiling_is_told_by_the_clock_that_times_are_told_by():
    """On a busy machine a copy waits three times as long as it works; kernels of one thread are timed by process time too."""
    waited = samples_of(3e-3, cpu_s=(1e-3,))

    assert copy_rate(1_000_000, torch.float32, waited, threads=1) == pytest.approx(8e9)
    assert copy_rate(1_000_000, torch.float32, waited, threads=2) == pytest.approx(8e9 / 3)
    assert copy_rate(1_000_000, torch.float32, samples_of(3e-3, cpu_s=(1e-6,), clock="device")) == pytest.approx(8e9 / 3)


@pytest.mark.parametrize("elements", [0, 1, 10_000])
def test_the_ceilings_of_any_size_are_rates_of_this_machine(elements):
    """Nothing copied in no time is no ceiling: for no elements the copy of one is taken."""
    found = measure_ceilings(CPU, torch.float32, elements, QUICK)

    assert 1e6 < found.copy_bytes_per_s < 1e13
    assert 1e8 < found.matmul_flops_per_s < 1e14
    assert math.isfinite(roofline_s(1e6, 1e6, found))


def test_a_larger_copy_moves_more_in_a_second_than_a_call_of_one_element():
    """A call costs a microsecond whatever it moves."""
    small, large = (measure_copy(CPU, torch.float32, n, QUICK) for n in (1, 100_000))

    assert copy_rate(100_000, torch.float32, large) > 100 * copy_rate(1, torch.float32, small)
    assert large.faults_per_call is not None
    assert large.faults_per_call < 1  # its memory has been touched before


def test_matrix_products_grow_only_while_they_fit_into_the_time():
    """A slow machine, or a slow dtype, must not spend minutes on a ceiling."""
    hasty = measure_matmul(CPU, torch.float32, StopRule(limit_s=0.01))
    patient = measure_matmul(CPU, torch.float32, StopRule(limit_s=8.0, min_total_s=0.02, precision=0.5))

    assert list(hasty) == [MATMUL_SIZES["cpu"][0]]
    assert len(patient) > 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_ceilings_are_those_of_the_dtype(dtype):
    """bfloat16 on a CPU without instructions for it is slower than float32, and is told so; it must not fail."""
    assert measure_ceilings(CPU, dtype, 1000, QUICK).matmul_flops_per_s > 0


# A/A --------------------------------------------------------------------------------------------------------------------


def timer_of(time_s: Callable[[int], float]) -> Callable[..., Samples]:
    """A timer whose n-th block has this median."""
    count = iter(range(10**6))

    def timer(call: Callable[[], object], rule: StopRule) -> Samples:
        time = time_s(next(count))
        return samples_of(time, time, time, cpu_s=(0.5 * time,) * 3)

    return timer


def test_a_steady_drift_cancels_within_a_round():
    """A and B have the same middle in ABBA: a machine that gets warm makes neither of them slower."""
    found = agree("k", lambda: None, timer_of(lambda n: 1e-3 + 1e-6 * n), rounds=8, block_s=0.05, threads=1)

    assert len(found.wall) == len(found.cpu) == 8
    assert max(map(abs, found.wall)) < 1e-9
    assert found.contention == 2.0


def test_the_spread_of_a_median_is_found_again_in_the_noise_floor():
    """Blocks whose medians have a spread of 2 %: a side has two blocks, so its median has 2 % / root 2."""
    draw = np.random.default_rng(3)
    timer = timer_of(lambda n: 1e-3 * (1 + 0.02 * draw.standard_normal()))

    found = agree("k", lambda: None, timer, rounds=400, block_s=0.05, threads=1)

    expected = 0.02 / math.sqrt(2)
    # Three standard errors of a standard deviation, and of a 95th percentile, of 400.
    assert noise_floor(a_check(agreements=[found.model_dump()])) == pytest.approx(expected, rel=0.12)
    assert found.p95("cpu") == pytest.approx(1.96 * expected * math.sqrt(2), rel=0.2)


# What is kept -----------------------------------------------------------------------------------------------------------


def an_agreement(**changes: Any) -> dict[str, Any]:
    return {"kernel": "gelu", "block_s": 0.05, "wall": [0.04, -0.04], "cpu": [0.01, -0.01], "contention": 1.0, **changes}


def a_check(**changes: Any) -> dict[str, Any]:
    """The facts of a check, as JSON has them."""
    copy = {"elements": 10, "bytes_per_s": 1e9, "wall_s": 1e-6, "cpu_s": 1e-6, "samples": 20, "doubts": []}
    return {
        "machine": "m-1", "torch_version": "2.13.0", "device": "cpu", "device_name": "", "dtype": "float32", "threads": 1,
        "checked_at": "2026-11-24T04:00:00.000000+00:00", "copies": [copy],
        "matmuls": [{**copy, "size": 8, "flops_per_s": 1e9}], "agreements": [an_agreement()], "load": [0.1, 0.2],
        "environment": {"OMP_NUM_THREADS": "1"}, "state": {}, **changes,
    }  # fmt: skip


def test_the_noise_floor_is_of_the_clock_that_times_are_told_by():
    """Process time for one thread: its noise is a quarter of the wall's here. The differences' spread is root 2 times it."""
    one, two = a_check(), a_check(threads=2)

    assert noise_floor(one) == pytest.approx(0.01)  # sd of (0.01, -0.01) is 0.01 root 2
    assert noise_floor(two) == pytest.approx(0.04)


def test_the_noisiest_kernel_sets_the_floor():
    """A floor that holds for a computation in the cache would raise alarms over each that waits for memory."""
    noisier = an_agreement(cpu=[0.03, -0.03])

    assert noise_floor(a_check(agreements=[an_agreement(), noisier])) == pytest.approx(0.03)


@pytest.mark.parametrize("facts", [None, {}, a_check(agreements=[]), a_check(agreements=[an_agreement(cpu=[0.1])])])
def test_where_no_noise_was_measured_there_is_no_floor(facts):
    """None, and not 0: a floor of nothing makes every difference a regression."""
    assert noise_floor(facts) is None


def kept(number: int, **changes: Any) -> dict[str, Any]:
    checked_at = f"2026-11-24T04:{number:02}:00.000000+00:00"
    return {"kind": KIND, "name": str(number), "facts": a_check(checked_at=checked_at, **changes)}


def test_the_last_check_of_each_setting_counts_the_newest_first():
    """Another torch, another number of threads or another machine is another measurement; a repetition replaces."""
    facts = [
        kept(5, threads=2), kept(7), kept(3), kept(4, torch_version="2.12.0"), kept(9, machine="m-2"),
        {"kind": "machine", "name": "m-1", "facts": {"cpu": "a CPU"}},
    ]  # fmt: skip

    found = latest_checks(facts, "m-1")

    assert [(c.checked_at[14:16], c.threads, c.torch_version) for c in found] == [
        ("07", 1, "2.13.0"), ("05", 2, "2.13.0"), ("04", 1, "2.12.0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"copies": 3}, {"agreements": [an_agreement(cpu=[float("nan")])]}, {"agreements": [an_agreement(cpu=[1e308, -1e308])]},
        {"device": "\x1b[2J"}, {"copies": [{"elements": 1, "bytes_per_s": 0.0, "wall_s": 1, "cpu_s": 1, "samples": 1}]},
        {"machine": ["m-1"]},
    ],
)  # fmt: skip
def test_facts_that_are_no_check_are_left_out(changes):
    """A registry may be merged from anywhere: nothing in it stops who looks at his own machine."""
    assert read_check(a_check(**changes)) is None
    assert [c.checked_at[14:16] for c in latest_checks([kept(1), kept(2, **changes)], "m-1")] == ["01"]


@pytest.mark.parametrize("changes", [{}, {"a field of a later version": 1}])
def test_a_check_comes_back_as_it_was_kept(changes):
    """Whatever a later version adds."""
    found = read_check(a_check(**changes))

    assert found is not None
    assert read_check(found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("contended", "changes"),
    [
        (False, {}),
        (True, {"agreements": [an_agreement(contention=1.5)]}),
        (True, {"copies": [{**a_check()["copies"][0], "doubts": ["contended", "drift"]}]}),
    ],
)
def test_a_check_on_a_busy_machine_says_so(contended, changes):
    """One that waited for its cores in any part is not the machine's best."""
    found = read_check(a_check(**changes))

    assert found is not None
    assert found.contended == contended
