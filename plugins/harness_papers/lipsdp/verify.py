"""What the evidence of a Lipschitz bound proves, in float64 with its rounding accounted for. Shares no code with the solvers.

`inequalities` writes the inequalities down again from the weights and the multipliers, with a bound of what rounding did to
them; `definite` decides whether the exact matrices are positive definite for sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice, permutations, product
from math import factorial, inf, ldexp, prod, sqrt
from typing import Any

import numpy as np

from harness import Invalid, Unsupported
from harness_papers.lipsdp.definite import U, gamma, is_surely_positive_definite, smallest_eigenvalue, up
from harness_papers.lipsdp.exactly import exact_quotient, is_exact
from harness_papers.lipsdp.inequalities import checked, write_down
from harness_papers.lipsdp.problems import (
    LARGEST,
    LEAK,
    SMALLEST,
    Array,
    GroupMultipliers,
    LipschitzBound,
    Multipliers,
    Network,
    NormProduct,
    NullSpaceMultipliers,
    OfUnits,
    PerOutput,
    PointPair,
    ResidualMultipliers,
    SlopeVertices,
    out_of_range,
)

OF_UNITS = (Multipliers, GroupMultipliers, NullSpaceMultipliers, ResidualMultipliers, PerOutput)
DIRECTIONS = (1e-30, 1e30)  # sizes of what is not 0; their squares are multiplied with multipliers and weights
REPAIRS = (0.0, *(10.0**-k for k in range(14, 1, -1)))  # relative growth of rho = L^2 that is tried: 0, 1e-14, ..., 1e-2
MAX_VERTICES = 1 << 16
TINY = 1e-300  # more than any sum here loses to underflow
LOST = 1e-6  # of a slope, to the bound of its rounding errors


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
    require_range(network)
    proves, prover = EVIDENCE[type(evidence)]
    if kind != proves:
        raise Invalid(f"kind={kind!r}, but {type(evidence).__name__} proves {proves} bounds only")
    if type(evidence) in OF_UNITS:
        proof = prove_multipliers(network, claim, evidence)
    else:
        proof = compare(claim, prover(network, evidence), proves)
    return replace(proof, bound=up(proof.bound + spread(network))) if network.lost and proves == "upper" else proof


def require_range(network: Network) -> None:
    """Raises Invalid for weights that underflow or overflow in products: the bounds of rounding here are relative ones."""
    for k, weight in enumerate(network.weights):
        wrong = out_of_range(weight)
        if wrong is not None:
            raise Invalid(
                f"layer {k} holds {wrong:g}; 0 and sizes of {SMALLEST:g} to {LARGEST:g} can be certified, so scale it"
            )
    least, largest = DIRECTIONS
    for k, directions in enumerate(network.directions):
        if out_of_range(directions, least, largest) is not None:
            raise Invalid(f"directions of layer {k}: 0 and sizes of {least:g} to {largest:g} can be certified, so scale them")


def spread(network: Network) -> float:
    """By how much the constants of two networks may differ that differ by no more than `network.lost`, rounded upwards.

    Upper bounds are about all products W_l D_{l-1} ... D_1 W_1 with Jacobians D of the activations, whichever unit has which;
    so one layer after the other may be replaced, each at its own cost.
    """
    norms = [layer_norm(weight, network.norm) for weight in network.weights]
    grown = [norm + of_weight for norm, (of_weight, _) in zip(norms, network.lost, strict=True)]
    parts = [prod(norms[:k]) * of_weight * prod(grown[k + 1 :]) for k, (of_weight, _) in enumerate(network.lost)]
    return network.slope_product * sum(parts) * (1.0 + 8 * len(norms) * U)


def compare(claim: float, proved: float, kind: str) -> Proof:
    """The proved number, unless the claim is better than it by more than 1 %."""
    if not proved < inf:
        raise Invalid(f"claims the {kind} bound {claim!r}; the evidence proves {proved!r}, which is no bound")
    gap = (proved - claim if kind == "upper" else claim - proved) / max(claim, proved) if claim != proved else 0.0
    if gap > REPAIRS[-1]:
        raise Invalid(f"claims the {kind} bound {claim!r}; the evidence proves {proved!r}")
    return Proof(kind, proved, max(gap, 0.0))


def prove_multipliers(network: Network, claim: float, evidence: OfUnits | PerOutput) -> Proof:
    """The least tried rho with which the multipliers satisfy their inequalities. Raises Invalid if 1 % more is not enough.

    rho is L^2 in l2 and L in l-infinity.
    """
    evidence, linf = checked_multipliers(network, evidence), network.norm == "linf"
    start = claim if linf else up(claim * claim)
    parts, first = rows_of(evidence), 0
    for part in parts:  # what one output needs, the others may have
        first = next((i for i in range(first, len(REPAIRS)) if holds(network, part, up(start * (1.0 + REPAIRS[i])))), -1)
        if first < 0:
            smallest = min_eigenvalue(network, up(start * (1.0 + REPAIRS[-1])), part)
            raise Invalid(
                f"the multipliers do not prove L <= {claim!r}: with rho = {'L' if linf else 'L^2'} raised by {REPAIRS[-1]:.0%} "
                f"the smallest eigenvalue of the scaled LMI is {smallest:.3g}"
            )
    rho = up(start * (1.0 + REPAIRS[first]))
    bound = rho if linf else up(sqrt(rho))
    return Proof("upper", bound, bound / claim - 1.0 if claim else 0.0)


Part = tuple[OfUnits, Array | None, int | None]  # what `write_down` takes: multipliers, mu, output


def rows_of(evidence: OfUnits | PerOutput) -> list[Part]:
    if not isinstance(evidence, PerOutput):
        return [(evidence, None, None)]
    return [(of_units, mu, row) for row, (of_units, mu) in enumerate(zip(evidence.rows, evidence.mu, strict=True))]


def holds(network: Network, part: Part, rho: float) -> bool:
    """Whether all inequalities are proved with this rho. What is not finite, with huge multipliers, is not proved."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(is_surely_positive_definite(*one) for one in write_down(network, part[0], rho, part[1], part[2]))


