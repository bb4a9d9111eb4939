"""AF-KAN: Kolmogorov-Arnold layers of activation functions, reduced by attention. Declarations only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness import (
    All,
    Cell,
    Claim,
    Component,
    Diff,
    Every,
    Metric,
    Paper,
    Params,
    Probe,
    Ratio,
    Within,
    given,
    hookimpl,
)

ARXIV = "https://arxiv.org/abs/2503.06112"
REPOSITORY = "https://github.com/hoangthangta/All-KAN"
HERE = "harness_papers.afkan"
Activation = Literal["silu", "relu", "gelu", "selu", "elu", "sigmoid", "softplus", "tanh", "leaky_relu"]
Norm = Literal["layer", "batch", "none"]


class NormLinearParams(Params):
    """What AF-KAN has behind its features."""

    act: Activation = Field("silu", description="the activation, in front of the weights and, in AF-KAN, of the features")
    norm: Norm = Field("layer", description="over the inputs of a layer, in front of the activation")


class LayerParams(NormLinearParams):
    """The defaults are the paper's, but for func_norm."""

    grid: int = Field(3, gt=0, description="g: intervals of the grid")
    order: int = Field(3, ge=0, description="k: intervals by which functions overlap; g + k functions in all")
    func: Literal["quad1", "quad2", "sum", "prod", "sum_prod", "cubic1", "cubic2"] = Field(
        "quad1", description="how act(x - low) and act(high - x) become one function; quad1: their product, squared"
    )
    func_norm: Literal["sample", "batch", "none"] = Field(
        "sample",
        description="features scaled to [0, 1], over those of an item, or of the whole batch as in the paper's code",
    )
    reduction: Literal["global_attn", "spatial_attn", "multistep"] = Field(
        "global_attn", description="how the functions of an input become one number"
    )


METHODS = [
    Component(
        "afkan", "linear", f"{HERE}.method:build", LayerParams,
        summary="AF-KAN: functions made of activations, reduced by attention, then a linear layer", source=ARXIV,
    ),
    Component(
        "norm-silu-linear", "linear", f"{HERE}.method:build_control", NormLinearParams,
        summary="control: AF-KAN's layer without its functions: norm, activation, weights", source="control of ours",
    ),
    Component(
        "layernorm-silu", "norm_act", f"{HERE}.method:build_layernorm_silu",
        summary="control: the usual MLP with layer norm and SiLU behind each hidden layer", source="control of ours",
    ),
]  # fmt: skip

PROBES = [
    Probe(
        "accuracy-by-batch",
        "classify",
        (Metric("single_accuracy", "1", "higher", worst=0.0), Metric("together_accuracy", "1", "higher", worst=0.0)),
        f"{HERE}.probes:measure_batches",
    ),
    Probe("step-flops", "classify", (Metric("item_flops", "FLOP", "lower"),), f"{HERE}.probes:measure_flops"),
]

# The paper's rate, decay and batch; its net with one hidden layer of 64 units.
TRAIN = {"train__lr": 1e-3, "train__weight_decay": 1e-4, "train__batch": 64}
EPOCHS, ITEMS = 60, 1_078  # passes, and the train items of digits
POINT = 0.01  # one point of accuracy; an image of digits' test part is 0.28 points
DIGITS = {"budget__samples_seen": EPOCHS * ITEMS, **TRAIN}
CONTROLS = ("norm-silu-linear", "layernorm-silu")
PLAIN = ("relu", "silu")
KANS = ("kan", "fastkan", "relu-kan")
WIDTH = 64
MNIST_ITEMS, MNIST_EPOCHS = 10_000, 8
MNIST = {"budget__samples_seen": MNIST_EPOCHS * MNIST_ITEMS, "task__subset": MNIST_ITEMS, **TRAIN}
RECIPES = {"digits": DIGITS, "mnist": MNIST, "fashion-mnist": MNIST}
DEFAULTS: dict[str, str | int] = {
    "grid": 3, "order": 3, "act": "silu", "func": "quad1", "func_norm": "sample", "reduction": "global_attn", "norm": "layer",
}  # fmt: skip
# One setting of the default changed at a time; func_norm apart, which is no setting of the paper's choice.
CHANGES: dict[str, tuple[str | int, ...]] = {
    "grid": (2, 5),
    "order": (2, 5),
    "func": ("quad2", "sum", "prod", "sum_prod", "cubic1", "cubic2"),
    "act": ("relu", "gelu", "selu", "elu", "sigmoid", "softplus", "tanh", "leaky_relu"),
    "reduction": ("spatial_attn", "multistep"),
    "norm": ("batch", "none"),
}


def afkan(metric: str = "accuracy", task: str = "digits", **changed: str | int) -> Cell:
    """The default but for what is changed."""
    settings = {f"method__{name}": value for name, value in (DEFAULTS | changed).items()}
    return Cell("afkan", task, metric, given(**settings, **RECIPES[task]))


