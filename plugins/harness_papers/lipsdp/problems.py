"""The words of the track `certify`: a network, and a Lipschitz bound together with what proves it. NumPy only.

A bound is a number and its evidence. The score recomputes the number from the evidence and the network (`verify`), so
the number that a method writes down never counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, prod
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from harness_papers.lipsdp.activations import GROUPED, LEAK, SLOPES, Array

__all__ = [
    "LARGEST",
    "LEAK",
    "SLOPES",
    "SMALLEST",
    "Array",
    "Bound",
    "Evidence",
    "GroupMultipliers",
    "LipschitzBound",
    "Multipliers",
    "Network",
    "NormProduct",
    "NullSpaceMultipliers",
    "OfUnits",
    "PerOutput",
    "PointPair",
    "ResidualMultipliers",
    "SlopeVertices",
    "network",
    "out_of_range",
]


# Of a weight or multiplier that is not 0. Products of two, and what is left of their sums, are far from float64's ends, where
# rounding is no longer relative.
SMALLEST, LARGEST = 1e-120, 1e120


def out_of_range(array: Array, least: float = SMALLEST, largest: float = LARGEST) -> float | None:
    """A number of the array that is neither 0 nor of a size in [least, largest], if there is one."""
    size = abs(array)
    wrong = ~((size >= least) & (size <= largest) | (size == 0))
    return float(array[wrong].flat[0]) if wrong.any() else None


@dataclass(frozen=True)
class Network:
    """f(x) = W_l phi(... phi(W_1 x + b_1) ...) + b_l, an MLP whose Lipschitz constant is asked for.

    weights[k] is (n_{k+1}, n_k) and biases[k] (n_{k+1},), float64. Either every secant slope of phi lies in [alpha, beta],
    or phi acts on groups of `group` neighbouring units (`activations.GROUPED`); then alpha = -1 and beta = 1 say no more
    than that it is 1-Lipschitz. directions: for householder only, one (n_k / group, group) per hidden layer, rows not zero.
    norm: of both input and output, "l2" or "linf".
    lost: for each layer, how far weights (in operator norm) and biases (in length) may lie from those that they stand for, as
    a product of layers that was rounded does; empty where they are what they are.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activation: str = "relu"
    alpha: float = 0.0
    beta: float = 1.0
    norm: Literal["l2", "linf"] = "l2"
    group: int = 1
    directions: tuple[Array, ...] = ()
    lost: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.activation not in SLOPES | GROUPED:
            raise ValueError(f"Network: activation={self.activation!r}; use one of {sorted(SLOPES | GROUPED)}")
        steepest = (SLOPES | GROUPED)[self.activation]
        if not (self.alpha <= steepest[0] and self.beta >= steepest[1] and abs(self.alpha) <= self.beta):
            raise ValueError(
                f"Network: slopes [{self.alpha}, {self.beta}] do not hold for {self.activation!r}: {list(steepest)}"
            )
        if self.norm not in ("l2", "linf"):
            raise ValueError(f"Network: norm={self.norm!r}; use 'l2' or 'linf'")
        if not self.weights or len(self.weights) != len(self.biases):
            raise ValueError(f"Network: {len(self.weights)} weights and {len(self.biases)} biases; give one bias per weight")
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if weight.dtype != np.float64 or bias.dtype != np.float64:
                raise ValueError(f"Network: layer {k} is {weight.dtype}; a certificate needs float64")
            if weight.ndim != 2 or bias.shape != (weight.shape[0],) or (k and weight.shape[1] != self.weights[k - 1].shape[0]):
                raise ValueError(
                    f"Network: layer {k} of shape {weight.shape} with bias {bias.shape} does not follow the last one"
                )
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError(f"Network: layer {k} has numbers that are not finite")
        if self.lost and not (len(self.lost) == len(self.weights) and all(0 <= x < inf for of in self.lost for x in of)):
            raise ValueError(f"Network: lost={self.lost!r}; give two numbers >= 0 for each of {len(self.weights)} layers")
        check_groups(self)

    @property
    def hidden(self) -> tuple[int, ...]:
        """Sizes of the hidden layers."""
        return tuple(weight.shape[0] for weight in self.weights[:-1])

    @property
    def units(self) -> int:
        """Hidden units in all: N of the papers."""
        return sum(self.hidden)

    @property
    def grouped(self) -> bool:
        """Whether phi acts on groups of units, so that single units have no slopes."""
        return self.activation in GROUPED

    @property
    def slope_product(self) -> float:
        """The largest factor that the activations alone can contribute, in the network's norm."""
        if self.activation == "householder" and self.norm == "linf":
            return prod(max(1.0, reflection_size(v)) for v in self.directions)
        return prod([self.beta] * len(self.hidden))


