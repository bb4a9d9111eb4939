"""Tables that a rule makes: published counts, distributions, PMLB's own rows, and the task around them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from harness_papers.selu.rule_tables import SEGMENTS, TABLES, make_table
from harness_papers.selu.tabular import SIZES, RuleName, RuleTableParams, shape_of_rule_table
from harness_papers.selu.tasks import load_rule_table, score

from harness.context import Context


def table(name, seed=0):
    return make_table(name, np.random.default_rng(seed))


@pytest.fixture
def load(tmp_path):
    """(name, seed) -> the task's instance."""

    def make(name, seed=0, dtype="float64"):
        ctx = Context(device="cpu", dtype=dtype, budget={}, root_seed=0, seed=seed, task=name, scratch=tmp_path)
        return load_rule_table(RuleTableParams(name=name), ctx)

    return make


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_declared_size(name):
    """A plan knows shapes without making a table."""
    x, y = table(name)

    assert (*x.shape, len(np.unique(y))) == SIZES[name]
    assert (x.dtype, y.dtype, y.min(), y.max()) == (np.float64, np.int64, 0, SIZES[name].classes - 1)
    assert list(SIZES) == list(TABLES) == list(RuleName.__args__)


COUNTS = {
    "tic-tac-toe": [332, 626],
    "balance-scale": [49, 288, 288],
    "monks-1": [216, 216],
    "monks-2": [290, 142],
    "monks-3": [204, 228],
    "parity5+5": [512, 512],
}


@pytest.mark.parametrize(("name", "counts"), COUNTS.items())
def test_finite_tables_have_the_published_class_counts(name, counts):
    """UCI's own pages have these for the whole domain; no row stands twice."""
    x, y = table(name)

    assert np.bincount(y).tolist() == counts
    assert len(np.unique(x, axis=0)) == len(x)


IN_PMLB = {
    "tic-tac-toe": "tic-tac-toe", "balance-scale": "balance-scale", "three-of-9": "threeOf9", "xd6": "xd6",
    "mofn-3-7-10": "mofn-3-7-10", "parity5+5": "parity5+5", "monks-2": "monk2",
}  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize(("name", "there"), IN_PMLB.items())
def test_every_row_of_pmlb_s_copy_has_the_rule_s_label(name, there, data_dir):
    """Its rows repeat or miss some of the domain; its features stand in the same order with the same codes."""
    from harness.data import load as load_data

    x, y = table(name)
    label = {tuple(row): int(code) for row, code in zip(x, y, strict=True)}
    theirs = load_data(f"pmlb/{there}", data_dir)

    pairs = {(label[tuple(row)], int(code)) for row, code in zip(theirs.x, theirs.y, strict=True)}
    assert len(pairs) == SIZES[name].classes  # one of theirs for each of ours
    assert len({ours for ours, _ in pairs}) == len({code for _, code in pairs}) == len(pairs)


def test_the_norms_have_their_means_and_spreads():
    """Breiman's: a = 2 / sqrt(20) for two and three normals; variance 4 against 1, half of a apart, for the ring."""
    a = 2 / np.sqrt(20)
    two, three, ring = ((x, y) for x, y in map(table, ("twonorm", "threenorm", "ringnorm")))
    slack = 5 * 2 / np.sqrt(3600)  # five standard errors of a mean of deviation 2, half of 7,400 rows

    for y, centre in ((0, a), (1, -a)):
        np.testing.assert_allclose(two[0][two[1] == y].mean(axis=0), centre, atol=slack)
    np.testing.assert_allclose(three[0][three[1] == 1].mean(axis=0), a * (-1.0) ** np.arange(20), atol=slack)
    np.testing.assert_allclose(three[0][three[1] == 0].var(axis=0), 1 + a**2, rtol=0.15)
    np.testing.assert_allclose(ring[0][ring[1] == 0].var(axis=0), 4, rtol=0.15)
    np.testing.assert_allclose(ring[0][ring[1] == 1].mean(axis=0), a / 2, atol=slack)


def test_waves_are_mixed_in_pairs():
    """The mean of a class is half of two triangles; features beyond the 21st are noise."""
    x, y = table("waveform-noise")
    points = np.arange(1, 22)
    triangles = [np.maximum(6 - np.abs(points - peak), 0) for peak in (11, 15, 7)]

    for label, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        np.testing.assert_allclose(x[y == label][:, :21].mean(axis=0), (triangles[i] + triangles[j]) / 2, atol=0.3)
    np.testing.assert_allclose(x[:, 21:].std(axis=0), 1, atol=0.06)


