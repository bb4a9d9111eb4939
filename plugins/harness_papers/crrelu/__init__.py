"""CRReLU: ReLU plus a learned multiple of x exp(-x^2 / 2). Declarations only; the mathematics is in method.py."""

from __future__ import annotations

from pydantic import Field

from harness import (
    All,
    Claim,
    Component,
    Implementation,
    Kernel,
    KernelCase,
    Metric,
    Paper,
    Params,
    Probe,
    better,
    hookimpl,
    non_inferior,
)

ARXIV = "https://arxiv.org/abs/2405.12954"
REVIEWS = "https://openreview.net/forum?id=7TZYM6Hm9p"


class CRReLUParams(Params):
    """One scalar a layer."""

    eps: float = Field(0.01, description="initial weight of the correction; the paper's reviews call 0.01 unablated")
    learnable: bool = Field(True, description="false freezes eps at its initial value (the ablation)")


METHODS = [
    Component(
        "crrelu", "activation", "harness_papers.crrelu.method:build", CRReLUParams,
        summary="max(0, x) + eps x exp(-x^2 / 2), eps learned, one scalar a layer", source=ARXIV,
    ),
    Component(
        "crrelu-even", "activation", "harness_papers.crrelu.method:build_even", CRReLUParams,
        summary="ablation: the same correction made even, eps |x| exp(-x^2 / 2)", source="ablation of ours",
    ),
]  # fmt: skip

PROBES = [
    Probe(
        "crrelu-eps",
        "classify",
        (
            Metric("crrelu_eps_max", "1", "neither"),
            Metric("crrelu_eps_min", "1", "neither"),
            Metric("crrelu_eps_max_abs", "1", "neither"),
        ),
        "harness_papers.crrelu.method:measure_eps",
    ),
]

CODE = "harness_papers.crrelu.kernels"


def least_flops(case: KernelCase, itemsize: int) -> dict[str, int]:
    """exp counts as one operation. Forward 8 an element; backward 9 for the slope, 2 for the gradient of eps."""
    return {"forward": 8 * case.elements, "backward": 11 * case.elements}


