"""One implementation of one kernel in one case: checked, timed region by region, checked again.

What is checked is what is timed: every region's last call, and one drawn at random, are compared with the reference. A
wrong implementation raises `WrongResult` and has no figures at all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import Tensor

from harness.errors import HarnessError, Unsupported
from harness.kernels.ceilings import Ceilings, measure_ceilings, roofline_s
from harness.kernels.checking import (
    Checked,
    Errors,
    Expected,
    Operands,
    ResolvedImplementation,
    ResolvedKernel,
    Run,
    WrongResult,
    as_tuple,
    check_implementation,
    compare_gradients,
    compare_outputs,
    deterministic,
    differentiate,
    draw_operands,
    expect,
    reached_by,
    require_tensors,
    tolerance_of,
)
from harness.kernels.compiling import compile_run
from harness.kernels.memory import extra_bytes
from harness.kernels.rotation import Rotation
from harness.kernels.timers import device_state, make_timer, own_stream
from harness.records import Measurement, Timing
from harness.specs import Implementation, Kernel, KernelCase
from harness.timing import Samples, StopRule, doubts, readings, relative_iqr

REGIONS = ("forward", "backward", "forward_backward")
COPY = "copy"
COLD = "_cold"
LARGE = 1 << 22  # elements: there the reference takes longer than the timing, and only last calls are checked again
FOR_CEILINGS = 1 / 3  # of the time limit: copy and product need not be known as well as what is held against them
TURNS = 2  # sets that the timed calls take turns on: more would be more memory than a caller's data

Timer = Callable[[Callable[[], object], StopRule], Samples]


@dataclass(frozen=True)
class KernelFigures:
    """What a kernel trial records."""

    measurements: tuple[Measurement, ...]
    timings: tuple[Timing, ...]
    diagnostics: dict[str, float | str]


def measure_kernel(
    kernel: ResolvedKernel, implementation: ResolvedImplementation, case: KernelCase, device: torch.device, dtype: torch.dtype,
    threads: int, rule: StopRule, generator: torch.Generator, regions: Sequence[str] = (), *,
    timer_of: Callable[[torch.device, bool], Timer] = make_timer,
    ceilings_of: Callable[[torch.device, torch.dtype, int, StopRule], Ceilings] = measure_ceilings,
) -> KernelFigures:  # fmt: skip
    """Check, time, check again.

    threads: what torch has been given already. generator: a CPU generator, of the inputs. regions: all that apply if empty;
    "copy" is always timed beside them. Raises WrongResult, Unsupported, and HarnessError for what is declared wrongly.
    """
    require_supported(implementation.spec, device)
    wanted = choose_regions(kernel.spec, device, regions)
    with own_stream(device), deterministic(fill=False):  # compiled code is made for this mode, and checked and timed in it
        return measure(kernel, implementation, case, device, dtype, threads, rule, generator, wanted, timer_of, ceilings_of)


def measure(
    kernel: ResolvedKernel, implementation: ResolvedImplementation, case: KernelCase, device: torch.device, dtype: torch.dtype,
    threads: int, rule: StopRule, generator: torch.Generator, wanted: Sequence[str],
    timer_of: Callable[[torch.device, bool], Timer],
    ceilings_of: Callable[[torch.device, torch.dtype, int, StopRule], Ceilings],
) -> KernelFigures:  # fmt: skip
    sets = draw_operands(kernel, case, generator, device, dtype)
    run, compiled, diagnostics = prepare(kernel, implementation, case, sets[0])
    checked = check_implementation(kernel, run, case, dtype, sets)
    memory = [
        Measurement("extra_bytes", region, "B", "lower", extra_bytes(act, sets[0].tensors, device))
        for region, act in whole_acts(kernel.spec, run, case, sets[0])
    ]
    elements = sum(sets[0].inputs[name].numel() for name in kernel.spec.data)
    ceilings = ceilings_of(device, dtype, elements, replace(rule, limit_s=rule.limit_s * FOR_CEILINGS))
    timed = {c: time_copy(elements, device, dtype, generator, rule, timer_of(device, c != COPY)) for c in copies(wanted)}
    errors = checked.errors
    for region in wanted:
        timer = timer_of(device, region.endswith(COLD))
        plan = plan_region(kernel, run, case, sets[:TURNS], region.removesuffix(COLD), generator)
        with torch.set_grad_enabled(plan.grad):
            timed[region] = timer(plan.rotation.thunk(), rule)
        errors |= check_again(kernel, case, dtype, plan, checked, drawn_too=elements <= LARGE)
    work = Work(kernel.spec, case, dtype.itemsize, ceilings, threads)
    measurements = [*error_rows(errors), *ceiling_rows(ceilings), *compiled, *memory]
    if "fallback" in diagnostics:
        measurements.append(Measurement("fallback", "check", "1", "neither", 1.0))
    for region, samples in timed.items():
        measurements += work.rows(region, samples, timed[COPY + COLD if region.endswith(COLD) else COPY], elements)
    return KernelFigures(
        tuple(measurements),
        tuple(Timing(r, s.wall_s, s.cpu_s, s.warmup, s.stop_reason) for r, s in timed.items()),
        diagnostics | told(timed, threads, device),
    )


# Before -----------------------------------------------------------------------------------------------------------------


def require_supported(spec: Implementation, device: torch.device) -> None:
    """Raises Unsupported, before any of the implementation's code is imported."""
    if device.type not in spec.devices:
        raise Unsupported(f"implementation {spec.name!r} runs on {', '.join(spec.devices)}, not on {device.type}")
    needs = {need.split(":")[0]: need.split(":")[-1] for need in spec.requires}
    absent = {module: package for module, package in needs.items() if not importable(module)}
    if absent:
        raise Unsupported(f"implementation {spec.name!r} needs {', '.join(absent)}; pip install {' '.join(absent.values())}")


def importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # the parent package is absent
        return False


def choose_regions(spec: Kernel, device: torch.device, asked: Sequence[str]) -> tuple[str, ...]:
    """Raises HarnessError for a region that does not apply here."""
    plain = REGIONS if spec.backward else REGIONS[:1]
    applying = (*plain, *(f"{region}{COLD}" for region in plain if device.type == "cuda"))
    unknown = sorted(set(asked) - set(applying) - set(copies(applying)))
    if unknown:
        raise HarnessError(f"to be timed: {unknown}; kernel {spec.name!r} has {list(applying)} on {device.type}")
    return tuple(region for region in applying if region in asked or not asked)


def copies(regions: Sequence[str]) -> tuple[str, ...]:
    """The copies that are the floors of these regions."""
    return (COPY, COPY + COLD) if any(region.endswith(COLD) for region in regions) else (COPY,)


def prepare(
    kernel: ResolvedKernel, implementation: ResolvedImplementation, case: KernelCase, operands: Operands
) -> tuple[Run, list[Measurement], dict[str, float | str]]:
    """The code to call, what compiling it cost, and what is to be told of it."""
    diagnostics: dict[str, float | str] = {}
    if implementation.fallback is not None:
        why = implementation.fallback(operands.inputs, case)
        if why:
            diagnostics["fallback"] = why
    if implementation.spec.kind != "compiled":
        return implementation.run, [], diagnostics
    made = compile_run(implementation.run)
    acts = dict(reversed(list(whole_acts(kernel.spec, made.run, case, operands))))
    waits = made.first_calls(acts, operands.tensors[0].device)
    # A training step compiles both ways at once; what a call without autograd adds to that stands beside it.
    names = ["first_call", *(f"first_call_{region}" for region in list(waits)[1:])]
    rows = [Measurement(name, "compile", "s", "lower", s) for name, s in zip(names, waits.values(), strict=True)]
    return made.run, rows, diagnostics | {"compile_cache": made.cache()}


