"""What an attempt costs: raw samples of the regions of a timing trial, and the resources of any trial's process."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.errors import BudgetSpent
from harness.records import Resources, Timing
from harness.timing import Checkpoints, StopRule, verdict

INFERENCE = "inference"  # timed after solve, through the track's thunk


def synchronizer(device: torch.device) -> Callable[[], None]:
    """Waits until the device has done all that was launched; nothing to wait for on a CPU."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


# Regions ----------------------------------------------------------------------------------------------------------------


@dataclass
class _Region:
    checks: Checkpoints
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    warm_wall_s: list[float] = field(default_factory=list)
    warm_cpu_s: list[float] = field(default_factory=list)
    reason: str | None = None

    def to_timing(self, name: str) -> Timing:
        if not self.wall_s:  # nothing but warm-up in all the time there was: better than no reading, and marked by warmup == 0
            return Timing(name, tuple(self.warm_wall_s), tuple(self.warm_cpu_s), 0, self.reason or "solve_ended")
        return Timing(name, tuple(self.wall_s), tuple(self.cpu_s), len(self.warm_wall_s), self.reason or "solve_ended")


class RegionRecorder:
    """Keeps a wall and a process-time reading of every call of every region, and ends `solve` when that is enough.

    wanted: the regions that must be known well (all that occur, if empty). may_end: whether solve may be ended yet; past the
    rule's limit_s, counted from the first call of any region, it is ended all the same.
    """

    def __init__(
        self,
        wanted: tuple[str, ...],
        synchronize: Callable[[], None],
        rule: StopRule,
        may_end: Callable[[], bool] = lambda: True,
        wall: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._wanted = wanted
        self._synchronize = synchronize
        self._rule = rule
        self._may_end = may_end
        self._wall, self._cpu = wall, cpu
        self._regions: dict[str, _Region] = {}
        self._began: float | None = None

    @contextlib.contextmanager
    def region(self, name: str) -> Iterator[None]:
        """Time one call. Raises BudgetSpent after it when all that is wanted is known, or the time is up."""
        self._synchronize()
        cpu_before, wall_before = self._cpu(), self._wall()
        yield  # a call that raises is no sample
        self._synchronize()
        wall_after, cpu_after = self._wall(), self._cpu()
        if self._began is None:
            self._began = wall_before
        self._add(name, wall_after - wall_before, cpu_after - cpu_before, wall_after - self._began)
        if self._enough(wall_after - self._began):
            raise BudgetSpent("timing")

    def timings(self) -> tuple[Timing, ...]:
        """All regions that occurred, in the order of their first call."""
        return tuple(region.to_timing(name) for name, region in self._regions.items())

    def wants_more(self) -> bool:
        """Whether solving once more would tell more: every wanted region occurs, one is not known yet, and there is time."""
        if self._began is None or not all(name in self._regions for name in self._wanted):
            return False
        return not self._known() and self._wall() - self._began < self._rule.limit_s

    def _add(self, name: str, wall_s: float, cpu_s: float, elapsed_s: float) -> None:
        region = self._regions.setdefault(name, _Region(Checkpoints(self._rule.min_samples)))
        if not region.wall_s and not self._rule.warm(len(region.warm_wall_s), sum(region.warm_wall_s)):
            region.warm_wall_s.append(wall_s)
            region.warm_cpu_s.append(cpu_s)
            return
        region.wall_s.append(wall_s)
        region.cpu_s.append(cpu_s)
        if region.reason is None and (elapsed_s >= self._rule.limit_s or region.checks.due(len(region.wall_s))):
            region.reason = verdict(region.wall_s, elapsed_s, self._rule)

    def _enough(self, elapsed_s: float) -> bool:
        if elapsed_s >= self._rule.limit_s:
            for region in self._regions.values():
                region.reason = region.reason or "time_limit"
            return True
        return self._known() and self._may_end()

    def _known(self) -> bool:
        wanted = self._wanted or tuple(self._regions)
        return all(name in self._regions and self._regions[name].reason for name in wanted)


# Resources --------------------------------------------------------------------------------------------------------------


class Meter:
    """Resources since it was made: the process's own, children not included.

    peak_rss_bytes is the growth of the resident set over its size when the meter was made: a forked worker shares the
    server's pages, and they are no cost of the trial.
    """

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        # Linux forgets the old peak: in a process that has done other work before, that is no cost of the trial.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._rss = resident_bytes("VmRSS")

    def watch_device(self, device: torch.device) -> None:
        """From here on the peak of the device's memory counts."""
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self, device: torch.device | None, solve_s: float | None, params: int | None) -> Resources:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        on_cuda = device is not None and device.type == "cuda" and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return Resources(
            wall_s=time.perf_counter() - self._wall,
            solve_s=solve_s,
            cpu_s=usage.ru_utime + usage.ru_stime - self._usage.ru_utime - self._usage.ru_stime,
            peak_rss_bytes=max(0, resident_bytes("VmHWM") - self._rss),
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if on_cuda else None,
            minor_faults=usage.ru_minflt - self._usage.ru_minflt,
            params=params,
        )


def resident_bytes(name: str, pid: int | str = "self") -> int:
    """A field of /proc/PID/status in bytes: VmRSS now, VmHWM at its peak. (ru_maxrss would survive an exec.)"""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
