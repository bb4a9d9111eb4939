"""A network that a user hands in, as a `Network`: an ONNX file, or `module:callable` that gives a torch.nn.Module.

What was read is compared with the original at random inputs; a network that differs is refused.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from harness import HarnessError
from harness_papers.lipsdp.activations import Array
from harness_papers.lipsdp.lowering import Shape, lower
from harness_papers.lipsdp.modules import double, read_module, state_of
from harness_papers.lipsdp.onnx_files import BROKEN, import_onnx, in_float64, read_model
from harness_papers.lipsdp.onnx_nodes import read_graph
from harness_papers.lipsdp.problems import Network
from harness_papers.lipsdp.sampling import forward

COMPARED = 16  # random inputs, half of them ten times as large
# Both are float64; what differs is the order of sums, and float32's 0.01 as the leak.
TOLERANCE = 1e-6

Original = Callable[[Array], Array]


@dataclass(frozen=True)
class Imported:
    """A network, and how far it is from its original: the largest difference at random inputs, over what the output moves."""

    network: Network
    source: str
    shape: Shape
    difference: float


def import_network(
    source: str,
    *,
    shape: Shape | None = None,
    norm: Literal["l2", "linf"] = "l2",
    group: int | None = None,
    sorting: Sequence[str] = (),
) -> Imported:
    """Read, lower and compare. source: an ONNX file, or "module:callable" with a module that Python finds from here.

    shape: of the input without the batch, where the source leaves it open. group, sorting: see `modules.read_module`.
    Raises HarnessError with what, where and the mend; MissingError where onnx is not installed.
    """
    if source.endswith(".onnx") or Path(source).is_file():
        return import_onnx_file(Path(source), shape, norm)
    if ":" not in source:
        raise HarnessError(f"{source!r}: no such file; name an ONNX file, or module:callable, as in mynet:make")
    found = call(source)
    if isinstance(found, Network):
        return Imported(replace(found, norm=norm), source, (found.weights[0].shape[1],), 0.0)
    if not isinstance(found, nn.Module):
        raise HarnessError(f"{source}: it gave a {type(found).__name__}; give a torch.nn.Module (or a Network)")
    try:
        steps, given = read_module(found, shape, sorting, group)
        original, network = double(found), lower(steps, given, norm)
    except BROKEN as exc:  # of the user's own module
        raise HarnessError(f"{source}: {type(exc).__name__}: {one_line(exc)}; it cannot be copied or read as it is") from exc
    before = state_of(original)
    read = compared(network, source, given, lambda x: original(torch.as_tensor(x)).numpy())
    changed = [name for name, held in state_of(original).items() if not torch.equal(held, before[name])]
    if changed:
        raise HarnessError(
            f"{source}: its forward changes {changed[0]!r}; a network that changes as it is used has no constant"
        )
    return read


def import_onnx_file(path: Path, shape: Shape | None, norm: Literal["l2", "linf"]) -> Imported:
    model = read_model(path)
    steps, given = read_graph(model, path, shape)
    try:
        network = lower(steps, given, norm)
        evaluator = import_onnx().reference.ReferenceEvaluator(in_float64(model))
    except BROKEN as exc:
        raise HarnessError(f"{path}: its nodes do not fit together: {one_line(exc)}") from exc
    (name,) = (i.name for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer})
    return compared(network, str(path), given, lambda x: evaluator.run(None, {name: x})[0])


def call(source: str) -> Any:
    """What the callable of "module:callable" gives. The working folder comes first on Python's path, as in `python -m`."""
    module_name, _, attribute = source.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found if isinstance(found, nn.Module | Network) else found()
    except Exception as exc:  # the user's own code
        raise HarnessError(
            f"{source}: {type(exc).__name__}: {one_line(exc)}; it must import, and give a module when called"
        ) from exc


@torch.no_grad()
def compared(network: Network, source: str, shape: Shape, original: Original) -> Imported:
    """Raises HarnessError where the network is not what the original computes."""
    inputs = np.random.default_rng(0).standard_normal((COMPARED, *shape)) * np.where(
        np.arange(COMPARED) % 2, 10.0, 1.0
    ).reshape(-1, *[1] * len(shape))
    ours = forward(network, inputs.reshape(COMPARED, -1))[0]
    try:
        theirs = np.stack([np.asarray(original(x[None]), dtype=np.float64).reshape(-1) for x in inputs])
    except Exception as exc:  # the user's own code, or an evaluator's on a file of anybody's
        raise HarnessError(f"{source}: it cannot be evaluated for comparison: {type(exc).__name__}: {one_line(exc)}") from exc
    if theirs.shape != ours.shape:
        raise HarnessError(
            f"{source}: it gives {theirs.shape[1]} numbers, and what was read of it {ours.shape[1]}; please report it"
        )
    # A large constant in the output must not hide a difference in what moves; nor its own rounding make one.
    moves = abs(theirs - theirs.mean(axis=0)).max() + 1e-6 * abs(theirs).max()
    difference = float(abs(ours - theirs).max() / max(moves, 1e-300))
    if not difference <= TOLERANCE:
        raise HarnessError(
            f"{source}: what was read of it differs from it at random inputs, by {difference:.2g} of what its output moves; "
            f"{TOLERANCE:g} would be rounding, so a part of it is not what its type says"
        )
    return Imported(network, source, shape, difference)


def one_line(exc: BaseException) -> str:
    text = " ".join(str(exc).split())
    return text if len(text) <= 300 else f"{text[:297]}..."
