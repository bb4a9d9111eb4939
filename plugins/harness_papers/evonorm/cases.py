"""The sizes of the timed kernels and the least work that they must do. Declarations and arithmetic: no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from harness import Implementation, Kernel, KernelCase

ARXIV = "https://arxiv.org/abs/2004.02967"
PARAMETERS = 3  # v, gamma, beta: one value a channel each
LEAST_BATCH = 2  # in a batch of one, the batch's variance is the instance's


class EvoNormCase(KernelCase):
    """Maps (N, C, H, W) of exactly `elements` elements; `shape` says how they are shared out."""

    channels: int = Field(32, gt=0, description="most channels; the largest divisor of the elements up to it is taken")
    side: int = Field(28, gt=0, description="largest height and width of a map")


class GroupCase(EvoNormCase):
    """With groups of channels."""

    group_size: int = Field(8, gt=0, description="most channels a group; the largest divisor of the channels up to it is taken")


def shape(case: EvoNormCase) -> tuple[int, int, int, int]:
    """(N, C, H, W), whose product is `elements`.

    The channels come first, then the largest and squarest map that leaves a batch of two or more, where one does; the batch
    is what remains. 16 Mi elements: (2048, 32, 16, 16); 1 M: (50, 32, 25, 25); 10 k: (2, 25, 20, 10); 1: (1, 1, 1, 1);
    0: (0, 32, 28, 28).
    """
    channels = largest_divisor(case.elements, case.channels)
    rest = case.elements // channels
    least = min(LEAST_BATCH, rest)
    sides = range(1, case.side + 1)
    maps = [(h, w) for h in sides for w in range(1, h + 1) if rest % (h * w) == 0 and rest >= least * h * w]
    height, width = max(maps, key=lambda map_: (map_[0] * map_[1], map_[1]))
    return rest // (height * width), channels, height, width


def count_groups(case: GroupCase) -> int:
    """Groups of channels: 4 of 8 channels where 32 channels fit."""
    channels = shape(case)[1]
    return channels // largest_divisor(channels, case.group_size)


def largest_divisor(n: int, most: int) -> int:
    """The largest number up to `most` that divides n; everything divides 0."""
    return next(d for d in range(most, 0, -1) if n % d == 0)


# A division, a root or an exponential counts as one operation, a multiplication with an addition as two.
S0_FLOPS = {"forward": 10, "backward": 19}  # an element; of the forward ones 4 are the statistics'
B0_FLOPS = {"forward": 10, "backward": 24}


def s0_flops(case: GroupCase, itemsize: int) -> Mapping[str, int]:
    return {region: count * case.elements for region, count in S0_FLOPS.items()}


def b0_flops(case: EvoNormCase, itemsize: int) -> Mapping[str, int]:
    return {region: count * case.elements for region, count in B0_FLOPS.items()}


def least_bytes(case: EvoNormCase, itemsize: int) -> Mapping[str, int]:
    """Forward: x read once, y written. Backward: x and dy read once, dx written. And the parameters and their gradients.

    Both passes need x twice, for the statistics and for the output; the second time counts as read from a cache. That is
    possible where a group of one sample (S0) or a channel of the whole batch (B0) fits into one.
    """
    parameters = PARAMETERS * shape(case)[1]
    return {
        "forward": itemsize * (2 * case.elements + parameters),
        "backward": itemsize * (3 * case.elements + 2 * parameters),
    }


def implementations(form: str) -> tuple[Implementation, ...]:
    code = "harness_papers.evonorm.kernels"
    eager = f"{code}:eager_{form}"
    ours = "C on the CPU (float32, one thread whatever is set), Triton on CUDA (float32, bfloat16, float16)"
    return (
        Implementation("eager", "eager", eager, summary="the formula, as the component computes it"),
        Implementation("compiled", "compiled", eager),
        Implementation("ours", "ours", f"{code}:ours_{form}", fallback=f"{code}:why_eager", summary=ours),
    )


KERNELS = [
    Kernel(
        name="evonorm-s0",
        inputs="harness_papers.evonorm.kernels:inputs_s0",
        implementations=implementations("s0"),
        reference="harness_papers.evonorm.kernels:reference_s0",
        flops=s0_flops,
        bytes=least_bytes,
        params=GroupCase,
        summary="EvoNorm-S0: x sigmoid(v x) / group std * gamma + beta",
        source=ARXIV,
    ),
    Kernel(
        name="evonorm-b0",
        inputs="harness_papers.evonorm.kernels:inputs_b0",
        implementations=implementations("b0"),
        reference="harness_papers.evonorm.kernels:reference_b0",
        flops=b0_flops,
        bytes=least_bytes,
        params=EvoNormCase,
        summary="EvoNorm-B0 in training: x / max(batch std, v x + instance std) * gamma + beta; no running variance",
        source=ARXIV,
    ),
]
