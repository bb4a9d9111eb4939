"""What every activation's kernel is measured against: a plain copy, and torch's own ReLU, GELU and SiLU.

Declarations and their code; torch is imported when a function is called. All take {"x": any shape} and keep shape and dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from harness.specs import Implementation, Kernel, KernelCase

if TYPE_CHECKING:
    import torch
    from torch import Tensor

HERE = "harness.builtin.kernels"


def make_input(case: KernelCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Standard normal pre-activations."""
    import torch

    return {"x": torch.randn(case.elements, generator=generator).to(device, dtype).requires_grad_()}


def copy(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    return inputs["x"].clone()


def copy_reference(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    return inputs["x"].double()


def relu(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    import torch

    return torch.relu(inputs["x"])


def relu_reference(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    """relu'(0) = 0."""
    import torch

    x = inputs["x"].double()
    return torch.where(x > 0, x, 0.0)


def gelu(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    """The exact one, by erf."""
    from torch.nn import functional as F

    return F.gelu(inputs["x"])


def gelu_reference(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    """x times the normal distribution function."""
    import torch

    x = inputs["x"].double()
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def silu(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    from torch.nn import functional as F

    return F.silu(inputs["x"])


def silu_reference(inputs: Mapping[str, Tensor], case: KernelCase) -> Tensor:
    import torch

    x = inputs["x"].double()
    return x / (1 + torch.exp(-x))


def least_bytes(case: KernelCase, itemsize: int) -> dict[str, int]:
    """Forward reads x and writes y; backward reads x and y's gradient and writes x's."""
    return {"forward": 2 * case.elements * itemsize, "backward": 3 * case.elements * itemsize}


def flops_each(forward: int, backward: int) -> Callable[[KernelCase, int], dict[str, int]]:
    """Operations an element; an exponential or an error function counts as one."""

    def least_flops(case: KernelCase, itemsize: int) -> dict[str, int]:
        return {"forward": forward * case.elements, "backward": backward * case.elements}

    return least_flops


def baseline(name: str, flops: tuple[int, int], summary: str, *, backward: bool = True) -> Kernel:
    """A kernel whose functions here bear its name: torch's own operation, as it is and through torch.compile."""
    return Kernel(
        name,
        inputs=f"{HERE}:make_input",
        implementations=(
            Implementation("eager", "eager", f"{HERE}:{name}", summary="torch's own operation"),
            Implementation("compiled", "compiled", f"{HERE}:{name}", summary="torch's operation through torch.compile"),
        ),
        reference=f"{HERE}:{name}_reference",
        flops=flops_each(*flops),
        bytes=least_bytes,
        backward=backward,
        summary=summary,
        source="torch",
    )


KERNELS = [
    baseline("copy", (0, 0), "y = x in new memory: what moving the data costs; no backward pass", backward=False),
    baseline("relu", (1, 1), "max(0, x)"),
    baseline("gelu", (4, 8), "x times the normal distribution function, exact"),
    baseline("silu", (4, 7), "x times the logistic function"),
]
