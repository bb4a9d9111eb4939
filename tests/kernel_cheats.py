"""A kernel with honest implementations and with cheats, each of which passes a naive comparison of one output.

The kernel: y = a x sigmoid(x) + b x^2, with gradients of x, a and b. `CHEATS[name]()` makes a fresh implementation.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.kernels.checking import ResolvedImplementation, ResolvedKernel
from harness.specs import Implementation, Kernel, KernelCase

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs, Any], Any]

LATE_S = 1e-3  # a cheating thread works so much later
HONEST_CALLS = 40  # of the cheat that behaves until then: more than a check makes


def make_inputs(case: KernelCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    drawn = {name: torch.randn(size, generator=generator) for name, size in (("x", case.elements), ("a", 1), ("b", 1))}
    return {name: t.to(device, dtype).requires_grad_() for name, t in drawn.items()}


def formula(inputs: Inputs, case: KernelCase) -> Tensor:
    x, a, b = inputs["x"], inputs["a"], inputs["b"]
    return a * x * torch.sigmoid(x) + b * x * x


class OwnBackward(torch.autograd.Function):
    """The formula with a backward pass by hand; `spoil` changes its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, spoil: Callable[..., Any]) -> Tensor:
        ctx.save_for_backward(x, a, b)
        ctx.spoil = spoil
        return formula({"x": x, "a": a, "b": b}, KernelCase())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, a, b = ctx.saved_tensors
        s = torch.sigmoid(x)
        right = grad * (a * (s + x * s * (1 - s)) + 2 * b * x), (grad * x * s).sum().view(1), (grad * x * x).sum().view(1)
        return (*ctx.spoil(*right), None)


def with_backward(spoil: Callable[..., Any]) -> Run:
    return lambda inputs, case: OwnBackward.apply(inputs["x"], inputs["a"], inputs["b"], spoil)


def honest() -> Run:
    return with_backward(lambda *gradients: gradients)


def kept_by(key: Callable[[Tensor], Any]) -> Callable[[], Run]:
    """The first result for a key is every later one's: a copy of it, so that no memory is shared."""

    def make() -> Run:
        seen: dict[Any, Tensor] = {}

        def run(inputs: Inputs, case: KernelCase) -> Tensor:
            known = seen.setdefault((key(inputs["x"]), torch.is_grad_enabled()), formula(inputs, case))
            return known * 1

        return run

    return make


def writes_nothing() -> Run:
    return lambda inputs, case: torch.empty_like(inputs["x"]) + 0 * inputs["a"]


def writes_nothing_into_freed_memory() -> Run:
    """As C code does it: memory as the allocator hands it out, not by torch.empty."""

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        fill, torch.utils.deterministic.fill_uninitialized_memory = torch.utils.deterministic.fill_uninitialized_memory, False
        out = torch.empty_like(inputs["x"])
        torch.utils.deterministic.fill_uninitialized_memory = fill
        return out

    return run


def first_half_only() -> Run:
    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        out = torch.empty_like(inputs["x"])
        half = (len(out) + 1) // 2
        out[:half] = formula({**inputs, "x": inputs["x"][:half]}, case)
        return out

    return run


def returns_early() -> Run:
    """A thread does the work after the call has returned."""

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        x = inputs["x"].detach()
        out = torch.zeros_like(x)
        plain = {name: t.detach() for name, t in inputs.items()}

        def work() -> None:
            time.sleep(LATE_S)
            out.copy_(formula(plain, case))

        threading.Thread(target=work).start()
        return out

    return run


def changes_its_input() -> Run:
    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        out = formula(inputs, case)
        inputs["x"].data.mul_(1.5)
        return out

    return run


def writes_between_the_elements() -> Run:
    """Of a strided input: what it does not show is not the implementation's to use."""

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        out = formula(inputs, case)
        x = inputs["x"].data
        torch.as_strided(x, (2 * len(x),), (1,))[1::2] = 0.0
        return out

    return run


def ignores_strides() -> Run:
    """Reads as many elements from the first on, one beside another."""

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        x = inputs["x"]
        return formula({**inputs, "x": torch.as_strided(x, x.shape, (1,), x.storage_offset())}, case)

    return run


