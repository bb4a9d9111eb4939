"""The core's own plugin: its tasks are what they declare, fair in their parts, and scored as the closed forms say."""

from __future__ import annotations

import importlib
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from harness.builtin import classify, regress, supervised
from harness.builtin.datasets import DATASETS
from harness.builtin.tasks import CLASSIFY_METRICS, REGRESS_METRICS, TASKS, sizes_of
from harness.builtin.tracks import PROBES, TRACKS
from harness.context import Context
from harness.data import load
from harness.errors import DataError, HarnessError, Unsupported
from harness.lab.problems import Classify, Predictor, Regress, Regressor
from harness.specs import Instance, Task

BY_NAME = {task.name: task for task in TASKS}
FETCHED = {"fashion-mnist", "kmnist", "cifar10", "cifar100"}  # only where someone fetched them
FOLDER = {"mnist", "cifar10-jpeg", "fsdd", "higgs-7500", "covertype-15120", "table"}
HERE = sorted(set(BY_NAME) - FOLDER - FETCHED)
SMALLER = {"mnist": {"subset": 500, "test_subset": 200}, "cifar10-jpeg": {"subset": 500, "test_subset": 200}}


def context(scratch: Path, seed: int = 0, dtype: str = "float64") -> Context:
    return Context(device="cpu", dtype=dtype, budget={}, root_seed=0, seed=seed, task="a-task", scratch=scratch)


