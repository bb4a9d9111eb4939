"""What the evidence of a Lipschitz bound proves, in float64 with its rounding accounted for. Shares no code with the solver.

Rounding. u = 2^-53; gamma(m) = m u / (1 - m u) bounds the relative error of a sum of m products in any order (Higham).
- The LMI P is assembled as P^; |P^ - P| <= gamma(m) |P|abs entrywise, where |P|abs is assembled from absolute values and m
  covers the longest sum. So ||P^ - P||_2 <= gamma(m) || |P|abs ||_F.
- If a floating-point Cholesky factorisation of P^ - c I runs to its end, then lambda_min(P^ - c I) >= -gamma'(n) trace, with
  gamma'(n) = gamma(n+1) / (1 - gamma(n+1)) (Rump, "Verification of positive definiteness", BIT 46, 2006; the bound holds
  for any order of summation, hence for LAPACK's blocked code; we double n for reciprocals of pivots).
- So c = gamma' trace + gamma(m) || |P|abs ||_F (plus the rounding of the subtraction) makes success a proof of P > 0.
Both are applied to D P D, with D powers of two that bring the diagonal into [1, 4): that scaling is exact and makes the
slack relative to each unit's own size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, permutations, product
from math import factorial, inf, nextafter, prod, sqrt
from typing import Any

import numpy as np

from harness import Invalid, Unsupported
from harness_papers.lipsdp.problems import (
    LEAK,
    Array,
    LipschitzBound,
    Multipliers,
    Network,
    NormProduct,
    PointPair,
    SlopeVertices,
)

U = 2.0**-53
REPAIRS = (0.0, *(10.0**-k for k in range(14, 1, -1)))  # relative growth of rho = L^2 that is tried: 0, 1e-14, ..., 1e-2
MAX_VERTICES = 1 << 16


@dataclass(frozen=True)
class Proof:
    """bound: what is proved, rounded away from the constant. repair: relative change of the claim that the proof needed."""

    kind: str
    bound: float
    repair: float


def prove(network: Network, solution: LipschitzBound) -> Proof:
    """The bound that the solution's evidence proves for this network, whatever number the solution claims.

    Raises Invalid if the claim is no number, if the evidence is malformed or of the other kind, or if it does not prove the
    claim to within 1 % (of L^2 for multipliers). Each attribute of the solution is read once.
    """
    claim, kind, evidence = float(solution.bound), solution.kind, solution.evidence
    if not (claim >= 0 and claim * claim < inf):
        raise Invalid(f"bound={claim!r}; a Lipschitz bound is a number >= 0 whose square is finite")
    # By exact type: an object that is two kinds of evidence at once proves nothing.
    if type(evidence) not in EVIDENCE:
        raise Invalid(f"evidence of type {type(evidence).__name__}; use one of {[made.__name__ for made in EVIDENCE]}")
    proves, prover = EVIDENCE[type(evidence)]
    if kind != proves:
        raise Invalid(f"kind={kind!r}, but {type(evidence).__name__} proves {proves} bounds only")
    if isinstance(evidence, Multipliers):
        return prove_multipliers(network, claim, evidence)
    return compare(claim, prover(network, evidence), proves)


def compare(claim: float, proved: float, kind: str) -> Proof:
    """The proved number, unless the claim is better than it by more than 1 %."""
    gap = (proved - claim if kind == "upper" else claim - proved) / max(claim, proved) if claim != proved else 0.0
    if gap > REPAIRS[-1]:
        raise Invalid(f"claims the {kind} bound {claim!r}; the evidence proves {proved!r}")
    return Proof(kind, proved, max(gap, 0.0))


def prove_multipliers(network: Network, claim: float, evidence: Multipliers) -> Proof:
    """The least tried rho >= claim^2 with which the multipliers satisfy the LMI. Raises Invalid if 1 % more is not enough."""
    t = checked_multipliers(network, evidence)
    start = up(claim * claim)
    for repair in REPAIRS:
        rho = up(start * (1.0 + repair))
        with np.errstate(over="ignore", invalid="ignore"):  # huge multipliers: what is not finite is not proved
            holds = is_surely_positive_definite(*lmi(network, rho, t))
        if holds:
            bound = up(sqrt(rho))
            return Proof("upper", bound, bound / claim - 1.0 if claim else 0.0)
    smallest = min_eigenvalue(network, up(start * (1.0 + REPAIRS[-1])), t)
    raise Invalid(
        f"the multipliers do not prove L <= {claim!r}: with rho = L^2 raised by {REPAIRS[-1]:.0%} the smallest eigenvalue of "
        f"the scaled LMI is {smallest:.3g}"
    )


def checked_multipliers(network: Network, evidence: Multipliers) -> tuple[Array, ...]:
    """float64 copies of the multipliers. Raises Invalid for a wrong shape, a negative or a non-finite number."""
    if network.grouped or network.norm != "l2":
        raise Invalid(f"multipliers of single units prove nothing about {network.activation!r} in {network.norm!r}")
    t = tuple(np.array(layer, dtype=np.float64) for layer in evidence.t)
    shapes = tuple(layer.shape for layer in t)
    if shapes != tuple((size,) for size in network.hidden):
        raise Invalid(f"multipliers of shapes {shapes}; the hidden layers have sizes {network.hidden}")
    if not all(np.isfinite(layer).all() and (layer >= 0).all() for layer in t):
        raise Invalid("multipliers must be finite and >= 0; a negative one turns the constraint on its unit around")
    return t


def lmi(network: Network, rho: float, t: tuple[Array, ...]) -> tuple[Array, Array, int]:
    """(P^, |P|abs, m): P >= 0 proves L^2 <= rho; |P|abs has the same sums of absolute values; m = longest sum.

    For differences z_0, ..., z_{l-1} of the input and of the post-activations,
    z^T P z = rho |z_0|^2 - |W_l z_{l-1}|^2 - 2 sum_k sum_i t_ki (z_ki - alpha (W_k z_{k-1})_i) (beta (W_k z_{k-1})_i - z_ki).
    """
    exact = assemble(network.weights, rho, t, network.alpha * network.beta, -(network.alpha + network.beta), -1.0)
    sizes = tuple(abs(weight) for weight in network.weights)
    magnitude = assemble(sizes, rho, t, abs(network.alpha * network.beta), abs(network.alpha) + abs(network.beta), 1.0)
    # Twelve covers what surrounds the sums: a product with t, one with a constant that is itself rounded, additions of blocks.
    return exact, magnitude, max(weight.shape[0] for weight in network.weights) + 12


def assemble(weights: tuple[Array, ...], rho: float, t: tuple[Array, ...], square: float, cross: float, last: float) -> Array:
    """The block-tridiagonal matrix: rho I, 2 square W_k^T T_k W_k and 2 T_k on, cross T_k W_k below, last W_l^T W_l."""
    edges = np.cumsum([0, *(weight.shape[1] for weight in weights)])
    where = [slice(edges[k], edges[k + 1]) for k in range(len(weights))]
    p = np.zeros((edges[-1], edges[-1]))
    p[where[0], where[0]] = rho * np.eye(edges[1])
    for before, here, weight, multiplier in zip(where[:-1], where[1:], weights[:-1], t, strict=True):
        scaled = multiplier[:, None] * weight
        p[before, before] += 2.0 * square * (weight.T @ scaled)
        p[here, before] = cross * scaled
        p[before, here] = cross * scaled.T
        p[here, here] = 2.0 * np.diag(multiplier)
    p[where[-1], where[-1]] += last * (weights[-1].T @ weights[-1])
    return p


def is_surely_positive_definite(p: Array, p_abs: Array, longest_sum: int) -> bool:
    """True only if the exact matrix that p rounds is positive definite; see the module. False may mean: too close to call."""
    scaled = scale_to_unit_diagonal(p)
    if scaled is None:
        return False
    matrix, scale = scaled
    assembly = gamma(longest_sum) * float(np.linalg.norm(p_abs * scale[:, None] * scale[None, :]))
    n, trace = len(matrix), float(np.trace(matrix))
    cholesky = gamma(2 * n + 8) / (1.0 - gamma(2 * n + 8)) * trace
    slack = (cholesky + assembly + 8 * U) * 1.001  # 8 u >= the rounding of the subtraction below, as the diagonal is < 4
    if not slack < inf:
        return False
    try:
        factor = np.linalg.cholesky(matrix - slack * np.eye(n))
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(factor).all())  # some LAPACKs run to the end on NaN


def min_eigenvalue(network: Network, rho: float, t: tuple[Array, ...]) -> float:
    """Smallest eigenvalue of the LMI after scaling its diagonal to [1, 4); of the LMI itself if a diagonal entry is <= 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        p = lmi(network, rho, t)[0]
    if not np.isfinite(p).all():
        return -inf
    scaled = scale_to_unit_diagonal(p)
    return float(np.linalg.eigvalsh(p if scaled is None else scaled[0])[0])


