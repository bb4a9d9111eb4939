"""Timers for kernels: on a CPU the clocks of `harness.timing`, on CUDA events on the device's own clock. No clock is ever set.

Hot: calls one behind another, caches as they leave them. Cold: the L2 cache is written over before each call. Hot calls too
short for the host to launch in time are replayed from a CUDA graph. `measure_on` holds all that is decided; it sees a device
only through `Gpu`.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from harness.kernels.nvml import read_state
from harness.timing import Checkpoints, Samples, StopRule, measure, verdict

Call = Callable[[], object]
Timer = Callable[[Call, StopRule], Samples]

GRAPH_BELOW_S = 20e-6  # a launch costs the host 5 to 20 us: shorter calls are over before the next one comes
SAMPLE_S = 500e-6  # device time of a hot sample: an event is known to about half a microsecond
MAX_CALLS = 1024  # a sample; also about what a stream takes before the host has to wait
REPLAYS_TO_WARM = 3
HOLD_S = 20e-6  # added to the hold: what the host needs besides the launches
MAX_HOLD_S = 10e-3
SLOWER = 2  # than the quickest launch that was seen: the usual one


class Gpu(Protocol):
    """What a timer asks of a device. All but `wait`, `elapsed_s` and `capture` only queue work on the current stream."""

    def mark(self) -> Any:
        """A point in the stream whose time will be known."""

    def elapsed_s(self, before: Any, after: Any) -> float:
        """Device seconds between two marks, both of them passed."""

    def wait(self) -> None:
        """Until the device has done all that was queued."""

    def flush(self) -> None:
        """Write over the L2 cache."""

    def hold(self, seconds: float) -> None:
        """Keep the stream busy for about so long, without touching memory."""

    def capture(self, fn: Call, calls: int) -> Call:
        """What `calls` calls of fn launch, as one graph: a function that launches it. Raises where fn cannot be captured."""


def make_timer(device: torch.device, cold: bool = False) -> Timer:
    """(fn, rule) -> Samples on that device; on CUDA of what fn launches on the current stream.

    cold: CUDA only. Raises ValueError for it on a CPU.
    """
    if device.type == "cuda":
        gpu = Cuda(device)
        return lambda fn, rule: measure_on(gpu, fn, rule, cold=cold)
    if cold:
        raise ValueError(f"cold timing is of CUDA; there is none on {device.type!r}")
    return lambda fn, rule: measure(fn, rule=rule)


def own_stream(device: torch.device) -> AbstractContextManager[Any]:
    """A stream for all that one trial does; nothing on a CPU.

    CUDA cannot capture its default stream, and a backward pass runs on the stream of its forward pass: a kept graph that was
    made outside of this one cannot be captured.
    """
    if device.type != "cuda":
        return contextlib.nullcontext()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    return torch.cuda.stream(stream)


def device_state(device: torch.device) -> dict[str, float | str]:
    """Clocks, temperature and throttling of a CUDA device (see `nvml.read_state`); {} where there is nothing to read."""
    if device.type != "cuda":
        return {}
    try:
        import pynvml
    except ImportError:
        return {}
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return read_state(pynvml, uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")


# Measuring on a device --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """One sample: seconds a call on the device, process time a call on the host; wall time that one launch took the host."""

    device_s: float
    cpu_s: float
    issue_s: float


@dataclass(frozen=True)
class Shot:
    """How one sample is launched: `launch` is called `repeats` times and each time stands for `calls` calls."""

    launch: Call
    calls: int
    repeats: int
    told: str

    @property
    def total(self) -> int:
        return self.calls * self.repeats


def measure_on(
    gpu: Gpu,
    fn: Call,
    rule: StopRule,
    *,
    cold: bool = False,
    wall: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] = time.process_time,
) -> Samples:
    """Time what `fn` launches, by the device's clock, until the rule stops it; the limit is one of wall time.

    Warm-up is made of samples like those that count, and is the measure by which calls are put together.
    """
    bench = Bench(gpu, cold, wall, cpu)
    shot = Shot(fn, 1, 1, "events")
    warmup, reading = warm_up(bench, shot, rule)
    if not cold and bench.elapsed_s() < rule.limit_s:
        shot, used = put_together(bench, fn, rule, reading)
        warmup += used
    taken: list[Reading] = []
    device_s: list[float] = []
    checks = Checkpoints(rule.min_samples)
    while True:
        taken.append(bench.take(shot))
        device_s.append(taken[-1].device_s)
        elapsed_s = bench.elapsed_s()
        if elapsed_s >= rule.limit_s or checks.due(len(taken)):
            reason = verdict(device_s, elapsed_s, rule, total_s=sum(device_s) * shot.total)
            if reason is not None:
                host_s = tuple(one.cpu_s for one in taken)
                return Samples(tuple(device_s), host_s, warmup, shot.total, reason, clock="device", launch=shot.told)


class Bench:
    """Where samples are taken. It keeps the least time that the host needed to launch a call: by that the device is held up.

    An idle device starts at once and then waits for each launch: the time between two marks would be the host's.
    """

    def __init__(self, gpu: Gpu, cold: bool, wall: Callable[[], float], cpu: Callable[[], float]) -> None:
        self.gpu = gpu
        self._cold = cold
        self._wall, self._cpu = wall, cpu
        self._began = wall()
        self._launch: Call | None = None
        self._least_s = math.inf

    def elapsed_s(self) -> float:
        """Wall time since it was made."""
        return self._wall() - self._began

    def take(self, shot: Shot) -> Reading:
        """One sample."""
        gpu = self.gpu
        gpu.wait()
        if self._cold:
            gpu.flush()
        if shot.launch is self._launch:
            gpu.hold(min(MAX_HOLD_S, HOLD_S + SLOWER * self._least_s * shot.repeats))
        else:
            self._launch, self._least_s = shot.launch, math.inf
        before = gpu.mark()
        cpu_before, wall_before = self._cpu(), self._wall()
        for _ in range(shot.repeats):
            shot.launch()
        wall_after, cpu_after = self._wall(), self._cpu()
        after = gpu.mark()
        gpu.wait()
        issue_s = (wall_after - wall_before) / shot.repeats
        self._least_s = min(issue_s, self._least_s)
        return Reading(gpu.elapsed_s(before, after) / shot.total, (cpu_after - cpu_before) / shot.total, issue_s)


def warm_up(bench: Bench, shot: Shot, rule: StopRule) -> tuple[int, Reading]:
    """Calls made, and the last reading. At least two: the first one allocates, compiles, and is not held up."""
    calls = 0
    while True:
        reading = bench.take(shot)
        calls += shot.total
        elapsed_s = bench.elapsed_s()
        if elapsed_s >= rule.limit_s or (calls > 1 and rule.warm(calls, elapsed_s)):
            return calls, reading


def put_together(bench: Bench, fn: Call, rule: StopRule, reading: Reading) -> tuple[Shot, int]:
    """How hot samples are launched, and the calls that it took to find out.

    Short calls as a graph; where fn cannot be captured, one by one behind a hold, and the shot tells why.
    """
    # No more than the host can launch while the device is held up.
    calls = max(1, min(calls_for(reading.device_s, rule), int(MAX_HOLD_S / (SLOWER * max(reading.issue_s, 1e-9)))))
    if reading.device_s >= GRAPH_BELOW_S:
        return Shot(fn, 1, calls, "events"), 0
    try:
        return as_graph(bench, fn, rule, reading.device_s)
    except Exception as exc:  # a plugin's code: whatever it does that a stream under capture forbids
        why = f"{type(exc).__name__}: {exc}".partition("\n")[0]
        return Shot(fn, 1, calls, f"events, no graph: {why}"), 0


def as_graph(bench: Bench, fn: Call, rule: StopRule, per_call_s: float) -> tuple[Shot, int]:
    """A graph whose replay lasts as long as a sample should. Raises what `Gpu.capture` raises.

    Captured anew where a replay shows that the calls are shorter than they seemed one by one.
    """
    calls, used = calls_for(per_call_s, rule), 0
    while True:
        shot = Shot(bench.gpu.capture(fn, calls), calls, 1, f"graph of {calls} calls")
        used += calls
        for _ in range(REPLAYS_TO_WARM):
            reading = bench.take(shot)
            used += calls
        needed = calls_for(reading.device_s, rule)
        if needed <= 1.25 * calls:
            return shot, used
        calls = needed


def calls_for(per_call_s: float, rule: StopRule) -> int:
    """How many calls make a sample that events can time."""
    sample_s = max(SAMPLE_S, rule.min_sample_s)
    return min(MAX_CALLS, math.ceil(sample_s / per_call_s)) if per_call_s > 0 else MAX_CALLS


# CUDA -------------------------------------------------------------------------------------------------------------------


class Cuda:
    """A CUDA device as `Gpu`, on the stream that is current at each call."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        properties = torch.cuda.get_device_properties(device)
        self._l2_bytes = int(properties.L2_cache_size)
        self._clock_hz = 1e3 * properties.clock_rate
        self._scratch: torch.Tensor | None = None

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def elapsed_s(self, before: torch.cuda.Event, after: torch.cuda.Event) -> float:
        return float(before.elapsed_time(after)) / 1e3

    def wait(self) -> None:
        torch.cuda.synchronize(self._device)

    def flush(self) -> None:
        if self._scratch is None:
            self._scratch = torch.empty(2 * self._l2_bytes, dtype=torch.uint8, device=self._device)
        self._scratch.zero_()

    def hold(self, seconds: float) -> None:
        with torch.cuda.device(self._device):
            torch.cuda._sleep(round(seconds * self._clock_hz))  # type: ignore[no-untyped-call]

    def capture(self, fn: Call, calls: int) -> Call:
        current = torch.cuda.current_stream(self._device)
        is_default = current == torch.cuda.default_stream(self._device)
        stream = torch.cuda.Stream(self._device) if is_default else current  # type: ignore[no-untyped-call]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.device(self._device), warnings.catch_warnings():
                # A graph of nothing replays in no time: fn launched on a stream that is not under capture, or nothing at all.
                warnings.filterwarnings("error", message="The CUDA Graph is empty")
                with torch.cuda.graph(graph, stream=stream):
                    for _ in range(calls):
                        fn()
        finally:
            torch.cuda.set_stream(current)  # a capture that fails leaves its own stream current
        return graph.replay