def view_of_its_input() -> Run:
    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        return inputs["x"][:]

    return run


def same_buffer_again() -> Run:
    buffers: dict[Any, Tensor] = {}

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        out = buffers.setdefault(inputs["x"].shape, torch.empty(inputs["x"].shape))
        with torch.no_grad():
            return out.copy_(formula(inputs, case)).view_as(out)

    return run


def right_at_first(calls: int = HONEST_CALLS) -> Run:
    """Counts its calls; after so many it gives a quick wrong answer."""
    made = 0

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        nonlocal made
        made += 1
        return formula(inputs, case) if made <= calls else inputs["a"] * inputs["x"]

    return run


def kept_after_a_while(calls: int = HONEST_CALLS) -> Run:
    """Counts its calls; after so many it gives again what it gave for the same address."""
    made, seen = 0, dict[Any, Tensor]()

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        nonlocal made
        made += 1
        key = (inputs["x"].data_ptr(), inputs["x"]._version)
        if made > calls and key in seen:
            return seen[key] * 1
        seen[key] = formula(inputs, case).detach()
        return formula(inputs, case)

    return run


def gradient_kept_after_a_while(calls: int = 10) -> Run:
    """Right in forward; in backward it gives its old gradients after so many calls."""
    made, old = 0, []

    def spoil(*gradients: Tensor) -> Any:
        nonlocal made
        made += 1
        if made <= calls:
            old[:] = [gradients]
            return gradients
        return tuple(g * 1 for g in old[0])

    return with_backward(spoil)


def wrong_backward() -> Run:
    return with_backward(lambda x, a, b: (1.001 * x, a, b))


def wrong_for_one_parameter() -> Run:
    return with_backward(lambda x, a, b: (x, a, 0 * b))


def no_gradient_for_one_parameter() -> Run:
    return lambda inputs, case: formula({**inputs, "b": inputs["b"].detach()}, case)


def wrong_dtype() -> Run:
    return lambda inputs, case: formula(inputs, case).double()


def wrong_shape() -> Run:
    return lambda inputs, case: formula(inputs, case)[None]


def detaches() -> Run:
    return lambda inputs, case: formula(inputs, case).detach()


def half_inside() -> Run:
    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        return formula({name: t.half() for name, t in inputs.items()}, case).float()

    return run


def infinite_where_it_is_large() -> Run:
    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        out = formula(inputs, case)
        return torch.where(out.abs() >= out.abs().max(), torch.inf, out)

    return run


def other_stream() -> Run:
    """CUDA: launched on a stream of its own, which nobody waits for."""
    stream = torch.cuda.Stream()

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        with torch.cuda.stream(stream):
            return formula(inputs, case)

    return run


def other_stream_that_waits_first() -> Run:
    """CUDA: begins in order, on a stream of its own; the caller's stream does not wait for its end."""
    stream = torch.cuda.Stream()

    def run(inputs: Inputs, case: KernelCase) -> Tensor:
        stream.wait_stream(torch.cuda.current_stream())
        out = torch.empty_like(inputs["x"])
        with torch.cuda.stream(stream):
            return (
                torch.add(formula(inputs, case), 0, out=out.detach()) if not torch.is_grad_enabled() else formula(inputs, case)
            )

    return run


CPU = torch.device("cpu")


def kernel(run_name: str = "cheat", **changes: Any) -> tuple[ResolvedKernel, ResolvedImplementation]:
    """The kernel, and an implementation of the name, of which `run` is still to be put in."""
    spec = Kernel(
        name="bump",
        inputs="kernel_cheats:make_inputs",
        reference="kernel_cheats:formula",
        implementations=(Implementation(run_name, "ours", "kernel_cheats:formula"),),
        flops=lambda case, itemsize: {"forward": 6 * case.elements, "backward": 12 * case.elements},
        bytes=lambda case, itemsize: {"forward": 2 * itemsize * case.elements, "backward": 3 * itemsize * case.elements},
        **changes,
    )
    return ResolvedKernel(spec, "toy/bump", make_inputs, formula), ResolvedImplementation(spec.implementations[0], formula)