def resolve(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def instance(name: str, scratch: Path, /, seed: int = 0, dtype: str = "float64", **params: Any) -> Instance:
    task = BY_NAME[name]
    made: Instance = resolve(task.load)(task.params(**params), context(scratch, seed, dtype))
    return made


@dataclass
class Gives:
    """A solution that gives the rows of a table, whatever it is asked: for metrics with a known answer."""

    table: Tensor
    asked: int = 0

    def predict(self, x: Tensor) -> Tensor:
        rows = self.table[self.asked : self.asked + len(x)]
        self.asked += len(x)
        return rows


def ridge(problem: Classify, strength: float = 1.0) -> Any:
    """Least squares on one-hot labels, in closed form: enough to tell signal from chance."""

    def widen(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.cat([flat, flat.new_ones(len(flat), 1)], dim=1)

    features, wanted = widen(problem.x), torch.nn.functional.one_hot(problem.y, problem.classes).to(problem.x.dtype)
    gram = features.T @ features + strength * torch.eye(features.shape[1], dtype=features.dtype)
    weights = torch.linalg.solve(gram, features.T @ wanted)

    class Linear:
        def predict(self, x: Tensor) -> Tensor:
            return widen(x) @ weights

    return Linear()


# What is declared --------------------------------------------------------------------------------------------------------


def test_the_plugins_declarations_import_no_torch():
    """`harness list` loads every plugin; torch would cost it a second."""
    code = "import sys, harness.builtin; print([m for m in ('torch', 'numpy', 'sklearn') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_string_of_a_task_names_something(task: Task):
    """A misspelt "module:function" would fail in a worker only."""
    assert all(callable(resolve(name)) for name in (task.load, task.score, task.summarise) if name)


@pytest.mark.parametrize("track", TRACKS, ids=lambda track: track.name)
def test_every_string_of_a_track_names_something(track):
    """The same for tracks and probes."""
    assert all(resolve(name) for name in (track.problem, track.solution, track.learner, track.cost, track.inference))
    assert all(callable(resolve(probe.measure)) for probe in PROBES)


def test_every_task_names_declared_data_sets():
    """What the plan looks for in the data folder."""
    names = {set_.name for set_ in DATASETS}
    for task in TASKS:
        sets = task.datasets if isinstance(task.datasets, tuple) else task.datasets(task.params())
        assert set(sets) <= names
    assert BY_NAME["table"].datasets(BY_NAME["table"].params(name="adult")) == ("pmlb/adult",)


def test_an_unknown_table_is_refused_with_the_nearest_one():
    """When the suite is read, not when the trial runs."""
    with pytest.raises(ValidationError, match=r"did you mean 'pmlb/spambase'\?"):
        BY_NAME["table"].params(name="spambse")


def test_a_parity_of_more_bits_than_there_are_is_refused():
    """It would silently be another task."""
    with pytest.raises(ValidationError, match="order 5 exceeds bits 4"):
        BY_NAME["parity"].params(bits=4, order=5)


def test_a_subset_larger_than_the_data_is_refused_before_anything_is_loaded():
    """The plan asks for the shape."""
    with pytest.raises(HarnessError, match="subset: got 5000; there are 1078 items"):
        BY_NAME["digits"].shape(BY_NAME["digits"].params(subset=5000))


def check_shape(name: str, scratch: Path, /, **params: Any) -> None:
    task = BY_NAME[name]
    declared = task.shape(task.params(**params))
    sizes = sizes_of(name, task.params(**params))

    made = instance(name, scratch, dtype="float32", **params)

    assert made.problem.shape == declared
    assert made.problem.x.dtype == torch.float32
    assert {part: len(held["x"]) for part, held in made.held.items()} == {"validation": sizes.validation, "test": sizes.test}
    assert all(len(held["y"]) == len(held["x"]) for held in made.held.values())
    pickle.dumps(made.held)  # the worker seals it as bytes


@pytest.mark.parametrize("name", HERE)
def test_the_shape_declared_is_the_shape_loaded(name, tmp_path):
    """Widths are matched and costs counted from the declared shape."""
    check_shape(name, tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(FOLDER))
def test_the_shape_declared_is_the_shape_loaded_from_the_folder(name, tmp_path, data_dir, monkeypatch):
    """The same for the data folder's tasks."""
    if name == "cifar10-jpeg":
        pytest.importorskip("PIL")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    check_shape(name, tmp_path, **SMALLER.get(name, {}))


@pytest.mark.data
def test_a_table_by_name_has_its_own_shape(tmp_path, data_dir):
    """One task, 124 shapes; labels that the table counts from 1 become 0, 1, ..."""
    check_shape("table", tmp_path, name="new-thyroid")

    assert set(instance("table", tmp_path, name="new-thyroid").problem.y.tolist()) == {0, 1, 2}


def test_a_task_without_its_data_says_what_to_place_where(tmp_path, monkeypatch):
    """The trial's error text is what its user reads."""
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)

    with pytest.raises(DataError, match="needs the data folder: place mnist/train-images"):
        instance("mnist", tmp_path)


# Parts -------------------------------------------------------------------------------------------------------------------


def rows_of(made: Instance) -> list[set[bytes]]:
    """Each part's items as a set of bytes."""
    parts = [made.problem.x, *(held["x"] for held in made.held.values())]
    return [{row.numpy().tobytes() for row in part} for part in parts]


@pytest.mark.parametrize("name", ["digits", "wine", "moons", "diabetes", "sines"])
def test_no_item_is_in_two_parts(name, tmp_path):
    """Compared by content: these sets hold no item twice."""
    train, validation, test = rows_of(instance(name, tmp_path, standardize=False))

    assert not train & validation
    assert not train & test
    assert not validation & test


@pytest.mark.parametrize("name", HERE)
def test_equal_seeds_give_equal_parts_and_other_seeds_others(name, tmp_path):
    """Methods of a pair meet the same data; seeds vary it."""
    one, same, other = (instance(name, tmp_path, seed=seed) for seed in (1, 1, 2))

    for a, b in ((one.problem.x, same.problem.x), (one.held["test"]["x"], same.held["test"]["x"])):
        assert torch.equal(a, b)
    assert not torch.equal(one.held["test"]["x"], other.held["test"]["x"])


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer", "iris"])
def test_each_part_holds_every_class_in_its_share(name, tmp_path):
    """To within two items (two draws, each to within one): no seed loses a class by bad luck."""
    made = instance(name, tmp_path)
    share = np.bincount(load(name).y) / len(load(name).y)

    for labels in (made.problem.y, *(held["y"] for held in made.held.values())):
        assert np.abs(np.bincount(labels.numpy()) - share * len(labels)).max() <= 2


def test_train_items_are_in_no_order_of_classes(tmp_path):
    """iris is stored class by class; a learner that does not shuffle must not meet it so."""
    labels = instance("iris", tmp_path).problem.y

    assert (labels[1:] != labels[:-1]).sum() > 30  # 3 classes at random: 60 of 89 on average, sorted: 2


def test_the_streams_behind_the_parts_are_closed_in_solve(tmp_path):
    """A method that loads digits elsewhere still does not know which rows are tested."""
    ctx = context(tmp_path)
    ctx.stage = "solve"

    for stream in ("split", "split/data"):
        with pytest.raises(HarnessError, match="closed in solve"):
            ctx.rng(stream)


def test_without_validation_only_the_test_part_is_held(tmp_path):
    """validation: 0 gives all that is not test to training."""
    made = instance("iris", tmp_path, validation=0.0)

    assert set(made.held) == {"test"}
    assert len(made.problem.x) == 120


# Standardisation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wine", "diabetes"])
def test_features_are_standardised_by_the_train_part_only(name, tmp_path):
    """The train part has mean 0 and deviation 1; the test part is moved by the same numbers, so it has not."""
    raw, made = instance(name, tmp_path, standardize=False), instance(name, tmp_path)
    mean, deviation = raw.problem.x.mean(0), raw.problem.x.std(0, unbiased=False)

    expected = (raw.held["test"]["x"] - mean) / deviation
    torch.testing.assert_close(made.held["test"]["x"], expected, rtol=1e-9, atol=1e-9)  # float64 rounding
    torch.testing.assert_close(made.problem.x.mean(0), torch.zeros_like(mean), rtol=0, atol=1e-9)
    assert made.held["test"]["x"].mean(0).abs().max() > 1e-3


def test_images_are_standardised_by_channel(tmp_path):
    """digits has one channel: one mean and one deviation for all pixels, of the train part, against float64 arithmetic."""
    raw, made = instance("digits", tmp_path, standardize=False), instance("digits", tmp_path)
    mean, deviation = raw.problem.x.mean(), raw.problem.x.std(unbiased=False)

    torch.testing.assert_close(made.problem.x, (raw.problem.x - mean) / deviation, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made.held["test"]["x"], (raw.held["test"]["x"] - mean) / deviation, rtol=1e-12, atol=1e-12)


def test_each_colour_channel_has_its_own_mean():
    """Three channels with different levels all become mean 0, deviation 1; a constant one becomes 0."""
    x = np.random.default_rng(0).integers(0, [[[50]], [[250]], [[1]]], (40, 3, 4, 4), dtype=np.uint8) + np.uint8(5)

    scaled = supervised.scale_images(x, {"train": np.arange(40)}, torch.float64)["train"]

    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    expected = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(scaled.std((0, 2, 3), unbiased=False), expected, rtol=0, atol=1e-12)


def test_a_constant_feature_becomes_zero_and_not_noise():
    """0.1 summed 60 times has a deviation of 1e-17, not 0; dividing by it would blow rounding up to a feature."""
    x = np.full((60, 1), 0.1)

    scaled = supervised.scale_features(x, {"train": np.arange(30), "test": np.arange(30, 60)}, torch.float64)

    assert scaled["test"].abs().max() < 1e-12


def test_loading_leaves_the_shared_arrays_as_they_are(tmp_path):
    """Every trial of a server starts from the same data, also after one that wrote into its problem."""
    before = load("wine").x.copy()
    instance("wine", tmp_path, standardize=False).problem.x.fill_(0.0)

    np.testing.assert_array_equal(load("wine").x, before)


# Metrics -----------------------------------------------------------------------------------------------------------------


def scored(table: Tensor, labels: list[int], scratch: Path) -> dict[str, float]:
    part = {"x": torch.zeros(len(labels), 1), "y": torch.tensor(labels), "classes": table.shape[1]}
    return classify.score(part, Gives(table), None, context(scratch))


def test_metrics_of_known_probabilities(tmp_path):
    """By hand: probabilities 0.8, 0.6, 0.9 for the first class, labels 0, 1, 0."""
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.9, 0.1]], dtype=torch.float64)

    got = scored(p.log(), [0, 1, 0], tmp_path)

    assert got["accuracy"] == pytest.approx(2 / 3)
    assert got["error"] == pytest.approx(1 / 3)
    assert got["nll"] == pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(0.9)) / 3)
    assert got["ece"] == pytest.approx((abs(1 - 0.8) + abs(0 - 0.6) + abs(1 - 0.9)) / 3)  # three bins of one item each


