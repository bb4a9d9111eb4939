"""PolyCom: a cubic with learned weights, composed with ReLU or with normalised powers. Declarations only.

The mathematics is in method.py, fused code in kernels.py and triton_kernels.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from harness import (
    All,
    Cell,
    Claim,
    Component,
    Diff,
    Implementation,
    Kernel,
    KernelCase,
    Metric,
    Paper,
    Params,
    Probe,
    Slope,
    Within,
    given,
    hookimpl,
)

ARXIV = "https://arxiv.org/abs/2411.03884"
REPOSITORY = "https://github.com/BryceZhuo/PolyCom"
REVIEWS = "https://openreview.net/forum?id=CbpWPbYHuv"
METHOD, KERNELS = "harness_papers.polycom.method", "harness_papers.polycom.kernels"


# Components -------------------------------------------------------------------------------------------------------------


class PolyParams(Params):
    """One weight for each power and a bias, a layer."""

    order: int = Field(3, ge=1, le=6, description="highest power; the paper uses 3; weights start at 1 / order, the bias at 0")
    learnable: bool = Field(True, description="false freezes weights and bias at their initial values (the ablation)")


class PolyNormParams(PolyParams):
    """PolyReLU's, and the norm's eps."""

    eps: float = Field(1e-6, gt=0, description="added to the mean square of each power, as in the authors' code")


METHODS = [
    Component(
        "polyrelu", "activation", f"{METHOD}:build_polyrelu", PolyParams,
        summary="a learned cubic of relu(x), four scalars a layer", source=ARXIV,
    ),
    Component(
        "polynorm", "activation", f"{METHOD}:build_polynorm", PolyNormParams,
        summary="a learned sum of normalised x, x^2 and x^3, four scalars a layer", source=ARXIV,
    ),
    Component(
        "polynomial", "activation", f"{METHOD}:build_polynomial", PolyParams,
        summary="ablation: the same learned cubic of x itself, composed with nothing", source="ablation of ours",
    ),
    Component(
        "squared-relu", "activation", f"{METHOD}:build_squared_relu",
        summary="baseline: relu(x)^2, as in Primer", source="https://arxiv.org/abs/2109.08668",
    ),
]  # fmt: skip

PROBES = [
    Probe(
        "ffn-rank",
        "classify",
        (Metric("ffn_rank_up", "1", "higher"), Metric("ffn_rank_down", "1", "higher")),
        f"{METHOD}:measure_ranks",
    ),
]


# Kernels ----------------------------------------------------------------------------------------------------------------


class PolyNormCase(KernelCase):
    """Rows of `hidden` elements; each row is normalised."""

    hidden: int = Field(
        1024, ge=1,
        description="length of a row: the nearest divisor of elements within a factor of 2 is taken; where there is none, the "
        "number of rows is rounded; one row where there are fewer elements",
    )  # fmt: skip


def polynorm_shape(case: PolyNormCase) -> tuple[int, int]:
    """(rows, length of a row) of the case."""
    n, wanted = case.elements, case.hidden
    if n <= wanted:
        return (1, n) if n else (0, wanted)
    near = [length for length in range(-(-wanted // 2), 2 * wanted + 1) if n % length == 0]
    length = min(near, key=lambda length: abs(length - wanted), default=wanted)
    return round(n / length), length


def norm_flops(case: PolyNormCase, itemsize: int) -> Mapping[str, int]:
    """Sums of x^2, x^4, x^6 (6) and the cubic (6); backward those, sums of g, gx, gx^2, gx^3 (7) and the slope (11)."""
    rows, length = polynorm_shape(case)
    return {"forward": 12 * rows * length, "backward": 24 * rows * length}


def norm_bytes(case: PolyNormCase, itemsize: int) -> Mapping[str, int]:
    rows, length = polynorm_shape(case)
    return moved(rows * length, itemsize)


def relu_flops(case: KernelCase, itemsize: int) -> Mapping[str, int]:
    """The cubic of relu(x) (7); backward its slope (7) and sums of g, gr, gr^2, gr^3 (7), and the two cuts at 0."""
    return {"forward": 7 * case.elements, "backward": 16 * case.elements}


def relu_bytes(case: KernelCase, itemsize: int) -> Mapping[str, int]:
    return moved(case.elements, itemsize)


def moved(elements: int, itemsize: int) -> Mapping[str, int]:
    """x read and y written; x and y's gradient read and x's written; four parameters."""
    return {"forward": (2 * elements + 4) * itemsize, "backward": (3 * elements + 7) * itemsize}


def implementations(name: str) -> tuple[Implementation, ...]:
    return (
        Implementation("eager", "eager", f"{KERNELS}:{name}_eager", summary="the formula"),
        Implementation("compiled", "compiled", f"{KERNELS}:{name}_eager", summary="the formula through torch.compile"),
        Implementation(
            "ours", "ours", f"{KERNELS}:{name}_ours", fallback=f"{KERNELS}:fallback",
            summary="one pass forward, one backward: C for float32 on the CPU, Triton on CUDA",
        ),
    )  # fmt: skip


POLYRELU = Kernel(
    "polyrelu", f"{KERNELS}:polyrelu_inputs", implementations("polyrelu"), f"{KERNELS}:polyrelu_eager", relu_flops, relu_bytes,
    summary="PolyReLU of order 3 on a vector", source=ARXIV,
)  # fmt: skip
LIGER = Implementation(
    "liger", "peer", f"{KERNELS}:polynorm_liger", devices=("cuda",), requires=("liger_kernel",),
    summary="Liger-Kernel's Triton code, where it is installed",
)  # fmt: skip
POLYNORM = Kernel(
    "polynorm", f"{KERNELS}:polynorm_inputs", (*implementations("polynorm"), LIGER), f"{KERNELS}:polynorm_eager", norm_flops,
    norm_bytes, params=PolyNormCase, summary="PolyNorm of order 3 on rows", source=ARXIV,
)  # fmt: skip


# The paper --------------------------------------------------------------------------------------------------------------

# A language model sees each token about once. 10 passes are the fewest after which the vit has learnt digits; at 40 it knows
# the train part by heart, and the test loss then says how sure it is of its mistakes.
SAMPLES = {"budget__samples_seen": 10 * 1_078}
VIT = {"net__arch": "vit", "net__width": 48, "net__depth": 4, "net__heads": 3, "net__patch": 4, "train__clip": 1.0, **SAMPLES}
FITTED = {"net__arch": "mlp", "net__depth": 2, "task__noise": 0.0, "budget__samples_seen": 200 * 1_200}
WIDTHS = (4, 8, 16, 32, 64)
USUAL = ("relu", "squared-relu", "gelu")
POLYNOMIALS = ("polynorm", "polyrelu", "polynomial")
NATS = 0.02  # by how much PolyNorm lowers the validation loss of a mixture of experts: the card's one difference of losses


def in_vit(method: str, metric: str) -> Cell:
    """A metric of the method in the vit; of a polynomial, with weights that are learned."""
    learned = {"method__learnable": True} if method in POLYNOMIALS else {}
    return Cell(method, "digits", metric, given(**learned, **VIT))


def above(a: str, b: str, metric: str) -> Within:
    """The metric of method a lies above that of method b."""
    return Within(Diff(in_vit(a, metric), in_vit(b, metric)), low=0)


def learned_is_lower(method: str) -> Within:
    """The trained weights against the same ones frozen at 1/3."""
    frozen = Cell(method, "digits", "nll", given(method__learnable=False, **VIT))
    return Within(Diff(frozen, in_vit(method, "nll")), low=0)


def rate(method: str) -> Slope:
    """Slope of log rmse over log parameters; 4 inputs, two hidden layers of w units, one output: w^2 + 7 w + 1."""
    learned = {"method__learnable": True} if method in POLYNOMIALS else {}
    points = ((w * w + 7 * w + 1, Cell(method, "sines", "rmse", given(**learned, net__width=w, **FITTED))) for w in WIDTHS)
    return Slope(tuple(points))


SMALLER = (
    "a vit of width 48 and depth 4 on digits (8x8, 1,078 to learn from, 10 passes) instead of a language model of 1B weights "
    "on 100B tokens or more; 96 hidden units in place of thousands. No language-model track exists here yet; SwiGLU, the "
    "paper's main rival, has a third matrix and is no activation, so it is left out. No verdict carries over to large models. "
    "One seed of other draws was looked at once the rules stood, and changed none"
)
SECONDARY = (
    "https://linnk.ai/insight/neural-networks/"
    "polynomial-composition-activations-for-improved-performance-in-large-language-models-VaAFyLdl/"
)
LANGUAGE = "a track of language models with gated blocks"
UNVERIFIED = ("the numbers behind the paper's figures and tables", "the paper's runs are single, without error bars (a review)")

PAPER = Paper(
    name="polycom",
    title="Polynomial Composition Activations: Unleashing the Dynamics of Large Language Models",
    authors="Zhijian Zhuo, Ya Wang, Yutao Zeng, Xiaoqing Li, Xun Zhou, Jinwen Ma",
    arxiv="2411.03884",
    year=2024,
    claims=(
        Claim(
            name="polynorm-lowers-the-loss",
            says="At equal samples a transformer with PolyNorm reaches a lower loss than with ReLU, squared ReLU and GELU",
            rule=All(tuple(above(rival, "polynorm", "nll") for rival in USUAL)),
            seeds=20,
            value="lower training loss and validation perplexity than SwiGLU, GELU, ReLU at equal tokens, 1B dense",
            place="figure 1",
            source=REPOSITORY,
            scaled_down=SMALLER,
            unverified=UNVERIFIED,
            effect=NATS,
        ),
        Claim(
            name="polyrelu-lowers-the-loss",
            says="At equal samples a transformer with PolyReLU reaches a lower loss than with ReLU, squared ReLU and GELU",
            rule=All(tuple(above(rival, "polyrelu", "nll") for rival in USUAL)),
            seeds=20,
            value="lower training loss and validation perplexity than SwiGLU, GELU, ReLU at equal tokens, 1B dense",
            place="figure 1",
            source=REPOSITORY,
            scaled_down=SMALLER,
            unverified=UNVERIFIED,
            effect=NATS,
        ),
        Claim(
            name="because-of-the-composition",
            says="The gain comes from composing the polynomial: the same polynomial of x itself does not give it",
            rule=All(tuple(above(name, "polynomial", "accuracy") for name in ("polynorm", "polyrelu"))),
            seeds=20,
            value="not measured in what the card read; it follows from the method's name and derivation",
            place="method section; the ablation is ours",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=("whether the paper has an ablation without composition",),
            because="polynomial",
        ),
        Claim(
            name="because-the-weights-are-learned",
            says="The gain comes from learning the polynomial: its weights frozen where they start do not give it",
            rule=All(tuple(map(learned_is_lower, ("polynorm", "polyrelu")))),
            seeds=20,
            value="not measured in what the card read; the paper calls the coefficients learnable",
            place="method section; the ablation is ours",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=("whether the paper has an ablation with frozen coefficients",),
            effect=NATS,
            because="polynorm",  # and polyrelu, both with learnable = false
        ),
        Claim(
            name="raises-the-effective-rank",
            says="The feed-forward weights of a transformer trained with PolyCom have a higher effective rank than with GELU",
            rule=All(tuple(
                above(name, "gelu", metric)
                for name in ("polynorm", "polyrelu") for metric in ("ffn_rank_up", "ffn_rank_down")
            )),
            seeds=20,
            value="higher effective rank of the feed-forward weights, 1B dense and MoE",
            place="analysis section",
            source=REVIEWS,
            scaled_down=SMALLER,
            unverified=("the ranks, read from figures only", "the figure of the MoE, which a review doubts"),
        ),
        Claim(
            name="approximates-at-a-steeper-rate",
            says="The error of PolyReLU nets falls faster with their size than that of ReLU nets on a smooth target",
            rule=Within(Diff(rate("relu"), rate("polyrelu")), low=0),
            seeds=20,
            value="nets of size O(eps^(-d/n)) suffice for the Sobolev ball F_(d,n), the optimal rate",
            place="theorem 3",
            source=REVIEWS,
            scaled_down=(
                "a statement about the best weights became one about trained ones: MLPs of two hidden layers of 4 to 64 units, "
                "on a sum of sines of 4 inputs (1,200 items, no noise), AdamW. What training cannot find, this test cannot see"
            ),
            unverified=("the constants of the theorem",),
        ),
        Claim(
            name="beats-swiglu-downstream",
            says="A language model of 1B weights with PolyNorm is better than one with SwiGLU on six downstream tasks",
            rule=None,
            seeds=0,
            value="+1.21 points on average",
            place="table 1",
            source=SECONDARY,
            unverified=("the points, from a secondary page",),
            missing=LANGUAGE + "; 100B tokens of text and the GPU months to learn from them",
        ),
        Claim(
            name="lowers-the-loss-below-swiglu",
            says="At equal tokens a language model with PolyNorm or PolyReLU reaches a lower loss than with SwiGLU",
            rule=None,
            seeds=0,
            value="lower training loss and validation perplexity, 1B dense",
            place="figure 1",
            source=REPOSITORY,
            unverified=UNVERIFIED,
            missing=LANGUAGE,
        ),
        Claim(
            name="lowers-the-loss-of-experts",
            says="A mixture of experts with PolyNorm reaches a lower validation loss than with SwiGLU",
            rule=None,
            seeds=0,
            value="-0.02 on average over 11 sets, 1B of 7B weights active",
            place="table of the mixture of experts",
            source=SECONDARY,
            unverified=("the difference, from a secondary page",),
            missing=LANGUAGE + "; 200B tokens of text and the GPU months to learn from them",
        ),
        Claim(
            name="lowers-the-similarity-of-layers",
            says="The layers of a language model trained with PolyCom are less alike than with other activations",
            rule=None,
            seeds=0,
            value="lower cosine similarity between layers, 1B dense and MoE",
            place="analysis section",
            source=REVIEWS,
            unverified=("the similarities, read from figures only",),
            missing=LANGUAGE + ", of enough blocks to compare: the four of the vit here are too few",
        ),
    ),
    notes={
        "P4": "as an exact statement: tests/plugins/polycom/test_method.py shows what its proof uses, that PolyReLU with fixed "
        "weights is ReLU and squared ReLU",
        "equal time": "the card's second metric, loss at equal wall time, is no claim of the paper; v_kernels holds the times",
        "modules": "the components run the plain formula, not the fused kernels: quality records must not depend on whether a "
        "machine has a C compiler",
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


@hookimpl
def harness_kernels() -> list[Kernel]:
    return [POLYRELU, POLYNORM]