def least_bytes(case: KernelCase, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes y; backward reads x and y's gradient and writes x's. eps and its gradient count as nothing."""
    return {"forward": 2 * case.elements * itemsize, "backward": 3 * case.elements * itemsize}


KERNELS = [
    Kernel(
        "crrelu",
        inputs=f"{CODE}:make_inputs",
        implementations=(
            Implementation("eager", "eager", f"{CODE}:run_eager", summary="the paper's formula, one torch operation a sign"),
            Implementation("eager_function", "eager", f"{CODE}:run_eager_function", summary="the layer: keeps only x"),
            Implementation("compiled", "compiled", f"{CODE}:run_eager", summary="the paper's formula through torch.compile"),
            Implementation(
                "ours", "ours", f"{CODE}:run_ours", fallback=f"{CODE}:why_fallback",
                summary="one pass forward, one backward: C on the CPU (float32), Triton on CUDA",
            ),
        ),
        reference=f"{CODE}:reference",
        flops=least_flops,
        bytes=least_bytes,
        summary="max(0, x) + eps x exp(-x^2 / 2), with the gradient of eps",
        source=ARXIV,
    ),
]  # fmt: skip

SAMPLES = {"budget__samples_seen": 40 * 1_078}  # 40 passes over the train part of digits
MLP = {"net__arch": "mlp", "net__width": 128, "net__depth": 2, **SAMPLES}
VIT = {"net__arch": "vit", "net__width": 48, "net__depth": 4, "net__heads": 3, "net__patch": 4, **SAMPLES}
# One test image of 360 is 0.0028; half a point is the smallest loss that 20 pairs tell from noise on digits.
MARGIN = 0.005

SMALLER = (
    "digits (8x8, 1,078 to learn from) instead of CIFAR-10, CIFAR-100 and ImageNet-1K; an MLP 64-128-128-10 and a ViT of width "
    "48 and depth 4 instead of ViT, DeiT and TNT. Accuracy is near its ceiling there, so that a small advantage may not show: "
    "inconclusive is likely, and neither verdict carries over to large images. Rate, passes and patches were chosen with ReLU "
    "alone, on other draws"
)

PAPER = Paper(
    name="crrelu",
    title="A Method on Searching Better Activation Functions",
    authors="Haoyuan Sun, Zihao Wu, Bo Xia, Pu Chang, Zibin Dong, Yifu Yuan, Yongzhe Chang, Xueqian Wang",
    arxiv="2405.12954",
    year=2024,
    claims=(
        Claim(
            name="beats-relu",
            says="CRReLU is more accurate than ReLU, in an MLP and in a vision transformer trained from scratch",
            rule=All((
                better("crrelu", "relu", "digits", "accuracy", **MLP),
                better("crrelu", "relu", "digits", "accuracy", **VIT),
            )),
            seeds=20,
            value="higher top-1 on CIFAR-10, CIFAR-100 and ImageNet-1K in ViT, DeiT and TNT",
            place="abstract, main tables",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=(
                "the accuracies of the paper's tables",
                "epochs, optimiser and augmentation of the paper's training",
                "whether the paper decays eps; here it is not decayed",
            ),
        ),
        Claim(
            name="beats-corrections-of-relu",
            says="CRReLU is more accurate than leaky ReLU, PReLU and ELU, in an MLP and in a vision transformer",
            rule=All(tuple(
                better("crrelu", rival, "digits", "accuracy", **where)
                for rival in ("leaky_relu", "prelu", "elu") for where in (MLP, VIT)
            )),
            seeds=20,
            value="superior to existing corrections of ReLU on CIFAR-10, CIFAR-100 and ImageNet-1K",
            place="abstract, main tables",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=("the accuracies of the paper's tables", "which corrections the paper compares with"),
        ),
        Claim(
            name="not-below-gelu",
            says="CRReLU is not less accurate than GELU, in an MLP and in a vision transformer trained from scratch",
            rule=All((
                non_inferior("crrelu", "gelu", "digits", "accuracy", MARGIN, **MLP),
                non_inferior("crrelu", "gelu", "digits", "accuracy", MARGIN, **VIT),
            )),
            seeds=20,
            value="GELU is among the baselines that CRReLU beats; in DeiT the advantage is not uniform (review 3)",
            place="abstract, main tables; review 3 of the ICLR version",
            source=REVIEWS,
            scaled_down=SMALLER,
            unverified=("the accuracies of the paper's tables", "the size of the exceptions in DeiT"),
            effect=MARGIN,  # what lies between equal accuracy and the limit; the card states no difference
        ),
        Claim(
            name="because-of-the-odd-correction",
            says="The gain comes from the entropy-derived correction: the same bump made even does not give it",
            rule=All((
                better("crrelu", "crrelu-even", "digits", "accuracy", **MLP),
                better("crrelu", "crrelu-even", "digits", "accuracy", **VIT),
            )),
            seeds=20,
            value="not measured in the paper; it follows from its derivation",
            place="methodology section; the ablation is ours",
            source=ARXIV,
            scaled_down=SMALLER,
            unverified=("whether a later version of the paper has an ablation of the correction's shape",),
            because="crrelu-even",
        ),
        Claim(
            name="beats-gelu-in-preference-tuning",
            says="GPT-2 with CRReLU is better than with GELU after fine-tuning by direct preference optimisation",
            rule=None,
            seeds=0,
            value="gains on two preference data sets, which a reviewer calls marginal",
            place="abstract, section on language models",
            source=ARXIV,
            unverified=("the numbers",),
            missing="GPT-2's weights and the two preference data sets",
        ),
        Claim(
            name="not-uniform-in-deit",
            says="In DeiT, which learns from a teacher, CRReLU's advantage over GELU is not uniform",
            rule=None,
            seeds=0,
            value="exceptions to the advantage, raised by review 3",
            place="experiments; review 3 of the ICLR version",
            source=REVIEWS,
            unverified=("the size of the exceptions",),
            missing="ImageNet-1K and the weights of a teacher net",
        ),
    ),
    notes={
        "C3": (
            "a worst activation with boundary values exists and is the input's distribution function: an exact statement, "
            "checked by quadrature and by the first variation in tests/plugins/crrelu/test_method.py"
        ),
        "code": "the authors released none; formula and eps = 0.01 agree with the third-party code of Keio-CRL, ml-networks",
        "unverified": "the list of the paper's other baselines (ELU, PReLU, CELU, SiLU, Mish)",
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
    return KERNELS
