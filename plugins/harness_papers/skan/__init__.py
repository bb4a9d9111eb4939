"""S-KAN and S-ConvKAN: KANs that choose a family of functions for each node. Declarations only.

The mathematics is in method.py, the schedule in training.py, the seven functions in functions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, get_args

from pydantic import Field

from harness import (
    All,
    Cell,
    Claim,
    Diff,
    Learner,
    Metric,
    Over,
    Paper,
    Params,
    Rank,
    Ratio,
    Task,
    Within,
    given,
    hookimpl,
)

ARXIV = "https://arxiv.org/abs/2408.08338"
REPOSITORY = "https://github.com/SeriYann/KANConv2d"
SECONDARY = "https://www.emergentmind.com/articles/2408.08338"
HERE = "harness_papers.skan"
OURS = "control of ours"
FamilyName = Literal["b-spline", "fastkan", "rswaf", "chebyshev", "gram", "mexican-hat", "jacobi", "relu-kan"]
Function = Literal["smooth", "oscillating", "piecewise", "localised", "product", "rational", "bessel"]
INPUTS: Mapping[str, int] = {"smooth": 2, "product": 3}  # of the functions with more than one


# Methods ----------------------------------------------------------------------------------------------------------------


class Fit(Params):
    """What all methods of this paper share."""

    lr: float = Field(0.01, gt=0, description="Adam's rate at first; a cosine takes it to 0")
    batch: int = Field(1000, gt=0, description="items a step; all where there are fewer")
    evaluations: int = Field(5, gt=0, description="offers, evenly over the budget")


class Pool(Fit):
    tau: float = Field(1.0, gt=0, description="temperature of the gates")


class Dense(Pool):
    width: int = Field(8, gt=0, description="outputs of each hidden layer")
    depth: int = Field(1, gt=0, description="hidden layers; there is one more layer of edges")


class Selected(Dense):
    full: float = Field(0.3, ge=0, le=1, description="share of the budget for all families together; a reconstruction")
    exclusive: float = Field(0.6, ge=0, le=1, description="share after which each output has one family; a reconstruction")


class OneFamily(Dense):
    family: FamilyName = Field("b-spline", description="the family of every edge")


class Mlp(Dense):
    """Width and depth are those of the S-KAN to be matched."""

    activation: Literal["gelu", "silu", "relu", "tanh"] = Field("gelu", description="behind each hidden layer")
    layers: int = Field(2, gt=0, description="hidden layers of the MLP")


class Conv(Pool):
    channels: tuple[int, ...] = Field((8, 16), min_length=1, description="of each convolution; each halves the image")
    lr: float = Field(0.003, gt=0, description="Adam's rate at first; a cosine takes it to 0")
    batch: int = Field(64, gt=0, description="items a step")


class SelectedConv(Conv):
    full: float = Field(0.3, ge=0, le=1, description="share of the budget for all families together; a reconstruction")
    exclusive: float = Field(0.6, ge=0, le=1, description="share after which each channel has one family; a reconstruction")


class OneFamilyConv(Conv):
    family: FamilyName = Field("b-spline", description="the family of every edge; wavelets as a grid of shifts")


class Cnn(Conv):
    """Channels are those of the S-ConvKAN to be matched."""

    activation: Literal["gelu", "silu", "relu", "tanh"] = Field("gelu", description="behind each convolution")


def learner(
    name: str, track: str, solve: str, params: type[Params], summary: str, source: str = ARXIV, cost: str = ""
) -> Learner:
    return Learner(
        name, track, f"{HERE}.learners:{solve}", params, cost=f"{HERE}.learners:{cost}" if cost else None, summary=summary,
        source=source,
    )  # fmt: skip


METHODS = [
    learner("s-kan", "regress", "solve_selected", Selected, "a pool of eight families, of which each node keeps one",
            cost="cost_selected"),
    learner("skan-family", "regress", "solve_family", OneFamily, "a KAN of one family", REPOSITORY, "cost_family"),
    learner("skan-soft", "regress", "solve_soft", Dense, "ablation: the mixture of all families, never pruned", OURS,
            "cost_soft"),
    learner("skan-random", "regress", "solve_random", Dense, "control: each node has a family drawn at random", OURS,
            "cost_selected"),
    learner("skan-oracle", "regress", "solve_oracle", Dense, "oracle: the best single family on held training items", OURS,
            "cost_selected"),
    learner("skan-mlp", "regress", "solve_mlp", Mlp, "an MLP with as many parameters as S-KAN after pruning", OURS, "cost_mlp"),
    learner("s-convkan", "classify", "solve_selected", SelectedConv,
            "convolutions over a pool of eight families, of which each channel keeps one", cost="cost_selected"),
    learner("convkan-family", "classify", "solve_family", OneFamilyConv, "a convolutional KAN of one family", REPOSITORY,
            "cost_family"),
    learner("convkan-soft", "classify", "solve_soft", Conv, "ablation: the mixture of all families, never pruned", OURS,
            "cost_soft"),
    learner("convkan-random", "classify", "solve_random", Conv, "control: each channel has a family drawn at random", OURS,
            "cost_selected"),
    learner("convkan-cnn", "classify", "solve_cnn", Cnn, "a CNN with as many parameters as S-ConvKAN after pruning", OURS,
            "cost_cnn"),
]  # fmt: skip


# Tasks ------------------------------------------------------------------------------------------------------------------


class FunctionParams(Params):
    function: Function = Field("smooth", description="which of the seven")
    noise: float = Field(0.0, ge=0, description="deviation of the noise on train targets, as a share of the target's")
    items: int = Field(1000, ge=10, le=1_000_000, description="points in each of the train, validation and test parts")

    @property
    def inputs(self) -> int:
        return INPUTS.get(self.function, 1)


def function_shape(params: FunctionParams) -> Mapping[str, int]:
    return {"inputs": params.inputs, "outputs": 1, "train_items": params.items}


TASKS = [
    Task(
        name="seven-functions", track="regress", metrics=(Metric("rmse", "1", "lower", worst=None),),
        load=f"{HERE}.functions:load", score=f"{HERE}.functions:score", params=FunctionParams, shape=function_shape,
        summary="one of seven functions on [-1, 1]^d, each easy for another family; points drawn anew for each seed",
    ),
]  # fmt: skip

# Claims -----------------------------------------------------------------------------------------------------------------

FUNCTIONS: tuple[str, ...] = get_args(Function)
FAMILIES: tuple[str, ...] = get_args(FamilyName)
NEAR = 2.0  # times the best single family's error is still close to it; the card gives no number
MLPS = ("gelu", "silu")


def error(function: str, method: str, **parameters: str) -> Cell:
    """rmse on one function. Noise and budget are the suite's: each suite that lists a claim has a protocol of its own."""
    given_method = {f"method__{name}": value for name, value in parameters.items()}
    return Cell(method, "seven-functions", "rmse", given(task__function=function, **given_method))


