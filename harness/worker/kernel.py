"""A kernel trial in this process: its declarations are found, its code resolved, its figures put into the draft."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from harness.catalogue import Catalogue, Offer
from harness.errors import HarnessError
from harness.identity import canonical, stream_seed
from harness.kernels.checking import ResolvedImplementation, ResolvedKernel
from harness.kernels.measuring import measure_kernel, require_supported
from harness.records import Trial
from harness.specs import Implementation, Kernel
from harness.timing import StopRule
from harness.worker.resolving import resolve

if TYPE_CHECKING:
    from harness.worker.staging import Draft

# Samples of 4 ms: shorter ones would be thousands in a record, and tell no more of the median.
RULE = StopRule(limit_s=2.0, min_sample_s=4e-3)
STREAM = "kernel"  # of the random inputs: the same for every implementation of a case


def run_kernel(trial: Trial, catalogue: Catalogue, rule: StopRule, draft: Draft) -> None:
    """Raises what the measuring raises: WrongResult, Unsupported, HarnessError, and whatever the kernel's code does."""
    offer = catalogue.kernel(trial.task)
    implementation = find_implementation(offer, trial.method)
    device = torch.device(trial.device)
    require_supported(implementation, device)
    case = offer.spec.params.model_validate(dict(trial.task_params))
    seed = stream_seed(trial.root_seed, trial.seed, canonical([trial.task, dict(trial.task_params)]), STREAM)
    rule = replace(RULE, limit_s=min(rule.limit_s, RULE.limit_s))
    figures = measure_kernel(
        resolve_kernel(offer), resolve_implementation(offer.spec, implementation), case, device, getattr(torch, trial.dtype),
        trial.threads, rule, torch.Generator().manual_seed(seed), trial.measure,
    )  # fmt: skip
    draft.measurements, draft.timings, draft.diagnostics = figures.measurements, figures.timings, figures.diagnostics


def find_implementation(offer: Offer[Kernel], method: str) -> Implementation:
    """method: "<kernel ref>/<implementation>". Raises HarnessError with the names that there are."""
    name = method.rpartition("/")[2]
    found = offer.spec.implementation(name)
    if found is None:
        there = ", ".join(i.name for i in offer.spec.implementations)
        raise HarnessError(f"kernel {offer.ref!r} has no implementation {name!r}; it has {there}")
    return found


def resolve_kernel(offer: Offer[Kernel]) -> ResolvedKernel:
    """Imports the kernel's code."""
    spec, of = offer.spec, f"kernel {offer.spec.name!r}"
    return ResolvedKernel(spec, offer.ref, resolve(spec.inputs, f"{of}: inputs"), resolve(spec.reference, f"{of}: reference"))


def resolve_implementation(spec: Kernel, implementation: Implementation) -> ResolvedImplementation:
    """Imports the implementation's code."""
    of = f"kernel {spec.name!r}: {implementation.name}"
    fallback = resolve(implementation.fallback, f"{of}: fallback") if implementation.fallback is not None else None
    return ResolvedImplementation(implementation, resolve(implementation.run, f"{of}: run"), fallback)
