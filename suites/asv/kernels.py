"""One class of benchmarks for each kernel that an installed plugin offers, at two sizes, for each of its implementations.

`track_time` is the figure to follow: seconds through our own timing path, after the implementation was compared with the
float64 reference. `time_forward` is asv's own loop beside it. Less is better in all of them, as asv reads them. On one CPU
thread; an implementation that cannot run here is skipped (NaN), one that is wrong fails (null).

torch.compile is left out: its first call takes longer than all else here. `harness run suites/kernels.yaml` and
`harness export asv` bring it, with all sizes, layouts and devices, to the same pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from harness.catalogue import Broken, Catalogue, Offer, load_catalogue
from harness.errors import Unsupported
from harness.identity import digest
from harness.specs import Kernel
from harness.timing import StopRule

ELEMENTS = (10_000, 1_000_000)
SEED = 20260217
REGION = "forward_backward"  # "forward" where a kernel has no backward pass
VERSION = 1  # of what is measured here, not of the kernels' code: another one cuts all histories
RULE = StopRule(limit_s=1.0)


class _Kernel:
    """Benchmarks of one kernel; `offer` is set by the classes that are made of it."""

    offer: Offer[Kernel]
    param_names = ("implementation", "elements")
    timeout = 120.0

    def setup(self, implementation: str, elements: int) -> None:
        # Here, not above: asv imports this file to look what there is.
        import torch

        from harness.kernels.measuring import require_supported
        from harness.worker.kernel import resolve_implementation, resolve_kernel

        torch.set_num_threads(1)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.generator = torch.Generator().manual_seed(SEED)
        spec = self.offer.spec
        declared = spec.implementation(implementation)
        try:
            require_supported(declared, self.device)
        except Unsupported as exc:
            raise NotImplementedError(str(exc)) from exc  # how asv is told to skip
        self.case = spec.params(elements=elements)
        self.kernel, self.implementation = resolve_kernel(self.offer), resolve_implementation(spec, declared)
        self.inputs = self.kernel.make_inputs(self.case, self.generator, self.device, self.dtype)
        self._refuse_fallback()
        with torch.no_grad():
            self.implementation.run(self.inputs, self.case)  # C is compiled on first use

    def _refuse_fallback(self) -> None:
        """Eager code in the place of ours would be recorded under our name."""
        fallback = self.implementation.fallback
        why = fallback(self.inputs, self.case) if fallback is not None else ""
        if why:
            raise NotImplementedError(why)

    def time_forward(self, implementation: str, elements: int) -> None:
        import torch

        with torch.no_grad():
            self.implementation.run(self.inputs, self.case)

    def peakmem_forward(self, implementation: str, elements: int) -> None:
        """The whole process, torch included."""
        self.time_forward(implementation, elements)

    def track_error(self, implementation: str, elements: int) -> float:
        """The largest error of an output or a gradient, over the largest |reference|."""
        from harness.kernels.checking import check_implementation, draw_operands

        sets = draw_operands(self.kernel, self.case, self.generator, self.device, self.dtype)
        errors = check_implementation(self.kernel, self.implementation.run, self.case, self.dtype, sets).errors
        return max(errors.forward, errors.backward or 0.0)

    track_error.unit = "largest error / largest |reference|"

    def track_time(self, implementation: str, elements: int) -> float:
        """Median seconds of forward and backward together."""
        from harness.kernels.ceilings import Ceilings

        # Ceilings take longer than the kernel, and are not asked for here.
        return self._figure("time", ceilings_of=lambda *_: Ceilings(1.0, 1.0))

    track_time.unit = "seconds"

    def track_roofline_gap(self, implementation: str, elements: int) -> float:
        """1 - share of the roofline, whose ceilings are measured in the same process."""
        return 1 - self._figure("roofline_share")

    track_roofline_gap.unit = "1 - share of roofline"

    def _figure(self, quantity: str, **replaced: Any) -> float:
        """replaced: parts of the measuring that are done otherwise."""
        from harness.kernels.measuring import measure_kernel

        region = REGION if self.offer.spec.backward else "forward"
        figures = measure_kernel(
            self.kernel, self.implementation, self.case, self.device, self.dtype, 1, RULE, self.generator, (region,), **replaced
        )
        return next(m.value for m in figures.measurements if (m.quantity, m.part) == (quantity, region))


class _Broken:
    """Stands for a plugin that could not be loaded: fails in `setup`, with its error, and stops no other benchmark."""

    error = ""

    def setup(self) -> None:
        raise RuntimeError(self.error)

    def track_loads(self) -> float:
        return 0.0

    track_loads.unit = "1"


def benchmark_classes(catalogue: Catalogue) -> Iterator[type]:
    """A class for each kernel, and one for each plugin that is broken."""
    names = [slug(offer.name) for offer in catalogue.kernels]
    for offer, name in zip(catalogue.kernels, names, strict=True):
        own_name = name if names.count(name) == 1 else slug(offer.ref)
        yield kernel_class(own_name, offer)
    for broken in catalogue.broken:
        yield broken_class(broken)


def kernel_class(name: str, offer: Offer[Kernel]) -> type:
    implementations = [i.name for i in offer.spec.implementations if i.kind != "compiled" and "cpu" in i.devices]
    made = {
        "__module__": __name__,
        "__qualname__": name,
        "__doc__": offer.spec.summary,
        "offer": offer,
        "params": (implementations, list(ELEMENTS)),
        # Without it asv takes the methods' source text, which is one and the same for all classes.
        "version": digest([VERSION, offer.ref, list(ELEMENTS)])[:16],
    }
    return type(name, (_Kernel,), made)


def broken_class(broken: Broken) -> type:
    name = f"broken_{slug(broken.id)}"
    made = {"__module__": __name__, "__qualname__": name, "error": f"plugin {broken.id}: {broken.error}", "version": "1"}
    return type(name, (_Broken,), made)


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


globals().update({made.__name__: made for made in benchmark_classes(load_catalogue())})
