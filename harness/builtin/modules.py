"""The baselines' code: each function is a Component's `build`, (place, params) -> nn.Module.

The norm-and-activation pairs follow the usual post-activation ResNet: in front of a residual addition only the norm stands,
behind it (place.role "join") only the activation.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from harness.builtin.baselines import (
    BatchNormParams,
    EluParams,
    GeluParams,
    GroupNormParams,
    LayerNormParams,
    LeakyReluParams,
    PreluParams,
)
from harness.lab import Place, make_norm
from harness.specs import NoParams


def relu(place: Place, params: NoParams) -> nn.Module:
    """max(0, x)."""
    return nn.ReLU()


def leaky_relu(place: Place, params: LeakyReluParams) -> nn.Module:
    """x for x > 0, else slope * x."""
    return nn.LeakyReLU(params.slope)


def elu(place: Place, params: EluParams) -> nn.Module:
    """x for x > 0, else alpha * (exp(x) - 1)."""
    return nn.ELU(params.alpha)


def gelu(place: Place, params: GeluParams) -> nn.Module:
    """x * Phi(x), Phi the standard normal distribution function, or its tanh approximation."""
    return nn.GELU(approximate=params.approximate)


def silu(place: Place, params: NoParams) -> nn.Module:
    """x * sigmoid(x)."""
    return nn.SiLU()


def prelu(place: Place, params: PreluParams) -> nn.Module:
    """x for x > 0, else a * x; a is one learned number for the layer."""
    return nn.PReLU(init=params.start)


def tanh(place: Place, params: NoParams) -> nn.Module:
    """Hyperbolic tangent."""
    return nn.Tanh()


def batchnorm_relu(place: Place, params: BatchNormParams) -> nn.Module:
    """Batch norm over all axes but the features, then ReLU."""
    return _norm_act(place, lambda: _batchnorm(place, params), nn.ReLU())


def batchnorm_silu(place: Place, params: BatchNormParams) -> nn.Module:
    """Batch norm over all axes but the features, then SiLU."""
    return _norm_act(place, lambda: _batchnorm(place, params), nn.SiLU())


def groupnorm_relu(place: Place, params: GroupNormParams) -> nn.Module:
    """Group norm, then ReLU. Raises Unsupported where the groups do not divide the features."""
    return _norm_act(place, lambda: make_norm("group", place, groups=params.groups, eps=params.eps), nn.ReLU())


def groupnorm_silu(place: Place, params: GroupNormParams) -> nn.Module:
    """Group norm, then SiLU. Raises Unsupported where the groups do not divide the features."""
    return _norm_act(place, lambda: make_norm("group", place, groups=params.groups, eps=params.eps), nn.SiLU())


def layernorm_relu(place: Place, params: LayerNormParams) -> nn.Module:
    """Layer norm (for images over channels and pixels), then ReLU."""
    return _norm_act(place, lambda: make_norm("layer", place, eps=params.eps), nn.ReLU())


def _batchnorm(place: Place, params: BatchNormParams) -> nn.Module:
    return make_norm("batch", place, eps=params.eps, momentum=params.momentum)


def _norm_act(place: Place, make: Callable[[], nn.Module], activation: nn.Module) -> nn.Module:
    if place.role == "join":
        return activation
    return nn.Sequential(make(), activation) if place.activated else make()
