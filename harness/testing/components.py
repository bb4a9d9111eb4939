"""The checks on a component by itself, outside of any net: built at each place, called, saved and loaded."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from harness.errors import Unsupported
from harness.lab import Place
from harness.specs import Component
from harness.testing.findings import Report
from harness.testing.watching import RANDOM_STATES, digest_of, kept_state, watched_seeding
from harness.worker.resolving import resolve

FEATURES = 16
ITEMS = 24
SHAPES = {0: (ITEMS, FEATURES), 1: (ITEMS, 5, FEATURES), 2: (ITEMS, FEATURES, 6, 6)}
PLACED = ("activation", "norm", "norm_act")
DTYPES = (torch.float32, torch.float64)
# On CUDA sums are taken in another order; in float64 that is all that differs.
CLOSE = 1e-9  # relative, and absolute


@dataclass(frozen=True)
class Position:
    """A place that a component can be put to: how it is built, the inputs that it gets and the outputs that it owes."""

    name: str
    build: Callable[[], nn.Module]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def examine_component(spec: Component, params: Any, report: Report) -> None:
    """What it does by itself, into the report: all checks of CHECKS that need no training."""
    build = resolve(spec.build, f"component {spec.name!r}: build")
    if spec.kind == "optimizer":
        examine_optimizer(build, params, report)
        return
    if spec.kind == "loss":
        examine_loss(build, params, report)
        return
    fits = 0
    for position in positions(spec, build, params):
        try:
            examine_position(position, report)
        except Unsupported:
            continue
        fits += 1
    if not fits:
        report.add("runs", "build raises Unsupported at every place", "let it fit one of dims 0, 1 and 2 at 16 features")


def positions(spec: Component, build: Callable[..., Any], params: Any) -> Iterator[Position]:
    if spec.kind == "linear":
        yield Position("(16 -> 8)", lambda: build(FEATURES, 8, params), SHAPES[0], (ITEMS, 8))
    elif spec.kind == "conv":
        yield Position("stride 1", lambda: build(FEATURES, 8, 3, 1, params), SHAPES[2], (ITEMS, 8, 6, 6))
        yield Position("stride 2", lambda: build(FEATURES, 8, 3, 2, params), SHAPES[2], (ITEMS, 8, 3, 3))
    else:
        for dims, shape in SHAPES.items():
            yield Position(f"dims {dims}", partial(build, Place(FEATURES, dims), params), shape, shape)


def examine_position(position: Position, report: Report) -> None:
    at = f"at {position.name}"
    with kept_state() as changed:
        for dtype in DTYPES:
            examine_dtype(position, dtype, report)
        examine_device(position, report)
        examine_saving(position, report)
        examine_seeding(position, report)
        torch.manual_seed(0)
        examine_left(changed(), f"{at}: building and calling it", report)


def examine_dtype(position: Position, dtype: torch.dtype, report: Report) -> None:
    module, x = make(position, dtype, seed=1), draw(position.inputs, dtype)
    kept = x.clone()
    given = x.requires_grad_()
    y = module(given * 1)  # not a leaf: what a net hands over
    at = f"at {position.name} in {dtype_name(dtype)}"
    if not isinstance(y, Tensor):
        report.add("runs", f"{at}: it returns {type(y).__name__}", "return one tensor; drop states that it also returns")
        return
    if tuple(y.shape) != position.outputs:
        report.add("runs", f"{at}: it returns shape {tuple(y.shape)} for {position.inputs}", f"return {position.outputs}")
    if y.dtype != dtype:
        report.add("dtype", f"{at}: it returns {dtype_name(y.dtype)}", "compute in the input's dtype, or cast back to it")
    elif y.requires_grad:
        y.sum().backward()  # type: ignore[no-untyped-call]
        if given.grad is not None and given.grad.dtype != dtype:
            report.add("dtype", f"{at}: its gradient is {dtype_name(given.grad.dtype)}", "cast it to the input's dtype")
    for call in (module.eval(), module.train()):
        plain = kept.clone()
        with torch.no_grad():
            call(plain)
        if not torch.equal(plain, kept):
            report.add("inputs_kept", f"{at}: a call changes its input in place", "use the operation that returns a new tensor")
            break


def examine_device(position: Position, report: Report) -> None:
    at = f"at {position.name}"
    try:
        with torch.device("meta"):
            module = position.build()
        y = module.to("meta")(torch.empty(position.inputs, device="meta"))
        if isinstance(y, Tensor) and not y.is_meta:
            report.add("device", f"{at}: for an input on 'meta' it returns a tensor on {y.device}", "make tensors on x.device")
    except Unsupported:
        raise
    except Exception as exc:
        mend = "make tensors with device=x.device, and branch on no values"
        report.add("device", f"{at}: it fails on the meta device: {type(exc).__name__}: {first_line(exc)}", mend)
    if not torch.cuda.is_available():
        report.skipped["cpu_cuda"] = "no CUDA device here"
        return
    module, x = make(position, torch.float64, seed=1), draw(position.inputs, torch.float64)
    with torch.no_grad():
        here = module(x)
        there = module.to("cuda")(x.to("cuda"))
    if there.device.type != "cuda":
        report.add("device", f"{at}: for an input on CUDA it returns a tensor on {there.device}", "make tensors on x.device")
    elif not torch.allclose(here, there.cpu(), rtol=CLOSE, atol=CLOSE):
        gap = float((here - there.cpu()).abs().max())
        report.add("cpu_cuda", f"{at}: CPU and CUDA differ by {gap:.2g} in float64", "look at what the CUDA path computes")


def examine_saving(position: Position, report: Report) -> None:
    """What a state_dict holds must be all: a module built anew and given it must answer alike, after some training steps."""
    at, dtype = f"at {position.name}", torch.float32
    module, other = make(position, dtype, seed=1), make(position, dtype, seed=2)
    for seed in range(3):  # running statistics move
        module(draw(position.inputs, dtype, seed=10 + seed))
    state = {name: t.contiguous() for name, t in module.state_dict().items() if isinstance(t, Tensor)}
    try:
        other.load_state_dict(load_bytes(save_bytes({name: t.clone() for name, t in state.items()})), strict=True)
    except Exception as exc:
        text = f"{at}: its state_dict cannot be loaded into a module built anew: {first_line(exc)}"
        report.add("save_load", text, "give every module the same parameters and buffers, whatever it has seen")
        return
    x = draw(position.inputs, dtype, seed=20)
    with torch.no_grad():
        same = torch.equal(module.eval()(x), other.eval()(x))
    if not same:
        text = f"{at}: saved and loaded, it gives other outputs"
        report.add("save_load", text, "register what it needs with nn.Parameter or register_buffer")


def examine_seeding(position: Position, report: Report) -> None:
    with watched_seeding() as seeded, torch.random.fork_rng(devices=[]):
        position.build()
    if seeded:
        text = f"at {position.name}: build seeds a generator of its own: {', '.join(sorted(set(seeded)))}"
        report.add("other_seed", text, "draw from torch's global generator, or offer `reset(generator)`")


def make(position: Position, dtype: torch.dtype, seed: int) -> nn.Module:
    """Built as a net builds it: in the trial's dtype, global generators at the seed; resettable layers reset."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        module = position.build()
    finally:
        torch.set_default_dtype(before)
    if not isinstance(module, nn.Module):
        raise TypeError(f"build returned {type(module).__name__}; return a torch.nn.Module")
    if callable(reset := getattr(module, "reset", None)):
        with torch.no_grad(), contextlib.suppress(TypeError):  # a `reset` of another meaning
            reset(torch.Generator().manual_seed(seed))
    return module.to(dtype)