def min_eigenvalue(network: Network, rho: float, part: Part) -> float:
    """The smallest eigenvalue over all inequalities, each scaled to a diagonal in [1, 4) where it is positive."""
    with np.errstate(over="ignore", invalid="ignore"):
        return min(smallest_eigenvalue(one[0]) for one in write_down(network, part[0], rho, part[1], part[2]))


def margin(network: Network, bound: float, evidence: OfUnits | PerOutput) -> float:
    """The smallest eigenvalue with this bound, for the record."""
    checked = checked_multipliers(network, evidence)
    rho = bound if network.norm == "linf" else bound * bound
    return min(min_eigenvalue(network, rho, part) for part in rows_of(checked))


def checked_multipliers(network: Network, evidence: OfUnits | PerOutput) -> OfUnits | PerOutput:
    """float64 copies. Raises Invalid for the other norm, the wrong activation or shape, a negative or a non-finite number."""
    if (network.norm == "linf") != isinstance(evidence, PerOutput):
        raise Invalid(
            f"{type(evidence).__name__} prove nothing in {network.norm!r}: PerOutput is for l-infinity, the others l2"
        )
    if not isinstance(evidence, PerOutput):
        return checked(network, evidence)
    outputs, inputs = network.weights[-1].shape[0], network.weights[0].shape[1]
    mu = tuple(np.array(of, dtype=np.float64) for of in evidence.mu)
    if len(mu) != outputs or len(evidence.rows) != outputs or any(of.shape != (inputs,) for of in mu):
        raise Invalid(
            f"multipliers for {len(mu)} and {len(evidence.rows)} outputs; the network has {outputs}, of {inputs} inputs"
        )
    if not all((of >= 0).all() and (of < inf).all() and out_of_range(of, largest=inf) is None for of in mu):
        raise Invalid(f"mu must be finite and >= 0, and {SMALLEST:g} at least where it is not 0")
    return PerOutput(mu, tuple(checked(network, of) for of in evidence.rows))


def lmi(network: Network, rho: float, t: tuple[Array, ...]) -> tuple[Array, Array, int]:
    """(P^, |P|abs, m) of LipSDP by slopes in l2: P >= 0 proves L^2 <= rho.

    For differences z_0, ..., z_{l-1} of the input and of the post-activations,
    z^T P z = rho |z_0|^2 - |W_l z_{l-1}|^2 - 2 sum_k sum_i t_ki (z_ki - alpha (W_k z_{k-1})_i) (beta (W_k z_{k-1})_i - z_ki).
    """
    return write_down(network, Multipliers(t), rho, None, None)[0]