def test_calibration_error_is_the_gap_within_bins(tmp_path):
    """10 answers of one confidence, 7 right: the error is |0.7 - confidence|, whatever the order."""
    confidence = torch.full((10,), 0.9, dtype=torch.float64)
    right = torch.tensor([True] * 7 + [False] * 3)

    assert classify.calibration_error(confidence, right).item() == pytest.approx(0.2)
    assert classify.calibration_error(torch.tensor([0.0, 1.0]), torch.tensor([False, True])).item() == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_makes_every_metric_nan(tmp_path, bad):
    """The trial counts as diverged; arg max over NaN would give some accuracy."""
    got = scored(torch.tensor([[1.0, 0.0], [bad, 0.0]], dtype=torch.float64), [0, 0], tmp_path)

    assert all(math.isnan(value) for value in got.values())


def test_a_log_probability_of_minus_infinity_is_a_logit(tmp_path):
    """A solution that excludes a class says so with -inf; right answers stay right."""
    got = scored(torch.tensor([[0.0, -math.inf], [0.0, -math.inf]], dtype=torch.float64), [0, 0], tmp_path)

    assert got == {"accuracy": 1.0, "error": 0.0, "nll": 0.0, "ece": 0.0}


def test_scores_do_not_depend_on_the_chunks(tmp_path):
    """2,500 items in three calls of `predict`."""
    rng = np.random.default_rng(0)
    table = torch.from_numpy(rng.normal(size=(2500, 4)))
    labels = rng.integers(0, 4, 2500)

    got = scored(table, labels.tolist(), tmp_path)

    assert got["accuracy"] == pytest.approx((table.argmax(1).numpy() == labels).mean())


