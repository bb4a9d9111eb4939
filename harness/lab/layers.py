"""The layers that reference nets are made of. Building one draws no random number: `harness.lab.init` fills them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from harness.errors import Unsupported
from harness.lab.component import Place

NormKind = Literal["batch", "group", "layer"]
GROUPS = 8

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Linear(nn.Linear):
    """(..., in) -> (..., out), with bias. Uninitialised until `init_net`."""

    def reset_parameters(self) -> None:
        """Draws nothing: torch would use its global generator here."""


class Conv(nn.Conv2d):
    """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)); odd square kernel, with bias. Uninitialised as Linear."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2)

    def reset_parameters(self) -> None:
        """Draws nothing: torch would use its global generator here."""


class Positions(nn.Module):
    """Adds a learned embedding to each token: (N, T, C) -> (N, T, C). Uninitialised until `init_net`."""

    def __init__(self, tokens: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class PerToken(nn.Module):
    """Applies a map of (N, C) to every token of (N, T, C)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.flatten(0, -2))
        return out.view(*x.shape[:-1], out.shape[-1])


class Slot(nn.Sequential):
    """What stands after a layer: norm and activation, in this order, either of which may be absent."""


def make_activation(name: str) -> nn.Module:
    """A plain activation by name, with torch's default parameters. Raises Unsupported for an unknown name."""
    if name not in ACTIVATIONS:
        raise Unsupported(f"net.activation: got {name!r}; use one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def make_norm(kind: NormKind, place: Place, groups: int = GROUPS, eps: float = 1e-5, momentum: float = 0.1) -> nn.Module:
    """A norm with learned scale (1 at first) and shift (0) for each feature; eps is added to the biased variance.

    batch: over all axes but the features; momentum is the newest batch's share in the running statistics.
    group: over each group of features / groups features, and over H and W; each token for itself.
    layer: over the features, and over H and W; each token for itself.
    Raises Unsupported where `groups` does not divide the features.
    """
    features = place.features
    if kind == "layer":
        return nn.GroupNorm(1, features, eps) if place.dims == 2 else nn.LayerNorm(features, eps)
    if kind == "batch":
        norm: nn.Module = (nn.BatchNorm2d if place.dims == 2 else nn.BatchNorm1d)(features, eps, momentum)
    elif features % groups:
        raise Unsupported(f"group norm: groups={groups} does not divide {features} features; use a width that it divides")
    else:
        norm = nn.GroupNorm(groups, features, eps)
    return PerToken(norm) if place.dims == 1 else norm