def draw(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# Optimizers and losses --------------------------------------------------------------------------------------------------


def loads(optimizer: Any, saved: io.BytesIO, report: Report) -> bool:
    """Whether it takes back a state that was saved, read as a file of a stranger has to be: as tensors, numbers and text."""
    try:
        optimizer.load_state_dict(torch.load(saved, weights_only=True))
    except Exception as exc:  # pickle's own, and whatever the optimizer raises
        what = f"its saved state cannot be loaded safely: {exc}"
        report.add("save_load", what, "keep tensors, numbers and text in self.state only")
        return False
    return True


def examine_optimizer(build: Callable[..., Any], params: Any, report: Report) -> None:
    """On a small quadratic: the dtype of the weights stays, and after a round trip of its state the next steps are equal."""
    with kept_state() as changed:
        for dtype in DTYPES:
            weights = start(dtype)
            optimizer = build(groups(weights), params)
            descend(optimizer, weights, steps=3)
            if any(w.dtype != dtype for w in weights):
                report.add(
                    "dtype", f"its step changes the dtype of {dtype_name(dtype)} weights", "update in the weight's dtype"
                )
        weights = start(torch.float32)
        first = build(groups(weights), params)
        descend(first, weights, steps=3)
        copies = [nn.Parameter(w.detach().clone()) for w in weights]
        second = build(groups(copies), params)
        stream = io.BytesIO()
        torch.save(first.state_dict(), stream)
        stream.seek(0)
        if loads(second, stream, report):
            for optimizer, own in ((first, weights), (second, copies)):
                torch.manual_seed(5)
                descend(optimizer, own, steps=3)
            if digest_of([w.detach() for w in weights]) != digest_of([w.detach() for w in copies]):
                what = "after its state was saved and loaded it steps otherwise"
                report.add("save_load", what, "keep all of its state in self.state")
        torch.manual_seed(0)
        examine_left(changed(), "a step", report)
    report.skipped.setdefault("device", "an optimizer makes no tensors of its own that a net could see")
    report.skipped.setdefault("cpu_cuda", "compared in training only")


def start(dtype: torch.dtype) -> list[nn.Parameter]:
    return [nn.Parameter(draw((4, 3), dtype)), nn.Parameter(draw((3,), dtype, seed=8))]


def groups(weights: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": [weights[0]], "lr": 0.01, "weight_decay": 0.01},
        {"params": [weights[1]], "lr": 0.01, "weight_decay": 0.0},
    ]


def descend(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], steps: int) -> None:
    x = draw((8, 4), weights[0].dtype, seed=9)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        (x @ weights[0] + weights[1]).square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def examine_loss(build: Callable[..., Any], params: Any, report: Report) -> None:
    """On logits of ten classes."""
    labels = torch.arange(ITEMS) % 10
    with kept_state() as changed:
        for dtype in DTYPES:
            torch.manual_seed(1)
            loss = build(params)
            loss = loss.to(dtype) if isinstance(loss, nn.Module) else loss
            logits = draw((ITEMS, 10), dtype)
            kept, kept_labels = logits.clone(), labels.clone()
            value = loss(logits.requires_grad_() * 1, labels)
            if not isinstance(value, Tensor) or value.ndim:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                report.add("runs", f"it returns {shape} for logits (24, 10)", "return a scalar: the mean over the batch")
                break
            if value.dtype != dtype:
                report.add("dtype", f"it returns {dtype_name(value.dtype)} for {dtype_name(dtype)} logits", "keep their dtype")
            plain = kept.clone()
            with torch.no_grad():
                loss(plain, labels)
            if not torch.equal(plain, kept) or not torch.equal(labels, kept_labels):
                report.add("inputs_kept", "it changes its logits or labels in place", "use operations that return new tensors")
                labels = kept_labels
        torch.manual_seed(0)
        examine_left(changed(), "a call", report)
    report.skipped.setdefault("device", "a loss is called on the net's device only")
    report.skipped.setdefault("cpu_cuda", "compared in training only")


def examine_left(changed: Iterable[str], what: str, report: Report) -> None:
    """What a call left changed, random states aside: these are set before it for it to draw from."""
    for name in changed:
        if name not in RANDOM_STATES:
            report.add("state_restored", f"{what} changes {name}", "put it back, or leave it alone")


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [""])[0]