def test_predictions_of_a_wrong_shape_are_refused(tmp_path):
    """(N,) in place of (N, classes) would broadcast into nonsense."""
    part = {"x": torch.zeros(3, 1), "y": torch.zeros(3, dtype=torch.int64), "classes": 2}

    with pytest.raises(HarnessError, match=r"predict gave shape \(3,\) for 3 items; give \(3, 2\)"):
        classify.score(part, Gives(torch.zeros(3)), None, context(tmp_path))


def test_regression_metrics_of_known_errors(tmp_path):
    """Targets 0, 1, 2, 3 (variance 1.25), every prediction 0.5 too high."""
    y = torch.tensor([[0.0], [1.0], [2.0], [3.0]], dtype=torch.float64)
    part = {"x": torch.zeros(4, 1), "y": y}

    got = regress.score(part, Gives(y + 0.5), None, context(tmp_path))

    assert got == {"rmse": pytest.approx(0.5), "r2": pytest.approx(1 - 0.25 / 1.25)}
    mean = regress.score(part, Gives(torch.full_like(y, 1.5)), None, context(tmp_path))
    assert mean["r2"] == pytest.approx(0.0)


def test_r2_is_cut_off_where_its_worst_stands(tmp_path):
    """No finished trial ranks below one that failed."""
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    got = regress.score({"x": torch.zeros(2, 1), "y": y}, Gives(y + 1e6), None, context(tmp_path))

    assert got["r2"] == -1.0 == {m.name: m.worst for m in REGRESS_METRICS}["r2"]
    assert got["rmse"] == pytest.approx(1e6)


def test_r2_of_equal_targets_is_unsupported_and_nan_is_nan(tmp_path):
    """No variance, nothing to explain; no finite prediction, no number."""
    equal = {"x": torch.zeros(2, 1), "y": torch.ones(2, 1)}
    with pytest.raises(Unsupported, match="targets that differ"):
        regress.score(equal, Gives(torch.ones(2, 1)), None, context(tmp_path))
    got = regress.score(equal, Gives(torch.full((2, 1), math.nan)), None, context(tmp_path))
    assert math.isnan(got["rmse"])


