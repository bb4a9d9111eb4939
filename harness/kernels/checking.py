"""Correct before fast: an implementation of a kernel against its float64 reference, forward and backward.

`check_implementation` raises `WrongResult` with the name of the check that failed. Before each call the memory that the
allocator hands out is filled with NaN; the result is looked at when the call returns and a moment later. Several random
inputs are tried, and each in the other's storage, so that a kept result is wrong however it is keyed. It times nothing.

The error of an output or a gradient is its largest deviation over a scale. The scale is the largest absolute value of the
reference over all inputs tried, so that a sum which cancels for one of them fails nobody. For the gradient of a data input
it is at least max|upstream| max|output| / max|input|, what a derivative of such a function measures: normalising a single
element gives a gradient that is zero but for rounding, and no implementation owes digits of that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.kernels.layouts import POISON, lay_out, storage_bytes
from harness.specs import Implementation, Kernel, KernelCase

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs, Any], Any]
T = TypeVar("T", bound=Tensor | None)

LATER_S = 3e-3  # how long after its return a result is looked at again
GLIMPSE = 1024  # elements that are read first, before a whole copy takes its time
SMALL = 100_000  # elements up to which more inputs are tried, for they cost nothing
POISONED_BYTES = 1 << 20  # freed memory of each result's size that waits, poisoned, for the next call; at least
POISONED_BLOCKS = (3, 32)  # so many blocks, and at most so many
BUSY_CYCLES = 3_000_000  # of the GPU, 1 to 3 ms: inputs become right only after them, on the current stream
BLOCK = 1 << 18  # elements that are compared at a time: their float64 copies stay in a cache
TINY = 1e-30


class WrongResult(HarnessError):
    """An implementation that does not compute its kernel. check: the name of the check that caught it."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"wrong result, caught by {check}: {text}")
        self.check, self.text = check, text


@dataclass(frozen=True)
class ResolvedImplementation:
    """An implementation and its code."""

    spec: Implementation
    run: Run
    fallback: Callable[[Inputs, Any], str] | None = None


@dataclass(frozen=True)
class ResolvedKernel:
    """A kernel and its code. ref: its full reference, "dist/name"."""

    spec: Kernel
    ref: str
    make_inputs: Callable[[Any, torch.Generator, torch.device, torch.dtype], Inputs]
    reference: Run


@dataclass(frozen=True)
class Operands:
    """One set of inputs, laid out as the case says, and for each output the gradient that comes from above."""

    inputs: dict[str, Tensor]
    upstream: tuple[Tensor, ...]

    @property
    def wanted(self) -> dict[str, Tensor]:
        """The inputs that gradients are asked for."""
        return {name: t for name, t in self.inputs.items() if t.requires_grad}

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.inputs.values(), *self.upstream)


@dataclass(frozen=True)
class Expected:
    """What the reference gives for some operands, float64. gradients: None for an input that it does not depend on."""

    outputs: tuple[Tensor, ...]
    gradients: dict[str, Tensor | None]


@dataclass(frozen=True)
class Scales:
    """What errors are divided by, for each output and each gradient."""

    outputs: tuple[float, ...]
    gradients: dict[str, float]


@dataclass(frozen=True)
class Errors:
    """The largest error of any output and of any gradient, over its scale; backward is None where there is none."""

    forward: float
    backward: float | None

    def __or__(self, other: Errors) -> Errors:
        backward = [e for e in (self.backward, other.backward) if e is not None]
        return Errors(max(self.forward, other.forward), max(backward, default=None))


@dataclass(frozen=True)
class Checked:
    """An implementation that passed, and what it was compared with."""

    errors: Errors
    scales: Scales


def check_implementation(
    kernel: ResolvedKernel, run: Run, case: KernelCase, dtype: torch.dtype, sets: Sequence[Operands]
) -> Checked:
    """Compare on every set, then on the first two with their contents exchanged in place. Raises WrongResult.

    sets: two at least, of `draw_operands`; afterwards they hold what they held before, but for that exchange.
    """
    expected = [expect(kernel, case, operands) for operands in sets]
    scales = scales_of(kernel.spec.data, sets, expected)
    examiner = Examiner(kernel.spec, run, case, dtype, scales)
    errors = [examiner.examine(operands, right) for operands, right in zip(sets, expected, strict=True)]
    exchange(sets[0], sets[1])
    errors += [examiner.examine(sets[0], expected[1]), examiner.examine(sets[1], expected[0])]
    worst = errors[0]
    for error in errors[1:]:
        worst |= error
    return Checked(worst, scales)