def scale_to_unit_diagonal(p: Array) -> tuple[Array, Array] | None:
    """(D P D, diagonal of D), D powers of two and the diagonal in [1, 4); None if an entry of the diagonal is not > 0."""
    diagonal = np.diag(p)
    if not (np.isfinite(p).all() and (diagonal > 0).all()):
        return None
    scale = np.exp2(-np.floor(np.log2(diagonal) / 2.0))
    return p * scale[:, None] * scale[None, :], scale


def norm_product(network: Network, evidence: NormProduct | None = None) -> float:
    """What the activations contribute times prod ||W_k||, rounded upwards.

    LAPACK's singular values are good to about max(m, n) u, times 8; a sum of n absolute values to gamma(n).
    """
    bound = network.slope_product
    for weight in network.weights:
        size = abs(weight).sum(axis=1).max() if network.norm == "linf" else np.linalg.norm(weight, 2)
        bound *= float(size) * (1.0 + 8 * max(weight.shape) * U)
    return bound * (1.0 + 8 * len(network.weights) * U)


def vertex_maximum(network: Network, evidence: SlopeVertices) -> float:
    """Largest operator norm of W_l D_{l-1} ... D_1 W_1 over all extreme Jacobians D, rounded upwards.

    f(x) - f(y) is such a product applied to x - y, each D in the convex hull of its layer's extreme ones; the norm is convex
    in each D, so its maximum lies at a vertex. Raises Unsupported above 2^16 vertices.
    """
    choices = [vertices(network, k) for k in range(len(network.hidden))]
    count = prod(len(of) for layer in choices for of in layer)
    if count > MAX_VERTICES:
        raise Unsupported(f"{network.units} hidden units have {count} patterns; the limit is {MAX_VERTICES}")
    largest = 0.0
    patterns = product(*(product(*layer) for layer in choices))
    while block := list(islice(patterns, 256)):
        chain = network.weights[0]
        for k, weight in enumerate(network.weights[1:]):
            jacobian = np.array([block_diagonal(pattern[k]) for pattern in block])
            chain = weight @ (jacobian @ chain)
        sizes = abs(chain).sum(axis=-1).max() if network.norm == "linf" else np.linalg.norm(chain, 2, axis=(-2, -1)).max()
        largest = max(largest, float(sizes))
    # A chain of rounded products errs by at most gamma(all sums) |W_l| ... |W_1| in each entry; an SVD by its size, in norm.
    # Reflections add their own rounding, below 16 group u; |D| is at most `group` in norm, and 1 where it is diagonal.
    sums = sum(w.shape[1] + 2 + 17 * network.group for w in network.weights) + 8 * max(max(w.shape) for w in network.weights)
    magnitude = float(np.prod([np.linalg.norm(weight) for weight in network.weights]))
    magnitude *= (network.group * network.beta) ** len(network.hidden) * sqrt(network.weights[0].shape[1])
    return largest + gamma(sums) * magnitude * 1.001