def rival(method: str, metric: str = "accuracy", task: str = "digits", **more: int) -> Cell:
    return Cell(method, task, metric, given(**RECIPES[task], **more))


def close_to_wide_kans(task: str) -> All:
    """Within 0.3 points of each KAN of as many units, which has 6 to 10 times the parameters."""
    return All(tuple(
        Within(Diff(afkan(task=task), rival(kan, task=task, net__width=WIDTH)), low=-0.3 * POINT) for kan in KANS
    ))  # fmt: skip


DIGITS = (
    "digits (8x8, 1,078 to learn from) instead of MNIST and Fashion-MNIST, 60 passes instead of 25 and 35, cosine instead of "
    "0.8 an epoch, inputs standardised instead of in [-1, 1]; accuracy instead of accuracy and F1. Digits are easy: near the "
    "ceiling a small advantage may not show"
)
MNIST_SHORTER = (
    "10,000 images of MNIST to learn from and 8 passes instead of 60,000 and 25, cosine instead of 0.8 an epoch, pixels "
    "standardised instead of in [-1, 1]; accuracy instead of accuracy and F1"
)
OWN_FEATURES = ". func_norm is over each item's own features, so that no answer depends on the batch"
SMALLER, MNIST_SMALLER = DIGITS + OWN_FEATURES, MNIST_SHORTER + OWN_FEATURES
WIDE = (
    ". The KANs have B-splines, Gaussians and squared products of ReLUs, five intervals or eight centres; the paper's further "
    "rivals are left out"
)
UNTOLD = ("the accuracies of the paper's tables", "the number of its repetitions, said to be 5")

