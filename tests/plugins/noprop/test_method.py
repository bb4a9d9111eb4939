"""The mathematics of NoProp against the card's invariants and golden values, closed forms and plain loops."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from harness_papers.noprop.method import (
    Codes,
    ItemNoise,
    Schedule,
    cosine_signal,
    noised,
    orthonormal,
    prior_term,
    prototypes,
    snr,
    update_coefficients,
)
from scipy.stats import kstest

EXACT = {"rtol": 0, "atol": 1e-13}  # the card's limit for the identities, float64


def levels(rng: torch.Generator, count: int = 12, low: float = 0.0) -> torch.Tensor:
    """Rising signal levels in [low, 0.99]."""
    drawn = torch.rand(count, generator=rng, dtype=torch.float64).sort().values * (0.99 - low) + low
    return torch.cat([torch.tensor([low], dtype=torch.float64), drawn])


# The chain's update -----------------------------------------------------------------------------------------------------


def test_golden_values_of_ten_blocks():
    """Invariant 4 of the card: s = 0.008, clamped to [1e-4, 0.99]."""
    golden = {
        "abar": [.0001, .024092, .094046, .203121, .340810, .493844, .647478, .786911, .898706, .972093, .99],
        "a": [.154586, .233740, .267143, .295971, .330356, .377217, .445877, .553418, .734819, .644903],
        "b": [.062881, .469853, .598518, .638617, .637874, .608252, .548310, .444811, .264904, .355074],
        "c": [.971955, .690511, .472344, .334198, .237943, .165259, .107106, .059133, .020799, .006482],
        "snr": [.02459, .07912, .15109, .26212, .45866, .86103, 1.85616, 5.17938, 25.96072, 64.16703],
    }  # fmt: skip
    abar = cosine_signal(10)
    got = {"abar": abar, "snr": snr(abar).diff(), **update_coefficients(abar)._asdict()}

    for name, values in golden.items():
        torch.testing.assert_close(got[name], torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-5)


def test_the_update_keeps_the_mean_and_the_variance_of_the_noised_code(rng):
    """Invariants 1 and 2: with the true code as guess, z_t is distributed as q(z_t | y)."""
    abar = levels(rng)
    a, b, c = update_coefficients(abar)

    torch.testing.assert_close(a + b * abar[:-1].sqrt(), abar[1:].sqrt(), **EXACT)
    torch.testing.assert_close(b**2 * (1 - abar[:-1]) + c, 1 - abar[1:], **EXACT)


def test_the_weight_of_the_loss_is_that_of_the_divergence(rng):
    """Invariant 3: a^2 / 2c = (SNR(t) - SNR(t - 1)) / 2, in relation to SNR, which is 99 at its end."""
    abar = levels(rng, low=1e-4)
    a, _, c = update_coefficients(abar)

    torch.testing.assert_close(a**2 / c, snr(abar).diff(), rtol=1e-11, atol=0)  # a difference of nearby numbers


def test_without_signal_at_the_start_the_first_step_forgets_z():
    """abar_0 = 0 is allowed: a_1 = sqrt(abar_1), b_1 = 0, c_1 = 1 - abar_1."""
    a, b, c = update_coefficients(torch.tensor([0.0, 0.3, 0.9], dtype=torch.float64))

    assert (a[0].item(), b[0].item(), c[0].item()) == pytest.approx((math.sqrt(0.3), 0, 0.7), abs=1e-15)


def test_levels_rise_and_their_clamp_is_kept():
    """A schedule pasted from DDPM falls, and gives the loss negative weights; two equal levels leave a block without a loss."""
    for blocks in (1, 2, 10, 32):
        abar = cosine_signal(blocks, low=1e-3, high=0.999)
        assert (abar.diff() > 0).all()
        assert (abar[0].item(), abar[-1].item()) == (1e-3, 0.999)
    with pytest.raises(ValueError, match=r"32 blocks between signal levels 0\.0001 and 0\.99: some levels coincide"):
        cosine_signal(32)


def test_noise_has_the_mean_and_variance_of_q(rng):
    """N(sqrt(abar) u, (1 - abar) I)."""
    u, eps = torch.ones(1, 100_000, dtype=torch.float64), torch.randn(1, 100_000, generator=rng, dtype=torch.float64)

    z = noised(u, torch.tensor(0.36, dtype=torch.float64), eps)

    assert z.mean().item() == pytest.approx(0.6, abs=0.01)  # standard error 0.0025
    assert z.var().item() == pytest.approx(0.64, abs=0.012)  # standard error 0.003


def test_prior_term_is_the_divergence_of_two_normal_distributions(rng):
    """Against torch's own, and 0 without signal (invariant 9)."""
    u = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(math.sqrt(0.2) * u, torch.full_like(u, math.sqrt(0.8))), normal(torch.zeros_like(u), torch.ones_like(u))
    )

    torch.testing.assert_close(prior_term(u, 0.2), expected.sum(dim=0), rtol=1e-12, atol=0)
    assert not prior_term(u, 0.0).any()


