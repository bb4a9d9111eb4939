"""The stop rule on stored samples, and the measuring loop on a clock that the test turns."""

from __future__ import annotations

import itertools
import math
import mmap

import numpy as np
import pytest

from harness.timing import (
    Samples,
    StopRule,
    doubts,
    interval_rank,
    measure,
    median_interval,
    noise_settled,
    readings,
    relative_half_width,
    to_a_millionth,
    verdict,
)

RULE = StopRule()


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


def exact_rank(n: int) -> int:
    """The definition, in exact integers."""
    below, r = 0, 0
    while r < n and 40 * (below + math.comb(n, r)) <= 2**n:
        below += math.comb(n, r)
        r += 1
    return r


@pytest.mark.parametrize("n", [*range(1, 130), 500, 1000, 3001])
def test_the_rank_of_the_interval_is_the_exact_binomial_one(n):
    """The sum in floating point must not be off by one order statistic anywhere."""
    assert interval_rank(n) == exact_rank(n)


def test_below_six_samples_there_is_no_interval():
    """2 * 0.5**5 is more than 5 %: no pair of order statistics covers the median often enough."""
    assert median_interval([1.0] * 5) is None
    assert median_interval([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == (1.0, 6.0)


def test_the_interval_covers_the_median_at_least_as_often_as_it_says():
    """On skewed samples of a known median: nothing may rest on a normal distribution."""
    draws = np.random.default_rng(7).exponential(size=(2000, 31))
    intervals = [median_interval(row) for row in draws]

    covered = np.mean([low <= math.log(2) <= high for low, high in intervals])

    assert covered >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 2000)  # three standard errors of the share


def test_steady_samples_stop_as_precise_but_not_before_twenty_and_a_fifth_of_a_second():
    """Both floors hold: few samples can agree by chance, and a short burst sees one state of the machine."""
    assert verdict([0.05] * 19, 0.95, RULE) is None
    assert verdict([0.005] * 30, 0.15, RULE) is None
    assert verdict([0.05] * 20, 1.0, RULE) == "precise"


def test_samples_too_noisy_for_the_time_left_stop_as_settled_noisy():
    """Noise of 50 % needs thousands of samples: when it no longer moves and they do not fit, going on is waste."""
    noisy = np.random.default_rng(1).uniform(0.025, 0.075, size=300).tolist()

    assert relative_half_width(noisy) > RULE.precision
    assert noise_settled(noisy)
    assert verdict(noisy, 15.0, RULE) == "settled_noisy"


def test_noise_that_can_still_be_averaged_out_goes_on_to_precision():
    """The same noise at a thousandth of the cost: the samples that are missing fit easily."""
    noisy = np.random.default_rng(1).uniform(0.5e-4, 1.5e-4, size=20_000).tolist()

    assert verdict(noisy[:2100], sum(noisy[:2100]), RULE) is None
    assert verdict(noisy, sum(noisy), RULE) == "precise"


def test_the_time_limit_holds_with_any_number_of_samples():
    """Even a single sample longer than the limit must end the measurement."""
    assert verdict([25.0], 25.0, RULE) == "time_limit"
    assert verdict([], 20.0, RULE) == "time_limit"


def test_measure_drops_warm_up_and_keeps_every_later_sample():
    """A first call that compiles is 100 times slower; it must not be among the samples."""
    clock = Clock()
    durations = iter([1.0, 0.02, 0.01])

    samples = measure(lambda: clock.work(next(durations, 0.01)), wall=clock, cpu=lambda: clock.now / 2)

    assert samples.warmup == 3
    assert samples.stop_reason == "precise"
    assert samples.wall_s == pytest.approx([0.01] * len(samples.wall_s))
    assert samples.cpu_s == pytest.approx([0.005] * len(samples.wall_s))  # the process clock runs half as fast here
    assert len(samples.wall_s) >= 20
    assert sum(samples.wall_s) >= 0.2


def test_the_device_is_waited_for_before_each_clock_is_read():
    """Work that is only queued takes no time on the clock until someone waits for it."""
    clock, queue = Clock(), [0.0]

    def launch() -> None:
        queue[0] += 0.01

    def wait() -> None:
        clock.work(queue[0])
        queue[0] = 0.0

    samples = measure(launch, synchronize=wait, wall=clock, cpu=clock)

    assert samples.wall_s == pytest.approx([0.01] * len(samples.wall_s))


def test_very_short_calls_are_averaged_within_a_sample():
    """A call of 1 us is shorter than reading the clock is exact: about 20 of them make a sample."""
    clock = Clock()

    samples = measure(lambda: clock.work(1e-6), wall=clock, cpu=clock)

    assert samples.calls_per_sample in (20, 21)  # the quickest warm-up call, read at 100 s, is 1 us but for its last digits
    assert samples.wall_s[0] == pytest.approx(1e-6, rel=1e-3)  # the same digits


def test_an_interrupted_warm_up_call_leaves_the_samples_as_long_as_they_should_be():
    """Calibrated by the call that a neighbour stretched, a sample would be a single call, and a record a hundred thousand."""
    clock = Clock()
    lasts = itertools.chain([1e-6] * 2, [1.0], itertools.repeat(1e-6))  # warm-up ends with the third

    samples = measure(lambda: clock.work(next(lasts)), wall=clock, cpu=clock)

    assert samples.warmup == 3
    assert samples.calls_per_sample in (20, 21)


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1.2345678901e-6, 0.004000012345, 1.0, 29.9999999])
def test_a_reading_is_kept_to_a_millionth(seconds):
    """What lies beyond is the noise of the clock, which does not compress."""
    kept = to_a_millionth(seconds)

    assert kept == pytest.approx(seconds, rel=1e-6, abs=0)
    assert np.float32(kept) == kept