def norm_product(network: Network, evidence: NormProduct | None = None) -> float:
    """What the activations contribute times prod ||W_k||, rounded upwards."""
    weights, power = near_one(network)
    bound = network.slope_product
    for weight in weights:
        bound *= layer_norm(weight, network.norm)
    return at_scale(bound * (1.0 + 8 * len(weights) * U), power)


def near_one(network: Network) -> tuple[list[Array], int]:
    """(weights over powers of two, so that the largest entry of each is in [1, 2); the power that was taken out of all)."""
    powers = [int(np.frexp(abs(weight).max(initial=0.0))[1]) - 1 for weight in network.weights]
    return [np.ldexp(weight, -power) for weight, power in zip(network.weights, powers, strict=True)], sum(powers)


def at_scale(bound: float, power: int) -> float:
    """bound times 2^power, rounded upwards; inf where that is too large."""
    try:
        made = ldexp(bound, power)
    except OverflowError:
        return inf
    return up(made) if bound and made < TINY else made


def layer_norm(weight: Array, norm: str) -> float:
    """The operator norm, rounded upwards; a sum of n absolute values is good to gamma(n)."""
    if norm == "linf":
        return float(abs(weight).sum(axis=1).max()) * (1.0 + 8 * max(weight.shape) * U)
    return largest_norm(weight[None])


def largest_norm(matrices: Array) -> float:
    """Surely at least the spectral norm of each of matrices (count, m, n).

    LAPACK's singular values are taken for a guess s; that s^2 I - M M^T is positive definite proves it, as in `definite`:
    |fl(M M^T) - M M^T| <= gamma(n) ||M||_F^2 in norm, and the trace is below m s^2.
    """
    if not matrices.any():
        return 0.0
    thin = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.transpose(0, 2, 1)
    m, n = thin.shape[1:]
    gram = thin @ thin.transpose(0, 2, 1)
    frobenius = float(np.trace(gram, axis1=1, axis2=2).max())
    guess = max(float(np.linalg.norm(thin, 2, axis=(1, 2)).max()), TINY**0.25) ** 2  # above what underflows in the squares
    for growth in (2.5, 25.0, 250.0, 2500.0):
        square = guess * (1.0 + growth * slack_of(m, n, frobenius / guess))
        shifted = (square - slack_of(m, n, frobenius / square) * square) * np.eye(m) - gram
        try:
            proved = bool(np.isfinite(np.linalg.cholesky(shifted)).all())
        except np.linalg.LinAlgError:
            proved = False
        if proved:
            return up(sqrt(square))
    return sqrt(frobenius) * (1.0 + 2 * gamma(m * n + 8))


def slack_of(m: int, n: int, frobenius: float) -> float:
    """Of s^2, what all rounding in `largest_norm` may hide; frobenius: ||M||_F^2 / s^2."""
    cholesky = gamma(2 * m + 8) / (1.0 - gamma(2 * m + 8)) * m
    return 1.001 * (cholesky + gamma(n + 2) * frobenius + 8 * U)


