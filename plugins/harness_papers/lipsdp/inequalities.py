"""The inequalities of `verify`, written down from a network and its evidence with their rounding. NumPy only.

Each is a list of (P^, |P|abs, m) as `definite` takes them; all of them positive definite prove L^2 <= rho in l2, and in
l-infinity L <= rho for one output. Differences are z_0 of the input, x_k = W_k z_{k-1} and z_k of hidden layer k.

l2:          rho |z_0|^2 - |W_l z_{l-1}|^2 - (constraints) > 0 for all z.
l-infinity:  2 rho - sum mu + 2 W_l z_{l-1} + sum_i mu_i z_0i^2 - (constraints) > 0 in the sense of a matrix with one row and
             column more: where |z_0|_inf <= 1 the terms with mu are <= sum mu, so 2 rho >= -2 W_l z_{l-1}, for z and -z.
The constraints are sums of quadratic forms that are >= 0 for differences of the activation at hand:
slopes in [a, b]: 2 t (z - a x)(b x - z). Groups: lambda (|x|^2 - |z|^2) + p |K x|^2 + 2 q (K x)(K z) + r |K z|^2 with
p + 2 q + r = 0, where the activation keeps K: K z = K x; p = gamma - 2 tau, q = nu + tau, r = -gamma - 2 nu.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from harness import Invalid
from harness_papers.lipsdp.definite import U, gamma
from harness_papers.lipsdp.problems import (
    LARGEST,
    SMALLEST,
    Array,
    GroupMultipliers,
    Multipliers,
    Network,
    NullSpaceMultipliers,
    OfUnits,
    ResidualMultipliers,
    out_of_range,
)

Inequality = tuple[Array, Array, int]
UNDERFLOW = 1e-300  # more than a sum of products loses to it; `definite` refuses matrices in which that would count


@dataclass(frozen=True)
class Rounded:
    """Linear forms, one a row, in the coordinates of the inequality; |value - exact| <= error entrywise."""

    value: Array
    error: Array

    def __getitem__(self, rows: slice) -> Rounded:
        return Rounded(self.value[rows], self.error[rows])


def write_down(network: Network, evidence: OfUnits, rho: float, mu: Array | None, row: int | None) -> list[Inequality]:
    """All inequalities that have to hold. mu (n_0,) and row, an output, are None in l2. Raises Invalid if malformed."""
    head = np.full(network.weights[0].shape[1], rho) if mu is None else mu
    last = network.weights[-1] if row is None else network.weights[-1][row : row + 1]
    # 2 rho - sum mu, rounded downwards: of this number less is safe
    rest = None if mu is None else 2.0 * rho - float(mu.sum()) * (1.0 + 2 * len(mu) * U) - 4 * U * rho
    if isinstance(evidence, Multipliers):
        return [slopes(network, evidence, head, last, rest)]
    if isinstance(evidence, GroupMultipliers) and not any(layer.any() for layer in (*evidence.nu, *evidence.tau)):
        return chain(network, evidence, head, last, rest)
    if isinstance(evidence, GroupMultipliers):
        return [close(*full_terms(network, evidence), head, last, rest)]
    if isinstance(evidence, NullSpaceMultipliers):
        return [close(*null_space_terms(network, evidence), head, last, rest)]
    return [close(*residual_terms(network, evidence), head, last, rest)]


# Slopes -----------------------------------------------------------------------------------------------------------------


def slopes(network: Network, evidence: Multipliers, head: Array, last: Array, rest: float | None) -> Inequality:
    """The block-tridiagonal matrix of LipSDP."""
    a, b, t = network.alpha, network.beta, evidence.t
    weights = (*network.weights[:-1], last)
    exact = assemble(weights, head, t, a * b, -(a + b), -1.0, rest)
    sizes = tuple(abs(weight) for weight in weights)
    magnitude = assemble(sizes, head, t, abs(a * b), abs(a) + abs(b), 1.0, rest)
    # Twelve covers what surrounds the sums: a product with t, one with a constant that is itself rounded, additions of blocks.
    return exact, magnitude, max(weight.shape[0] for weight in weights) + 12


def assemble(
    weights: tuple[Array, ...], head: Array, t: tuple[Array, ...], square: float, cross: float, last: float, rest: float | None
) -> Array:
    """diag(head), 2 square W_k^T T_k W_k and 2 T_k on the diagonal, cross T_k W_k below it, last W_l^T W_l at its end.

    With rest, W_l is in a row and column of its own, whose diagonal entry is rest.
    """
    edges = np.cumsum([0, *(weight.shape[1] for weight in weights)])
    where = [slice(start, end) for start, end in pairwise(edges)]
    p = np.zeros((edges[-1], edges[-1]))
    p[where[0], where[0]] = np.diag(head)
    for before, here, weight, multiplier in zip(where[:-1], where[1:], weights[:-1], t, strict=True):
        scaled = multiplier[:, None] * weight
        if square:
            p[before, before] += 2.0 * square * (weight.T @ scaled)
        p[here, before] = cross * scaled
        p[before, here] = cross * scaled.T
        p[here, here] = 2.0 * np.diag(multiplier)
    if rest is not None:
        return border(p, np.pad(weights[-1][0], (edges[-2], 0)), rest)
    p[where[-1], where[-1]] += last * (weights[-1].T @ weights[-1])
    return p


def border(p: Array, row: Array, corner: float) -> Array:
    """[[corner, row], [row^T, p]]."""
    return np.block([[np.array([[corner]]), row[None]], [row[:, None], p]])


# Groups -----------------------------------------------------------------------------------------------------------------


def kept_rows(network: Network, k: int) -> Array:
    """K (groups, kept, group) of hidden layer k: what the activation leaves alone, exact in float64.

    The sum of a sorted group; v_j x_i - v_i x_j for a reflection along v, as (v_j e_i - v_i e_j) v = 0.
    """
    groups, group = network.hidden[k] // network.group, network.group
    if network.activation == "groupsort":
        return np.ones((groups, 1, group))
    pairs = list(combinations(range(group), 2))
    rows = np.zeros((groups, len(pairs), group))
    for p, (i, j) in enumerate(pairs):
        rows[:, p, i], rows[:, p, j] = network.directions[k][:, j], -network.directions[k][:, i]
    return rows


def chain(network: Network, evidence: GroupMultipliers, head: Array, last: Array, rest: float | None) -> list[Inequality]:
    """nu = tau = 0: a block per layer, T_{k-1} - W_k^T T_k W_k with T_0 = diag(head), then T_{l-1} - W_l^T W_l.

    T_k = lambda I + gamma K^T K. With rest the last is [[rest, W_l], [W_l^T, T_{l-1}]].
    """
    above, above_abs, made = np.diag(head), np.diag(abs(head)), []
    longest = max(max(w.shape) for w in network.weights) + 8 * network.group + 16
    for k, weight in enumerate(network.weights[:-1]):
        t, t_abs = group_matrix(network, k, evidence, False), group_matrix(network, k, evidence, True)
        made.append((above - weight.T @ (t @ weight), above_abs + abs(weight).T @ (t_abs @ abs(weight)), 2 * longest))
        above, above_abs = t, t_abs
    if rest is not None:
        return [*made, (border(above, last[0], rest), border(above_abs, abs(last[0]), abs(rest)), longest)]
    return [*made, (above - last.T @ last, above_abs + abs(last).T @ abs(last), longest)]


def group_matrix(network: Network, k: int, evidence: GroupMultipliers, magnitude: bool) -> Array:
    """T_k (n_k, n_k), or the same from absolute values."""
    kept = kept_rows(network, k)
    lam, gam = evidence.lam[k], evidence.gamma[k]
    if magnitude:
        kept, gam = abs(kept), abs(gam)
    blocks = lam[:, None, None] * np.eye(network.group) + gam[:, None, None] * (kept.transpose(0, 2, 1) @ kept)
    size, group = network.hidden[k], network.group
    t = np.zeros((size, size))
    for i, block in enumerate(blocks):
        t[i * group : (i + 1) * group, i * group : (i + 1) * group] = block
    return t


# Forms ------------------------------------------------------------------------------------------------------------------

Term = tuple[Array, Array, Rounded, Rounded]  # (coefficient, a bound of its terms' sizes, left, right): sum c_i left_i right_i


def full_terms(network: Network, evidence: GroupMultipliers) -> tuple[list[Term], Rounded]:
    """Coordinates (z_0, ..., z_{l-1}). (what is subtracted, z_{l-1})."""
    edges = np.cumsum([0, *(weight.shape[1] for weight in network.weights)])
    z, terms = exactly(np.eye(edges[1], edges[-1])), []
    for k, weight in enumerate(network.weights[:-1]):
        x, z = times(weight, z), exactly(np.eye(edges[-1])[edges[k + 1] : edges[k + 2]])
        lam, gam, nu, tau = (of[k] for of in (evidence.lam, evidence.gamma, evidence.nu, evidence.tau))
        terms += size_terms(network, lam, x, z)
        kept = kept_rows(network, k)
        a, b = apply_groups(kept, x), apply_groups(kept, z)
        each = lambda c, kept=kept: np.repeat(c, kept.shape[1])  # noqa: E731
        terms.append((each(gam - 2.0 * tau), each(abs(gam) + 2.0 * abs(tau)), a, a))
        terms.append((each(2.0 * (nu + tau)), each(2.0 * (abs(nu) + abs(tau))), a, b))
        terms.append((each(-gam - 2.0 * nu), each(abs(gam) + 2.0 * abs(nu)), b, b))
    return terms, z


def null_space_terms(network: Network, evidence: NullSpaceMultipliers) -> tuple[list[Term], Rounded]:
    """Coordinates (z_0, y_1, ...) with z_k = x_k + Q y_k, which is all that keeps K; Q is exact.

    Differences e_j - e_{j+1} inside a sorted group; v for a reflection along v.
    """
    free = network.group - 1 if network.activation == "groupsort" else 1
    counts = [size // network.group * free for size in network.hidden]
    edges = network.weights[0].shape[1] + np.cumsum([0, *counts])
    z, terms = exactly(np.eye(edges[0], edges[-1])), []
    for k, weight in enumerate(network.weights[:-1]):
        x = times(weight, z)
        value = x.value.copy()
        step = np.eye(network.group, free) - np.eye(network.group, free, -1)
        for g in range(network.hidden[k] // network.group):
            rows = slice(g * network.group, (g + 1) * network.group)
            columns = slice(edges[k] + g * free, edges[k] + (g + 1) * free)
            value[rows, columns] = step if network.activation == "groupsort" else network.directions[k][g][:, None]
        z = Rounded(value, x.error)
        terms += size_terms(network, evidence.lam[k], x, z)
    return terms, z


def residual_terms(network: Network, evidence: ResidualMultipliers) -> tuple[list[Term], Rounded]:
    """Coordinates (z_0, y_1, ...), y = relu(+-(x_1 - x_2)) for each pair, so that the pair becomes (x_2 + y_1, x_2 - y_2)."""
    edges = network.weights[0].shape[1] + np.cumsum([0, *network.hidden])
    z, terms = exactly(np.eye(edges[0], edges[-1])), []
    for k, weight in enumerate(network.weights[:-1]):
        x, y = times(weight, z), exactly(np.eye(edges[-1])[edges[k] : edges[k + 1]])
        signs = np.tile(np.array([[1.0, -1.0], [-1.0, 1.0]]), (len(weight) // 2, 1, 1))
        m, t = apply_groups(signs, x), 2.0 * evidence.t[k]
        terms += [(t, t, y, m), (-t, t, y, y)]
        second = np.repeat(np.arange(1, len(weight), 2), 2)
        value = x.value[second].copy()  # exact: x has no entry where y has one
        value[:, edges[k] : edges[k + 1]] += np.diag(np.tile([1.0, -1.0], len(weight) // 2))
        z = Rounded(value, x.error[second])
    return terms, z


def size_terms(network: Network, lam: Array, x: Rounded, z: Rounded) -> list[Term]:
    """lambda (|x|^2 - |z|^2) in each group."""
    each = np.repeat(lam, network.group)
    return [(each, each, x, x), (-each, each, z, z)]


def close(terms: list[Term], z: Rounded, head: Array, last: Array, rest: float | None) -> Inequality:
    """diag(head) on z_0 and |W_l z_{l-1}|^2 or its border, minus the terms; with a bound of all rounding, in units of u."""
    n = z.value.shape[1]
    p, error = np.diag(np.pad(head, (0, n - len(head)))), np.zeros((n, n))
    out = times(last, z)
    if rest is None:
        terms = [*terms, (np.ones(len(last)), np.ones(len(last)), out, out)]
    for coefficient, size, left, right in terms:
        product = left.value.T @ (coefficient[:, None] * right.value)
        p -= 0.5 * (product + product.T)
        left_abs, right_abs = abs(left.value) + left.error, size[:, None] * (abs(right.value) + right.error)
        lost = left.error.T @ right_abs + left_abs.T @ (size[:, None] * right.error)
        lost += gamma(len(size) + 2 * len(terms) + 16) * (left_abs.T @ right_abs)
        error += 0.5 * (lost + lost.T)
    error += gamma(len(terms) + 4) * np.diag(np.pad(abs(head), (0, n - len(head))))
    if rest is not None:
        p, error = border(p, out.value[0], rest), border(error, out.error[0], 0.0)
    return p, error * (1.001 / U), 1


def exactly(rows: Array) -> Rounded:
    return Rounded(rows, np.zeros_like(rows))


def times(weight: Array, z: Rounded) -> Rounded:
    """W z. Raises Invalid where its size is such that products of forms could overflow, or errors underflow beside them."""
    size = abs(weight)
    terms = size @ (abs(z.value) + z.error)
    if not (terms < LARGEST**0.5).all():
        raise Invalid(f"products of layers with entries above {LARGEST**0.5:g} cannot be checked; scale the weights")
    error = size @ z.error + gamma(weight.shape[1] + 2) * terms
    return Rounded(weight @ z.value, error * 1.001 + UNDERFLOW)


def apply_groups(rows: Array, x: Rounded) -> Rounded:
    """K x for K (groups, kept, group), x one row per unit."""
    value, error = (of.reshape(len(rows), rows.shape[2], -1) for of in (x.value, x.error))
    grown = abs(rows) @ error + gamma(rows.shape[2] + 2) * (abs(rows) @ (abs(value) + error))
    flat = (len(rows) * rows.shape[1], -1)
    return Rounded((rows @ value).reshape(flat), grown.reshape(flat) * 1.001)


def checked(network: Network, evidence: OfUnits) -> OfUnits:
    """A float64 copy. Raises Invalid for the wrong kind of network or shape, and for numbers not finite or below 0."""
    if isinstance(evidence, ResidualMultipliers) and (network.activation, network.group) != ("groupsort", 2):
        raise Invalid(f"multipliers of MaxMin as residual ReLU prove nothing about {network.activation!r} of {network.group}")
    if isinstance(evidence, Multipliers) and network.grouped:
        raise Invalid(f"multipliers of single units prove nothing about {network.activation!r}")
    if isinstance(evidence, Multipliers | ResidualMultipliers):
        return type(evidence)(arrays(evidence.t, network.hidden, "the hidden layers have sizes"))
    if not network.grouped:
        raise Invalid(f"multipliers of groups prove nothing about {network.activation!r}")
    groups = tuple(size // network.group for size in network.hidden)
    lam = arrays(evidence.lam, groups, "the hidden layers have groups")
    if isinstance(evidence, NullSpaceMultipliers):
        return NullSpaceMultipliers(lam)
    of_kept = (
        arrays(of, groups, "the hidden layers have groups", -np.inf) for of in (evidence.gamma, evidence.nu, evidence.tau)
    )
    return GroupMultipliers(lam, *of_kept)


def arrays(given: tuple[Array, ...], sizes: tuple[int, ...], of: str, least: float = 0.0) -> tuple[Array, ...]:
    made = tuple(np.array(layer, dtype=np.float64) for layer in given)
    shapes = tuple(layer.shape for layer in made)
    if shapes != tuple((size,) for size in sizes):
        raise Invalid(f"multipliers of shapes {shapes}; {of} {sizes}")
    if not all(np.isfinite(layer).all() and (layer >= least).all() for layer in made):
        raise Invalid("multipliers must be finite and >= 0; a negative one turns the constraint on its unit around")
    for layer in made:
        wrong = out_of_range(layer, largest=np.inf)  # what overflows ends as no proof
        if wrong is not None:
            raise Invalid(f"a multiplier of {wrong:g}, so small that its products are lost; {SMALLEST:g} is the least beside 0")
    return made
