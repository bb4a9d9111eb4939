"""SELU in one pass forward and one backward: C on the CPU, Triton on CUDA. The formula and its source are in method.py.

Each implementation takes inputs {"x": any shape} and a case, and returns x's shape and dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.lab.native_elementwise import Elementwise, Formula
from harness_papers.selu.method import ALPHA, LAMBDA, selu

FORMULA = Formula(
    value=f"return x > 0 ? {LAMBDA!r}f * x : {LAMBDA * ALPHA!r}f * fast_expm1(x);",
    derivatives=f"*slope = x > 0 ? {LAMBDA!r}f : {LAMBDA * ALPHA!r}f * fast_exp(x);",
)


def make_inputs(case: Any, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Standard normal: the fixed point of SELU."""
    return {"x": torch.randn(case.elements, generator=generator).to(device, dtype).requires_grad_()}


def formula(x: Tensor) -> Tensor:
    """As the paper writes it, an operation of torch for each sign; clamped, exp cannot overflow where it is unused."""
    return LAMBDA * torch.where(x > 0, x, ALPHA * torch.expm1(x.clamp_max(0)))


def reference(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    """float64, by the formula; autograd gives its gradient."""
    return formula(inputs["x"].double())


def run_eager(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    """torch's own operation."""
    return selu(inputs["x"])


def run_formula(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    return formula(inputs["x"])


def run_ours(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    return OURS(inputs["x"])


def why_fallback(inputs: Mapping[str, Tensor], case: Any) -> str:
    return OURS.fallback(inputs["x"])


OURS = Elementwise(FORMULA, selu, cuda="harness_papers.selu.triton_kernels")
