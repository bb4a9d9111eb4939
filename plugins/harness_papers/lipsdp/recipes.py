"""What tasks derive: nets trained on images.

Plain PyTorch and not `harness.lab.fit`: that spends the trial's budget and offers, which belong to `solve`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness import data
from harness_papers.lipsdp.problems import LEAK

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda x: functional.leaky_relu(x, LEAK),
}
BATCH, RATE = 64, 2e-3
BRIGHTEST = {"digits": 16.0, "mnist": 255.0}
KEPT = 2000  # images around which slopes are looked for


def train_mlp(ctx: Any, data_set: str, depth: int, width: int, activation: str, group: int, epochs: int) -> dict[str, Tensor]:
    """An MLP n-width-...-width-10 of `depth` affine layers after `epochs` of Adam on cross-entropy, in ctx.dtype.

    Trained on all images (of MNIST's, the training part), pixels over the brightest: what is asked is how steep such a net is,
    not how good. Returns weight.k (out, in) and bias.k (out,) for k < depth, points (2000 at most, n), images of it, and
    accuracy (), the share of these that it tells right.
    """
    x, y = images(ctx, data_set)
    sizes = [x.shape[1], *[width] * (depth - 1), 10]
    gain = 1.0 if activation in ("groupsort", "householder") else 2.0  # these change no length, where ReLU halves the square
    weights = [draw_weight(ctx, k, sizes[k], sizes[k + 1], gain) for k in range(depth)]
    biases = [torch.zeros(size, dtype=ctx.dtype, device=ctx.device, requires_grad=True) for size in sizes[1:]]
    bend = activation_of(activation, group)
    optimizer = torch.optim.Adam([*weights, *biases], lr=RATE)
    order = ctx.generator("net/order")
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).to(ctx.device).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(forward(x[rows], weights, biases, bend), y[rows]).backward()
            optimizer.step()
    points, labels = x[:KEPT], y[:KEPT]
    with torch.no_grad():
        accuracy = (forward(points, weights, biases, bend).argmax(dim=1) == labels).to(ctx.dtype).mean()
    named = {f"weight.{k}": w for k, w in enumerate(weights)} | {f"bias.{k}": b for k, b in enumerate(biases)}
    return {**{name: tensor.detach().clone() for name, tensor in named.items()}, "points": points.clone(), "accuracy": accuracy}


def images(ctx: Any, name: str) -> tuple[Tensor, Tensor]:
    """(pixels (N, n) in ctx.dtype, labels (N,)) of the training part."""
    found = data.load(name)
    rows = slice(0, 60_000 if name == "mnist" else None)
    x = torch.as_tensor(found.x[rows].reshape(-1, found.x[0].size) / BRIGHTEST[name], dtype=ctx.dtype, device=ctx.device)
    return x, torch.tensor(found.y[rows], dtype=torch.int64, device=ctx.device)  # a copy: the set's own arrays are read-only


def draw_weight(ctx: Any, k: int, inputs: int, outputs: int, gain: float) -> Tensor:
    """Normal weights of variance gain / inputs from a stream of the layer's own: a deeper net starts with the same layers."""
    draw = torch.randn(outputs, inputs, generator=ctx.generator(f"net/weight.{k}"), dtype=torch.float64)
    return (draw * (gain / inputs) ** 0.5).to(ctx.device, ctx.dtype).requires_grad_()


def activation_of(name: str, group: int) -> Callable[[Tensor], Tensor]:
    """phi of rows (N, n): each unit alone, or groups of neighbours in descending order (householder: MaxMin's pairs)."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    return lambda x: x.reshape(len(x), -1, group).sort(dim=2, descending=True)[0].reshape(x.shape)


def forward(x: Tensor, weights: list[Tensor], biases: list[Tensor], bend: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits (N, 10)."""
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = bend(functional.linear(x, weight, bias))
    return functional.linear(x, weights[-1], biases[-1])
