"""The core's own tasks, declared: parameters, metrics, shapes that are known without loading. No torch.

A task that has no test part of its own draws one by the trial's seed, in the shares of the classes; mnist and its like,
cifar's and fsdd keep theirs. Standardisation uses the train part only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field, field_validator

from harness.data.declared import FACTS, Facts, dataset
from harness.data.sizes import Sizes, part_sizes
from harness.errors import HarnessError
from harness.specs import Metric, Params, Task


class OwnTest(Params):
    """Of a set that brings its own test part."""

    subset: int | None = Field(None, gt=0, description="train items to keep; validation shrinks along (null: all)")
    test_subset: int | None = Field(None, gt=0, description="test items to keep (null: all)")
    validation: float = Field(0.2, ge=0, lt=1, description="share of what is not test that is held for validation")
    standardize: bool = Field(
        True, description="mean 0, deviation 1 by the train part, of each feature, of each channel in images"
    )


class Pool(OwnTest):
    """Of a set without a test part: 60 % train, 20 % validation, 20 % test unless said otherwise."""

    test: float = Field(0.2, gt=0, lt=1, description="share of all items that is held for the test")
    validation: float = Field(0.25, ge=0, lt=1, description="share of what is not test that is held for validation")


class Moons(Pool):
    items: int = Field(1000, ge=10, le=1_000_000, description="items drawn for all parts together")
    noise: float = Field(0.2, ge=0, description="standard deviation of the noise on both coordinates")


class Sines(Pool):
    items: int = Field(2000, ge=10, le=1_000_000, description="items drawn for all parts together")
    noise: float = Field(0.05, ge=0, description="standard deviation of the noise on the target")


class Parity(Pool):
    items: int = Field(2000, ge=10, le=1_000_000, description="items drawn for all parts together")
    bits: int = Field(10, ge=1, le=1024, description="signs in an item")
    order: int = Field(3, ge=1, description="how many of them the parity is taken of")
    noise: float = Field(0.0, ge=0, le=0.5, description="share of labels that are turned over")
    standardize: bool = Field(False, description="signs are of mean 0 and deviation 1 already")

    @field_validator("order")
    @classmethod
    def order_within_bits(cls, order: int, info: Any) -> int:
        if order > info.data.get("bits", order):
            raise ValueError(f"order {order} exceeds bits {info.data['bits']}; use at most as many")
        return order


class Table(Pool):
    name: str = Field("spambase", description="a table of the Penn Machine Learning Benchmarks (`harness data list`)")

    @field_validator("name")
    @classmethod
    def name_known(cls, name: str) -> str:
        try:
            dataset(f"pmlb/{name}")
        except HarnessError as exc:
            raise ValueError(str(exc)) from exc
        return name


ACCURACY = Metric("accuracy", "1", "higher", worst=0.0)
# A wrong answer given with certainty costs without bound, so no number is sound as `worst`: any would let some trial that
# failed beat one that finished. Failures count in accuracy, error, ece and auc_accuracy, which are bounded.
NLL = Metric("nll", "nat", "lower", worst=None)
CLASSIFY_METRICS = (
    ACCURACY,
    Metric("error", "1", "lower", worst=1.0),
    NLL,
    Metric("ece", "1", "lower", worst=1.0),
    Metric("auc_accuracy", "1", "higher", worst=0.0),
)
# rmse has no bound either. r2 is cut off at -1, so that -1 is sound: no finished trial ranks below a failed one.
REGRESS_METRICS = (Metric("rmse", "1", "lower", worst=None), Metric("r2", "1", "higher", worst=-1.0))


def set_name(name: str, params: Any) -> str:
    """The data set behind a task's name: the table's, for `table`."""
    return f"pmlb/{params.name}" if name == "table" else name


def set_facts(name: str, params: Any) -> Facts:
    """Sizes of the data behind a task: declared ones, or the parameters' for generated data."""
    if isinstance(params, Moons):
        return Facts(params.items, (2,), 2)
    if isinstance(params, Sines):
        return Facts(params.items, (4,))
    if isinstance(params, Parity):
        return Facts(params.items, (params.bits,), 2)
    return FACTS[set_name(name, params)]


def sizes_of(name: str, params: Any) -> Sizes:
    """Items of each part. Raises HarnessError where a part would be empty or lacks the items asked for."""
    facts = set_facts(name, params)
    return part_sizes(
        facts.items,
        facts.test_items,
        test=getattr(params, "test", 0.2),
        validation=params.validation,
        subset=params.subset,
        test_subset=params.test_subset,
    )


def shape_of(name: str, params: Any) -> Mapping[str, int]:
    """`Task.shape` of the task of that name."""
    facts = set_facts(name, params)
    image = dict(zip(("channels", "height", "width"), facts.inputs, strict=True)) if len(facts.inputs) == 3 else {}
    return {
        "inputs": math.prod(facts.inputs),
        "outputs": facts.classes or 1,
        "train_items": sizes_of(name, params).train,
        **image,
    }


def table_sets(params: Any) -> tuple[str, ...]:
    return (set_name("table", params),)


def classify(name: str, summary: str, params: type[Params] = Pool) -> Task:
    return Task(
        name=name,
        track="classify",
        metrics=CLASSIFY_METRICS,
        load=f"harness.builtin.classify:load_{name.replace('-', '_')}",
        score="harness.builtin.classify:score",
        params=params,
        shape=partial(shape_of, name),
        datasets=table_sets if name == "table" else (name,),
        summarise="harness.builtin.classify:summarise",
        summary=summary,
    )


def regress(name: str, summary: str, params: type[Params] = Pool) -> Task:
    return Task(
        name=name,
        track="regress",
        metrics=REGRESS_METRICS,
        load=f"harness.builtin.regress:load_{name}",
        score="harness.builtin.regress:score",
        params=params,
        shape=partial(shape_of, name),
        datasets=(name,),
        summary=summary,
    )


TASKS = [
    classify("digits", "8x8 images of digits, 10 classes"),
    classify("wine", "178 wines, 13 features, 3 classes"),
    classify("breast_cancer", "569 tumours, 30 features, 2 classes"),
    classify("iris", "150 flowers, 4 features, 3 classes"),
    classify("moons", "two half circles in the plane, drawn anew for each seed", Moons),
    classify("parity", "the parity of some of many signs, drawn anew for each seed", Parity),
    classify("mnist", "28x28 images of digits, 10 classes (data folder)", OwnTest),
    classify("fashion-mnist", "28x28 images of clothes, 10 classes (data folder)", OwnTest),
    classify("kmnist", "28x28 images of cursive Japanese characters, 10 classes (data folder)", OwnTest),
    classify("cifar10", "32x32 colour images, 10 classes (data folder)", OwnTest),
    classify("cifar100", "32x32 colour images, 100 classes (data folder)", OwnTest),
    classify("cifar10-jpeg", "32x32 colour images as JPEG, 10 classes; not CIFAR-10 itself (data folder)", OwnTest),
    classify("fsdd", "spoken digits as 32x32 log-spectrograms, 10 classes (data folder)", OwnTest),
    classify("higgs-7500", "7,500 collisions, 28 features, 2 classes (data folder)"),
    classify("covertype-15120", "15,120 forest cells, 54 features, 7 classes (data folder)"),
    classify("table", "any of 124 tables of PMLB, by name (data folder)", Table),
    regress("diabetes", "442 patients, 10 features, progression after a year"),
    regress("sines", "a sum of sines of 4 inputs, drawn anew for each seed", Sines),
]
