"""The sizes of the timed LIF neuron and the least work that it must do. Declarations and arithmetic: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from harness import Implementation, Kernel, KernelCase

KERNELS = "harness_papers.ei_snn.kernels"
SNNTORCH = "https://github.com/jeshraghian/snntorch"
SPIKINGJELLY = "https://github.com/fangwei123456/spikingjelly"
NORSE = "https://github.com/norse/norse"


class LIFCase(KernelCase):
    """So many currents: `steps` of each neuron, tau = 2 and theta = 1. Peers can do what their summary says."""

    steps: int = Field(
        16, ge=1, description="T, at most elements where there are any; the neurons are elements / steps, rounded"
    )
    reset: Literal["soft", "hard"] = Field("soft", description="soft: the threshold is subtracted; hard: back to 0")
    reset_gradient: bool = Field(True, description="the gradient goes through the reset too")
    surrogate: Literal["sigmoid", "arctan", "triangular", "straight-through"] = Field("sigmoid", description="of ds/du")


def shape(case: LIFCase) -> tuple[int, int]:
    """(steps, neurons) of the case."""
    steps = min(case.steps, case.elements) or case.steps
    return steps, round(case.elements / steps)


def flops(case: LIFCase, itemsize: int) -> Mapping[str, int]:
    """Forward leak, add, compare, reset; backward these again, a slope of about 6, and 4 to use it."""
    steps, neurons = shape(case)
    return {"forward": 4 * steps * neurons, "backward": 14 * steps * neurons}


def bytes_moved(case: LIFCase, itemsize: int) -> Mapping[str, int]:
    """Currents read, spikes written; both gradients, and the currents read unless the slope does not depend on u."""
    steps, neurons = shape(case)
    whole = steps * neurons * itemsize
    constant = case.surrogate == "straight-through" and case.reset == "soft"
    return {"forward": 2 * whole, "backward": (2 if constant else 3) * whole}


LIF = Kernel(
    "lif",
    f"{KERNELS}:make_inputs",
    (
        Implementation("eager", "eager", f"{KERNELS}:loop", summary="a loop over time within one autograd function"),
        Implementation("formula", "eager", f"{KERNELS}:formula", summary="a loop over time that autograd goes through"),
        Implementation("compiled", "compiled", f"{KERNELS}:formula", summary="the formula through torch.compile, unrolled"),
        Implementation(
            "ours", "ours", f"{KERNELS}:ours", fallback=f"{KERNELS}:fallback",
            summary="all steps in one pass each way: C for float32 and float64 on the CPU, Triton on CUDA",
        ),
        Implementation(
            "snntorch", "peer", f"{KERNELS}:snntorch", requires=("snntorch",),
            summary=f"Leaky of {SNNTORCH}, step by step; sigmoid and arctan, reset with gradient",
        ),
        Implementation(
            "spikingjelly", "peer", f"{KERNELS}:spikingjelly", requires=("spikingjelly",),
            summary=f"LIFNode of {SPIKINGJELLY}, multi-step, its own choice of backend; sigmoid and arctan",
        ),
        Implementation(
            "norse", "peer", f"{KERNELS}:norse", requires=("norse",),
            summary=f"LIFBoxCell of {NORSE}, step by step; sigmoid, reset with gradient",
        ),
    ),
    f"{KERNELS}:reference",
    flops,
    bytes_moved,
    params=LIFCase,
    data=("currents",),
    summary="a leaky integrate-and-fire neuron over all time steps",
    source="https://arxiv.org/abs/2509.23253v3",
)  # fmt: skip