def whole_acts(
    spec: Kernel, run: Run, case: KernelCase, operands: Operands
) -> Iterator[tuple[str, Callable[[], tuple[Tensor | None, ...]]]]:
    """("forward", ...) without autograd, and ("forward_backward", ...): one call of each, with all that it gives."""

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return as_tuple(run(operands.inputs, case))

    def forward_backward() -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            outputs = as_tuple(run(operands.inputs, case))
            return (*outputs, *differentiate(outputs, tuple(operands.wanted.values()), operands.upstream, keep_graph=False))

    yield "forward", forward
    if spec.backward:
        yield "forward_backward", forward_backward


# What is timed ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A region ready for the timer. operands: what to compare the results of each set with; grad: whether autograd is on."""

    rotation: Rotation
    operands: tuple[Operands, ...]
    grad: bool
    parts: Callable[[Any], tuple[Any, Any]]  # a result -> outputs and gradients, None for what the region does not give


def plan_region(
    kernel: ResolvedKernel, run: Run, case: KernelCase, sets: Sequence[Operands], region: str, generator: torch.Generator
) -> Plan:
    main = [changing_input(kernel.spec, operands) for operands in sets]
    if region == "forward":
        inputs = [operands.inputs for operands in sets]
        rotation = Rotation(inputs, main, lambda given: run(given, case), generator)
        return Plan(rotation, tuple(sets), False, lambda result: (result, None))
    if region == "forward_backward":
        given = [(o.inputs, tuple(o.wanted.values()), o.upstream) for o in sets]
        rotation = Rotation(given, main, forward_backward_act(run, case, sets[0]), generator)
        return Plan(rotation, tuple(sets), True, lambda result: result)
    return plan_backward(run, case, sets, generator)


