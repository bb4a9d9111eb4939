"""Spiking nets: an encoder, layers of synapses and neurons over T steps, and the mean of the last layer's currents as logits.

In: items (B, ...). Out: logits (B, classes). What the synapses are is an `Arm`'s: plain, with batch norm, or E-I circuits.
Where the input is the same at each step, the first layer's products are made once, not T times.
Source: arXiv:2509.23253 v3; stages of VGG and ResNet as in the authors' repository vwOvOwv/DeepEISNN, models/ (43dd9cd).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness_papers.ei_snn.coding import Encoder
from harness_papers.ei_snn.layers import Circuit, Weights
from harness_papers.ei_snn.neuron import lif

Kind = Literal["plain", "bn", "ei"]
# The paper's widths of an MLP's hidden layers, as shares of its widest, by the number of affine layers.
TAPERS = {
    2: (1.0,),
    4: (1.0, 1.0, 0.6),
    8: (1.0, 1.0, 0.6, 0.6, 0.6, 0.2, 0.2),
    16: (1.0,) * 5 + (0.6,) * 5 + (0.2,) * 5,
}
# Convolutions of each stage, and channels as multiples of the first stage's; an average pool behind each stage.
VGG = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
VGG_CHANNELS = (1, 2, 4, 8, 8)
RESNET = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # blocks of each stage; 10 is ours, for small machines


@dataclass(frozen=True)
class Arm:
    """Which synapses a net has. params: the method's parameters."""

    kind: Kind
    params: Any

    def synapses(self, fan: tuple[int, ...], out: int, stride: int = 1, *, output: bool = False) -> nn.Module:
        p = self.params
        if self.kind == "ei":
            return Circuit(
                fan, out, stride, ratio=p.ratio, output=output, stabilise=p.stabilise, through=p.straight_through,
                scale_gradient=p.scale_gradient,
            )  # fmt: skip
        return Weights(fan, out, stride, bias=output or self.kind == "plain")

    def layer(self, fan: tuple[int, ...], out: int, stride: int = 1) -> Spiking:
        norms = {2: nn.BatchNorm2d, 0: nn.BatchNorm1d}
        norm = norms[len(fan) - 1](out) if self.kind == "bn" else None
        return Spiking(self.synapses(fan, out, stride), norm, Neuron(self.params), self.params.steps)


class Neuron(nn.Module):
    """`lif` with the method's parameters."""

    def __init__(self, params: Any) -> None:
        super().__init__()
        self.settings = {
            "tau": params.tau, "theta": params.theta, "reset": params.reset, "detach": not params.reset_gradient,
            "surrogate": params.surrogate, "alpha": params.alpha,
        }  # fmt: skip

    def forward(self, currents: Tensor) -> Tensor:
        return lif(currents, **self.settings)


class Spiking(nn.Module):
    """Synapses, a norm if there is one, neurons: (S, B, ...) -> spikes (T, B, ...), S = T or 1."""

    def __init__(self, synapses: nn.Module, norm: nn.Module | None, neuron: nn.Module, steps: int) -> None:
        super().__init__()
        self.synapses, self.norm, self.neuron, self.steps = synapses, norm, neuron, steps

    def forward(self, x: Tensor) -> Tensor:
        currents = by_row(self.synapses, x)
        currents = currents.expand(self.steps, *currents.shape[1:])
        if self.norm is not None:  # over all steps, equal ones too: the running variance goes by their number
            currents = by_row(self.norm, currents)
        spikes: Tensor = self.neuron(currents)
        return spikes


class Readout(nn.Module):
    """The mean over time of an output layer's currents: (S, B, ...) -> (B, classes)."""

    def __init__(self, synapses: nn.Module) -> None:
        super().__init__()
        self.synapses = synapses

    def forward(self, x: Tensor) -> Tensor:
        return by_row(self.synapses, x.flatten(2)).mean(dim=0)


class Pool(nn.Module):
    """Averages over 2x2, or over all positions, of (S, B, C, H, W)."""

    def __init__(self, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(3, 4)) if self.whole else by_row(lambda rows: F.avg_pool2d(rows, 2), x)


class Block(nn.Module):
    """Two layers, then the shortcut is added to the spikes: the input itself, or a layer of 1x1 synapses."""

    def __init__(self, first: Spiking, second: Spiking, shortcut: Spiking | None) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out + (x if self.shortcut is None else self.shortcut(x))


