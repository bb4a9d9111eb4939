"""The program of one warm server of the interleaved instrument: `python -P measurer.py`, one JSON object a line each way.

It is run by path, always from this version, while `harness` and the plugins that it imports come from PYTHONPATH: from the
commit that is measured. So it needs nothing of them but the catalogue and a kernel's declared code. It measures only when
asked, and sleeps in a read else.

{"prepare": {...}} loads, checks against the float64 reference, warms up: answers {"home", "harness", "region", "call_s"}.
{"measure": calls} answers {"wall_s", "cpu_s"} of them all. What goes wrong is {"failed": text}.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

WARM_UP_S = 0.1
WARM_UP_CALLS = 3
SEED = 20_260_101


def main() -> None:
    """Until stdin ends. What a plugin prints goes to stderr: stdout speaks the protocol."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    call: Callable[[], object] = lambda: None  # noqa: E731
    wait: Callable[[], None] = lambda: None  # noqa: E731
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "prepare" in request:
                told, call, wait = prepare(**request["prepare"])
            else:
                told = measure(call, wait, request["measure"])
        except Exception as exc:  # a plugin's own code, or a version of the harness that knows no kernels
            told = {"failed": f"{type(exc).__name__}: {exc}"}
        replies.write(json.dumps(told) + "\n")
        replies.flush()


def measure(call: Callable[[], object], wait: Callable[[], None], calls: int) -> dict[str, float]:
    wait()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        call()
    wait()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def prepare(
    kernel: str, implementation: str, case: Mapping[str, Any], region: str, device: str, dtype: str, threads: int
) -> tuple[dict[str, Any], Callable[[], object], Callable[[], None]]:
    """What was found, the call to measure, and what waits for the device. region "": forward and backward where there are."""
    import harness
    from harness.catalogue import load_catalogue

    torch.set_num_threads(threads)
    offer = load_catalogue().kernel(kernel)
    spec, params = offer.spec, offer.spec.params(**case)
    chosen = spec.implementation(implementation)
    if chosen is None:
        raise LookupError(f"kernel {kernel!r} has no implementation {implementation!r} here")
    inputs = make_inputs(spec, params, device, dtype)
    if chosen.fallback and (why := load(chosen.fallback)(inputs, params)):
        raise RuntimeError(f"eager code would run in place of {implementation!r}: {why}")
    run = load(chosen.run)
    run = torch.compile(run, dynamic=False) if chosen.kind == "compiled" else run
    region = region or ("forward_backward" if spec.backward else "forward")
    compare_with_reference(spec, run, inputs, params, dtype)
    call = caller(run, inputs, params, region)
    wait = (lambda: torch.cuda.synchronize(torch.device(device))) if device.startswith("cuda") else lambda: None
    call_s = warm_up(call, wait)
    homes = {"home": str(offer.plugin.home), "harness": str(Path(harness.__file__).parent)}
    return {**homes, "region": region, "call_s": call_s}, call, wait


def load(name: str) -> Any:
    """ "module:function" to the function."""
    module, _, path = name.partition(":")
    return getattr(importlib.import_module(module), path)


def make_inputs(spec: Any, params: Any, device: str, dtype: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    inputs: dict[str, torch.Tensor] = load(spec.inputs)(params, generator, torch.device(device), getattr(torch, dtype))
    if params.layout == "contiguous":
        return inputs
    from harness.kernels.layouts import lay_out

    return dict(lay_out(inputs, spec.data, params.layout))


def caller(run: Any, inputs: Mapping[str, torch.Tensor], params: Any, region: str) -> Callable[[], object]:
    leaves = [t for t in inputs.values() if t.requires_grad]

    def forward() -> object:
        with torch.no_grad():
            return run(inputs, params)

    if region == "forward":
        return forward
    outputs = as_tuple(run(inputs, params))
    upstream = [torch.ones_like(o) for o in outputs]
    if region == "backward":
        return lambda: torch.autograd.grad(outputs, leaves, upstream, retain_graph=True)
    if region == "forward_backward":
        return lambda: torch.autograd.grad(as_tuple(run(inputs, params)), leaves, upstream)
    raise LookupError(f"region {region!r}; write forward, backward or forward_backward")


def as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def warm_up(call: Callable[[], object], wait: Callable[[], None]) -> float:
    """Seconds of the last call, by wall."""
    began, calls = time.perf_counter(), 0
    while True:
        last = measure(call, wait, 1)["wall_s"]
        calls += 1
        if calls >= WARM_UP_CALLS and time.perf_counter() - began >= WARM_UP_S:
            return last


def compare_with_reference(spec: Any, run: Any, inputs: Mapping[str, torch.Tensor], params: Any, dtype: str) -> None:
    """Outputs and gradients against float64; raises ArithmeticError. The full checks are those of `harness run`: this only
    keeps a commit that computes something else from being called faster."""
    exact = {n: t.detach().double().requires_grad_(t.requires_grad) for n, t in inputs.items()}
    allowed = spec.tolerance[dtype]
    results = zip(values(run, inputs, params, spec), values(load(spec.reference), exact, params, spec), strict=True)
    for number, (got, expected) in enumerate(results):
        if got.shape != expected.shape:
            raise ArithmeticError(f"result {number} has shape {tuple(got.shape)}, not {tuple(expected.shape)}")
        if expected.numel():
            error = ((got.double() - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()
            if not error <= allowed:
                raise ArithmeticError(f"wrong result: error {error:.2g} of result {number}; allowed is {allowed:.2g}")


def values(run: Any, inputs: Mapping[str, torch.Tensor], params: Any, spec: Any) -> Iterator[torch.Tensor]:
    """The outputs, then the gradients of all inputs that have one."""
    outputs = as_tuple(run(inputs, params))
    yield from (o.detach() for o in outputs)
    if spec.backward:
        leaves = [t for t in inputs.values() if t.requires_grad]
        yield from torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs])


if __name__ == "__main__":
    main()
