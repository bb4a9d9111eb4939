"""Kolmogorov-Arnold layers, the room that the KAN papers share. Declarations only: the other modules import torch.

In a reference net a KAN layer stands in for every linear layer (`net: {activation: identity}`: its curves are its activations).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from harness import Component, Kernel, Metric, Params, Probe, hookimpl
from harness_papers.kan.cases import KAN_LINEAR

KAN = "https://arxiv.org/abs/2404.19756"
EFFICIENT = "https://github.com/Blealtan/efficient-kan"
FASTKAN = "https://github.com/ZiyaoLi/fast-kan"
RELUKAN = "https://arxiv.org/abs/2406.02075"
CHEBYKAN = "https://arxiv.org/abs/2405.07200"
FAIRER = "https://github.com/yu-rp/KANbeFair"
BUILD = "harness_papers.kan.components"


class RangeParams(Params):
    """Functions that are spread over a range of inputs."""

    low: float = Field(-1.0, description="where the grid begins; inputs outside of it get little or no signal")
    high: float = Field(1.0, description="where it ends")

    @model_validator(mode="after")
    def range_has_width(self) -> Any:
        if not self.low < self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}; give a range that has a width")
        return self


class SplineParams(RangeParams):
    """A grid of B-splines."""

    grid: int = Field(5, ge=1, le=200, description="intervals of the grid; the original has 3 or 5")
    order: int = Field(3, ge=1, le=7, description="order (degree) of the splines")


class KANParams(SplineParams):
    """efficient-kan's defaults."""

    scaler: bool = Field(True, description="one more trained factor on the spline of each edge")
    noise: float = Field(0.1, ge=0, description="size of the splines at first, divided by the intervals")
    kernel: Literal["auto", "formula"] = Field(
        "auto", description="auto: the fused layer where it can run, else the formula in torch's operations; formula: that one"
    )


class KANConvParams(SplineParams):
    """Curves of pixels, combined of grid + order functions of one kind."""

    functions: Literal["b-spline", "gaussian", "bump", "chebyshev"] = Field(
        "b-spline", description="B-splines, FastKAN's Gaussians, ReLU-KAN's bumps, or Chebyshev polynomials (of [-1, 1] only)"
    )


class BSplineActivationParams(SplineParams):
    """Splines of a unit's sum; their range is wider than a KAN's, for sums reach further than inputs (our choice, untried)."""

    low: float = Field(-2.0, description="where the grid begins; beyond it only the base is left")
    high: float = Field(2.0, description="where it ends")
    base: bool = Field(True, description="silu(z) with a trained factor beside the spline, as on a KAN's edges")


class FastKANParams(RangeParams):
    """FastKAN's defaults."""

    low: float = Field(-2.0, description="the first centre")
    high: float = Field(2.0, description="the last centre")
    grid: int = Field(8, ge=2, le=200, description="centres")
    norm: bool = Field(
        True, description="layer norm in front of the Gaussians, never over a single input; over two inputs it keeps but a sign"
    )


class ReluKANParams(SplineParams):
    """Bumps where the B-splines of the same grid would be at first."""

    trained_ends: bool = Field(True, description="where each input's bumps begin and end is trained, as in the original")


class ChebyshevKANParams(Params):
    """ChebyKAN's default."""

    degree: int = Field(4, ge=1, le=30, description="highest polynomial")


METHODS = [
    Component(
        "kan", "linear", f"{BUILD}:build_kan", KANParams,
        summary="a B-spline and a SiLU with trained factors on every edge, computed as one product", source=KAN,
    ),
    Component(
        "kan-conv", "conv", f"{BUILD}:build_kan_conv", KANConvParams,
        summary="curves on every edge of a convolution, of splines or other functions, computed once a pixel", source=KAN,
    ),
    Component(
        "fastkan", "linear", f"{BUILD}:build_fastkan", FastKANParams,
        summary="Gaussians of the layer-normalised input in place of splines", source=FASTKAN,
    ),
    Component(
        "relu-kan", "linear", f"{BUILD}:build_relu_kan", ReluKANParams,
        summary="squared products of two ReLUs in place of splines, a bias, no base", source=RELUKAN,
    ),
    Component(
        "chebyshev-kan", "linear", f"{BUILD}:build_chebyshev_kan", ChebyshevKANParams,
        summary="Chebyshev polynomials of the clamped input, no base", source=CHEBYKAN,
    ),
    Component(
        "bspline-activation", "activation", f"{BUILD}:build_bspline_activation", BSplineActivationParams,
        summary="each unit of an MLP learns a B-spline: a KAN's curves on nodes, not on edges", source=FAIRER,
    ),
]  # fmt: skip


# What ran is in the record, not in a key: results of a machine without a compiler differ in rounding, and in seconds.
KERNEL_METRICS = (Metric("fused_layers", "1", "neither"), Metric("formula_layers", "1", "neither"))
# The drawings of a net are kept by the probe that says how many of its edges are strong.
EDGE_METRICS = (Metric("edges", "1", "neither"), Metric("strong_edges", "1", "neither"))
PROBES = [
    Probe(f"kan-{name}-{track}", track, metrics, f"harness_papers.kan.{code}")
    for name, metrics, code in (
        ("kernel", KERNEL_METRICS, "probes:measure_kernel"),
        ("edges", EDGE_METRICS, "pictures:measure_edges"),
    )
    for track in ("classify", "regress")
]


@hookimpl
def harness_methods() -> list[Component]:
    return METHODS


@hookimpl
def harness_probes() -> list[Probe]:
    return PROBES


@hookimpl
def harness_kernels() -> list[Kernel]:
    return [KAN_LINEAR]
