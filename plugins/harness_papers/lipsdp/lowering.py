"""A chain of layers as steps, and the same chain as one `Network`: affine steps folded into matrices, groups made neighbours.

Torch, float64. A step says where it comes from, so that an error can name the node. What is folded is rounded as a float64
product is: the network that is certified is the folded one, which `importing` compares with the original.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from harness import HarnessError
from harness_papers.lipsdp.activations import SLOPES, Array
from harness_papers.lipsdp.problems import Network, frozen

Shape = tuple[int, ...]
MOST_ENTRIES = 1 << 26  # of one lowered matrix: 512 MiB
LEAK_ROUNDING = 1e-6  # a float32 0.01 is 0.01


@dataclass(frozen=True)
class Affine:
    """x -> linear(x) + bias. linear: (batch, *shape before) -> (batch, *shape), float64; bias broadcasts to (1, *shape)."""

    where: str
    shape: Shape
    linear: Callable[[Tensor], Tensor]
    bias: Tensor | None = None


@dataclass(frozen=True)
class Elementwise:
    """An activation of each unit alone, by its name in `SLOPES`; leak: of leaky_relu."""

    where: str
    name: str
    leak: float = 0.01


@dataclass(frozen=True)
class Sorted:
    """Groups of units sorted. taken, put: (groups, size), places in the flattened shape; the largest goes to put[:, 0]."""

    where: str
    taken: Array
    put: Array


Step = Affine | Elementwise | Sorted


def lower(steps: Sequence[Step], shape: Shape, norm: Literal["l2", "linf"] = "l2") -> Network:
    """The network that a chain of steps on inputs of `shape` (without the batch) is.

    Raises HarnessError for a matrix above MOST_ENTRIES, for activations that differ, and for groups of different sizes.
    """
    require_size(shape, shape, "the input")
    nonlinear = [step for step in steps if not isinstance(step, Affine)]
    require_alike(nonlinear)
    weights, biases, place = [], [], np.arange(prod(shape))
    chain: list[Affine] = []
    for step in steps:
        if isinstance(step, Affine):
            chain.append(step)
            continue
        shape, weight, bias = fold(chain, shape, place)
        chain, place = [], np.arange(prod(shape))
        if isinstance(step, Sorted):
            taken, place = step.taken.ravel(), step.put.ravel()
            weight, bias = weight[taken], bias[taken]
        weights.append(weight)
        biases.append(bias)
    _, weight, bias = fold(chain, shape, place)
    settings = settings_of(nonlinear)
    return Network(tuple(map(frozen, [*weights, weight])), tuple(map(frozen, [*biases, bias])), norm=norm, **settings)


def fold(chain: Sequence[Affine], shape: Shape, place: Array) -> tuple[Shape, Array, Array]:
    """(shape after, matrix, shift) of a chain of affine steps. place: where in the flattened `shape` each unit before lies."""
    inputs = prod(shape)
    basis = torch.zeros(inputs, inputs, dtype=torch.float64)
    basis[torch.arange(inputs), torch.as_tensor(place)] = 1.0
    basis, shift = basis.reshape(inputs, *shape), torch.zeros(1, *shape, dtype=torch.float64)
    for step in chain:
        require_size(shape, step.shape, step.where, inputs)
        basis, shift, shape = step.linear(basis), step.linear(shift), step.shape
        if step.bias is not None:
            shift = shift + step.bias
        if basis.shape[1:] != shape or shift.shape[1:] != shape:
            raise HarnessError(f"{step.where}: gives shape {tuple(shift.shape[1:])}, not {shape}; this is not understood")
    return shape, basis.reshape(inputs, -1).T.numpy(), shift.reshape(-1).numpy()


def require_size(before: Shape, after: Shape, where: str, inputs: int | None = None) -> None:
    """Raises HarnessError where the matrix of a step would be too large to hold."""
    rows, columns = prod(after), prod(before) if inputs is None else inputs
    if rows * columns > MOST_ENTRIES:
        raise HarnessError(
            f"{where}: shape {before} to {after} is a matrix of {rows} x {columns} numbers, and the limit is {MOST_ENTRIES}; "
            "certify a smaller network, or one on smaller inputs"
        )


def require_alike(steps: Sequence[Elementwise | Sorted]) -> None:
    """Raises HarnessError, which names the node, where the hidden layers have not one activation, or not one group size."""
    kinds = [(s.name, s.leak) if isinstance(s, Elementwise) else ("groupsort", s.taken.shape[1]) for s in steps]
    for step, kind in zip(steps, kinds, strict=True):
        if kind != kinds[0]:
            raise HarnessError(
                f"{step.where}: {kind[0]} ({kind[1]:g}) after {steps[0].where}, which is {kinds[0][0]} ({kinds[0][1]:g}); "
                "all hidden layers must have one activation"
            )


def settings_of(steps: Sequence[Elementwise | Sorted]) -> dict[str, object]:
    """Activation, slopes and group of a network with these steps; relu where there are none, which no unit has."""
    first = steps[0] if steps else Elementwise("", "relu")
    if isinstance(first, Sorted):
        return {"activation": "groupsort", "alpha": -1.0, "beta": 1.0, "group": first.taken.shape[1]}
    alpha, beta = SLOPES[first.name]
    if first.name == "leaky_relu":
        if abs(first.leak - alpha) > LEAK_ROUNDING:
            raise HarnessError(f"{first.where}: a leak of {first.leak:g}; only {alpha} is implemented")
        alpha = min(alpha, first.leak)  # a float32 0.01 lies below 0.01
    return {"activation": first.name, "alpha": alpha, "beta": beta}


def reshaped(where: str, shape: Shape) -> Affine:
    """Flatten, reshape, view: the same numbers in the same order."""
    return Affine(where, shape, lambda x: x.reshape(len(x), *shape))


def scaled(where: str, shape: Shape, factor: Tensor | float) -> Affine:
    return Affine(where, shape, lambda x: x * factor)


def shifted(where: str, shape: Shape, bias: Tensor) -> Affine:
    return Affine(where, shape, lambda x: x, bias)


def normalised(where: str, shape: Shape, mean: Tensor, var: Tensor, eps: float, gain: Tensor, shift: Tensor) -> Affine:
    """Batch normalisation at evaluation, per channel (the first axis of shape): gain (x - mean) / sqrt(var + eps) + shift."""
    factor = gain / (var + eps).sqrt()
    over = (-1, *[1] * (len(shape) - 1))
    return replace(scaled(where, shape, factor.reshape(over)), bias=(shift - mean * factor).reshape(1, *over))


def groups_along(shape: Shape, axis: int, size: int, *, strided: bool = False) -> Array:
    """(groups, size): places, in the flattened shape, of groups along an axis: neighbours, or `size` strides apart."""
    places = np.moveaxis(np.arange(prod(shape)).reshape(shape), axis, -1)
    if strided:
        places = places.reshape(*places.shape[:-1], size, -1).swapaxes(-1, -2)
    return places.reshape(-1, size)
