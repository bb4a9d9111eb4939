"""A lower bound without rounding: nets of relu, leaky relu and groupsort at two points, in integers.

A float64 is a whole number times a power of two, and these activations compare and multiply only; so f(x) - f(y) is one too.
The bound of the rounding errors of a deep net grows as the product of its layers' norms of absolute values, and would leave
nothing of the slope between two near points.
"""

from __future__ import annotations

from fractions import Fraction
from math import inf, isqrt, nextafter
from sys import float_info
from typing import Any

import numpy as np

from harness_papers.lipsdp.problems import LEAK, Array, Network

EXACT = ("relu", "leaky_relu", "groupsort")
MOST_WEIGHTS = 1 << 18  # products of long integers: some 0.1 s
DIGITS = 128  # bits behind the point of a root
LARGEST = Fraction(float_info.max)


def is_exact(network: Network) -> bool:
    """Whether it can be evaluated without rounding, in a time that is worth it."""
    known = network.activation != "leaky_relu" or network.alpha == LEAK  # else its leak lies somewhere between
    return network.activation in EXACT and known and sum(weight.size for weight in network.weights) <= MOST_WEIGHTS


def exact_quotient(network: Network, x: Array, y: Array) -> float:
    """|f(x) - f(y)| / |x - y| in the network's norm, rounded downwards, once. x and y must be finite and distinct."""
    rise = size(difference(evaluate(network, x), evaluate(network, y)), network.norm)
    run = size(difference(integers(x), integers(y)), network.norm)
    ratio = rise / run
    if network.norm == "l2":
        ratio = Fraction(isqrt((ratio.numerator << 2 * DIGITS) // ratio.denominator), 1 << DIGITS)
    return max(nextafter(float(min(ratio, LARGEST)), -inf), 0.0)


Whole = tuple[Any, int]  # an object array of ints, and the power of two that divides them


def integers(array: Array) -> Whole:
    """Each number times one power of two, as int."""
    ratios = [number.as_integer_ratio() for number in np.asarray(array, dtype=np.float64).ravel().tolist()]
    power = max((below.bit_length() - 1 for _, below in ratios), default=0)
    whole = np.array([above << (power - below.bit_length() + 1) for above, below in ratios] + [None], dtype=object)[:-1]
    return whole.reshape(np.shape(array)), power


def evaluate(network: Network, x: Array) -> Whole:
    """f(x)."""
    value, power = integers(x)
    for k, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        (whole, of_weight), (shift, of_bias) = integers(weight), integers(bias)
        value, power = plus((whole @ value, power + of_weight), (shift, of_bias))
        if k < len(network.hidden):
            value, power = activate(network, value, power)
    return value, power


def activate(network: Network, value: Any, power: int) -> Whole:
    if network.activation == "groupsort":
        groups = [sorted(group, reverse=True) for group in value.reshape(-1, network.group).tolist()]
        return np.array(groups, dtype=object).reshape(-1), power
    above, below = (LEAK if network.activation == "leaky_relu" else 0.0).as_integer_ratio()
    return np.array([number * (below if number > 0 else above) for number in value.tolist()], dtype=object), (
        power + below.bit_length() - 1
    )


def plus(one: Whole, other: Whole) -> Whole:
    power = max(one[1], other[1])
    return (one[0] * (1 << (power - one[1]))) + (other[0] * (1 << (power - other[1]))), power


def difference(one: Whole, other: Whole) -> Whole:
    return plus(one, (-other[0], other[1]))


def size(whole: Whole, norm: str) -> Fraction:
    """The largest absolute value, or in l2 the sum of squares."""
    value, power = whole
    if norm == "linf":
        return Fraction(max(abs(number) for number in value.tolist()), 1 << power)
    return Fraction(sum(number * number for number in value.tolist()), 1 << 2 * power)