def family(function: str, name: str) -> Cell:
    return error(function, "skan-family", family=name)


def mlp(function: str, activation: str) -> Cell:
    return error(function, "skan-mlp", activation=activation)


def arms(function: str) -> dict[str, Cell]:
    """All that are ranked on a function. The soft mixture is not: it keeps the parameters of all families."""
    return {
        "s-kan": error(function, "s-kan"),
        "random": error(function, "skan-random"),
        **{name: family(function, name) for name in FAMILIES},
        **{name: mlp(function, name) for name in MLPS},
    }


def ranks(arm: str) -> tuple[Rank, ...]:
    """Of one arm among all, on each of the seven functions; 1 is the smallest error."""
    found = map(arms, FUNCTIONS)
    return tuple(Rank(among[arm], tuple(among.values()), "lower") for among in found)


def mean_rank(arm: str) -> Over:
    return Over(ranks(arm), "mean")


def ranks_better_than(arm: str) -> Within:
    """S-KAN's mean rank lies before that of the arm."""
    return Within(Diff(mean_rank(arm), mean_rank("s-kan")), low=0.0)


def spread(arm: str) -> Diff:
    """Worst minus best rank over the functions."""
    return Diff(Over(ranks(arm), "max"), Over(ranks(arm), "min"))


def error_ratio(rivals: Callable[[str], Cell | Over]) -> Over:
    """S-KAN's error over a rival's, the median over the functions."""
    return Over(tuple(Ratio(error(f, "s-kan"), rivals(f)) for f in FUNCTIONS), "median")


def best_family(function: str) -> Over:
    """The least error of a single family, chosen on the test part itself: no oracle can be better."""
    return Over(tuple(family(function, name) for name in FAMILIES), "min")


def accuracy(method: str, **parameters: str) -> Cell:
    given_method = {f"method__{name}": value for name, value in parameters.items()}
    return Cell(method, "digits", "accuracy", given(**given_method))


CONV_RIVALS = (
    *(accuracy("convkan-family", family=name) for name in FAMILIES),
    *(accuracy("convkan-cnn", activation=name) for name in MLPS),
)

SMALLER = (
    "seven functions chosen by the card to favour different families, for the paper's list could not be read; nets of shape "
    "(d, 8, 1), 1,000 points, 800 to 2,000 full-batch steps of Adam by suite, ten seeds. Gate, schedule and thresholds are a "
    "reconstruction: a verdict is one on that, not on the authors' code. MLPs have the parameters that S-KAN has after pruning "
    "if it chooses evenly; what it did choose stands in each record"
)
UNVERIFIED = (
    "gate, schedule and thresholds of the selection: the method here is a reconstruction",
    "the seven functions of the paper, its optimiser, epochs and seeds",
    "all numbers: the abstract gives none",
)