def vertices(network: Network, k: int) -> list[list[Array]]:
    """For each group of hidden layer k (a unit alone is one), the extreme Jacobians (group, group) of its part."""
    size, group = network.hidden[k], network.group
    if network.activation == "groupsort":
        if factorial(group) > MAX_VERTICES:
            raise Unsupported(f"groups of {group} units have {factorial(group)} patterns; the limit is {MAX_VERTICES}")
        return [[np.eye(group)[:, list(order)] for order in permutations(range(group))]] * (size // group)
    if network.activation == "householder":
        reflections = [np.eye(group) - 2.0 * (v[:, None] @ v[None, :]) / np.sum(v**2) for v in network.directions[k]]
        return [[np.eye(group), reflection] for reflection in reflections]
    return [[np.array([[network.alpha]]), np.array([[network.beta]])]] * size


def block_diagonal(blocks: tuple[Array, ...]) -> Array:
    """Square blocks of one size along the diagonal."""
    group = len(blocks[0])
    whole = np.zeros((group * len(blocks), group * len(blocks)))
    for i, one in enumerate(blocks):
        whole[i * group : (i + 1) * group, i * group : (i + 1) * group] = one
    return whole


def pair_quotient(network: Network, pair: PointPair) -> float:
    """|f(x) - f(y)| / |x - y| in the network's norm, rounded downwards. Raises Invalid if malformed.

    The error of both evaluations is subtracted.
    """
    x, y = (np.array(point, dtype=np.float64) for point in (pair.x, pair.y))
    if x.shape != y.shape or x.shape != network.weights[0].shape[1:]:
        raise Invalid(
            f"a pair of points of shapes {x.shape} and {y.shape}; the input has {network.weights[0].shape[1]} numbers"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or (x == y).all():
        raise Invalid("a pair of points must be finite and distinct")
    (f_x, error_x), (f_y, error_y) = evaluate(network, x), evaluate(network, y)
    # The distance itself: each entry is one subtraction, the norm one sum of squares.
    order = np.inf if network.norm == "linf" else 2
    distance = float(np.linalg.norm(x - y, order)) * (1.0 + (len(x) + 4) * U)
    rise = float(np.linalg.norm(f_x - f_y, order)) * (1.0 - (len(f_x) + 4) * U)
    rise -= float(np.linalg.norm(error_x + error_y, order)) * 1.001
    return max(rise, 0.0) / distance * (1.0 - 4 * U)


def evaluate(network: Network, x: Array) -> tuple[Array, Array]:
    """f(x) and an entrywise bound of its rounding error: each layer's own, plus what earlier layers' error can grow to."""
    value, error = x, np.zeros_like(x)
    for k, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        size = abs(weight)
        error = size @ error + gamma(weight.shape[1] + 2) * (size @ (abs(value) + error) + abs(bias))
        value = weight @ value + bias
        if k < len(network.hidden):
            value, error = activate_layer(network, k, value, error)
    return value, error * 1.001 + 1e-300  # 1e-300: underflow


def activate_layer(network: Network, k: int, x: Array, error: Array) -> tuple[Array, Array]:
    """phi(x) of hidden layer k and a bound of its error, entry by entry, where each entry of x errs by at most `error`."""
    if not network.grouped:
        # Libraries give tanh and exp to a few units in the last place; 16 is generous. ReLU is exact.
        value = activate(network.activation, x)
        return value, max(abs(network.alpha), network.beta) * error + 16 * U * abs(value)
    groups, errors = x.reshape(-1, network.group), error.reshape(-1, network.group)
    if network.activation == "groupsort":  # exact, and 1-Lipschitz in the largest entry
        return -np.sort(-groups, axis=1).ravel(), np.repeat(errors.max(axis=1), network.group)
    v = network.directions[k]
    along, squared = np.sum(groups * v, axis=1), np.sum(v**2, axis=1)
    value = np.where(along > 0, 0.0, 2.0 * along / squared)[:, None] * -v + groups
    # 1-Lipschitz in l2, wherever the kink is thought to lie; then some 4 group roundings of numbers below 3 |x|.
    spread = np.sqrt(np.sum(errors**2, axis=1)) * 1.001 + 16 * network.group * U * np.sqrt(np.sum(groups**2, axis=1))
    return value.ravel(), np.repeat(spread, network.group)


def activate(name: str, x: Array) -> Array:
    """phi(x), entry by entry."""
    if name == "relu":
        return np.maximum(x, 0.0)
    if name == "leaky_relu":
        return np.maximum(x, LEAK * x)
    if name == "tanh":
        return np.tanh(x)
    if name == "sigmoid":
        return 1.0 / (1.0 + np.exp(-np.clip(x, -700.0, 700.0)))
    raise Unsupported(f"activation {name!r} cannot be evaluated")


def gamma(m: int) -> float:
    """Relative error bound of a sum of m products."""
    return m * U / (1.0 - m * U)


def up(x: float) -> float:
    """A number surely at least as large as the exact one that x rounds."""
    return nextafter(x, inf)


EVIDENCE: dict[type, tuple[str, Callable[..., Any]]] = {
    Multipliers: ("upper", prove_multipliers),
    NormProduct: ("upper", norm_product),
    SlopeVertices: ("upper", vertex_maximum),
    PointPair: ("lower", pair_quotient),
}
