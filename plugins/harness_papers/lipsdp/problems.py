"""The words of the track `certify`: a network, and a Lipschitz bound together with what proves it. NumPy only.

A bound is a number and its evidence. The score recomputes the number from the evidence and the network (`verify`), so
the number that a method writes down never counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from harness import Unsupported

Array = NDArray[np.float64]

# The slopes (alpha, beta) between which each activation's every secant lies. Sigmoid's 1/4 is its steepest slope; the
# papers use [0, 1], which is valid and looser. The leak is PyTorch's default.
LEAK = 0.01
SLOPES: dict[str, tuple[float, float]] = {
    "relu": (0.0, 1.0),
    "leaky_relu": (LEAK, 1.0),
    "tanh": (0.0, 1.0),
    "sigmoid": (0.0, 0.25),
}


@dataclass(frozen=True)
class Network:
    """f(x) = W_l phi(... phi(W_1 x + b_1) ...) + b_l, an MLP whose Lipschitz constant is asked for, input and output in l2.

    weights[k] is (n_{k+1}, n_k) and biases[k] (n_{k+1},), float64; every secant slope of phi lies in [alpha, beta].
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    activation: str = "relu"
    alpha: float = 0.0
    beta: float = 1.0
    norm: Literal["l2"] = "l2"

    def __post_init__(self) -> None:
        if self.activation not in SLOPES:
            raise ValueError(f"Network: activation={self.activation!r}; use one of {sorted(SLOPES)}")
        steepest = SLOPES[self.activation]
        if not (self.alpha <= steepest[0] and self.beta >= steepest[1] and abs(self.alpha) <= self.beta):
            raise ValueError(
                f"Network: slopes [{self.alpha}, {self.beta}] do not hold for {self.activation!r}: {list(steepest)}"
            )
        if self.norm != "l2":
            raise Unsupported(f"Network: norm={self.norm!r}; only 'l2' is implemented")
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

    @property
    def hidden(self) -> tuple[int, ...]:
        """Sizes of the hidden layers."""
        return tuple(weight.shape[0] for weight in self.weights[:-1])

    @property
    def units(self) -> int:
        """Hidden units in all: N of the papers."""
        return sum(self.hidden)

    @property
    def slope_product(self) -> float:
        """The largest factor that the activations alone can contribute: beta for each hidden layer."""
        return prod([self.beta] * len(self.hidden))


def network(weights: list[Array], biases: list[Array] | None = None, activation: str = "relu") -> Network:
    """A Network with the activation's own slopes; zero biases where none are given."""
    alpha, beta = SLOPES[activation]
    shifts = biases if biases is not None else [np.zeros(w.shape[0]) for w in weights]
    return Network(tuple(map(frozen, weights)), tuple(map(frozen, shifts)), activation, alpha, beta)


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
class NormProduct:
    """Evidence of an upper bound that needs none: the product of the spectral norms."""


@dataclass(frozen=True)
class SlopeVertices:
    """Evidence of an upper bound for tiny nets: the largest norm of W_l D_{l-1} ... D_1 W_1 over all D in {alpha, beta}^N."""


@dataclass(frozen=True)
class PointPair:
    """Evidence of a lower bound: |f(x) - f(y)| / |x - y|. x and y are (n_0,), float64."""

    x: Array
    y: Array


Evidence = Multipliers | NormProduct | SlopeVertices | PointPair


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
