"""What the kernel `lif` of cases.py names: its inputs, its implementations, and the reference. Imports torch.

Each implementation takes {"currents": (T, N)} and a case, and returns the spikes (T, N). A peer that cannot do what the case
asks for raises Unsupported: nothing is timed that computes something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.lab import Unsupported
from harness_papers.ei_snn.cases import LIFCase, shape
from harness_papers.ei_snn.fused import why_eager
from harness_papers.ei_snn.neuron import ALPHAS, lif, lif_loop, neuron_of, slope

Inputs = Mapping[str, Tensor]
TAU, THETA = 2.0, 1.0
HIGHEST = 1.25  # of the currents
MARGIN, NUDGE = 1e-2, 0.125  # no u comes nearer to the threshold than about MARGIN


def make_inputs(case: LIFCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Currents N(1/2, 1/2), about one spike in three.

    No u lies at the threshold, where rounding would decide whether it spikes, and none reaches twice the threshold, where
    snntorch resets another way than its paper's formula.
    """
    currents = (torch.randn(*shape(case), generator=generator) / 2 + 0.5).clamp_(max=HIGHEST).to(dtype)
    v = torch.zeros(currents.shape[1:], dtype=torch.float64)
    for current in currents:
        u = v * (1 - 1 / TAU) + current.double()
        current += NUDGE * ((u - THETA).abs() < MARGIN).to(dtype)
        u = v * (1 - 1 / TAU) + current.double()
        v = torch.where(u >= THETA, u * 0 if case.reset == "hard" else u - THETA, u)
    return {"currents": currents.to(device).requires_grad_()}


def settings(case: LIFCase) -> dict[str, Any]:
    """Of `lif`."""
    return {
        "tau": TAU, "theta": THETA, "reset": case.reset, "detach": not case.reset_gradient, "surrogate": case.surrogate,
        "alpha": ALPHAS[case.surrogate],
    }  # fmt: skip


def ours(inputs: Inputs, case: LIFCase) -> Tensor:
    return lif(inputs["currents"], **settings(case))


def fallback(inputs: Inputs, case: LIFCase) -> str:
    return why_eager(inputs["currents"], neuron_of(**settings(case)))


def loop(inputs: Inputs, case: LIFCase) -> Tensor:
    return lif_loop(inputs["currents"], **settings(case))


class Spike(torch.autograd.Function):
    """1 where x >= 0; backward the surrogate's slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Any, alpha: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate, ctx.alpha = surrogate, alpha
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return grad * slope(x, ctx.surrogate, ctx.alpha), None, None


def formula(inputs: Inputs, case: LIFCase) -> Tensor:
    """As the field's scripts have it: plain operations step by step, and autograd through all of them."""
    currents = inputs["currents"]
    v, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        u = (1 - 1 / TAU) * v + current
        s = Spike.apply(u - THETA, case.surrogate, ALPHAS[case.surrogate])  # type: ignore[no-untyped-call]
        spikes.append(s)
        reset = s if case.reset_gradient else s.detach()
        v = u * (1 - reset) if case.reset == "hard" else u - THETA * reset
    return torch.stack(spikes)


def reference(inputs: Inputs, case: LIFCase) -> Tensor:
    """float64, autograd through the recursion, which shares no line with the backward passes of `lif`."""
    return formula({"currents": inputs["currents"].double()}, case)


# Peers ------------------------------------------------------------------------------------------------------------------


def snntorch(inputs: Inputs, case: LIFCase) -> Tensor:
    """https://github.com/jeshraghian/snntorch: its neuron is a cell, called for each step."""
    if not case.reset_gradient:
        raise Unsupported("snntorch: with the reset at once, its gradient cannot be cut off; use reset_gradient: true")
    cell, currents = _snntorch(case.reset, case.surrogate), inputs["currents"]
    if currents.dtype != torch.float32:
        raise Unsupported(f"snntorch: its spikes are float32, whatever comes in; the currents are {currents.dtype}")
    v, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        s, v = cell(current, v)
        spikes.append(s)
    return torch.stack(spikes)


@cache
def _snntorch(reset: str, surrogate: str) -> Any:
    from snntorch import Leaky
    from snntorch.surrogate import atan, sigmoid

    alpha = ALPHAS[surrogate]
    slopes = {"sigmoid": lambda: sigmoid(slope=alpha), "arctan": lambda: atan(alpha=alpha)}
    how = {"soft": "subtract", "hard": "zero"}[reset]
    made = _chosen("snntorch", surrogate, slopes)
    return Leaky(beta=1 - 1 / TAU, threshold=THETA, spike_grad=made, reset_mechanism=how, reset_delay=False)


def spikingjelly(inputs: Inputs, case: LIFCase) -> Tensor:
    """https://github.com/fangwei123456/spikingjelly: one call for all steps."""
    node = _spikingjelly(case.reset, case.reset_gradient, case.surrogate)
    node.reset()
    return node(inputs["currents"])  # type: ignore[no-any-return]


@cache
def _spikingjelly(reset: str, reset_gradient: bool, surrogate: str) -> Any:
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based import surrogate as slopes

    alpha = ALPHAS[surrogate]
    known = {"sigmoid": lambda: slopes.Sigmoid(alpha=alpha), "arctan": lambda: slopes.ATan(alpha=alpha)}
    return neuron.LIFNode(
        tau=TAU, decay_input=False, v_threshold=THETA, v_reset=0.0 if reset == "hard" else None,
        surrogate_function=_chosen("spikingjelly", surrogate, known), detach_reset=not reset_gradient, step_mode="m",
    )  # fmt: skip


def norse(inputs: Inputs, case: LIFCase) -> Tensor:
    """https://github.com/norse/norse: a cell for each step. It divides currents by tau, so they are given times tau."""
    if not case.reset_gradient or case.surrogate != "sigmoid":
        raise Unsupported("norse: its reset has a gradient, and of our surrogates it has the sigmoid alone")
    cell, spikes, state = _norse(case.reset), [], None
    for current in TAU * inputs["currents"]:
        s, state = cell(current, state)
        spikes.append(s)
    return torch.stack(spikes)


@cache
def _norse(reset: str) -> Any:
    from norse.torch.functional.lif_box import LIFBoxParameters
    from norse.torch.functional.reset import reset_subtract, reset_value
    from norse.torch.module.lif_box import LIFBoxCell

    # 1 - tanh(k x)^2 = 4 sig(2 k x) (1 - sig(2 k x)), our sigmoid's slope where alpha = 2 k = 4.
    how = LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 / TAU), v_th=torch.tensor(THETA), method="tanh", alpha=ALPHAS["sigmoid"] / 2,
        reset_method={"soft": reset_subtract, "hard": reset_value}[reset],
    )  # fmt: skip
    return LIFBoxCell(how, dt=1.0)


def _chosen(who: str, surrogate: str, known: Mapping[str, Callable[[], Any]]) -> Any:
    if surrogate not in known:
        raise Unsupported(f"{who} has no surrogate {surrogate!r}; use {' or '.join(known)}")
    return known[surrogate]()
