"""Questions that need torch or CUDA, answered in a throw-away child: what a method costs, which devices there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.catalogue import Catalogue
from harness.errors import HarnessError
from harness.specs import Learner
from harness.worker.resolving import resolve

Answer = dict[str, Any]


def run(what: str, requests: Sequence[Mapping[str, Any]], catalogue: Catalogue) -> list[Answer]:
    """what: "cost" or "devices". One answer for each request, in order; a request that fails is answered {"error": ...}."""
    if what == "devices":
        return [probe_devices()]
    return [count_cost(request, catalogue) for request in requests]


def count_cost(request: Mapping[str, Any], catalogue: Catalogue) -> Answer:
    """{"params", "flops", ...} of a method: by the track's cost for a component, by its own for a learner.

    request: method and track (references), params, shape, and for a component net and train. See `specs.Track.cost`.
    """
    try:
        return {name: read_amount(amount) for name, amount in _count(request, catalogue).items()}
    except Exception as exc:  # a plugin's code: its own request fails
        return {"error": f"{type(exc).__name__}: {exc}"}


def read_amount(amount: Any) -> float | str | list[str]:
    """A number, a text or several, whatever types a plugin's own code made them of."""
    if isinstance(amount, str):
        return amount
    return [str(a) for a in amount] if isinstance(amount, list | tuple | set | frozenset) else float(amount)


def _count(request: Mapping[str, Any], catalogue: Catalogue) -> Mapping[str, Any]:
    method, track = catalogue.method(request["method"]).spec, catalogue.track(request["track"]).spec
    params = method.params.model_validate(request["params"])
    if isinstance(method, Learner):
        if method.cost is None:
            raise HarnessError(f"learner {method.name!r} declares no cost")
        count: Callable[..., Mapping[str, Any]] = resolve(method.cost, f"learner {method.name!r}: cost")
        return count(request["shape"], params)
    from harness.lab import ComponentUse

    if track.cost is None:
        raise HarnessError(f"track {track.name!r} declares no cost")
    build = resolve(method.build, f"component {method.name!r}: build")
    use = ComponentUse(method.name, method.kind, build, params, method.init)
    count = resolve(track.cost, f"track {track.name!r}: cost")
    return count(request["shape"], request["net"], request["train"], use)


def probe_devices() -> Answer:
    """{"cuda": usable or not, "name", "memory_bytes", "reason": why not}. Starts CUDA: never in a process that goes on."""
    import torch

    if torch.version.cuda is None:
        return {"cuda": False, "name": "", "memory_bytes": None, "reason": "this build of torch has no CUDA"}
    try:
        if not torch.cuda.is_available():
            return {"cuda": False, "name": "", "memory_bytes": None, "reason": "torch finds no CUDA device"}
        # Found is not yet usable: a kernel must run.
        torch.zeros(1, device="cuda").add_(1).item()
        properties = torch.cuda.get_device_properties(0)
    except Exception as exc:
        return {"cuda": False, "name": "", "memory_bytes": None, "reason": f"{type(exc).__name__}: {exc}"}
    return {"cuda": True, "name": properties.name, "memory_bytes": properties.total_memory, "reason": ""}