def test_a_call_that_outlasts_the_limit_is_one_sample():
    """Whatever the warm-up wants, the limit holds to within one call of it and one sample."""
    clock = Clock()

    samples = measure(lambda: clock.work(30.0), wall=clock, cpu=clock)

    assert samples.stop_reason == "time_limit"
    assert (samples.warmup, len(samples.wall_s)) == (1, 1)


# Page faults ------------------------------------------------------------------------------------------------------------


def test_page_faults_are_those_of_samples_not_of_warm_up():
    """The first call touches memory for the first time; the figure is what every call costs."""
    clock, faulted = Clock(), [0]

    def call() -> None:
        faulted[0] += 3 if faulted[0] else 1000
        clock.work(1e-5)  # several calls a sample

    samples = measure(call, wall=clock, cpu=clock, faults=lambda: faulted[0])

    assert samples.calls_per_sample > 1
    assert samples.faults_per_call == 3.0


def test_a_call_that_touches_new_memory_shows_its_page_faults():
    """64 pages, mapped anew: it is these that make an operation on large tensors slow under the default malloc."""

    def touch(pages: mmap.mmap) -> None:
        for at in range(0, 64 * mmap.PAGESIZE, mmap.PAGESIZE):
            pages[at] = 1

    def anew() -> None:
        with mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
            touch(pages)

    rule = StopRule(limit_s=0.3)
    with mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as kept:
        again = measure(lambda: touch(kept), rule=rule)

    assert 64 <= measure(anew, rule=rule).faults_per_call < 66
    assert again.faults_per_call < 1


# Doubts -----------------------------------------------------------------------------------------------------------------


def samples_of(times, wall=None, **changes):
    """Samples of one CPU thread whose process time is `times`."""
    times = tuple(float(t) for t in times)
    wall = times if wall is None else tuple(float(t) for t in wall)
    return Samples(wall, times, 3, 1, "precise", **changes)


def noise(n, spread, seed=5):
    return 1e-3 * (1 + spread * np.random.default_rng(seed).standard_normal(n))


def outliers(times, every=50, factor=40.0):
    times = np.array(times)
    times[::every] *= factor
    return times


@pytest.mark.parametrize(
    ("told", "samples"),
    [
        ((), samples_of(noise(500, 0.01))),
        ((), samples_of([1e-3] * 30)),
        ((), samples_of(outliers(noise(500, 0.01)))),  # an interrupt now and then moves no median
        (("contended",), samples_of(noise(500, 0.01), wall=1.3 * noise(500, 0.01))),
        ((), samples_of(noise(500, 0.01), wall=1.1 * noise(500, 0.01))),
        (("noisy",), samples_of(noise(500, 0.12))),
        (("very_noisy",), samples_of(noise(500, 0.25))),
        (("drift",), samples_of(noise(500, 0.01) * np.linspace(1, 1.08, 500))),  # a CPU that gets warm
        (("drift",), samples_of(outliers(noise(500, 0.01) * np.linspace(1, 1.08, 500)))),  # and outliers do not hide it
        (("drift",), samples_of(np.tile([1.00e-3, 1.05e-3], 200))),  # two sets of operands, one better placed
        ((), samples_of(noise(500, 0.001) * np.linspace(1, 1.004, 500))),  # a drift, but not one to speak of
        (("few_samples",), samples_of(noise(19, 0.01))),
        (("contended", "very_noisy", "few_samples"), samples_of(noise(12, 0.4), wall=[1.0] * 12)),
        (("few_samples",), samples_of([])),
    ],
)  # fmt: skip
def test_what_makes_a_measurement_doubtful_is_told(told, samples):
    """All samples stay in the record; what they are worth is said beside them."""
    assert doubts(samples) == told


def test_white_noise_is_seldom_taken_for_a_drift():
    """Two standard errors of a correlation: one in twenty."""
    found = [doubts(samples_of(noise(100, 0.05, seed))) for seed in range(400)]

    assert sum("drift" in each for each in found) / len(found) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_threads_that_share_the_work_are_no_contention():
    """Two threads on two cores spend two seconds of process time a second; one thread's worth would mean that one waited."""
    both, one = samples_of([2e-3] * 30, wall=[1e-3] * 30), samples_of([1e-3] * 30, wall=[1e-3] * 30)

    assert doubts(both, threads=2) == ()
    assert doubts(one, threads=2) == ("contended",)


def test_a_devices_time_is_not_held_against_the_hosts():
    """A launch takes microseconds of the host and the kernel milliseconds of the device: nobody waited for a core."""
    samples = samples_of([5e-6] * 30, wall=noise(30, 0.3), clock="device")

    assert doubts(samples) == ("very_noisy",)
    assert readings(samples) == samples.wall_s


def test_one_thread_is_told_in_process_time_and_several_in_the_time_that_passed():
    """A busy machine stretches the one and not the other; of several threads the sum says nothing about how long it took."""
    samples = samples_of([1e-3], wall=[4e-3])

    assert readings(samples, threads=1) == (1e-3,)
    assert readings(samples, threads=2) == (4e-3,)