def plan_backward(run: Run, case: KernelCase, sets: Sequence[Operands], generator: torch.Generator) -> Plan:
    """One graph, kept; what comes from above takes turns and changes, for the graph holds what forward has saved."""
    first = sets[0]
    with torch.enable_grad():
        outputs = as_tuple(run(first.inputs, case))
    reached, _ = reached_by(outputs, first.upstream)
    wanted = tuple(first.wanted.values())
    above = [tuple(reached_by(outputs, operands.upstream)[1]) for operands in sets]

    def act(upstream: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(reached, wanted, upstream, retain_graph=True, allow_unused=True)

    operands = tuple(Operands(first.inputs, each.upstream) for each in sets)
    return Plan(Rotation(above, [u[0] for u in above], act, generator), operands, True, lambda result: (None, result))


def forward_backward_act(run: Run, case: KernelCase, operands: Operands) -> Callable[[Any], Any]:
    """Both anew at each call, with as little around them as can be."""
    with torch.enable_grad():
        outputs = as_tuple(run(operands.inputs, case))
    if len(outputs) == len(operands.upstream) == 1:

        def act(given: Any) -> Any:
            inputs, wanted, upstream = given
            output = run(inputs, case)
            return output, torch.autograd.grad(output, wanted, upstream, allow_unused=True)

        return act

    def act_on_several(given: Any) -> Any:
        inputs, wanted, upstream = given
        several = as_tuple(run(inputs, case))
        return several, differentiate(several, wanted, upstream, keep_graph=False)

    return act_on_several


def changing_input(spec: Kernel, operands: Operands) -> Tensor:
    """The first data input that is floating and has elements, else the first."""
    data = [operands.inputs[name] for name in spec.data]
    return next((t for t in data if t.is_floating_point() and t.numel()), data[0])


def time_copy(
    elements: int, device: torch.device, dtype: torch.dtype, generator: torch.Generator, rule: StopRule, timer: Timer
) -> Samples:
    """A plain copy of as many elements, contiguous: the floor."""
    sources = [torch.randn(elements, generator=generator).to(device, dtype) for _ in range(TURNS)]
    target = torch.empty_like(sources[0])
    rotation = Rotation(sources, sources, target.copy_, generator)
    with torch.no_grad():
        return timer(rotation.thunk(), rule)


def check_again(
    kernel: ResolvedKernel, case: KernelCase, dtype: torch.dtype, plan: Plan, checked: Checked, drawn_too: bool
) -> Errors:
    """Compare what timed calls gave: the last, and one drawn. Raises WrongResult, its check named "timed." and the check."""
    worst = checked.errors
    for which, number, result in islice(plan.rotation.results(), 2 if drawn_too else 1):
        operands = plan.operands[number]
        right = expect(kernel, case, operands)
        try:
            worst |= compare_parts(plan.parts(result), right, operands, checked, dtype, tolerance_of(kernel.spec, dtype))
        except WrongResult as exc:
            raise WrongResult(f"timed.{exc.check}", f"{which}: {exc.text}") from exc
    return worst


def compare_parts(
    parts: tuple[Any, Any], right: Expected, operands: Operands, checked: Checked, dtype: torch.dtype, tolerance: float
) -> Errors:
    outputs, gradients = parts
    forward, backward = 0.0, None
    if outputs is not None:
        given = require_tensors(outputs, right.outputs)
        forward = compare_outputs(given, right, checked.scales, dtype, tolerance)
    if gradients is not None:
        backward = compare_gradients(gradients, right, operands, checked.scales, tolerance)
    return Errors(forward, backward)


# Figures ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """From samples to figures."""

    spec: Kernel
    case: KernelCase
    itemsize: int
    ceilings: Ceilings
    threads: int

    def rows(self, region: str, samples: Samples, copy: Samples, elements: int) -> list[Measurement]:
        """All of a region's measurements but raw samples; None where there is no work to be measured by."""
        time_s, copied_s = median(readings(samples, self.threads)), median(readings(copy, self.threads))
        flops, moved, copied = self._amount(self.spec.flops, region), self._amount(self.spec.bytes, region), 2 * elements
        if region.removesuffix(COLD) == COPY:
            flops, moved = 0, copied * self.itemsize
        floor_s = copied_s * moved / (copied * self.itemsize) if copied else 0.0
        least_s = roofline_s(flops, moved, self.ceilings) if flops or moved else 0.0
        figures: list[tuple[str, str, str, float | None]] = [
            ("time", "s", "lower", time_s),
            ("bytes_rate", "B/s", "higher", over(moved, time_s)),
            ("flop_rate", "FLOP/s", "higher", over(flops, time_s)),
            ("roofline_share", "1", "higher", over(least_s, time_s)),
            ("floor_multiple", "1", "lower", over(time_s, floor_s)),
            ("faults", "1", "lower", samples.faults_per_call),
            ("calls_per_sample", "1", "neither", float(samples.calls_per_sample)),
            ("spread", "1", "lower", relative_iqr(readings(samples, self.threads))),
            ("contended", "1", "neither", float("contended" in doubts(samples, self.threads))),
        ]
        return [Measurement(quantity, region, unit, better, value) for quantity, unit, better, value in figures]

    def _amount(self, of: Callable[[Any, int], Any], region: str) -> int:
        amounts = of(self.case, self.itemsize)
        return sum(int(amounts.get(part, 0)) for part in REGIONS[:2] if part in region)


def over(amount: float, by: float) -> float | None:
    return amount / by if amount > 0 and by > 0 else None


def error_rows(errors: Errors) -> list[Measurement]:
    rows = [Measurement("error_forward", "check", "1", "lower", errors.forward)]
    if errors.backward is not None:
        rows.append(Measurement("error_backward", "check", "1", "lower", errors.backward))
    return rows


def ceiling_rows(ceilings: Ceilings) -> list[Measurement]:
    return [
        Measurement("copy_rate", "ceiling", "B/s", "higher", ceilings.copy_bytes_per_s),
        Measurement("matmul_rate", "ceiling", "FLOP/s", "higher", ceilings.matmul_flops_per_s),
    ]


def told(timed: dict[str, Samples], threads: int, device: torch.device) -> dict[str, float | str]:
    """What makes a region doubtful, and what the device's clock did where that can be read."""
    texts: dict[str, float | str] = {}
    for region, samples in timed.items():
        doubtful = doubts(samples, threads)
        if doubtful:
            texts[f"doubts.{region}"] = ", ".join(doubtful)
        if samples.launch:
            texts[f"launch.{region}"] = samples.launch
    state = device_state(device)
    if state:
        texts["clock"] = ", ".join(f"{name} {value}" for name, value in state.items())
    return texts
