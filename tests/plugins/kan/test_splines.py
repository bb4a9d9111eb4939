"""B-splines against scipy's in float64, against each other, and against the values of the public code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness_papers.kan.splines import (
    Grid,
    bases,
    bases_by_recursion,
    fit_coefficients,
    knots_for,
    local_bases,
    move_to_knots,
)
from scipy.interpolate import BSpline

GRIDS = [Grid(5, 3), Grid(1, 1), Grid(3, 2), Grid(7, 5), Grid(4, 3, -0.3, 2.0), Grid(20, 4, 5.0, 6.0)]
CUBIC = Grid(5, 3)


def scipy_bases(x: np.ndarray, knots: np.ndarray, order: int) -> np.ndarray:
    """Every basis by scipy: a spline whose coefficients are all 0 but one; 0 beyond its own knots."""
    count = len(knots) - order - 1
    columns = [BSpline(knots, np.eye(count)[j], order, extrapolate=False)(x) for j in range(count)]
    # scipy offers a spline inside [t_k, t_n] only; outside of it a single basis is still what its own knots say.
    single = [BSpline.basis_element(knots[j : j + order + 2], extrapolate=False)(x) for j in range(count)]
    inside = (x >= knots[order]) & (x < knots[-order - 1])
    return np.where(inside[:, None], np.stack(columns, 1), np.nan_to_num(np.stack(single, 1)))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_all_forms_agree_with_scipy(grid, rng):
    """Inside the grid, in its extension and beyond it."""
    knots = grid.knots(torch.float64)
    span = float(knots[-1] - knots[0])
    x = (torch.rand(500, generator=rng, dtype=torch.float64) * 1.4 - 0.2) * span + knots[0]
    expected = scipy_bases(x.numpy(), knots.numpy(), grid.order)

    # float64; some ten roundings in numbers of at most 1
    np.testing.assert_allclose(bases(x, grid), expected, atol=1e-13, rtol=0)
    np.testing.assert_allclose(bases_by_recursion(x, knots, grid.order), expected, atol=1e-13, rtol=0)


def test_the_values_are_those_of_the_public_code():
    """The card's numbers: G = 5, k = 3 on [-1, 1]."""
    x = torch.tensor([-1.0, 0.31, 1.0, 1.7])

    found = bases(x, CUBIC)

    torch.testing.assert_close(CUBIC.knots(), torch.linspace(-2.2, 2.2, 12), atol=1e-6, rtol=0)
    expected = [[1 / 6, 2 / 3, 1 / 6, 0, 0, 0, 0, 0], [0, 0, 0, 0.063513, 0.601440, 0.331581, 0.003466, 0]]
    torch.testing.assert_close(found[:2], torch.tensor(expected), atol=1e-5, rtol=0)  # the card's digits
    torch.testing.assert_close(found.sum(1)[2:], torch.tensor([1.0, 0.317708]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_bases_are_a_partition_of_unity_with_few_members(grid, rng):
    """Non-negative, sum 1 inside the grid, at most k + 1 not 0."""
    x = torch.rand(300, generator=rng, dtype=torch.float64) * (grid.high - grid.low) + grid.low
    x = torch.cat([x, torch.tensor([grid.low, grid.high], dtype=torch.float64)])

    found = bases(x, grid)

    assert bool((found >= 0).all())
    assert int((found != 0).sum(1).max()) <= grid.order + 1
    torch.testing.assert_close(found.sum(1), torch.ones_like(x), atol=1e-13, rtol=0)  # float64


def test_far_inputs_infinite_ones_and_none_at_all():
    """No signal and no slope beyond the knots; NaN stays NaN instead of becoming an index."""
    far = torch.tensor([-1e30, -torch.inf, -2.2, 2.2, 50.0, torch.inf], requires_grad=True)

    found = bases(far, CUBIC)
    found.sum().backward()

    assert not found.any()
    assert not far.grad.any()
    assert bool(bases(torch.tensor([torch.nan]), CUBIC).isnan().any())
    assert bases(torch.zeros(0, 3), CUBIC).shape == (0, 3, 8)


def test_local_bases_name_the_cell():
    """The four values at 0.31 belong to bases 3 to 6."""
    cell, values = local_bases(torch.tensor([0.31]), CUBIC)

    assert cell.tolist() == [3]
    torch.testing.assert_close(values, torch.tensor([[0.063513, 0.601440, 0.331581, 0.003466]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_slopes_pass_gradcheck(grid, rng):
    """Through the closed form, away from the knots where an order of 1 has a kink."""
    t = torch.rand(12, generator=rng, dtype=torch.float64) * 0.8 + 0.1
    cells = torch.randint(-grid.order, grid.intervals + grid.order, (12,), generator=rng)
    x = ((cells + t) * grid.step + grid.low).requires_grad_()

    assert torch.autograd.gradcheck(lambda x: bases(x, grid), x)
    if grid.order > 2:  # below, second derivatives jump at the knots or are 0
        assert torch.autograd.gradgradcheck(lambda x: bases(x, grid), x)


def test_recursion_allows_repeated_and_uneven_knots_of_each_feature():
    """Knots of a row of features; an empty interval divides nothing by 0."""
    knots = torch.tensor(
        [[0, 0, 0, 0, 0.3, 0.3, 1, 1, 1, 1], [-1, -0.5, 0, 0.2, 0.25, 0.6, 0.9, 1.5, 2, 4]], dtype=torch.float64
    )
    x = torch.tensor([[0.1, 0.22], [0.29, 0.59], [0.3, 0.5], [0.99, 0.89]], dtype=torch.float64)

    found = bases_by_recursion(x, knots, 3)

    for feature in range(2):
        expected = scipy_bases(x[:, feature].numpy(), knots[feature].numpy(), 3)
        np.testing.assert_allclose(found[:, feature], expected, atol=1e-13, rtol=0)  # float64


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_polynomials_up_to_the_order_are_reproduced(grid):
    """x^k lies in the space of splines of order k: a fit to points returns it everywhere in the grid, x^3 for cubics."""
    knots = grid.knots(torch.float64)
    at = torch.linspace(grid.low, grid.high, 200, dtype=torch.float64)[:, None]
    middle = (grid.low + grid.high) / 2

    fitted = fit_coefficients(at, ((at - middle) ** grid.order)[:, :, None], knots, grid.order)
    between = torch.linspace(grid.low, grid.high, 777, dtype=torch.float64)[:-1]
    got = bases(between, grid) @ fitted[0, 0]

    torch.testing.assert_close(got, (between - middle) ** grid.order, atol=1e-10, rtol=0)  # the card asks for 1e-6


def test_too_few_points_are_met_by_the_smallest_coefficients():
    """G + 1 heights and G + k coefficients, as at initialisation: all points are met."""
    at = CUBIC.knots(torch.float64)[3:-3, None]
    heights = torch.tensor([1.0, -1, 2, 0, 3, 1], dtype=torch.float64)[:, None, None]

    fitted = fit_coefficients(at, heights, CUBIC.knots(torch.float64), 3)
    smallest = torch.linalg.pinv(bases(at[:, 0], CUBIC)) @ heights[:, 0, 0]

    torch.testing.assert_close(fitted[0, 0], smallest, atol=1e-10, rtol=0)  # float64
    torch.testing.assert_close(bases(at[:, 0], CUBIC) @ fitted[0, 0], heights[:, 0, 0], atol=1e-10, rtol=0)


# Other knots ------------------------------------------------------------------------------------------------------------


def curve(coefficients: torch.Tensor, knots: torch.Tensor, x: torch.Tensor, order: int = 3) -> torch.Tensor:
    return torch.einsum("pfb,ofb->pfo", bases_by_recursion(x, knots, order), coefficients)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_finer_knots_that_keep_the_old_ones_change_no_curve(factor, rng):
    """Their splines contain the old ones."""
    coefficients = torch.randn(4, 2, 8, generator=rng, dtype=torch.float64)
    fine = Grid(5 * factor, 3).knots(torch.float64)
    x = torch.rand(200, 2, generator=rng, dtype=torch.float64) * 2 - 1

    moved = move_to_knots(coefficients, CUBIC.knots(torch.float64), fine, 3)

    # float64 through a least-squares solve of a well conditioned basis
    torch.testing.assert_close(curve(moved, fine, x), curve(coefficients, CUBIC.knots(torch.float64), x), atol=1e-10, rtol=0)


def test_on_other_knots_no_spline_is_nearer(rng):
    """The move is the projection: its error is orthogonal to every basis of the new knots, so moving again moves nothing."""
    old = CUBIC.knots(torch.float64).expand(3, -1)
    new = knots_for(torch.randn(400, 3, generator=rng, dtype=torch.float64) * 0.4, 5, 3)
    coefficients = torch.randn(2, 3, 8, generator=rng, dtype=torch.float64)

    moved = move_to_knots(coefficients, old, new, 3)

    at = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:-1, None]
    x = new[:, 3] + at * (new[:, -4] - new[:, 3])
    error = curve(moved, new, x) - curve(coefficients, old, x)
    products = torch.einsum("pfo,pfb->ofb", error, bases_by_recursion(x, new, 3)) / len(x)
    assert float(products.abs().max()) < 1e-4 * float(error.abs().max())  # the mean over points for the integral
    torch.testing.assert_close(move_to_knots(moved, new, new, 3), moved, atol=1e-9, rtol=0)


def test_knots_follow_the_inputs(rng):
    """All inputs lie inside, more knots where there are more of them, increasing, k knots beyond each end."""
    x = torch.cat([torch.randn(300, 2, generator=rng) * 0.1, torch.tensor([[3.0, -2.0]])])

    knots = knots_for(x, 6, 3)

    assert knots.shape == (2, 13)
    assert bool((knots.diff(dim=1) > 0).all())
    assert bool((x >= knots[:, 3]).all())
    assert bool((x < knots[:, -4]).all())
    assert int(((knots > -0.3) & (knots < 0.3)).sum(1).min()) >= 4


@pytest.mark.parametrize(
    "wrong", [{"intervals": 0}, {"order": 0}, {"low": 1.0, "high": 1.0}, {"low": 2.0}], ids=lambda w: str(w)
)
def test_a_grid_that_holds_no_spline_is_refused(wrong):
    """With the mend."""
    with pytest.raises(ValueError, match="give at least 1 interval"):
        Grid(**wrong)


def test_knots_of_one_item_are_refused():
    """One value spans no range."""
    with pytest.raises(ValueError, match="1 items; give at least 2"):
        knots_for(torch.zeros(1, 2), 5, 3)