# The learned schedule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learned", [True, False])
def test_gamma_falls_from_g1_to_g0_and_its_slope_is_its_derivative(learned, rng):
    """Whatever the weights: SNR rises, so the loss has no negative weight."""
    schedule = Schedule(-5.0, 6.0, learned).double()
    with torch.no_grad():
        for parameter in schedule.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64) * 0.5)
        schedule.ends.copy_(torch.tensor([-5.0, math.log(11.0)]))
    t = torch.linspace(0, 1, 41, dtype=torch.float64, requires_grad=True)

    gamma, slope = schedule(t)

    assert (gamma[0].item(), gamma[-1].item()) == pytest.approx((6, -5), abs=2e-6)  # ends are kept in float32
    assert (slope < 0).all()
    torch.testing.assert_close(slope, torch.autograd.grad(gamma.sum(), t)[0], rtol=1e-9, atol=1e-10)


def test_the_learned_schedule_starts_near_a_line_and_all_of_it_learns():
    """A line in gamma is the untold default; every weight gets a gradient."""
    schedule, t = Schedule(-7.0, 7.0, learned=True), torch.linspace(0, 1, 101)

    gamma, slope = schedule(t)
    (gamma.square().sum() + slope.sum()).backward()

    torch.testing.assert_close(gamma, 7 - 14 * t, rtol=0, atol=0.7)  # a twentieth of the span
    assert all(p.grad.abs().sum() > 0 for p in schedule.parameters())
    assert not list(Schedule(-7.0, 7.0, learned=False).parameters())


def test_a_schedule_that_would_rise_is_refused():
    """g1 > g0 is what makes SNR grow with t."""
    with pytest.raises(ValueError, match="gamma1 > gamma0"):
        Schedule(3.0, -3.0, learned=True)


# Classes ----------------------------------------------------------------------------------------------------------------


def test_the_mixture_of_one_hot_codes_is_a_distribution(rng):
    """Invariant 7: rows lie in [0, 1] and sum to 1."""
    codes = Codes("one-hot", 4, 4)

    mixed = codes.mixture(torch.randn(3, 4, 9, generator=rng))

    assert mixed.min() >= 0
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(3, 9))
    assert codes.fixed
    assert {name for name, _ in codes.named_parameters()} == {"out_weight", "out_bias"}


def test_mixtures_and_combinations_go_by_the_class_vectors(make_ctx, rng):
    """softmax(logits) W with learned codes, and the same without softmax for velocities; items last."""
    x, y = torch.randn(8, 6, generator=rng), torch.arange(8) % 4
    codes = Codes("learned", 4, 6).draw(make_ctx(), x, y)
    logits = torch.randn(2, 4, 5, generator=rng)

    for k in range(2):
        expected = logits[k].T.softmax(dim=1) @ codes.weight
        torch.testing.assert_close(codes.mixture(logits)[k].T, expected)
        torch.testing.assert_close(codes.combination(logits)[k].T, logits[k].T @ codes.weight)
    torch.testing.assert_close(codes.of(y), codes.weight[y].T)