def test_a_digit_s_segments_are_wrong_one_time_in_ten():
    """All ten digits differ, and eight has every segment."""
    x, y = table("led24")

    assert len({tuple(row) for row in SEGMENTS}) == 10
    assert SEGMENTS[8].all()
    np.testing.assert_allclose((x[:, :7] != SEGMENTS[y]).mean(axis=0), 0.1, atol=0.03)  # five standard errors
    np.testing.assert_allclose(x[:, 7:].mean(axis=0), 0.5, atol=0.05)


# The task -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tic-tac-toe", "waveform"])
def test_the_parts_are_standardised_by_the_train_part_and_share_no_row(name, load):
    made = load(name)
    x = made.problem.x

    assert len(x) == shape_of_rule_table(RuleTableParams(name=name))["train_items"]
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(x.shape[1], dtype=x.dtype), atol=1e-12, rtol=0)
    torch.testing.assert_close(x.std(dim=0, unbiased=False), torch.ones(x.shape[1], dtype=x.dtype))
    rows = [{tuple(row) for row in part.tolist()} for part in (x, made.held["validation"]["x"], made.held["test"]["x"])]
    assert sum(map(len, rows)) == SIZES[name].rows
    assert not any(a & b for a, b in itertools.combinations(rows, 2))


def test_classes_keep_their_shares_in_every_part(load):
    """49 rows of balance-scale are in balance: each part has its share to within one."""
    made = load("balance-scale")

    for part, share in ((made.problem.y, 0.6), (made.held["validation"]["y"], 0.2), (made.held["test"]["y"], 0.2)):
        assert abs((part == 0).sum().item() - 49 * share) <= 1


def test_another_seed_draws_another_table_and_the_same_one_the_same(load):
    first, again, other = load("twonorm"), load("twonorm"), load("twonorm", seed=1)

    assert torch.equal(first.problem.x, again.problem.x)
    assert not torch.equal(first.problem.x, other.problem.x)


def test_label_noise_is_where_a_method_learns_and_not_where_it_is_judged(load):
    """monks-3: 5 % of train and validation labels are turned over, none of the test part's."""
    made = load("monks-3")

    def wrong(part):
        """Labels that the rule does not give, found by undoing the scaling: codes in order of their values."""
        codes = torch.stack([torch.unique(part["x"][:, i], return_inverse=True)[1] + 1 for i in range(6)], dim=1).numpy()
        rule = ((codes[:, 4] == 3) & (codes[:, 3] == 1)) | ((codes[:, 4] != 4) & (codes[:, 1] != 3))
        return int((rule != part["y"].numpy()).sum())

    learnt = {"x": made.problem.x, "y": made.problem.y}
    assert wrong(made.held["test"]) == 0
    assert wrong(learnt) + wrong(made.held["validation"]) == round(
        0.05 * (len(learnt["y"]) + len(made.held["validation"]["y"]))
    )


def test_the_score_is_the_share_of_right_rows(load, tmp_path):
    """Logits by hand; what is no number is a divergence, a wrong shape an error."""
    ctx = Context(device="cpu", dtype="float64", budget={}, root_seed=0, seed=0, task="t", scratch=tmp_path)
    params = RuleTableParams(name="monks-1")
    part = {"x": torch.zeros(4, 6), "y": torch.tensor([0, 1, 1, 1])}

    class Fixed:
        def __init__(self, logits):
            self.logits = torch.tensor(logits)

        def predict(self, x):
            return self.logits

    got = score(part, Fixed([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), params, ctx)
    nan = score(part, Fixed([[float("nan"), 0.0]] * 4), params, ctx)

    assert (got["accuracy"], got["error"]) == (0.75, 0.25)
    assert got["nll"] == pytest.approx((3 * np.log1p(np.exp(-1)) + np.log1p(np.e)) / 4)
    assert all(np.isnan(value) for value in nan.values())
    with pytest.raises(ValueError, match=r"give logits \(4, 2\)"):
        score(part, Fixed([[1.0]]), params, ctx)