# Operands and what is right for them ------------------------------------------------------------------------------------


def draw_operands(
    kernel: ResolvedKernel, case: KernelCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> list[Operands]:
    """Fresh random sets: two, or four where they are small."""
    first = draw_inputs(kernel, case, generator, device, dtype)
    with torch.no_grad():
        outputs = as_tuple(kernel.reference({name: widened(t) for name, t in first.items()}, case))
    floating = [o.shape for o in outputs if o.is_floating_point()] if kernel.spec.backward else []
    count = 4 if sum(t.numel() for t in first.values()) <= SMALL else 2
    rest = [draw_inputs(kernel, case, generator, device, dtype) for _ in range(count - 1)]
    return [
        Operands(inputs, tuple(torch.randn(shape, generator=generator).to(device, dtype) for shape in floating))
        for inputs in (first, *rest)
    ]


def draw_inputs(
    kernel: ResolvedKernel, case: KernelCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Raises HarnessError where the kernel does not give what it declares."""
    made = kernel.make_inputs(case, generator, device, dtype)
    missing = sorted(set(kernel.spec.data) - set(made))
    if missing:
        raise HarnessError(f"{kernel.spec.inputs} of kernel {kernel.spec.name!r} gives no {missing}, which `data` names")
    if kernel.spec.backward and not any(t.requires_grad for t in made.values()):
        raise HarnessError(
            f"no input of kernel {kernel.spec.name!r} has requires_grad; set it on what the backward pass differentiates, "
            "or declare backward=False"
        )
    return lay_out(made, kernel.spec.data, case.layout)


def expect(kernel: ResolvedKernel, case: KernelCase, operands: Operands) -> Expected:
    """The reference on float64 copies of what the operands hold now."""
    wide = {name: widened(t).requires_grad_(t.requires_grad and kernel.spec.backward) for name, t in operands.inputs.items()}
    with torch.set_grad_enabled(kernel.spec.backward):
        outputs = as_tuple(kernel.reference(wide, case))
    plain = tuple(o.detach() for o in outputs)
    if not kernel.spec.backward:
        return Expected(plain, {})
    wanted = list(operands.wanted)
    reached, above = reached_by(outputs, [u.double() for u in operands.upstream])
    if not reached:
        raise HarnessError(
            f"autograd cannot go through the reference of kernel {kernel.spec.name!r}; or declare backward=False"
        )
    gradients = torch.autograd.grad(reached, [wide[name] for name in wanted], above, allow_unused=True)
    return Expected(plain, dict(zip(wanted, gradients, strict=True)))


def scales_of(data: Sequence[str], sets: Sequence[Operands], expected: Sequence[Expected]) -> Scales:
    """See the module."""
    outputs = tuple(max(map(largest, same)) for same in zip(*(e.outputs for e in expected), strict=True))
    above = max((largest(u) for operands in sets for u in operands.upstream), default=0.0)
    gradients = {}
    for name in expected[0].gradients:
        given = [e.gradients[name] for e in expected]
        natural = 0.0
        if name in data:
            natural = above * max(outputs) / max(TINY, *(largest(operands.inputs[name]) for operands in sets))
        gradients[name] = max(natural, *(largest(g) for g in given if g is not None), TINY)
    return Scales(tuple(max(scale, TINY) for scale in outputs), gradients)


def exchange(one: Operands, other: Operands) -> None:
    """The contents change places; tensors, storages and autograd's version counters stay."""
    for a, b in zip(map(storage_bytes, one.tensors), map(storage_bytes, other.tensors), strict=True):
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)


def widened(tensor: Tensor) -> Tensor:
    """A contiguous copy, floating dtypes as float64; no leaf of the original's graph."""
    plain = tensor.detach()
    return plain.to(torch.float64 if plain.is_floating_point() else plain.dtype, copy=True).contiguous()


def as_tuple(result: Any) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def floating_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in tensors if t.is_floating_point()]


def largest(tensor: Tensor) -> float:
    """The largest finite absolute value; 0 of nothing."""
    if not tensor.numel():
        return 0.0
    low, high = tensor.detach().aminmax()
    reach = max(abs(float(low)), abs(float(high)))
    return reach if math.isfinite(reach) else float(tensor.detach().abs().nan_to_num(0.0, 0.0, 0.0).max())


# One set of operands ----------------------------------------------------------------------------------------------------