def test_learned_codes_start_orthonormal_and_random_ones_do_not(make_ctx, rng):
    """The paper's "dim=20" against the random start of claim C5."""
    x, y = torch.randn(8, 6, generator=rng), torch.arange(8) % 4
    learned, random = (Codes(kind, 4, 20).draw(make_ctx(), x, y).weight for kind in ("learned", "random"))

    torch.testing.assert_close(learned @ learned.T, torch.eye(4), rtol=0, atol=1e-5)
    assert (random @ random.T - torch.eye(4)).abs().max() > 0.1
    wide = orthonormal(torch.randn(7, 3, generator=rng))
    torch.testing.assert_close(wide.T @ wide, torch.eye(3), rtol=0, atol=1e-5)


def test_a_prototype_is_the_item_with_the_smallest_median_distance(rng):
    """Against a loop over items; its own distance does not count."""
    x, y = torch.randn(31, 4, generator=rng), torch.arange(31) % 3
    expected = []
    for label in range(3):
        own = x[y == label]
        medians = [sorted((own[i] - own[j]).norm().item() for j in range(len(own)) if j != i) for i in range(len(own))]
        expected.append(own[min(range(len(own)), key=lambda i: medians[i][(len(own) - 2) // 2])])

    torch.testing.assert_close(prototypes(x, y, 3), torch.stack(expected))


def test_prototypes_of_small_classes():
    """One item is its own prototype; none is an error that names the class."""
    x = torch.tensor([[1.0], [5.0], [6.0]])

    assert prototypes(x, torch.tensor([0, 1, 1]), 2)[0].item() == 1.0
    with pytest.raises(ValueError, match="class 1 has none"):
        prototypes(x, torch.tensor([0, 0, 2]), 3)


def test_the_nearest_class_has_the_largest_score(rng, make_ctx):
    """-|z - W|^2 / 2 up to a term that all classes share."""
    codes = Codes("random", 5, 3).draw(make_ctx(), torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))
    z = torch.randn(3, 40, generator=rng)
    distances = torch.cdist(z.T, codes.weight)

    scores = codes.nearest(z)

    assert torch.equal(scores.argmax(dim=0), distances.argmin(dim=1))
    torch.testing.assert_close(scores[0] - scores[1], (distances[:, 1] ** 2 - distances[:, 0] ** 2) / 2, rtol=0, atol=1e-5)


# Noise of inference -----------------------------------------------------------------------------------------------------


def test_an_item_s_noise_does_not_depend_on_its_batch(rng):
    """Else the same item could be right in one batch and wrong in the next."""
    x = torch.randn(9, 4, generator=rng)
    whole, alone, again = ItemNoise(x, 5, 0), ItemNoise(x[3:4], 5, 0), ItemNoise(x.clone(), 5, 0)

    for step in range(3):
        assert torch.equal(whole(step, 6)[:, 3:4], alone(step, 6))
        assert torch.equal(whole(step, 6), again(step, 6))


def test_noise_is_standard_normal_and_new_for_each_item_step_draw_and_salt(rng):
    """80,000 numbers against the normal distribution, and no correlation between any two sources."""
    x = torch.randn(1000, 4, generator=rng, dtype=torch.float64)
    noise = ItemNoise(x, 5, 0)
    drawn = torch.stack([noise(step, 8) for step in range(10)])

    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-3
    # 8,000 pairs: a correlation has a standard error of 0.011
    others = {"step": drawn[1], "draw": ItemNoise(x, 5, 1)(0, 8), "salt": ItemNoise(x, 6, 0)(0, 8), "item": drawn[0].roll(1, 1)}
    for name, other in others.items():
        assert abs(torch.corrcoef(torch.stack([drawn[0].flatten(), other.flatten()]))[0, 1]) < 0.05, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_noise_has_the_dtype_of_the_items(dtype, rng):
    """And is finite in each."""
    noise = ItemNoise(torch.randn(4, 3, generator=rng).to(dtype), 1, 0)(0, 5)

    assert noise.dtype == dtype
    assert noise.isfinite().all()


def test_importing_the_declarations_imports_no_torch():
    """`harness list` loads every paper; torch costs more than a second."""
    code = "import sys, harness_papers.noprop; sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'torchdiffeq')))"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
