"""CRReLU in one pass forward and one backward: C on the CPU, Triton on CUDA. The formula and its source are in method.py.

Each implementation takes inputs {"x": any shape, "eps": one element} and a case, and returns x's shape and dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.lab.native_elementwise import Elementwise, Formula
from harness_papers.crrelu.method import crrelu

# With u = exp(-x^2 / 2). The slope is u - x (x u), not (1 - x^2) u, which is inf * 0 where x^2 overflows.
FORMULA = Formula(
    value="return (x > 0 ? x : 0) + p * (x * fast_exp(-0.5f * x * x));",
    derivatives="""
        float u = fast_exp(-0.5f * x * x);
        *slope = (x > 0 ? 1.0f : 0.0f) + p * (u - x * (x * u));
        *weight = x * u;
    """,
)


def make_inputs(case: Any, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Standard normal pre-activations, as after a normalised layer, and an eps large enough to be seen in the output."""
    x = torch.randn(case.elements, generator=generator).to(device, dtype)
    return {"x": x.requires_grad_(), "eps": torch.tensor(0.25, device=device, dtype=dtype).requires_grad_()}


def formula(x: Tensor, eps: Tensor) -> Tensor:
    """As the paper writes it, an operation of torch for each of its signs. relu'(0) = 0."""
    return torch.relu(x) + eps * x * torch.exp(-x.square() / 2)


def reference(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    """float64, by the formula; autograd gives its gradients."""
    return formula(inputs["x"].double(), inputs["eps"].double())


def run_eager(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    return formula(inputs["x"], inputs["eps"])


def run_eager_function(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    """The layer's own autograd.Function: torch operations, but only x is kept for the backward pass."""
    return crrelu(inputs["x"], inputs["eps"])


def run_ours(inputs: Mapping[str, Tensor], case: Any) -> Tensor:
    return OURS(inputs["x"], inputs["eps"])


def why_fallback(inputs: Mapping[str, Tensor], case: Any) -> str:
    return OURS.fallback(inputs["x"], inputs["eps"])


OURS = Elementwise(FORMULA, formula, cuda="harness_papers.crrelu.triton_kernels")
