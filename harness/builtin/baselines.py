"""The core's own methods: common activations and norms to compare with. Declarations only, no torch.

`METHODS` is what the built-in plugin offers. The code is in `harness.builtin.modules`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.specs import Component, ComponentKind, Method, NoParams, Params

MODULES = "harness.builtin.modules"


class LeakyReluParams(Params):
    slope: float = Field(0.01, description="slope for negative inputs")


class EluParams(Params):
    alpha: float = Field(1.0, gt=0, description="-alpha is the limit for very negative inputs")


class GeluParams(Params):
    approximate: Literal["none", "tanh"] = Field("none", description="none: with the error function; tanh: the approximation")


class PreluParams(Params):
    start: float = Field(0.25, description="initial slope for negative inputs, learned, one for each activation layer")


class BatchNormParams(Params):
    eps: float = Field(1e-5, gt=0, description="added to the variance")
    momentum: float = Field(0.1, gt=0, le=1, description="share of the newest batch in the running statistics")


class GroupNormParams(Params):
    groups: int = Field(8, gt=0, description="groups of channels; must divide the channels of every layer")
    eps: float = Field(1e-5, gt=0, description="added to the variance")


class LayerNormParams(Params):
    eps: float = Field(1e-5, gt=0, description="added to the variance")


def _baseline(
    name: str, kind: ComponentKind, function: str, summary: str, source: str = "", params: type[Params] = NoParams
) -> Component:
    return Component(name, kind, build=f"{MODULES}:{function}", params=params, summary=summary, source=source)


METHODS: list[Method] = [
    _baseline("relu", "activation", "relu", "max(0, x)"),
    _baseline("leaky_relu", "activation", "leaky_relu", "x for x > 0, else slope x", params=LeakyReluParams),
    _baseline("elu", "activation", "elu", "x for x > 0, else alpha (exp(x) - 1)", "arXiv:1511.07289", EluParams),
    _baseline("gelu", "activation", "gelu", "x times the normal distribution function of x", "arXiv:1606.08415", GeluParams),
    _baseline("silu", "activation", "silu", "x sigmoid(x), also called swish", "arXiv:1702.03118"),
    _baseline("prelu", "activation", "prelu", "leaky ReLU with a learned slope", "arXiv:1502.01852", PreluParams),
    _baseline("tanh", "activation", "tanh", "hyperbolic tangent"),
    _baseline("batchnorm-relu", "norm_act", "batchnorm_relu", "batch norm, then ReLU", "arXiv:1502.03167", BatchNormParams),
    _baseline("batchnorm-silu", "norm_act", "batchnorm_silu", "batch norm, then SiLU", "arXiv:1502.03167", BatchNormParams),
    _baseline("groupnorm-relu", "norm_act", "groupnorm_relu", "group norm, then ReLU", "arXiv:1803.08494", GroupNormParams),
    _baseline("groupnorm-silu", "norm_act", "groupnorm_silu", "group norm, then SiLU", "arXiv:1803.08494", GroupNormParams),
    _baseline("layernorm-relu", "norm_act", "layernorm_relu", "layer norm, then ReLU", "arXiv:1607.06450", LayerNormParams),
]
