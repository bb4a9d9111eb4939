"""The sizes of the timed B-spline layer and the least work that it must do. Declarations and arithmetic: no torch."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from harness import Implementation, Kernel, KernelCase

KERNELS = "harness_papers.kan.kernels"
EFFICIENT = "https://github.com/Blealtan/efficient-kan"
PYKAN = "https://github.com/KindXiaoming/pykan"


class KANCase(KernelCase):
    """A batch of rows of `features` inputs, `outputs` of them, `grid` intervals of splines of an order on [-1, 1]."""

    features: int = Field(
        784,
        ge=1,
        description="inputs of the layer, at most elements where there are any; the batch is elements / features, rounded",
    )
    outputs: int = Field(64, ge=1, description="outputs of the layer")
    grid: int = Field(5, ge=1, le=64, description="intervals")
    order: int = Field(3, ge=1, le=7, description="order (degree) of the splines")
    input_grad: bool = Field(False, description="also the gradient of the input, which a net's first layer does not need")


def shape(case: KANCase) -> tuple[int, int]:
    """(rows, inputs) of the case."""
    features = min(case.features, case.elements) or case.features
    return round(case.elements / features), features


def edge_terms(case: KANCase) -> int:
    """Rows x inputs x outputs x (the base and the order + 1 splines that are not 0): multiply-adds of one pass."""
    rows, features = shape(case)
    return rows * features * case.outputs * (case.order + 2)


def flops(case: KANCase, itemsize: int) -> Mapping[str, int]:
    """2 for each term: the outputs; backward the weights, and the inputs where asked for. Bases: 5 a step of the recursion."""
    rows, features = shape(case)
    bases = 5 * rows * features * case.order * (case.order + 1) // 2
    return {"forward": 2 * edge_terms(case) + bases, "backward": 2 * edge_terms(case) * (1 + case.input_grad) + bases}


def bytes_moved(case: KANCase, itemsize: int) -> Mapping[str, int]:
    """x and the weights read, y written; x and y's gradient read, the weights' written; for the input's the weights read."""
    rows, features = shape(case)
    x, y = rows * features, rows * case.outputs
    weights = features * case.outputs * (1 + case.grid + case.order)
    backward = x + y + weights + (x + weights if case.input_grad else 0)
    return {"forward": (x + weights + y) * itemsize, "backward": backward * itemsize}


KAN_LINEAR = Kernel(
    "kan-linear",
    f"{KERNELS}:make_inputs",
    (
        Implementation("eager", "eager", f"{KERNELS}:closed_form", summary="splines in closed form, all bases in one tensor"),
        Implementation("formula", "eager", f"{KERNELS}:recursion", summary="efficient-kan's formula: Cox-de Boor, one product"),
        Implementation("compiled", "compiled", f"{KERNELS}:closed_form", summary="the closed form through torch.compile"),
        Implementation("compiled_formula", "compiled", f"{KERNELS}:recursion", summary="efficient-kan's through torch.compile"),
        Implementation(
            "ours", "ours", f"{KERNELS}:ours", fallback=f"{KERNELS}:fallback",
            summary="only the splines that are not 0, no tensor of bases: C for float32 on the CPU, Triton on CUDA",
        ),
        Implementation(
            "pykan", "peer", f"{KERNELS}:pykan", requires=("kan.KANLayer:pykan", "pandas", "matplotlib", "tqdm"),
            summary=f"KANLayer of {PYKAN}, which declares none of what it imports",
        ),
    ),
    f"{KERNELS}:reference",
    flops,
    bytes_moved,
    params=KANCase,
    summary="a layer of B-splines and SiLU on every edge",
    source=EFFICIENT,
)  # fmt: skip