def by_row(function: Any, x: Tensor) -> Tensor:
    """A function of (N, ...) on (S, B, ...)."""
    out: Tensor = function(x.flatten(0, 1))
    return out.unflatten(0, x.shape[:2])


class Net(nn.Module):
    """See the module."""

    encoder: Encoder

    def __init__(self, encoder: Encoder, layers: list[nn.Module], readout: Readout) -> None:
        super().__init__()
        self.encoder, self.layers, self.readout = encoder, nn.Sequential(*layers), readout

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.layers(self.encoder(x)))
        return logits

    def spiking_layers(self) -> list[Spiking]:
        return [part for part in self.layers.modules() if isinstance(part, Spiking)]

    def circuits(self) -> list[Circuit]:
        return [part for part in self.modules() if isinstance(part, Circuit)]

    @torch.no_grad()
    def clamp(self) -> None:
        """Parameters of circuits that a step made negative become 0."""
        constrained: list[Tensor] = [p for part in self.circuits() for p in part.constrained()]
        if constrained:
            torch._foreach_clamp_min_(constrained, 0.0)


# Shapes -----------------------------------------------------------------------------------------------------------------


def build(arm: Arm, encoder: Encoder, inputs: tuple[int, ...], classes: int) -> Net:
    """The net that the arm's parameters ask for, uninitialised. inputs: the shape of an item.

    Raises ValueError for a depth that the net does not come in, or items that are no images where it convolves.
    """
    p = arm.params
    if p.net == "mlp":
        layers, fan = build_mlp(arm, inputs)
    else:
        if len(inputs) != 3:
            raise ValueError(f"net {p.net} needs images (C, H, W), got items of shape {inputs}; use net: mlp")
        layers, fan = (build_vgg if p.net == "vgg" else build_resnet)(arm, inputs)
    return Net(encoder, layers, Readout(arm.synapses((fan,), classes, output=True)))


def build_mlp(arm: Arm, inputs: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    """depth counts the affine layers, so depth - 1 of them spike. Returns the layers and the last one's units."""
    p = arm.params
    shares = TAPERS.get(p.depth) if p.taper else (1.0,) * (p.depth - 1)
    if shares is None:
        raise ValueError(f"taper: the paper has MLPs of depth {', '.join(map(str, TAPERS))}, got {p.depth}; use taper: false")
    fan, layers = int(torch.Size(inputs).numel()), list[nn.Module]([nn.Flatten(2)])
    for share in shares:
        units = max(1, round(p.width * share))
        layers.append(arm.layer((fan,), units))
        fan = units
    return layers, fan


def build_vgg(arm: Arm, inputs: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    """Stages of 3x3 convolutions, each with a pool where there is room for one; one affine layer reads what is left."""
    p = arm.params
    channels, side, rows = inputs
    layers: list[nn.Module] = []
    for count, multiple in zip(stages(VGG, p), VGG_CHANNELS, strict=True):
        for _ in range(count):
            layers.append(arm.layer((channels, 3, 3), p.width * multiple))
            channels = p.width * multiple
        if min(side, rows) >= 2:
            layers.append(Pool())
            side, rows = side // 2, rows // 2
    return layers, channels * side * rows


def build_resnet(arm: Arm, inputs: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    """A 3x3 convolution, stages of blocks, of which all but the first halve the sides, and a pool over all positions."""
    p = arm.params
    channels = p.width
    layers: list[nn.Module] = [arm.layer((inputs[0], 3, 3), channels)]
    for stage, count in enumerate(stages(RESNET, p)):
        for number in range(count):
            out, stride = p.width * 2**stage, 2 if stage and not number else 1
            shortcut = arm.layer((channels, 1, 1), out, stride) if stride != 1 or channels != out else None
            layers.append(Block(arm.layer((channels, 3, 3), out, stride), arm.layer((out, 3, 3), out), shortcut))
            channels = out
    return [*layers, Pool(whole=True)], channels


def stages(known: Mapping[int, tuple[int, ...]], params: Any) -> tuple[int, ...]:
    if params.depth not in known:
        raise ValueError(f"net {params.net} comes in depth {', '.join(map(str, known))}, got {params.depth}")
    return known[params.depth]
