"""Timing: warm-up, calibration, samples until the median is known well enough. Imports no torch.

`verdict` is the stop rule, a pure function of the samples so far; `measure` applies it to a callable; `doubts` says what makes
the samples of a finished measurement doubtful. The clocks and the device's synchronisation are passed in. Every sample is
kept, outliers too: summaries are computed when read.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

StopReason = Literal["precise", "settled_noisy", "time_limit"]
Clock = Literal["host", "device"]
CONFIDENCE = 0.95
SETTLED_AFTER = 100  # samples before noise is called settled
SETTLED_SPREAD = (
    0.10  # relative spread of the noise estimates over the later half; a range over median is known to about 1 / sqrt(n)
)
CONTENDED = 1.2  # wall time over the time that the process had
NOISY, VERY_NOISY = 0.10, 0.25  # interquartile range over median
DRIFT_SPREAD = 0.01  # relative spread of what hangs together in time: less than the stop rule's precision is no drift
FEW_SAMPLES = 20


@dataclass(frozen=True)
class StopRule:
    """When to stop: at precision, or when it cannot be reached in time, or at the limit.

    precision: half-width of the median's 95 % interval over the median.   min_total_s: seconds in samples.
    limit_s: seconds from the first call, warm-up included.   warm-up lasts max(warmup_s, warmup_calls calls).
    min_sample_s: shorter calls are repeated within one sample until it is this long, so that the clock's own cost vanishes.
    """

    precision: float = 0.01
    min_samples: int = 20
    min_total_s: float = 0.2
    limit_s: float = 20.0
    warmup_s: float = 0.025
    warmup_calls: int = 3
    min_sample_s: float = 20e-6

    def warm(self, calls: int, elapsed_s: float) -> bool:
        """Whether warm-up is over."""
        return calls >= self.warmup_calls and elapsed_s >= self.warmup_s


@dataclass(frozen=True)
class Samples:
    """Raw readings, seconds a call, wall and process time side by side; warm-up calls are counted and not kept.

    calls_per_sample: calls that one reading averages over, 1 but for very short ones.
    faults_per_call: minor page faults of the process, mean over all samples; None: not counted.
    clock: whose seconds wall_s are. "device": the device's own, and cpu_s is what the host spent to launch the work.
    launch: how a device was given its work ("events", "graph of 64 calls", ...), and why not otherwise; "" on a CPU.
    """

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    warmup: int
    calls_per_sample: int
    stop_reason: StopReason
    faults_per_call: float | None = None
    clock: Clock = "host"
    launch: str = ""


def minor_faults() -> int:
    """Page faults of this process so far that needed no disk: memory that was touched for the first time."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def measure(
    fn: Callable[[], object],
    *,
    synchronize: Callable[[], None] = lambda: None,
    rule: StopRule | None = None,
    wall: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
    faults: Callable[[], int] = minor_faults,
) -> Samples:
    """Time `fn` until the rule stops it. synchronize waits for the device; it is called before each clock is read.

    faults: a counter of page faults; only what it counts within samples is taken.
    """
    rule = rule or StopRule()
    began = wall()
    warmup, per_call_s = warm_up(fn, synchronize, rule, wall)
    inner = max(1, math.ceil(rule.min_sample_s / per_call_s)) if per_call_s > 0 else 1
    walls: list[float] = []
    cpus: list[float] = []
    faulted = 0
    checks = Checkpoints(rule.min_samples)
    while True:
        synchronize()
        faulted_before = faults()
        cpu_before, wall_before = cpu(), wall()
        for _ in range(inner):
            fn()
        # CUDA launches return early: without this the clock stops before the work does.
        synchronize()
        wall_after, cpu_after = wall(), cpu()
        faulted += faults() - faulted_before
        walls.append(to_a_millionth((wall_after - wall_before) / inner))
        cpus.append(to_a_millionth((cpu_after - cpu_before) / inner))
        elapsed_s = wall_after - began
        if elapsed_s >= rule.limit_s or checks.due(len(walls)):
            reason = verdict(walls, elapsed_s, rule, total_s=sum(walls) * inner)
            if reason is not None:
                return Samples(tuple(walls), tuple(cpus), warmup, inner, reason, faulted / (len(walls) * inner))


def to_a_millionth(seconds: float) -> float:
    """In 20 bits: no clock knows more of a sample, and in a file the other 32 would be most of it."""
    fraction, exponent = math.frexp(seconds)
    return math.ldexp(round(fraction * 2**20), exponent - 20)


def warm_up(
    fn: Callable[[], object], synchronize: Callable[[], None], rule: StopRule, wall: Callable[[], float]
) -> tuple[int, float]:
    """Calls made, and the seconds of the quickest one. The first calls (allocation, compilation, caches) are no samples.

    The quickest, not the last: one that was interrupted would leave too few calls in each sample.
    """
    began = wall()
    calls, least = 0, math.inf
    while not rule.warm(calls, wall() - began):
        synchronize()
        before = wall()
        fn()
        synchronize()
        least = min(least, wall() - before)
        calls += 1
        if wall() - began >= rule.limit_s:
            break
    return calls, least


class Checkpoints:
    """At which numbers of samples the verdict is asked for: it sorts, and asked each time it would cost what it measures."""

    def __init__(self, first: int) -> None:
        self._next = first

    def due(self, count: int) -> bool:
        if count < self._next:
            return False
        self._next = max(count + 1, math.ceil(count * 1.1))
        return True


