"""What a device can do at most, measured: its copy bandwidth, its matrix-product rate, and how well it repeats itself.

`measure_ceilings` measures beside a kernel; `MachineCheck` is what `harness machine check` keeps in the registry, one set of
facts of the kind "ceilings" a check, never changed. Imports torch only to measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.timing import CONTENDED, Samples, StopRule, readings

if TYPE_CHECKING:
    import torch

KIND = "ceilings"  # of the facts
MATMUL_SIZES: Mapping[str, tuple[int, ...]] = {"cpu": (256, 512, 1024, 2048), "cuda": (1024, 2048, 4096, 8192)}
SHORTEST_S = 1e-9  # a step of the clocks: no median is taken for less


@dataclass(frozen=True)
class Ceilings:
    """The most that a device was seen to do, at one size and dtype. Both are above 0."""

    copy_bytes_per_s: float
    matmul_flops_per_s: float


def roofline_s(flops: float, bytes: float, ceilings: Ceilings) -> float:
    """The least seconds that this much work takes: the longer of moving the bytes and doing the operations; 0 for no work."""
    return max(flops / ceilings.matmul_flops_per_s, bytes / ceilings.copy_bytes_per_s)


# Measuring --------------------------------------------------------------------------------------------------------------


def measure_ceilings(device: torch.device, dtype: torch.dtype, elements: int, rule: StopRule) -> Ceilings:
    """Copy bandwidth of `elements` elements (1 where there are none), and the best rate of a few matrix products.

    On CUDA without a flush of the cache. rule: of each of the two; its limit_s holds for each.
    """
    import torch

    threads = torch.get_num_threads()
    copied = measure_copy(device, dtype, elements, rule)
    products = measure_matmul(device, dtype, rule)
    fastest = max(matmul_rate(n, samples, threads) for n, samples in products.items())
    return Ceilings(copy_rate(elements, dtype, copied, threads), fastest)


def measure_copy(device: torch.device, dtype: torch.dtype, elements: int, rule: StopRule, cold: bool = False) -> Samples:
    """`copy_` of so many contiguous elements (at least 1) to memory that has been touched before: the floor of a kernel."""
    import torch

    from harness.kernels.timers import make_timer

    source = torch.ones(max(1, elements), dtype=dtype, device=device)
    target = torch.zeros_like(source)
    return make_timer(device, cold)(lambda: target.copy_(source), rule)


def copy_rate(elements: int, dtype: torch.dtype, samples: Samples, threads: int = 1) -> float:
    """Bytes read and written per second of `measure_copy`."""
    return 2 * max(1, elements) * dtype.itemsize / median_s(samples, threads)


def matmul_rate(size: int, samples: Samples, threads: int = 1) -> float:
    """FLOP/s of one of `measure_matmul`."""
    return 2 * size**3 / median_s(samples, threads)


def measure_matmul(device: torch.device, dtype: torch.dtype, rule: StopRule) -> dict[int, Samples]:
    """Samples of square matrix products by size. Sizes double for as long as the next one fits into memory and time."""
    import torch

    from harness.kernels.timers import make_timer

    timer, sizes = make_timer(device), MATMUL_SIZES[device.type]
    share = replace(rule, limit_s=rule.limit_s / len(sizes))
    taken: dict[int, Samples] = {}
    for n in sizes:
        # 4 bytes: the whole numbers that a matrix is made of are there for a moment.
        if taken and not (fits_time(taken[n // 2], share) and fits_memory(device, (4 + 3 * dtype.itemsize) * n * n)):
            break
        # Small whole numbers: no product overflows, none is a denormal.
        a, b = (torch.arange(n * n, dtype=torch.int32, device=device).remainder_(7).to(dtype).reshape(n, n) for _ in range(2))
        taken[n] = timer(matmul(a, b), share)
    return taken


def matmul(a: torch.Tensor, b: torch.Tensor) -> Callable[[], object]:
    """The product into memory of its own, again and again."""
    import torch

    out = torch.empty_like(a)
    return lambda: torch.matmul(a, b, out=out)


def fits_time(before: Samples, rule: StopRule) -> bool:
    """Whether warm-up and a handful of samples of twice the size, eight times the work, are over by the limit."""
    return 8 * statistics.median(before.wall_s) * (rule.warmup_calls + 6) <= rule.limit_s


def fits_memory(device: torch.device, needed_bytes: int) -> bool:
    """Whether a CUDA device has so much left; what is asked for on a CPU is always small."""
    import torch

    return device.type != "cuda" or needed_bytes < torch.cuda.mem_get_info(device)[0]


def median_s(samples: Samples, threads: int = 1) -> float:
    """Of the readings that times are told in."""
    return max(SHORTEST_S, statistics.median(readings(samples, threads)))


# What a check of a machine keeps ------------------------------------------------------------------------------------------


class _Kept(BaseModel):
    # Fields that a later version adds are no reason not to read the others; NaN is no figure.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0, lt=1e30)]
Difference = Annotated[float, Field(ge=-1, lt=1e6)]


class CopyFigure(_Kept):
    """One copy: elements, bytes/s read and written, medians of one call."""

    elements: int
    bytes_per_s: Positive
    wall_s: Positive
    cpu_s: float
    samples: int
    doubts: tuple[str, ...] = ()


class MatmulFigure(_Kept):
    """The product of two square matrices of that size."""

    size: int
    flops_per_s: Positive
    wall_s: Positive
    cpu_s: float
    samples: int
    doubts: tuple[str, ...] = ()


class Agreement(_Kept):
    """A/A: one kernel timed as A and as B in blocks ABBA; by round, the relative difference of their medians, A / B - 1.

    Each median is of two blocks of block_s seconds. wall: by the clock that times are told in; cpu: by the process's time.
    """

    kernel: str
    block_s: float
    wall: tuple[Difference, ...]
    cpu: tuple[Difference, ...]
    contention: float  # wall x threads / process time, the median of the blocks; 1 where a device keeps the time

    def sd(self, clock: Literal["wall", "cpu"]) -> float | None:
        """Standard deviation of the differences; None below 2 rounds."""
        found = self.wall if clock == "wall" else self.cpu
        return statistics.stdev(found) if len(found) > 1 else None

    def p95(self, clock: Literal["wall", "cpu"]) -> float | None:
        """What 95 % of the differences stay within, either way; None without rounds."""
        found = sorted(map(abs, self.wall if clock == "wall" else self.cpu))
        return found[math.ceil(0.95 * len(found)) - 1] if found else None


class MachineCheck(_Kept):
    """One `harness machine check`. machine: as in the records; checked_at: UTC, ISO 8601; load: before and after, 1 minute."""

    machine: str
    torch_version: str
    device: Literal["cpu", "cuda"]
    device_name: str
    dtype: str
    threads: int
    checked_at: str
    copies: tuple[CopyFigure, ...]
    matmuls: tuple[MatmulFigure, ...]
    agreements: tuple[Agreement, ...]
    load: tuple[float, float]
    environment: Mapping[str, str] = {}
    state: Mapping[str, float | str] = {}

    @property
    def clock(self) -> Literal["wall", "cpu"]:
        """Whose noise counts: that of the readings that times are told in."""
        return "cpu" if self.device == "cpu" and self.threads == 1 else "wall"

    @property
    def contended(self) -> bool:
        """Whether other work wanted the same cores while it ran."""
        waited = any(one.contention > CONTENDED for one in self.agreements)
        doubted = [one.doubts for one in self.copies] + [one.doubts for one in self.matmuls]
        return waited or any("contended" in doubts for doubts in doubted)


def read_check(facts: object) -> MachineCheck | None:
    """The check that facts of this kind tell of; None for what is none (a registry may be merged from anywhere)."""
    try:
        return MachineCheck.model_validate(facts)
    except ValidationError:
        return None


def latest_checks(facts: Iterable[Mapping[str, Any]], machine: str) -> list[MachineCheck]:
    """Of `Registry.facts()`: the machine's last check per torch version, device and threads; the newest first."""
    checks = [c for f in facts if f["kind"] == KIND and (c := read_check(f["facts"])) is not None and c.machine == machine]
    last = {(c.torch_version, c.device, c.threads): c for c in sorted(checks, key=lambda c: c.checked_at)}
    return sorted(last.values(), key=lambda c: c.checked_at, reverse=True)


def noise_floor(facts: MachineCheck | Mapping[str, Any] | None) -> float | None:
    """Relative standard deviation of one median that nothing has changed: the largest of the check's kernels.

    facts: a check, or the content of facts of this kind. A difference of two medians has root 2 times the spread of one.
    What differs between processes and between nights is not in it: it is a floor. None where it was not measured.
    """
    check = facts if isinstance(facts, MachineCheck) else read_check(facts)
    if check is None:
        return None
    spreads = [sd / math.sqrt(2) for one in check.agreements if (sd := one.sd(check.clock)) is not None]
    return max(spreads, default=None)
