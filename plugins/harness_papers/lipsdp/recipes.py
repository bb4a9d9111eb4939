"""What tasks derive: nets trained on digits.

Plain PyTorch and not `harness.lab.fit`: that spends the trial's budget and offers, which belong to `solve`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness import data
from harness_papers.lipsdp.problems import LEAK

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda x: functional.leaky_relu(x, LEAK),
}
BATCH, RATE = 64, 2e-3


def train_digits_mlp(ctx: Any, depth: int, width: int, activation: str, epochs: int) -> dict[str, Tensor]:
    """An MLP 64-width-...-width-10 of `depth` affine layers after `epochs` of Adam on cross-entropy, in ctx.dtype.

    Trained on all 1,797 images, pixels over 16: what is asked is how steep such a net is, not how good.
    Returns weight.k (out, in) and bias.k (out,) for k < depth, and points (1797, 64), the images.
    """
    digits = data.load("digits")
    x = torch.as_tensor(digits.x.reshape(len(digits.x), -1) / 16.0, dtype=ctx.dtype, device=ctx.device)
    y = torch.tensor(digits.y, dtype=torch.int64, device=ctx.device)  # a copy: the set's own arrays are read-only
    sizes = [x.shape[1], *[width] * (depth - 1), 10]
    weights = [draw_weight(ctx, k, sizes[k], sizes[k + 1]) for k in range(depth)]
    biases = [torch.zeros(size, dtype=ctx.dtype, device=ctx.device, requires_grad=True) for size in sizes[1:]]
    optimizer = torch.optim.Adam([*weights, *biases], lr=RATE)
    order = ctx.generator("net/order")
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).to(ctx.device).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(forward(x[rows], weights, biases, activation), y[rows]).backward()
            optimizer.step()
    named = {f"weight.{k}": w for k, w in enumerate(weights)} | {f"bias.{k}": b for k, b in enumerate(biases)}
    return {**{name: tensor.detach().clone() for name, tensor in named.items()}, "points": x}


def draw_weight(ctx: Any, k: int, inputs: int, outputs: int) -> Tensor:
    """He's initialisation from a stream of the layer's own, so that a deeper net starts with the same first layers."""
    draw = torch.randn(outputs, inputs, generator=ctx.generator(f"net/weight.{k}"), dtype=torch.float64)
    return (draw * (2.0 / inputs) ** 0.5).to(ctx.device, ctx.dtype).requires_grad_()


def forward(x: Tensor, weights: list[Tensor], biases: list[Tensor], activation: str) -> Tensor:
    """Logits (N, 10)."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = ACTIVATIONS[activation](functional.linear(x, weight, bias))
    return functional.linear(x, weights[-1], biases[-1])