@dataclass
class Examiner:
    """Calls an implementation under watch. It keeps the results of the last call alive: no other may share their memory."""

    spec: Kernel
    run: Run
    case: KernelCase
    dtype: torch.dtype
    scales: Scales
    _alive: tuple[Tensor, ...] = ()

    def examine(self, operands: Operands, right: Expected) -> Errors:
        """Forward without and with autograd, then backward twice through one graph: the second gradient is the negative."""
        with torch.no_grad():
            plain = self._watch(operands, right, lambda: self._outputs(operands, right))
        forward = compare_outputs(plain, right, self.scales, self.dtype, self._tolerance)
        if not self.spec.backward:
            return Errors(forward, None)
        with torch.enable_grad():
            outputs = self._watch(operands, right, lambda: self._outputs(operands, right))
        forward = max(forward, compare_outputs(outputs, right, self.scales, self.dtype, self._tolerance))
        require_graph(outputs, right)
        backward = 0.0
        for sign, upstream in ((1, operands.upstream), (-1, tuple(-u for u in operands.upstream))):
            turned = {name: g if g is None else sign * g for name, g in right.gradients.items()}
            expected = Expected(right.outputs, turned)
            using = Operands(operands.inputs, upstream)
            backward = max(backward, self._examine_gradients(using, expected, outputs))
        return Errors(forward, backward)

    def _examine_gradients(self, operands: Operands, right: Expected, outputs: Sequence[Tensor]) -> float:
        wanted = tuple(operands.wanted.values())
        gradients = self._watch(operands, right, lambda: differentiate(outputs, wanted, operands.upstream, keep_graph=True))
        return compare_gradients(gradients, right, operands, self.scales, self._tolerance)

    @property
    def _tolerance(self) -> float:
        return tolerance_of(self.spec, self.dtype)

    def _outputs(self, operands: Operands, right: Expected) -> tuple[Tensor, ...]:
        """The implementation's outputs, of the right number, type and place; each check by its name."""
        return require_tensors(self.run(operands.inputs, self.case), right.outputs)

    def _watch(self, operands: Operands, right: Expected, act: Callable[[], tuple[T, ...]]) -> tuple[T, ...]:
        """The result of a call, after all that can be wrong with it but its numbers was looked for."""
        device = operands.tensors[0].device
        before = [storage_bytes(t).clone() for t in operands.tensors]
        guards = poison_free_memory(
            [*right.outputs, *(g for g in right.gradients.values() if g is not None)], self.dtype, device
        )
        keep_busy(operands, before, device)
        with deterministic(fill=True):
            result = act()
        del guards
        made = [t.detach() for t in result if t is not None]
        glimpses = [glimpse(t) for t in made]
        copies = [t.clone() for t in made]
        wait(device)
        require_unchanged(operands, before)
        require_done(made, glimpses, copies)
        require_own_memory(made, operands, self._alive)
        self._alive = tuple(made)
        return result


def differentiate(
    outputs: Sequence[Tensor], wanted: Sequence[Tensor], upstream: Sequence[Tensor], keep_graph: bool
) -> tuple[Tensor | None, ...]:
    """The gradients of the wanted inputs. Raises WrongResult where autograd cannot go through."""
    reached, above = reached_by(outputs, upstream)
    if not reached:
        raise WrongResult("gradient", "autograd cannot go through the output")
    return torch.autograd.grad(reached, wanted, above, retain_graph=keep_graph, allow_unused=True)


