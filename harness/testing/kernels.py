"""`check_kernel`: every implementation of a kernel against its float64 reference, in small cases. Times nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from harness.catalogue import Catalogue, load_catalogue
from harness.errors import HarnessError, Unsupported
from harness.kernels.checking import Run, WrongResult, check_implementation, draw_operands
from harness.kernels.measuring import require_supported
from harness.specs import Kernel
from harness.testing.components import examine_left, first_line
from harness.testing.documented import examine_documented
from harness.testing.findings import Report, chosen_checks
from harness.testing.watching import digest_of, kept_state
from harness.worker.kernel import resolve_implementation, resolve_kernel

KERNEL_CHECKS = ("documented", "work", "same_seed", "other_seed", "kernel", "inputs_kept", "state_restored", "cpu_cuda")
# One that is no multiple of a vector's length; with a few dozen the variances of a norm would be those of two or three numbers.
ELEMENTS = (1000, 4099)
LAYOUTS = ("contiguous", "strided", "unaligned")
DTYPES = ("float32", "float64")
MENDS = {
    "inputs_kept": "write into new memory",
    "gradient": "let autograd go through it, or declare backward=False",
    "dtype": "return the dtype of the input",
    "device": "return tensors on the device of the input",
}


def check_kernel(
    kernel: str,
    *,
    params: Mapping[str, Any] | None = None,
    only: Iterable[str] | None = None,
    catalogue: Catalogue | None = None,
) -> Report:
    """Check a kernel that an installed plugin offers. Raises NonConformant with all findings.

    kernel: its name, or "dist/name". params: of its case, besides size and layout, which are tried. only: names of checks.
    Implementations of kind "compiled" are checked as the eager code that they are made of; what cannot run here is skipped.
    Raises HarnessError for a name that no plugin offers.
    """
    report = examine_kernel(kernel, params=params, only=only, catalogue=catalogue)
    report.require()
    return report


def examine_kernel(
    kernel: str,
    *,
    params: Mapping[str, Any] | None = None,
    only: Iterable[str] | None = None,
    catalogue: Catalogue | None = None,
) -> Report:
    """As `check_kernel`, but what was found is returned, not raised."""
    catalogue = catalogue or load_catalogue()
    offer = catalogue.kernel(kernel)
    wanted = chosen_checks(only, KERNEL_CHECKS)
    report = Report(offer.name)
    examine_documented(offer.spec, report)
    examine_work(offer.spec, params or {}, report)
    try:
        resolved = resolve_kernel(offer)
        examine_inputs(resolved, params or {}, report)
        devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
        if len(devices) == 1:
            report.skipped["cpu_cuda"] = "no CUDA device here"
        for device in devices:
            examine_implementations(resolved, params or {}, device, report)
    except Exception as exc:  # a plugin's own code
        report.add(
            "kernel", f"{type(exc).__name__}: {first_line(exc)}", "let inputs and reference run for every size and layout"
        )
    report.keep(wanted)
    report.close(wanted)
    return report


def examine_work(spec: Kernel, params: Mapping[str, Any], report: Report) -> None:
    for name, of in (("flops", spec.flops), ("bytes", spec.bytes)):
        amounts = [of(case_of(spec, params, elements), 4) for elements in (1 << 10, 1 << 16)]
        for part in ("forward", "backward"):
            small, large = (amount.get(part, 0) for amount in amounts)
            if int(small) != small or int(large) != large or small < 0:
                report.add("work", f"{name} of {part} is {small}", "return whole numbers of 0 or more")
            elif small > large or (name == "bytes" and part == "forward" and not small < large):
                report.add("work", f"{name} of {part} is {small} at 1k elements and {large} at 64k", "count by the case's size")


def examine_inputs(kernel: Any, params: Mapping[str, Any], report: Report) -> None:
    case = case_of(kernel.spec, params, ELEMENTS[0])

    def made(seed: int) -> str:
        generator = torch.Generator().manual_seed(seed)
        return digest_of(dict(kernel.make_inputs(case, generator, torch.device("cpu"), torch.float32)))

    with kept_state():
        first = made(0)
        if made(0) != first:
            report.add("same_seed", "inputs differ for one generator", "draw every random number from the generator given")
        if made(1) == first:
            report.add("other_seed", "inputs are the same for another generator", "draw them from the generator given")


def examine_implementations(kernel: Any, params: Mapping[str, Any], device: torch.device, report: Report) -> None:
    for implementation in kernel.spec.implementations:
        try:
            require_supported(implementation, device)
        except Unsupported as exc:
            if device.type == "cpu" and "needs" in str(exc):
                report.skipped[f"kernel.{implementation.name}"] = str(exc)
            continue
        run: Run = resolve_implementation(kernel.spec, implementation).run
        with kept_state() as changed:
            examine_cases(kernel, implementation.name, run, params, device, report)
            examine_left(changed(), f"{implementation.name}: a call", report)


def examine_cases(kernel: Any, name: str, run: Run, params: Mapping[str, Any], device: torch.device, report: Report) -> None:
    """Until the first breach: what follows from it would hide it."""
    for dtype in DTYPES:
        for elements in ELEMENTS:
            for layout in LAYOUTS:
                case = case_of(kernel.spec, {**params, "layout": layout}, elements)
                where = f"{name} with {elements} elements, {layout}, {dtype}, {device.type}"
                generator = torch.Generator().manual_seed(1)
                try:
                    sets = draw_operands(kernel, case, generator, device, getattr(torch, dtype))
                    check_implementation(kernel, run, case, getattr(torch, dtype), sets)
                except WrongResult as exc:
                    check = "inputs_kept" if exc.check == "inputs_kept" else "kernel" if device.type == "cpu" else "cpu_cuda"
                    mend = MENDS.get(exc.check, "compare it with the reference, case by case")
                    report.add(check, f"{where}: {exc.check}: {exc.text}", mend)
                    return
                except Unsupported:
                    continue
                except HarnessError as exc:
                    report.add("kernel", f"{where}: {first_line(exc)}", "declare what the kernel does")
                    return


def case_of(spec: Kernel, params: Mapping[str, Any], elements: int) -> Any:
    return spec.params.model_validate({**dict(params), "elements": elements})
