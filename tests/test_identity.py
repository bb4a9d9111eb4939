"""The three keys and the stream seeds: what names a trial, and what must not."""

from __future__ import annotations

import pytest

from harness.identity import canonical, digest, digest_folder, pair_key, series_key, stream_seed, trial_id

FIELDS = {
    "kind": "quality", "track": "core/classify", "method": "core/relu", "method_params": {}, "task": "core/digits",
    "task_params": {"subset": None}, "net": {"arch": "mlp", "width": 64}, "train": {"lr": 0.001}, "budget": {"steps": 10.0},
    "tuning": None, "device": "cpu", "dtype": "float32", "threads": 1, "seed": 0, "root_seed": 0, "matched": None,
    "code_digest": "c", "data_digest": "d", "torch_version": "2.13.0",
}  # fmt: skip


def changed(**new):
    return {**FIELDS, **new}


def test_the_order_of_keys_names_nothing():
    """Two files that say the same in another order are the same trial."""
    backwards = dict(reversed(FIELDS.items())) | {"net": {"width": 64, "arch": "mlp"}}

    assert trial_id(backwards) == trial_id(FIELDS)
    assert canonical({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'


def test_a_trial_without_tuning_keeps_the_keys_that_it_always_had():
    """Records are found by them: a change here would orphan every registry there is."""
    for fields in (FIELDS, changed(tuned=None)):
        assert series_key(fields) == "ce577ee8c62aa8be2bb7b6029733a610"
        assert trial_id(fields) == "e3514fbe82288661923194247055732b"
        assert pair_key(fields) == "e56bd0848201bcba74083b8f87cab24a"


def test_what_tuning_chose_makes_another_trial_of_the_same_series():
    """History and claims run along the rule; what is done is what was done with these values."""
    rule = {"trials": 4, "space": {"train.lr": {"log": [0.001, 0.1]}}, "metric": "accuracy"}
    low, high = (changed(tuning=rule, tuned={"values": {"train.lr": lr}, "score": lr}) for lr in (0.01, 0.02))

    assert series_key(low) == series_key(high) != series_key(FIELDS)
    assert pair_key(low) == pair_key(high) != pair_key(FIELDS)
    assert trial_id(low) != trial_id(high)
    assert trial_id(low) == trial_id(changed(tuning=rule, tuned={"values": {"train.lr": 0.01}, "score": 0.7}))


@pytest.mark.parametrize("new", [{"code_digest": "x"}, {"data_digest": "x"}, {"torch_version": "2.14"}])
def test_code_data_and_torch_change_the_trial_but_not_its_series(new):
    """History goes on across commits; what is done is run again when its code changes."""
    assert series_key(changed(**new)) == series_key(FIELDS)
    assert trial_id(changed(**new)) != trial_id(FIELDS)


@pytest.mark.parametrize("name", ["kind", "task", "net", "budget", "device", "dtype", "threads", "seed", "root_seed", "train"])
def test_what_makes_another_problem_breaks_the_pair(name):
    """Methods are compared only under equal task, net, budget, device and seed."""
    assert pair_key(changed(**{name: "other"})) != pair_key(FIELDS)


def test_a_pair_ignores_the_method_and_what_match_chose():
    """A matched width, or a learner without a net, pairs with the baseline that it was matched to."""
    baseline = {"net": FIELDS["net"], "train": FIELDS["train"]}
    wide = changed(method="core/gelu", net={"arch": "mlp", "width": 70}, matched=baseline)
    forest = changed(method="papers/forest", method_params={"trees": 9}, net=None, train=None, matched=baseline)

    assert pair_key(wide) == pair_key(forest) == pair_key(FIELDS)
    assert pair_key(changed(net={"arch": "mlp", "width": 70})) != pair_key(FIELDS)
    assert len({trial_id(wide), trial_id(forest), trial_id(FIELDS)}) == 3


def test_roles_titles_and_measures_name_nothing():
    """Calling relu a baseline in one suite and a method in another orphans no result."""
    assert trial_id(changed(role="baseline", measure=("nll",), title="x")) == trial_id(FIELDS)


def test_streams_differ_by_every_part_and_hold_no_method():
    """Each of root seed, seed, task and stream name gives other draws; the values are fixed for ever."""
    seeds = {stream_seed(*parts) for parts in [(0, 0, "t", "order"), (1, 0, "t", "order"), (0, 1, "t", "order"),
                                               (0, 0, "u", "order"), (0, 0, "t", "split")]}  # fmt: skip

    assert len(seeds) == 5
    assert all(0 <= s < 2**63 for s in seeds)
    assert stream_seed(0, 0, "t", "order") == 7426358792491559484  # SHA-256 of [0,0,"t","order"], first 63 bits


def test_nan_has_no_name():
    """NaN is not JSON: a parameter that is NaN is a mistake, not an identity."""
    with pytest.raises(ValueError, match="Out of range float"):
        digest({"eps": float("nan")})


def test_a_folder_is_its_code_and_nothing_else(tmp_path):
    """Caches and notes do not make done trials run again; a changed or renamed source file does."""
    (tmp_path / "a.py").write_text("x = 1\n")
    before = digest_folder(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-311.py").write_text("junk")
    (tmp_path / "README.md").write_text("notes")

    assert digest_folder(tmp_path) == before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert digest_folder(tmp_path) != before


def test_a_folder_that_is_missing_has_no_digest(tmp_path):
    """One mistyped path would equal another, and no edit would ever change it."""
    with pytest.raises(FileNotFoundError, match="gone: no such folder"):
        digest_folder(tmp_path / "gone")