def vertex_maximum(network: Network, evidence: SlopeVertices) -> float:
    """Largest operator norm of W_l D_{l-1} ... D_1 W_1 over all extreme Jacobians D, rounded upwards.

    f(x) - f(y) is such a product applied to x - y, each D in the convex hull of its layer's extreme ones; the norm is convex
    in each D, so its maximum lies at a vertex. Raises Unsupported above 2^16 vertices.
    """
    choices = [vertices(network, k) for k in range(len(network.hidden))]
    count = prod(len(of) for layer in choices for of in layer)
    if count > MAX_VERTICES:
        raise Unsupported(f"{network.units} hidden units have {count} patterns; the limit is {MAX_VERTICES}")
    weights, power = near_one(network)
    largest = 0.0
    patterns = product(*(product(*layer) for layer in choices))
    while block := list(islice(patterns, 256)):
        chain = np.broadcast_to(weights[0], (len(block), *weights[0].shape))
        for k, weight in enumerate(weights[1:]):
            jacobian = np.array([block_diagonal(pattern[k]) for pattern in block])
            chain = weight @ (jacobian @ chain)
        largest = max(largest, float(abs(chain).sum(axis=-1).max()) if network.norm == "linf" else largest_norm(chain))
    # A chain of rounded products errs by at most gamma(all sums) |W_l| ... |W_1| in each entry, and so does a sum of a row.
    # Reflections add their own rounding, below 16 group u; |D| is at most `group` in norm, and 1 where it is diagonal.
    sums = sum(w.shape[1] + 2 + 17 * network.group for w in weights) + 8 * max(max(w.shape) for w in weights)
    magnitude = float(np.prod([np.linalg.norm(weight) for weight in weights]))
    magnitude *= (network.group * network.beta) ** len(network.hidden) * sqrt(weights[0].shape[1])
    return at_scale(up(largest + gamma(sums) * magnitude * 1.001), power)


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

    The error of both evaluations is subtracted; where that takes more than LOST of the slope, as in deep nets, and the network
    can be evaluated without rounding, it is.
    """
    x, y = (np.array(point, dtype=np.float64) for point in (pair.x, pair.y))
    if x.shape != y.shape or x.shape != network.weights[0].shape[1:]:
        raise Invalid(
            f"a pair of points of shapes {x.shape} and {y.shape}; the input has {network.weights[0].shape[1]} numbers"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or (x == y).all():
        raise Invalid("a pair of points must be finite and distinct")
    apart = float(abs(x - y).max())
    if apart < TINY**0.25 or max(abs(x).max(), abs(y).max()) > LARGEST:  # whose squares underflow, or overflow
        raise Invalid(f"a pair of points must be at least {TINY**0.25:g} apart, and no number above {LARGEST:g}")
    # The distance itself: each entry is one subtraction, the norm one sum of squares.
    order = np.inf if network.norm == "linf" else 2
    distance = float(np.linalg.norm(x - y, order)) * (1.0 + (len(x) + 4) * U)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no slope, which `compare` sees
        (f_x, error_x), (f_y, error_y) = evaluate(network, x), evaluate(network, y)
        rise = float(np.linalg.norm(f_x - f_y, order)) * (1.0 - (len(f_x) + 4) * U)
        error = float(np.linalg.norm(error_x + error_y, order)) * 1.001
    if error > LOST * rise and is_exact(network) and not any(map(any, network.lost)):
        return exact_quotient(network, x, y)
    rise = rise - error if rise < inf else inf  # inf - inf would be taken for 0
    return max(rise, 0.0) / distance * (1.0 - 4 * U)


def evaluate(network: Network, x: Array) -> tuple[Array, Array]:
    """f(x) and an entrywise bound of its rounding error: each layer's own, plus what earlier layers' error can grow to."""
    value, error = x, np.zeros_like(x)
    lost = network.lost or [(0.0, 0.0)] * len(network.weights)
    for k, (weight, bias, (of_weight, of_bias)) in enumerate(zip(network.weights, network.biases, lost, strict=True)):
        size, moved = abs(weight), float(np.linalg.norm(abs(value) + error))
        error = size @ error + gamma(weight.shape[1] + 2) * (size @ (abs(value) + error) + abs(bias))
        error = error + (of_weight * moved + of_bias) * 1.001 + TINY
        value = weight @ value + bias
        if k < len(network.hidden):
            value, error = activate_layer(network, k, value, error)
    return value, error * 1.001 + TINY


def activate_layer(network: Network, k: int, x: Array, error: Array) -> tuple[Array, Array]:
    """phi(x) of hidden layer k and a bound of its error, entry by entry, where each entry of x errs by at most `error`."""
    if not network.grouped:
        # Libraries give tanh and exp to a few units in the last place; 16 is generous. ReLU is exact.
        value = activate(network.activation, x)
        if network.activation == "leaky_relu":  # a float32 leak of 0.01 lies below it, at alpha
            error = error + (LEAK - network.alpha) * (abs(x) + error) * 1.001
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


EVIDENCE: dict[type, tuple[str, Callable[..., Any]]] = {
    **dict.fromkeys(OF_UNITS, ("upper", prove_multipliers)),
    NormProduct: ("upper", norm_product),
    SlopeVertices: ("upper", vertex_maximum),
    PointPair: ("lower", pair_quotient),
}