@pytest.mark.parametrize(("metrics", "scorer"), [(CLASSIFY_METRICS, "classify"), (REGRESS_METRICS, "regress")])
def test_each_declared_metric_is_given_and_no_other(metrics, scorer, tmp_path):
    """A quantity that is declared and never measured would leave every trial unfinished."""
    if scorer == "classify":
        given = scored(torch.eye(2, dtype=torch.float64), [0, 1], tmp_path) | classify.summarise([], None)
    else:
        part = {"x": torch.zeros(2, 1), "y": torch.tensor([[0.0], [1.0]])}
        given = regress.score(part, Gives(torch.zeros(2, 1)), None, context(tmp_path))

    assert set(given) == {metric.name for metric in metrics}


def test_the_area_under_the_curve_by_hand():
    """Accuracy 0 until 10 samples, 0.5 until 30, 0.9 until 40: (0.5 * 20 + 0.9 * 10) / 40."""
    curve = [
        {"at": {"samples_seen": 10.0, "wall_s": 1.0}, "accuracy": 0.5},
        {"at": {"samples_seen": 30.0, "wall_s": 2.0}, "accuracy": 0.9},
        {"at": {"samples_seen": 40.0, "wall_s": 9.0}, "accuracy": 1.0},
    ]

    assert classify.summarise(curve, None) == {"auc_accuracy": pytest.approx(19 / 40)}


def test_offering_once_at_the_end_or_never_gains_nothing():
    """Otherwise a learner would hide its early curve."""
    assert classify.summarise([{"at": {"wall_s": 3.0}, "accuracy": 1.0}], None) == {"auc_accuracy": 0.0}
    assert classify.summarise([{"at": {"wall_s": 0.0}, "accuracy": 1.0}], None) == {"auc_accuracy": 0.0}
    assert classify.summarise([], None) == {"auc_accuracy": 0.0}


# Signal and chance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "least"), [("digits", 0.9), ("wine", 0.9), ("breast_cancer", 0.9), ("moons", 0.8)])
def test_a_linear_classifier_finds_the_signal(name, least, tmp_path):
    """Items and labels belong together in every part. Means over 10 seeds: 0.93, 0.98, 0.96 and 0.86."""
    made = instance(name, tmp_path)
    task = BY_NAME[name]

    got = classify.score(made.held["test"], ridge(made.problem), task.params(), context(tmp_path))

    assert got["accuracy"] > least


def test_shuffled_labels_give_chance(tmp_path, rng):
    """No leak: what is learned from labels in random order says nothing of the test part. Five standard errors of 10 %."""
    made = instance("digits", tmp_path)
    shuffled = made.problem.y[torch.randperm(len(made.problem.y), generator=rng)]
    problem = Classify(made.problem.x, shuffled, made.problem.classes, made.problem.inputs)

    got = classify.score(made.held["test"], ridge(problem), None, context(tmp_path))

    assert abs(got["accuracy"] - 0.1) < 5 * math.sqrt(0.1 * 0.9 / len(made.held["test"]["y"]))


def test_a_linear_model_explains_part_of_diabetes(tmp_path):
    """Least squares explains about half of the variance (0.27 to 0.59 over 10 seeds)."""
    made = instance("diabetes", tmp_path)
    flat = torch.cat([made.problem.x, torch.ones(len(made.problem.x), 1, dtype=torch.float64)], dim=1)
    weights = torch.linalg.lstsq(flat, made.problem.y).solution

    class Line:
        def predict(self, x: Tensor) -> Tensor:
            return x @ weights[:-1] + weights[-1]

    got = regress.score(made.held["test"], Line(), None, context(tmp_path))

    assert 0.25 < got["r2"] < 0.7
    assert got["rmse"] == pytest.approx(
        math.sqrt(1 - got["r2"]), rel=0.2
    )  # targets have deviation 1, nearly so in the test part


def test_problems_are_the_tracks_own_types(tmp_path):
    """The worker checks the same."""
    made = instance("iris", tmp_path)

    assert isinstance(made.problem, Classify)
    assert isinstance(instance("sines", tmp_path).problem, Regress)
    assert isinstance(ridge(made.problem), Predictor)
    assert isinstance(ridge(made.problem), Regressor)