def verdict(samples: Sequence[float], elapsed_s: float, rule: StopRule, total_s: float | None = None) -> StopReason | None:
    """Why to stop now, or None to go on.

    samples: seconds, in the order taken.   elapsed_s: since the first call.   total_s: seconds inside samples, their sum
    unless a sample averages several calls.
    """
    total_s = sum(samples) if total_s is None else total_s
    if len(samples) >= rule.min_samples and total_s >= rule.min_total_s:
        width = relative_half_width(samples)
        if width is not None and width <= rule.precision:
            return "precise"
        if width is not None and noise_settled(samples):
            # The interval shrinks with the root of the number of samples: what precision would take in all.
            needed_s = elapsed_s * (width / rule.precision) ** 2
            if needed_s > rule.limit_s:
                return "settled_noisy"
    return "time_limit" if elapsed_s >= rule.limit_s else None


def relative_half_width(samples: Sequence[float]) -> float | None:
    """Half the median's 95 % interval over the median; None where there are too few samples or the median is 0."""
    interval = median_interval(samples)
    middle = float(np.median(samples)) if len(samples) else 0.0
    if interval is None or middle <= 0:
        return None
    return (interval[1] - interval[0]) / 2 / middle


def median_interval(samples: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median by order statistics, [x_(r), x_(n-r+1)]; None below 6 samples, where there is none.

    No distribution is assumed; its coverage is at least 95 % for independent samples.
    """
    r = interval_rank(len(samples))
    if r == 0:
        return None
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    return float(ordered[r - 1]), float(ordered[len(ordered) - r])


@lru_cache(maxsize=4096)
def interval_rank(n: int) -> int:
    """The largest r with P(Bin(n, 1/2) <= r - 1) <= 2.5 %; 0 where there is none.

    The sum starts 8 standard deviations below the mean: what lies below adds less than 1e-14.
    """
    start = max(0, math.floor(n / 2 - 4 * math.sqrt(n)))
    log_choose = math.lgamma(n + 1) - math.lgamma(start + 1) - math.lgamma(n - start + 1)
    probability = math.exp(log_choose - n * math.log(2))
    below, r = 0.0, start
    while r < n:
        below += probability
        if below > (1 - CONFIDENCE) / 2:
            return r
        probability *= (n - r) / (r + 1)
        r += 1
    return 0


def noise_settled(samples: Sequence[float]) -> bool:
    """Whether the noise (interquartile range over median) no longer moves: more samples would only repeat it."""
    n = len(samples)
    if n < SETTLED_AFTER:
        return False
    levels = [relative_iqr(samples[: n * eighths // 8]) for eighths in range(4, 9)]
    middle = sum(levels) / len(levels)
    return middle > 0 and (max(levels) - min(levels)) / middle <= SETTLED_SPREAD


def relative_iqr(samples: Sequence[float]) -> float:
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64), [0.25, 0.5, 0.75])
    return float((high - low) / middle) if middle > 0 else 0.0


def doubts(samples: Samples, threads: int = 1) -> tuple[str, ...]:
    """What makes a measurement doubtful, in this order; () where nothing does.

    contended: the process waited for a core (wall x threads / CPU time > 1.2); times of the host's clock only. With several
    threads also where the work leaves some of them idle.
    Of the readings that times are told in (`readings`): noisy, or very_noisy: the interquartile range is more than a tenth, or
    a quarter, of the median.   drift: they hang together in time, and by more than a hundredth of the median; the interval of
    the median, which takes them for independent, is then too narrow.   few_samples: fewer than 20.
    """
    told = readings(samples, threads)
    if not told:
        return ("few_samples",)
    spread = relative_iqr(told)
    found = {
        "contended": samples.clock == "host" and contention(samples, threads) > CONTENDED,
        "noisy": NOISY < spread <= VERY_NOISY,
        "very_noisy": spread > VERY_NOISY,
        "drift": drifts(told),
        "few_samples": len(told) < FEW_SAMPLES,
    }
    return tuple(name for name, holds in found.items() if holds)


def readings(samples: Samples, threads: int = 1) -> tuple[float, ...]:
    """The readings that a time is told in: process time where one thread of the host does all the work, for a busy machine
    does not stretch it; else the time that passed, on a device by its own clock."""
    return samples.cpu_s if samples.clock == "host" and threads == 1 else samples.wall_s


def contention(samples: Samples, threads: int = 1) -> float:
    """Wall time x threads over process time, of all samples together: 1 where the process never waited."""
    wall_s, cpu_s = math.fsum(samples.wall_s) * threads, math.fsum(samples.cpu_s)
    if cpu_s > 0:
        return wall_s / cpu_s
    return math.inf if wall_s > 0 else 1.0


def drifts(samples: Sequence[float]) -> bool:
    """Whether neighbours resemble each other more than chance allows (95 %), and to an extent that a median would show.

    Far outliers are drawn in to the fences of Tukey first: one of them would otherwise hide the correlation of all others.
    """
    x = np.asarray(samples, dtype=np.float64)
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75])
    reach = 1.5 * (high - low)
    x = np.clip(x, low - reach, high + reach)
    x = x - x.mean()
    total = float(np.dot(x, x))
    if len(x) < 3 or total <= 0 or middle <= 0:
        return False
    r1 = abs(float(np.dot(x[1:], x[:-1]))) / total
    shared_spread = math.sqrt(r1 * total / len(x)) / middle
    return bool(r1 > 2 / math.sqrt(len(x)) and shared_spread > DRIFT_SPREAD)
