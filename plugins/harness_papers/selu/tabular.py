"""What the comparison on tables declares: the task of tables that a rule makes, nine learners, a probe of depths. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field

from harness import Learner, Metric, Params, Probe, Task

HERE = "harness_papers.selu"


# The task ---------------------------------------------------------------------------------------------------------------


class Size(NamedTuple):
    """Of a table that a rule makes, known without making it."""

    rows: int
    features: int
    classes: int


SIZES = {
    "tic-tac-toe": Size(958, 9, 2), "balance-scale": Size(625, 4, 3), "monks-1": Size(432, 6, 2), "monks-2": Size(432, 6, 2),
    "monks-3": Size(432, 6, 2), "three-of-9": Size(512, 9, 2), "xd6": Size(512, 9, 2), "mofn-3-7-10": Size(1024, 10, 2),
    "parity5+5": Size(1024, 10, 2), "twonorm": Size(7400, 20, 2), "threenorm": Size(7400, 20, 2),
    "ringnorm": Size(7400, 20, 2), "waveform": Size(5000, 21, 3), "waveform-noise": Size(5000, 40, 3),
    "led7": Size(3200, 7, 10), "led24": Size(3200, 24, 10),
}  # fmt: skip
RuleName = Literal[
    "tic-tac-toe", "balance-scale", "monks-1", "monks-2", "monks-3", "three-of-9", "xd6", "mofn-3-7-10", "parity5+5", "twonorm",
    "threenorm", "ringnorm", "waveform", "waveform-noise", "led7", "led24",
]  # fmt: skip


class RuleTableParams(Params):
    """60 % train, 20 % validation, 20 % test unless said otherwise, as with the core's tables."""

    name: RuleName = Field("tic-tac-toe", description="a table of UCI or PMLB that a rule defines")
    test: float = Field(0.2, gt=0, lt=1, description="share of all rows that is held for the test")
    validation: float = Field(0.25, ge=0, lt=1, description="share of what is not test that is held for validation")


def shape_of_rule_table(params: RuleTableParams) -> Mapping[str, int]:
    from harness.data import part_sizes

    rows, features, classes = SIZES[params.name]
    train = part_sizes(rows, test=params.test, validation=params.validation).train
    return {"inputs": features, "outputs": classes, "train_items": train}


TASKS = [
    Task(
        "rule-table",
        "classify",
        (Metric("accuracy", "1", "higher", 0.0), Metric("error", "1", "lower", 1.0), Metric("nll", "nat", "lower", None)),
        f"{HERE}.tasks:load_rule_table",
        f"{HERE}.tasks:score",
        params=RuleTableParams,
        shape=shape_of_rule_table,
        summary="a table of UCI or PMLB that a rule defines: all rows of a finite domain, or rows drawn by the seed",
    )
]


# Methods ------------------------------------------------------------------------------------------------------------------


class NetParams(Params):
    """What all nets on tables share."""

    depth: int = Field(4, ge=1, le=64, description="hidden layers")
    width: int = Field(64, ge=2, description="units of each")
    lr: float = Field(0.03, gt=0, description="peak learning rate of SGD with Nesterov's momentum 0.9; warm-up, then cosine")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate behind each activation; of snn alpha dropout")
    weight_decay: float = Field(1e-4, ge=0, description="on weight matrices")
    batch: int = Field(64, gt=1, description="rows a step; all where there are fewer")
    evaluations: int = Field(1, gt=0, description="offers, evenly over the budget")


class ForestParams(Params):
    trees: int = Field(100, gt=0, description="trees")
    max_features: float = Field(0.3, gt=0, le=1, description="share of the features that a split chooses among")
    min_leaf: int = Field(1, gt=0, description="training rows in a leaf, at least")


class SVMParams(Params):
    penalty: float = Field(1.0, gt=0, description="C: weight of what lies on the wrong side")
    gamma: float = Field(1.0, gt=0, description="of the kernel exp(-gamma d^2), times the number of features")
    iterations: int = Field(200_000, gt=0, description="of the solver, at most")


def net(name: str, kind: str, summary: str, source: str) -> Learner:
    return Learner(
        name, "classify", f"{HERE}.learners:solve_{kind}", NetParams, knob="width", cost=f"{HERE}.learners:cost_{kind}",
        summary=summary, source=source,
    )  # fmt: skip


LEARNERS = [
    net("snn", "snn", "SELU MLP: LeCun's weights, alpha dropout", "arXiv:1706.02515"),
    net("relu-net", "relu", "ReLU MLP with He's weights, which the paper calls MSRAinit", "arXiv:1502.01852"),
    net("batchnorm-net", "batchnorm", "MLP of affine map, batch norm, ReLU", "arXiv:1502.03167"),
    net("layernorm-net", "layernorm", "MLP of affine map, layer norm, ReLU", "arXiv:1607.06450"),
    net("weightnorm-net", "weightnorm", "MLP of weight-normalised affine maps and ReLU", "arXiv:1602.07868"),
    net("highway-net", "highway", "MLP of highway layers with ReLU", "arXiv:1505.00387"),
    net("residual-net", "resnet", "MLP of residual blocks of two layers with batch norm and ReLU", "arXiv:1603.05027"),
    Learner(
        "random-forest", "classify", f"{HERE}.peers:solve_forest", ForestParams,
        summary="scikit-learn's random forest", source="Breiman 2001, Machine Learning 45",
    ),
    Learner(
        "svm", "classify", f"{HERE}.peers:solve_svm", SVMParams,
        summary="scikit-learn's support vector machine with a Gaussian kernel", source="Cortes and Vapnik 1995",
    ),
]  # fmt: skip

PROBES = [
    Probe("hidden-layers", "classify", (Metric("hidden_layers", "1", "neither"),), f"{HERE}.learners:measure_depth"),
]