PAPER = Paper(
    name="afkan",
    title="AF-KAN: Activation Function-Based Kolmogorov-Arnold Networks for Efficient Representation Learning",
    authors="Hoang-Thang Ta, Anh Tran",
    arxiv="2503.06112",
    year=2025,
    claims=(
        Claim(
            name="beats-layernorm-mlp",
            says=(
                "It is the functions: AF-KAN is more accurate than MLPs of as many parameters with layer norm and SiLU, which "
                "stand where AF-KAN's stand or behind the hidden layer"
            ),
            rule=All(tuple(Within(Diff(afkan(), rival(other)), low=0.0) for other in CONTROLS)),
            seeds=20,
            value="significantly better than an MLP of as many parameters; numbers not verified",
            place="abstract; the control is ours",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=(*UNTOLD, "whether a baseline of the paper has layer norm"),
            because="norm-silu-linear",
        ),
        Claim(
            name="beats-plain-mlp",
            says="AF-KAN is more accurate than plain MLPs of as many parameters, with ReLU and with SiLU",
            rule=All(tuple(Within(Diff(afkan(), rival(other)), low=0.0) for other in PLAIN)),
            seeds=20,
            value="significantly better than an MLP of as many parameters; numbers not verified",
            place="abstract",
            source=ARXIV,
            scaled_down=SMALLER + ". No layer norm in the MLP: nothing is said of AF-KAN's functions; see beats-layernorm-mlp",
            unverified=UNTOLD,
        ),
        Claim(
            name="beats-kans",
            says="AF-KAN is more accurate than KANs of as many parameters, which have some seven hidden units",
            rule=All(tuple(Within(Diff(afkan(), rival(kan)), low=0.0) for kan in KANS)),
            seeds=20,
            value="significantly better than other KANs of as many parameters; numbers not verified",
            place="abstract",
            source=ARXIV,
            scaled_down=SMALLER + WIDE,
            unverified=UNTOLD,
        ),
        Claim(
            name="beats-layernorm-mlp-on-mnist",
            says=(
                "On MNIST, too, AF-KAN is more accurate than MLPs of as many parameters with layer norm and SiLU, which stand "
                "where AF-KAN's stand or behind the hidden layer"
            ),
            rule=All(tuple(Within(Diff(afkan(task="mnist"), rival(other, task="mnist")), low=0.0) for other in CONTROLS)),
            seeds=20,
            value="significantly better than an MLP of as many parameters; numbers not verified",
            place="abstract; the control is ours",
            source=ARXIV,
            scaled_down=MNIST_SMALLER,
            unverified=(*UNTOLD, "whether a baseline of the paper has layer norm"),
            because="norm-silu-linear",
        ),
        Claim(
            name="beats-kans-on-mnist",
            says="On MNIST AF-KAN is more accurate than KANs of as many parameters, which have some seven hidden units",
            rule=All(tuple(Within(Diff(afkan(task="mnist"), rival(kan, task="mnist")), low=0.0) for kan in KANS)),
            seeds=20,
            value="significantly better than other KANs of as many parameters; numbers not verified",
            place="abstract",
            source=ARXIV,
            scaled_down=MNIST_SMALLER + WIDE,
            unverified=UNTOLD,
        ),
        Claim(
            name="close-to-wide-kans",
            says="AF-KAN is within 0.3 points of KANs of as many units, which have 8 to 10 times the parameters",
            rule=close_to_wide_kans("digits"),
            seeds=20,
            value="competitive with 6 to 10 times fewer parameters",
            place="abstract",
            source=ARXIV,
            scaled_down=SMALLER + WIDE,
            unverified=UNTOLD,
        ),
        Claim(
            name="close-to-wide-kans-on-mnist",
            says="On MNIST AF-KAN is within 0.3 points of KANs of as many units, which have 8 to 10 times the parameters",
            rule=close_to_wide_kans("mnist"),
            seeds=20,
            value="competitive with 6 to 10 times fewer parameters",
            place="abstract",
            source=ARXIV,
            scaled_down=MNIST_SMALLER + WIDE,
            unverified=UNTOLD,
        ),
        Claim(
            name="needs-no-batch",
            says="Scaling the features of each item alone costs no more than half a point against the whole batch's",
            rule=Within(Diff(afkan(), afkan(func_norm="batch")), low=-POINT / 2),
            seeds=20,
            value="the public code scales over the whole batch; nothing is said of other ways",
            place="models/af_kan.py; the variant is ours",
            source=REPOSITORY,
            scaled_down=DIGITS,
            unverified=UNTOLD,
            effect=POINT / 2,
        ),
        Claim(
            name="because-of-func-norm",
            says="AF-KAN needs its features scaled: without, it is less accurate",
            rule=Within(Diff(afkan(), afkan(func_norm="none")), low=0.0),
            seeds=20,
            value="on by default in the public code",
            place="models/af_kan.py; the ablation is ours",
            source=REPOSITORY,
            scaled_down=SMALLER,
            unverified=UNTOLD,
        ),
        Claim(
            name="same-for-single-items",
            says=(
                "As in the public code, features scaled over the batch, AF-KAN's accuracy is the same within 0.1 points for "
                "single items and for all test items together"
            ),
            rule=Within(
                Diff(afkan("together_accuracy", func_norm="batch"), afkan("single_accuracy", func_norm="batch")),
                low=-POINT / 10, high=POINT / 10,
            ),
            seeds=20,
            value="not measured in the paper, which evaluates in batches of 64",
            place="models/af_kan.py; the test is ours",
            source=REPOSITORY,
            scaled_down=DIGITS + ". Digits have 360 test items: so many, and not 1,000, are asked at once",
            unverified=UNTOLD,
        ),
        Claim(
            name="costs-more",
            says="Training AF-KAN takes more FLOPs than training MLPs of as many parameters",
            rule=All(tuple(
                Every(Ratio(afkan("item_flops"), rival(other, "item_flops")), low=1.0) for other in (*CONTROLS, *PLAIN)
            )),
            seeds=20,
            value="longer training and more FLOPs",
            place="abstract",
            source=ARXIV,
            scaled_down=(
                "FLOPs counted of a real training step on digits. Seconds are no metric of a trial: `train_step` of the suite "
                "times them in fresh processes, for the leaderboard"
            ),
            unverified=("the paper's FLOPs and seconds",),
        ),
        Claim(
            name="default-is-best",
            says="No single change of the default (g = k = 3, quad1, SiLU, global_attn, layer norm) is better by half a point",
            rule=All(tuple(
                Within(Diff(afkan(), afkan(**{name: value})), low=-POINT / 2)
                for name, values in CHANGES.items() for value in values
            )),
            seeds=10,
            value="g = 3 and k = 3 are called better; an ablation of the others",
            place="README; ablation study",
            source=REPOSITORY,
            scaled_down=SMALLER + ". multistep and spatial attention are really used here: the public net drops its `methods`",
            unverified=("the accuracies of the ablation study",),
            effect=POINT / 2,
        ),
        Claim(
            name="beats-layernorm-mlp-on-fashion-mnist",
            says="On Fashion-MNIST, too, AF-KAN is more accurate than MLPs of as many parameters with layer norm and SiLU",
            rule=All(tuple(
                Within(Diff(afkan(task="fashion-mnist"), rival(other, task="fashion-mnist")), low=0.0) for other in CONTROLS
            )),
            seeds=20,
            value="significantly better than an MLP of as many parameters; numbers not verified",
            place="abstract; the control is ours",
            source=ARXIV,
            scaled_down=MNIST_SMALLER.replace("MNIST", "Fashion-MNIST"),
            unverified=(*UNTOLD, "whether a baseline of the paper has layer norm"),
            because="norm-silu-linear",
        ),
    ),
    notes={
        "func_norm": "over each item by default here; over the whole batch, as in the public code, it is the ablation",
        "attention": "the public code's local, self and multi-head attention are left out: slow, and self cannot run",
        "code": "MIT; nothing of it is used. The features for x = 0.5 agree with a run of it to 1e-6",
    },
)  # fmt: skip


@hookimpl
def harness_papers() -> list[Paper]:
    return [PAPER]


@hookimpl
def harness_methods() -> list[Component]:
    return METHODS


@hookimpl
def harness_probes() -> list[Probe]:
    return PROBES