def reached_by(outputs: Sequence[Tensor], upstream: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs that autograd goes through, and the gradients that come from above to each."""
    pairs = [(o, u) for o, u in zip(floating_of(outputs), upstream, strict=True) if o.requires_grad]
    return [o for o, _ in pairs], [u for _, u in pairs]


def poison_free_memory(like: Sequence[Tensor], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Leave blocks of these sizes, full of NaN, for the allocator to hand out next.

    The last block of each size is returned, to be kept during the call: without it malloc could give the free ones before it
    back to the system. (Sizes that malloc maps come back as zeros; the settings of `harness.worker.environment` prevent it.)
    """
    sizes = sorted({t.numel() * dtype.itemsize for t in like})
    fewest, most = POISONED_BLOCKS
    blocks = [
        [
            torch.full((size,), POISON, dtype=torch.uint8, device=device)
            for _ in range(min(most, max(fewest, POISONED_BYTES // max(1, size))) + 1)
        ]
        for size in sizes
    ]
    return [same[-1] for same in blocks]


@contextmanager
def deterministic(fill: bool) -> Iterator[None]:
    """As trials run: deterministic algorithms where there are some. fill: what torch.empty and its kin give is full of NaN."""
    memory: Any = torch.utils.deterministic
    was_on, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    was_filling = memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = fill
        yield
    finally:
        memory.fill_uninitialized_memory = was_filling
        torch.use_deterministic_algorithms(was_on, warn_only=warn_only)


def keep_busy(operands: Operands, contents: Sequence[Tensor], device: torch.device) -> None:
    """On CUDA the operands hold NaN until the current stream has worked off a delay: who reads on another stream reads that."""
    if device.type != "cuda":
        return
    for tensor in operands.tensors:
        storage_bytes(tensor).fill_(POISON)
    torch.cuda.synchronize(device)
    torch.cuda._sleep(BUSY_CYCLES)  # type: ignore[no-untyped-call]
    for tensor, content in zip(operands.tensors, contents, strict=True):
        storage_bytes(tensor).copy_(content)


def glimpse(tensor: Tensor) -> Tensor:
    """A few elements spread over a tensor and its last, read on the current stream."""
    count = tensor.numel()
    if not count:
        return tensor.new_empty(0)
    flat = tensor.as_strided((count,), (1,), tensor.storage_offset()) if tensor.is_contiguous() else tensor.reshape(-1)
    return torch.cat([flat[:: max(1, count // GLIMPSE)], flat[-1:]])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    time.sleep(LATER_S)


# The checks by name -----------------------------------------------------------------------------------------------------


def require_tensors(result: Any, right: Sequence[Tensor]) -> tuple[Tensor, ...]:
    outputs = as_tuple(result)
    if len(outputs) != len(right):
        raise WrongResult("count", f"{len(outputs)} outputs, where the reference gives {len(right)}")
    for number, (got, want) in enumerate(zip(outputs, right, strict=True)):
        if not isinstance(got, Tensor):
            raise WrongResult("type", f"output {number} is a {type(got).__name__}, no Tensor")
        if got.shape != want.shape:
            raise WrongResult("shape", f"output {number} has shape {tuple(got.shape)}; the reference's is {tuple(want.shape)}")
        if got.device != want.device:
            raise WrongResult("device", f"output {number} is on {got.device}; the inputs are on {want.device}")
    return outputs


def require_unchanged(operands: Operands, before: Sequence[Tensor]) -> None:
    names = [*operands.inputs, *(f"the upstream gradient of output {i}" for i in range(len(operands.upstream)))]
    for name, tensor, bits in zip(names, operands.tensors, before, strict=True):
        if not torch.equal(storage_bytes(tensor), bits):
            raise WrongResult("inputs_kept", f"the call changed the storage of {name}")


def require_done(made: Sequence[Tensor], glimpses: Sequence[Tensor], copies: Sequence[Tensor]) -> None:
    for number, (now, first, copy) in enumerate(zip(made, glimpses, copies, strict=True)):
        if not same_bits(glimpse(now), first) or not same_bits(now, copy):
            raise WrongResult("done_at_return", f"result {number} still changed after the call had returned")


def require_own_memory(made: Sequence[Tensor], operands: Operands, alive: Sequence[Tensor]) -> None:
    """A gradient may be the upstream gradient itself, as the backward pass of a copy is."""
    inputs = {t.untyped_storage().data_ptr(): name for name, t in operands.inputs.items() if t.untyped_storage().nbytes()}
    above = {t.untyped_storage().data_ptr() for t in operands.upstream}
    others = {t.untyped_storage().data_ptr() for t in alive if t.untyped_storage().nbytes()} - above
    for number, tensor in enumerate(made):
        address = tensor.untyped_storage().data_ptr()
        if tensor.untyped_storage().nbytes() and address in inputs:
            raise WrongResult("own_memory", f"result {number} shares the memory of input {inputs[address]}")
        if tensor.untyped_storage().nbytes() and address in others:
            raise WrongResult("own_memory", f"result {number} shares the memory of the previous call's result")


def require_graph(outputs: Sequence[Tensor], right: Expected) -> None:
    depended = [name for name, g in right.gradients.items() if g is not None]
    if depended and not any(o.requires_grad for o in outputs):
        raise WrongResult("gradient", f"autograd cannot go through the output; gradients are due for {', '.join(depended)}")


def compare_outputs(outputs: Sequence[Tensor], right: Expected, scales: Scales, dtype: torch.dtype, tolerance: float) -> float:
    """The largest error. Raises WrongResult: dtype, written, finite, value_forward."""
    errors = [0.0]
    for number, (got, want, scale) in enumerate(zip(outputs, right.outputs, scales.outputs, strict=True)):
        due = dtype if want.is_floating_point() else want.dtype
        if got.dtype != due:
            raise WrongResult("dtype", f"output {number} is {got.dtype}; {due} is due")
        errors.append(compare("value_forward", f"output {number}", got.detach(), want, scale, tolerance))
    return max(errors)


def compare_gradients(
    gradients: Sequence[Tensor | None], right: Expected, operands: Operands, scales: Scales, tolerance: float
) -> float:
    """The largest error. Raises WrongResult: gradient, shape, dtype, written, finite, value_backward."""
    errors = [0.0]
    for (name, want), got in zip(right.gradients.items(), gradients, strict=True):
        if got is None:
            if want is not None and largest(want) > 0:
                raise WrongResult("gradient", f"no gradient reaches {name}")
            continue
        of = operands.inputs[name]
        if got.shape != of.shape:
            raise WrongResult("shape", f"the gradient of {name} has shape {tuple(got.shape)}; {tuple(of.shape)} is due")
        if got.dtype != of.dtype:
            raise WrongResult("dtype", f"the gradient of {name} is {got.dtype}; {of.dtype} is due")
        target = torch.zeros_like(got, dtype=torch.float64) if want is None else want
        errors.append(compare("value_backward", f"the gradient of {name}", got, target, scales.gradients[name], tolerance))
    return max(errors)


def compare(check: str, what: str, got: Tensor, want: Tensor, scale: float, tolerance: float) -> float:
    """The largest error over the scale. NaN and infinities must stand where the reference, rounded to the dtype, has them."""
    if not got.numel():
        return 0.0
    if not got.is_floating_point():
        wrong = int((got != want).sum())
        if wrong:
            raise WrongResult(check, f"{what}: {wrong} of {got.numel()} elements differ from the reference")
        return 0.0
    total = got.numel()
    unwritten, astray, off, largest_error = deviations(got, want, tolerance * scale)
    if unwritten:
        said = f"{what}: NaN in {unwritten} of {total} places where the reference has a number"
        raise WrongResult("written", f"{said}; memory holds NaN before a call: not written, or computed from such memory")
    if astray:
        raise WrongResult("finite", f"{what}: {astray} of {total} places are not NaN or infinite as the reference is")
    error = largest_error / scale
    if error > tolerance:
        said = f"{what}: error {error:.3g} of the largest |reference|, {tolerance:.3g} allowed"
        raise WrongResult(check, f"{said}; {off} of {total} elements off")
    return error


def deviations(got: Tensor, want: Tensor, allowed: float) -> tuple[int, int, int, float]:
    """Elements unwritten, elsewise not finite where only one is, and off by more than allowed; the largest error of the finite.

    Block by block: whole temporaries of float64 would be several times the memory of the kernel's own data.
    """
    unwritten = astray = off = 0
    worst = 0.0
    for ours, theirs in zip(blocks(got), blocks(want), strict=True):
        error = (ours.double() - theirs).abs_()
        largest_here = float(error.max())
        if not math.isfinite(largest_here):
            rounded = theirs.to(ours.dtype)
            agreeing = (ours == rounded) | (ours.isnan() & rounded.isnan())
            unwritten += int((ours.isnan() & ~rounded.isnan()).sum())
            astray += int((~agreeing & ~(ours.isfinite() & rounded.isfinite())).sum())
            error.nan_to_num_(0.0, 0.0, 0.0)
            largest_here = float(error.max())
        if largest_here > allowed:
            off += int((error > allowed).sum())
        worst = max(worst, largest_here)
    return unwritten, astray, off, worst


def blocks(tensor: Tensor) -> tuple[Tensor, ...]:
    """Its elements in their order, BLOCK at a time."""
    return torch.split(tensor.reshape(-1), BLOCK)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """NaN equals NaN of the same bits."""
    if not a.is_floating_point():
        return torch.equal(a, b)
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.dtype.itemsize]
    return torch.equal(a.contiguous().view(whole), b.contiguous().view(whole))


def tolerance_of(spec: Kernel, dtype: torch.dtype) -> float:
    """Raises HarnessError for a dtype that the kernel declares none for."""
    name = str(dtype).removeprefix("torch.")
    if name not in spec.tolerance:
        raise HarnessError(f"kernel {spec.name!r} declares no tolerance for {name}; it has {sorted(spec.tolerance)}")
    return spec.tolerance[name]
