"""Spiking nets without normalisation: excitatory and inhibitory units in each layer. Declarations only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness import Kernel, Learner, Metric, Paper, Params, Probe, hookimpl
from harness_papers.ei_snn.cases import LIF
from harness_papers.ei_snn.claims import ARXIV, PAPER

HERE = "harness_papers.ei_snn"


class SpikingParams(Params):
    """What all nets of this paper share. The defaults are the paper's, but for the width and depth of a small MLP."""

    net: Literal["mlp", "vgg", "resnet"] = Field("mlp", description="mlp; vgg or resnet, for images")
    depth: int = Field(
        4, ge=2, le=64, description="affine layers of an mlp; 8, 11, 16 or 19 of a vgg; 10, 18 or 34 of a resnet"
    )
    width: int = Field(128, ge=4, description="units of an mlp's hidden layers; channels of the first stage (the paper: 64)")
    taper: bool = Field(False, description="an mlp's later layers are narrower, as in the paper (depth 2, 4, 8, 16)")
    steps: int = Field(4, ge=1, description="T: time steps")
    coding: Literal["direct", "rate", "latency"] = Field(
        "direct", description="direct: the value at each step; rate: spikes by chance; latency: one spike, sooner if higher"
    )
    tau: float = Field(2.0, ge=1, description="membrane time constant, in steps")
    theta: float = Field(1.0, gt=0, description="threshold")
    reset: Literal["soft", "hard"] = Field("soft", description="soft: the threshold is subtracted; hard: back to 0")
    reset_gradient: bool = Field(False, description="true: the gradient goes through the reset too")
    surrogate: Literal["sigmoid", "arctan", "triangular", "straight-through"] = Field("sigmoid", description="of ds/du")
    alpha: float | None = Field(None, gt=0, description="sharpness of the surrogate; null: slope 1 at the threshold")
    lr: float = Field(1e-2, gt=0, description="peak learning rate of SGD with momentum 0.9")
    weight_decay: float = Field(5e-4, ge=0, description="on all parameters")
    batch: int = Field(128, gt=1, description="items a step, and for the initial values")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the budget in which the rate rises linearly; then a cosine")
    evaluations: int = Field(5, gt=0, description="offers, evenly over the budget")


class PlainParams(SpikingParams):
    init: Literal["default", "balanced", "unit-variance"] = Field(
        "default", description="torch's; N(0, gain^2 / fan-in); or scaled on a batch to currents of variance 1"
    )
    gain: float = Field(3.0, gt=0, description="of init: balanced")


class BatchNormParams(SpikingParams):
    init: Literal["default"] = Field("default", description="torch's")
    weight_decay: float = Field(1e-4, ge=0, description="on all parameters")


class CircuitParams(SpikingParams):
    ratio: int = Field(4, ge=1, description="excitatory units for each inhibitory one")
    init: Literal["ei", "kaiming"] = Field("ei", description="E-I Init; kaiming: its ablation, |N(0, 2 / fan-in)|, gains of 1")
    shunt_init: Literal["ei", "one"] = Field("ei", description="g_I at first: by E-I Init, or 1 (ablation)")
    stabilise: Literal["adaptive", "epsilon"] = Field(
        "adaptive", description="zeros of the divisor become the row's smallest value; epsilon: 1e-6 is added (ablation)"
    )
    straight_through: bool = Field(True, description="false: no gradient through a filled zero (ablation)")
    scale_gradient: bool = Field(True, description="false: the gradient of W_EI is not divided by the fan-in (ablation)")


def learner(name: str, kind: str, params: type[Params], summary: str, source: str = ARXIV) -> Learner:
    code = f"{HERE}.learners"
    return Learner(
        name, "classify", f"{code}:solve_{kind}", params, knob="width", cost=f"{code}:cost_{kind}", summary=summary,
        source=source,
    )  # fmt: skip


METHODS = [
    learner("ei-snn", "ei", CircuitParams, "a spiking net of circuits of excitatory and inhibitory units, without norms"),
    learner("bn-snn", "bn", BatchNormParams, "a spiking net with batch norm in front of each neuron, the paper's baseline"),
    learner("plain-snn", "plain", PlainParams, "a spiking net without norms or inhibition"),
]

PROBES = [
    Probe(
        "spiking-activity",
        "classify",
        (
            Metric("firing_rate", "1", "neither"),  # spikes a unit, step and item
            Metric("dead_units", "1", "neither"),  # the share that no item makes fire
            Metric("synaptic_ops", "1", "neither"),  # additions an item
            Metric("macs", "1", "neither"),  # products of real numbers an item
            Metric("above_chance", "1", "higher", worst=0.0),  # 1 where accuracy is more than twice chance
            Metric("layer_rate", "1", "neither"),  # series
            Metric("layer_dead", "1", "neither"),  # series
        ),
        f"{HERE}.probes:measure_activity",
    ),
    Probe("spiking-pictures", "classify", (Metric("raster_spikes", "1", "neither"),), f"{HERE}.probes:draw_activity"),
    # What ran is in the record, not in a key: results of a machine without a compiler differ in rounding, and in seconds.
    Probe(
        "spiking-kernel",
        "classify",
        (Metric("fused_neurons", "1", "neither"), Metric("loop_neurons", "1", "neither")),  # layers of each kind
        f"{HERE}.dispatch:measure_kernel",
    ),
]


@hookimpl
def harness_papers() -> list[Paper]:
    return [PAPER]


@hookimpl
def harness_methods() -> list[Learner]:
    return METHODS


@hookimpl
def harness_probes() -> list[Probe]:
    return PROBES


@hookimpl
def harness_kernels() -> list[Kernel]:
    return [LIF]
