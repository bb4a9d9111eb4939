"""A chain of layers as steps, and the same chain as one `Network`: affine steps folded into matrices, groups made neighbours.

Torch, float64. A step says where it comes from, so that an error can name the node. What is folded is rounded; by how much at
most is told beside it (`Network.lost`), and too much is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from harness import HarnessError
from harness_papers.lipsdp.activations import SLOPES, Array
from harness_papers.lipsdp.problems import LARGEST, SMALLEST, Network, frozen, out_of_range

Shape = tuple[int, ...]
MOST_ENTRIES = 1 << 26  # of one lowered matrix: 512 MiB
LEAK_ROUNDING = 1e-6  # a float32 0.01 is 0.01
MOST_LOST = 1e-9  # of a layer's matrix, to the rounding of its folding
NO_WEIGHT = torch.zeros((), dtype=torch.float64)
U = 2.0**-53


@dataclass(frozen=True)
class Affine:
    """x -> linear(x, weight) + bias, linear in both. linear: (batch, *shape before), weight -> (batch, *shape), float64.

    bias broadcasts to (1, *shape). products: summed for one output, at most; 0 where numbers only move. rounded: how often
    what makes a weight, or divides a sum, was rounded. bias_size: of the terms of a bias that was computed.
    """

    where: str
    shape: Shape
    linear: Callable[[Tensor, Tensor], Tensor]
    bias: Tensor | None = None
    weight: Tensor = NO_WEIGHT
    products: int = 0
    rounded: int = 0
    bias_size: Tensor | None = None

    @property
    def absolute(self) -> Affine:
        """The same with the sizes of weight and bias: what it makes of sizes bounds every sum in it."""
        size = self.bias if self.bias_size is None else self.bias_size
        return replace(self, weight=self.weight.abs(), bias=None if size is None else size.abs())


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
    weights, biases, lost, place = [], [], [], np.arange(prod(shape))
    chain: list[Affine] = []
    for step in (*steps, None):
        if isinstance(step, Affine):
            chain.append(step)
            continue
        shape, weight, bias, of_folding = fold(chain, shape, place)
        chain, place = [], np.arange(prod(shape))
        if isinstance(step, Sorted):
            taken, place = step.taken.ravel(), step.put.ravel()
            weight, bias = weight[taken], bias[taken]
        weights.append(weight)
        biases.append(bias)
        lost.append(of_folding)
    settings = settings_of(nonlinear)
    return Network(tuple(map(frozen, weights)), tuple(map(frozen, biases)), norm=norm, lost=tuple(lost), **settings)


def fold(chain: Sequence[Affine], shape: Shape, place: Array) -> tuple[Shape, Array, Array, tuple[float, float]]:
    """(shape after, matrix, shift, what of both was lost at most) of a chain of affine steps.

    place: where in the flattened `shape` each unit before lies.
    """
    inputs = prod(shape)
    basis = torch.zeros(inputs, inputs, dtype=torch.float64)
    basis[torch.arange(inputs), torch.as_tensor(place)] = 1.0
    start = (basis.reshape(inputs, *shape), torch.zeros(1, *shape, dtype=torch.float64))
    weight, bias = through(chain, *start)
    after = chain[-1].shape if chain else shape
    return after, weight, bias, lost_in(chain, start, weight)


def through(chain: Sequence[Affine], basis: Tensor, shift: Tensor) -> tuple[Array, Array]:
    """(matrix, shift): what becomes of a basis (inputs, *shape) and of a shift (1, *shape).

    Raises HarnessError for numbers that are not finite, or of a size at which products could be 0 for no reason.
    """
    inputs = len(basis)
    for step in chain:
        require_size(tuple(basis.shape[1:]), step.shape, step.where, inputs)
        basis, shift = step.linear(basis, step.weight), step.linear(shift, step.weight)
        if step.bias is not None:
            shift = shift + step.bias
        if basis.shape[1:] != step.shape or shift.shape[1:] != step.shape:
            raise HarnessError(f"{step.where}: gives shape {tuple(shift.shape[1:])}, not {step.shape}; this is not understood")
        for numbers in (step.weight, basis, shift):
            wrong = out_of_range(numbers.detach().numpy())
            if wrong is not None:
                raise HarnessError(
                    f"{step.where}: its numbers, or what they make of those before, hold {wrong:g}; "
                    f"0 and {SMALLEST:g} to {LARGEST:g} can be certified: train anew, or scale the weights"
                )
    return basis.reshape(inputs, -1).T.numpy(), shift.reshape(-1).numpy()


def lost_in(chain: Sequence[Affine], start: tuple[Tensor, Tensor], weight: Array) -> tuple[float, float]:
    """(of the matrix, in its operator norm; of the shift, in length): bounds of what folding rounded, in l2 and l-infinity.

    A sum of n products errs by at most gamma(n) of the sum of their sizes, and gamma's add up along a chain (Higham). The first
    matrix is met by a basis, of which one product is not 0: it is copied. Raises HarnessError where too much is lost.
    """
    working = [step for step in chain if step.products or step.bias is not None]
    if len(working) < 2 and not any(step.rounded for step in working):
        return 0.0, 0.0
    multiplied = [step for step in working if step.products]
    of_weight = sum(step.rounded for step in multiplied) + sum(step.products for step in multiplied[1:])
    of_bias = sum(step.products + step.rounded + 3 for step in working)
    size, shift_size = through([step.absolute for step in chain], *start)
    relative, relative_shift = (1.001 * n * U / (1.0 - n * U) for n in (of_weight, of_bias))  # 1.001: the sizes round too
    if relative * np.linalg.norm(size) > MOST_LOST * np.linalg.norm(weight):
        raise HarnessError(
            f"{working[-1].where}: large numbers cancel where it is folded with the layers before it, and more than "
            f"{MOST_LOST:g} of their product may be rounding; put one layer of exact weights in place of them"
        )
    largest = max(float(np.linalg.norm(size)), float(size.sum(axis=1).max(initial=0.0)))
    return relative * largest, relative_shift * float(np.linalg.norm(shift_size))


def require_size(before: Shape, after: Shape, where: str, inputs: int | None = None) -> None:
    """Raises HarnessError where the matrix of a step would be too large to hold."""
    rows, columns = prod(after), prod(before) if inputs is None else inputs
    if not rows or not columns:
        raise HarnessError(f"{where}: shape {before} to {after} holds no number; give each layer at least one unit")
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
        if not 0.0 <= alpha - first.leak <= LEAK_ROUNDING:
            raise HarnessError(f"{first.where}: a leak of {first.leak:.7g}; only {alpha} is implemented")
        alpha = first.leak  # a float32 0.01 lies below 0.01
    return {"activation": first.name, "alpha": alpha, "beta": beta}


def reshaped(where: str, shape: Shape) -> Affine:
    """Flatten, reshape, view: the same numbers in the same order."""
    return Affine(where, shape, lambda x, _: x.reshape(len(x), *shape))


def scaled(where: str, shape: Shape, factor: Tensor | float, rounded: int = 0) -> Affine:
    weight = torch.as_tensor(factor, dtype=torch.float64)
    return Affine(where, shape, operator.mul, weight=weight, products=1, rounded=rounded)


def shifted(where: str, shape: Shape, bias: Tensor) -> Affine:
    return Affine(where, shape, lambda x, _: x, bias)


def normalised(where: str, shape: Shape, mean: Tensor, var: Tensor, eps: float, gain: Tensor, shift: Tensor) -> Affine:
    """Batch normalisation at evaluation, per channel (the first axis of shape): gain (x - mean) / sqrt(var + eps) + shift."""
    factor = gain / (var + eps).sqrt()
    bias, size, factor = (
        t.reshape(1, -1, *[1] * (len(shape) - 1)) for t in (shift - mean * factor, shift.abs() + (mean * factor).abs(), factor)
    )
    return replace(scaled(where, shape, factor, rounded=4), bias=bias, bias_size=size)


def groups_along(shape: Shape, axis: int, size: int, *, strided: bool = False) -> Array:
    """(groups, size): places, in the flattened shape, of groups along an axis: neighbours, or `size` strides apart."""
    places = np.moveaxis(np.arange(prod(shape)).reshape(shape), axis, -1)
    if strided:
        places = places.reshape(*places.shape[:-1], size, -1).swapaxes(-1, -2)
    return places.reshape(-1, size)