def check_groups(net: Network) -> None:
    """Raises ValueError where group and directions do not fit the activation and the hidden sizes."""
    if net.activation not in GROUPED:
        if net.group != 1 or net.directions:
            raise ValueError(f"Network: {net.activation!r} acts on each unit alone; leave out group and directions")
        return
    if net.group < 2 or any(size % net.group for size in net.hidden):
        raise ValueError(
            f"Network: group={net.group} for {net.activation!r}; it must be 2 or more and divide the hidden sizes {net.hidden}"
        )
    shapes = tuple(v.shape for v in net.directions)
    wanted = tuple((size // net.group, net.group) for size in net.hidden) if net.activation == "householder" else ()
    if shapes != wanted:
        raise ValueError(f"Network: directions of shapes {shapes} for {net.activation!r}; they must be {wanted}")
    if not all(v.dtype == np.float64 and np.isfinite(v).all() and v.any(axis=1).all() for v in net.directions):
        raise ValueError("Network: directions must be float64, finite, and none of them zero")


def reflection_size(v: Array) -> float:
    """The largest absolute row sum of I - 2 v v^T / (v^T v) over the rows v of (groups, group), rounded upwards."""
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    rows = abs(np.eye(v.shape[1]) - 2.0 * unit[:, :, None] * unit[:, None, :]).sum(axis=2)
    return float(rows.max(initial=1.0)) * (1.0 + (4 * v.shape[1] + 16) * 2.0**-53)


def network(
    weights: list[Array],
    biases: list[Array] | None = None,
    activation: str = "relu",
    *,
    group: int | None = None,
    directions: list[Array] | None = None,
    norm: Literal["l2", "linf"] = "l2",
) -> Network:
    """A Network with the activation's own slopes; zero biases where none are given.

    group: 2 (MaxMin) where it is not given and the activation acts on groups. directions: of householder; (1, -1) for each
    pair where none are given, which makes it MaxMin.
    """
    if activation not in SLOPES | GROUPED:
        raise ValueError(f"network: activation={activation!r}; use one of {sorted(SLOPES | GROUPED)}")
    alpha, beta = (SLOPES | GROUPED)[activation]
    shifts = biases if biases is not None else [np.zeros(w.shape[0]) for w in weights]
    size = group if group is not None else 2 if activation in GROUPED else 1
    if directions is None and activation == "householder" and size == 2:
        directions = [np.tile([1.0, -1.0], (np.shape(w)[0] // 2, 1)) for w in weights[:-1]]
    reflections = tuple(map(frozen, directions or ()))
    return Network(tuple(map(frozen, weights)), tuple(map(frozen, shifts)), activation, alpha, beta, norm, size, reflections)


def frozen(array: Array) -> Array:
    """A read-only float64 copy."""
    copy = np.array(array, dtype=np.float64, order="C")
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True)
class Multipliers:
    """Evidence of an upper bound: t of LipSDP, one array (n_k,) >= 0 per hidden layer. They and L^2 must satisfy the LMI."""

    t: tuple[Array, ...]


@dataclass(frozen=True)
class GroupMultipliers:
    """Evidence of an upper bound for groups of units: LipSDP-NSR, one array (n_k / group,) per hidden layer in each field.

    T = lam I + gamma K^T K, P = nu K^T K, S = tau K^T K in each group, K what the activation keeps: the sum of a sorted group,
    v_j x_i - v_i x_j for all i < j of a group reflected along v. lam >= 0. The chain is nu = tau = 0.
    """

    lam: tuple[Array, ...]
    gamma: tuple[Array, ...]
    nu: tuple[Array, ...]
    tau: tuple[Array, ...]


@dataclass(frozen=True)
class NullSpaceMultipliers:
    """Evidence of an upper bound for groups of units: lam of LipSDP-NSR on the space where K z_k = K W_k z_{k-1} holds."""

    lam: tuple[Array, ...]


@dataclass(frozen=True)
class ResidualMultipliers:
    """Evidence of an upper bound for MaxMin as residual ReLU: t (n_k,) >= 0, of relu(x_1 - x_2) and relu(x_2 - x_1) in turn."""

    t: tuple[Array, ...]


OfUnits = Multipliers | GroupMultipliers | NullSpaceMultipliers | ResidualMultipliers


@dataclass(frozen=True)
class PerOutput:
    """Evidence of an upper bound in l-infinity: for each output mu (n_0,) >= 0 of the inputs, and multipliers of the units."""

    mu: tuple[Array, ...]
    rows: tuple[OfUnits, ...]


@dataclass(frozen=True)
class NormProduct:
    """Evidence of an upper bound that needs none: the product of the layers' norms."""


@dataclass(frozen=True)
class SlopeVertices:
    """Evidence of an upper bound for tiny nets: the largest norm of W_l D_{l-1} ... D_1 W_1 over all extreme Jacobians D.

    D is diagonal with entries alpha or beta; for GroupSort a permutation inside each group; for Householder a reflection of
    some groups.
    """


@dataclass(frozen=True)
class PointPair:
    """Evidence of a lower bound: |f(x) - f(y)| / |x - y| in the network's norm. x and y are (n_0,), float64."""

    x: Array
    y: Array


Evidence = OfUnits | PerOutput | NormProduct | SlopeVertices | PointPair


@runtime_checkable
class LipschitzBound(Protocol):
    """The solution of the track. bound: the method's claim; kind: on which side of the constant it lies."""

    bound: float
    kind: Literal["upper", "lower"]
    evidence: Evidence


@dataclass(frozen=True)
class Bound:
    """A `LipschitzBound` as plain data."""

    bound: float
    kind: Literal["upper", "lower"]
    evidence: Evidence