PAPER = Paper(
    name="skan",
    title="Activation Space Selectable Kolmogorov-Arnold Networks",
    authors="Yang, Zhang, Luo, Lu, Shen",
    arxiv="2408.08338",
    year=2024,
    claims=(
        Claim(
            name="ranks-before-every-family",
            says="Over seven functions S-KAN's mean rank by error is better than that of a KAN of any single family",
            rule=All(tuple(map(ranks_better_than, FAMILIES))),
            seeds=10,
            value="outperforms the single-space KANs; no number",
            place="abstract",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=UNVERIFIED,
            effect=1.0,
        ),
        Claim(
            name="near-the-best-family",
            says="S-KAN's error is at most twice that of the family that is best on the function, in the median function",
            rule=Within(error_ratio(best_family), high=NEAR),
            seeds=10,
            value="not measured in the paper; that selection finds the right space is what the method rests on",
            place="abstract; the oracle is ours",
            source=ARXIV,
            scaled_down=SMALLER + ". The oracle chooses on the test part, which no rival can beat; twice is our limit",
            unverified=UNVERIFIED,
        ),
        Claim(
            name="because-it-selects",
            says="It is the selection: with families drawn at random for each node the mean rank is worse",
            rule=ranks_better_than("random"),
            seeds=10,
            value="not measured in what the card read; a mixture of families may help by itself",
            place="abstract; the control is ours",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=(*UNVERIFIED, "whether the paper has a control without selection"),
            effect=1.0,
            because="skan-random",
        ),
        Claim(
            name="beats-mlps",
            says="S-KAN's mean rank is better than that of MLPs of as many parameters, its error lower in the median function",
            rule=All((
                *map(ranks_better_than, MLPS),
                *(Within(error_ratio(partial(mlp, activation=name)), high=1.0) for name in MLPS),
            )),
            seeds=10,
            value="clearly beats MLPs at the same parameter level; no number",
            place="abstract",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=UNVERIFIED,
        ),
        Claim(
            name="varies-less-over-tasks",
            says="S-KAN's ranks spread less over the seven functions than those of single families do on average",
            rule=Within(Diff(Over(tuple(map(spread, FAMILIES)), "mean"), spread("s-kan")), low=0.0),
            seeds=10,
            value="reduces the variability of KAN across tasks; a statement",
            place="abstract",
            source=ARXIV,
            scaled_down=SMALLER + ". Spread is the worst rank minus the best",
            unverified=UNVERIFIED,
            effect=1.0,
        ),
        Claim(
            name="convkan-leads-on-digits",
            says="S-ConvKAN is more accurate than convolutional KANs of one family and than CNNs of as many parameters",
            rule=All(tuple(Within(Diff(accuracy("s-convkan"), rival), low=0.0) for rival in CONV_RIVALS)),
            seeds=10,
            value="leads on four image sets; no number",
            place="abstract",
            source=ARXIV,
            scaled_down=(
                "digits (8x8, 1,078 to learn from, 20 passes) instead of four image sets; two convolutions of 8 and 16 "
                "channels and an affine map. Families without the norm over a patch, wavelets as a grid of shifts, so that "
                "functions are shared. Near the ceiling of digits a small lead may not show"
            ),
            unverified=(*UNVERIFIED, "the names of the four image sets, and the nets on them"),
            effect=0.01,
        ),
        Claim(
            name="convkan-leads-on-four-image-sets",
            says="S-ConvKAN leads on four image sets",
            rule=None,
            seeds=0,
            value="leads; no number",
            place="abstract",
            source=ARXIV,
            unverified=("the names of the four image sets, and the nets on them",),
            missing=(
                "the names of the sets, and a GPU for CIFAR-10 and CIFAR-100 if they are among them; `skan-mnist` runs 10,000 "
                "images of MNIST from the data folder"
            ),
        ),
    ),
    notes={
        "what contradicts": "a single family that wins everywhere, or a random selection that does as well",
        "test": "the card asks for a paired Wilcoxon test over functions and seeds; the rules here take one number a seed, the "
        "mean rank over the functions, and its paired t interval, since functions are no sample",
        "code": "the authors' repository holds the convolutional layers of the families; that of the selection was not found",
        "name": "not SKAN, the single-parameter KAN of arXiv:2410.14951",
    },
)  # fmt: skip


@hookimpl
def harness_papers() -> list[Paper]:
    return [PAPER]


@hookimpl
def harness_methods() -> list[Learner]:
    return METHODS


@hookimpl
def harness_tasks() -> list[Task]:
    return TASKS
