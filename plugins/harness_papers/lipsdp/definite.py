"""Whether a matrix is positive definite for sure, in float64 with all rounding accounted for. NumPy only.

u = 2^-53; gamma(m) = m u / (1 - m u) bounds the relative error of a sum of m products in any order (Higham).
- A matrix P is assembled as P^ with |P^ - P| <= gamma(m) |P|abs entrywise, so ||P^ - P||_2 <= gamma(m) || |P|abs ||_F.
- If a floating-point Cholesky factorisation of P^ - c I runs to its end, then lambda_min(P^ - c I) >= -gamma'(n) trace, with
  gamma'(n) = gamma(n+1) / (1 - gamma(n+1)) (Rump, "Verification of positive definiteness", BIT 46, 2006; the bound holds
  for any order of summation, hence for LAPACK's blocked code; we double n for reciprocals of pivots).
- So c = gamma' trace + gamma(m) || |P|abs ||_F (plus the rounding of the subtraction) makes success a proof of P > 0.
- Weights are 0 or in [1e-120, 1e120], multipliers 0 or above 1e-120 (`problems`), so that no product of two underflows, and a
  sum of products of three loses 1e-300 at most. Beside a diagonal of 1e-200, the least that is taken, the margins here hide it.
Both are applied to D P D, with D powers of two that bring the diagonal into [1, 4): that scaling is exact and makes the
slack relative to each unit's own size.
"""

from __future__ import annotations

from math import inf, nextafter

import numpy as np

from harness_papers.lipsdp.problems import Array

U = 2.0**-53
SMALLEST_DIAGONAL = 1e-200


def is_surely_positive_definite(p: Array, p_abs: Array, longest_sum: int) -> bool:
    """True only if the exact matrix that p rounds is positive definite. False may mean: too close to call."""
    scaled = scale_to_unit_diagonal(p)
    if scaled is None or np.diag(p).min() < SMALLEST_DIAGONAL:
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


def smallest_eigenvalue(p: Array) -> float:
    """Of p after scaling its diagonal to [1, 4); of p itself if a diagonal entry is <= 0; -inf if it is not finite."""
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


def gamma(m: int) -> float:
    """Relative error bound of a sum of m products."""
    return m * U / (1.0 - m * U)


def up(x: float) -> float:
    """A number surely at least as large as the exact one that x rounds."""
    return nextafter(x, inf)
