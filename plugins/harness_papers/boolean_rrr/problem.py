"""The track `boolean`: what a task hands over, what must come back, and the layered net that all methods here return.

Bits are coded -1 / +1 as int8; inputs may be analog, float in [-1, 1]. A layer's weights are (width, 1 + width before it),
float; column 0 belongs to the bias source, a node whose value is always -1. NumPy only: loading and scoring need no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.int8]
Values = NDArray[np.int8] | NDArray[np.floating]  # bits, or analog values in [-1, 1]
Weights = tuple[NDArray[np.floating], ...]
Activation = Literal["sign", "relu", "tanh"]


class ProblemError(ValueError):
    """Data or widths that make no Boolean problem; the text names what and the mend."""


def as_bits(values: Any, name: str) -> Bits:
    """values (items, bits), coded 0 / 1 or -1 / +1, as -1 / +1. Raises ProblemError for anything else."""
    array = np.asarray(values)
    if array.ndim != 2:
        raise ProblemError(f"{name}: shape {array.shape}; give (items, bits)")
    found = set(np.unique(array).tolist())
    if not (found <= {0, 1} or found <= {-1, 1}):
        wrong = found - {-1, 0, 1} or {-1, 0}  # both codings at once is as wrong as a value of neither
        raise ProblemError(f"{name}: holds {sorted(wrong, key=str)[:3]}; code every bit as 0 / 1, or every bit as -1 / +1")
    return np.where(array > 0, 1, -1).astype(np.int8)


@dataclass(frozen=True)
class Table:
    """Inputs (items, inputs) with the output bits (items, outputs) that belong to them. Inputs are bits, or analog."""

    inputs: Values
    outputs: Bits

    def __post_init__(self) -> None:
        for name, bits in (("inputs", self.inputs), ("outputs", self.outputs)):
            if name == "inputs" and bits.ndim == 2 and np.issubdtype(bits.dtype, np.floating):
                if not (np.abs(bits) <= 1).all():  # NaN fails too
                    raise ProblemError("inputs: not all in [-1, 1]; scale analog inputs to that range")
            elif bits.ndim != 2 or not np.isin(bits, (-1, 1)).all():
                raise ProblemError(f"{name}: shape {bits.shape}, not all -1 / +1; convert with as_bits first")
        if len(self.inputs) != len(self.outputs) or len(self.inputs) == 0:
            raise ProblemError(f"{len(self.inputs)} inputs, {len(self.outputs)} outputs; give one output row an input row")
        self._check_consistent()

    def _check_consistent(self) -> None:
        """One input with two outputs has no circuit: say so before a search runs its whole budget for nothing."""
        _, first, group = np.unique(self.inputs, axis=0, return_index=True, return_inverse=True)
        earlier = first[group.reshape(-1)]
        same = (self.outputs == self.outputs[earlier]).all(axis=1)
        if not same.all():
            item = int(np.argmin(same))
            raise ProblemError(f"items {int(earlier[item])} and {item} have one input and two outputs; remove one of them")


@dataclass(frozen=True)
class BooleanProblem:
    """Find a layered net of Boolean threshold functions that maps the table's inputs to its outputs.

    widths: nodes of each layer, inputs first, the bias source not counted. sigma: the support parameter that the protocol of
    the paper uses for this task (margin = sqrt(fan-in / sigma)); gapstop: the gap at which it calls the task solved.
    """

    table: Table
    widths: tuple[int, ...]
    sigma: float = 3.0
    gapstop: float = 0.01

    def __post_init__(self) -> None:
        check_widths(self.widths)
        ends = (self.table.inputs.shape[1], self.table.outputs.shape[1])
        if (self.widths[0], self.widths[-1]) != ends:
            raise ProblemError(f"widths {self.widths}: the ends must be {ends}, the data's input and output bits")
        if not (self.sigma > 0 and self.gapstop > 0):
            raise ProblemError(f"sigma={self.sigma}, gapstop={self.gapstop}; both must be positive")

    @property
    def items(self) -> int:
        return len(self.table.inputs)

    @property
    def analog(self) -> bool:
        """Whether inputs are other numbers than -1 and +1."""
        return bool(np.issubdtype(self.table.inputs.dtype, np.floating))

    @property
    def edges(self) -> int:
        """Weights of the net, those of the bias source included."""
        return sum((1 + before) * width for before, width in zip(self.widths, self.widths[1:], strict=False))


def check_widths(widths: Sequence[int]) -> None:
    """Raises ProblemError unless there are two layers or more, each with a node."""
    if len(widths) < 2:
        raise ProblemError(f"widths {tuple(widths)}: give at least the input and the output layer")
    for layer, width in enumerate(widths):
        if width < 1:
            effect = f"layer {layer + 1} would have fan-in 0" if layer + 1 < len(widths) else "the net would have no output"
            raise ProblemError(f"widths {tuple(widths)}: layer {layer} has {width} nodes, so {effect}; give at least 1")


@runtime_checkable
class BooleanNet(Protocol):
    """What a method of the track returns.

    weights: per layer (width, 1 + width before it), column 0 for the bias source -1; predict: bits (items, inputs) -> bits
    (items, outputs), both -1 / +1, by the method's own forward pass. The scorer also runs the weights as a circuit of
    threshold functions, whatever `predict` does.
    """

    weights: Weights

    def predict(self, bits: Bits) -> Bits: ...


@dataclass(frozen=True)
class LayeredNet:
    """Weights and the activation of the hidden nodes; an output bit is the sign of the last pre-activation.

    With activation "sign" every node is exactly -1 or +1: a circuit of Boolean threshold functions.
    """

    weights: Weights
    activation: Activation = "sign"

    def predict(self, bits: Values) -> Bits:
        return sign_bits(self.pre_activations(bits)[-1])

    def pre_activations(self, bits: Values) -> list[NDArray[np.floating]]:
        """w.x of every node, per layer (items, width)."""
        values = np.asarray(bits, dtype=self.weights[0].dtype)
        found = []
        # A net that diverges overflows here before its learner sees a loss that is not finite; that is no news.
        with np.errstate(over="ignore", invalid="ignore"):
            for weight in self.weights:
                found.append(values @ weight[:, 1:].T - weight[:, 0])
                values = ACTIVATIONS[self.activation](found[-1])
        return found


def sign_bits(values: NDArray[np.floating]) -> Bits:
    """+1 where positive, else -1: a tie counts as -1, as in the authors' program."""
    return np.where(values > 0, 1, -1).astype(np.int8)


ACTIVATIONS: dict[str, Callable[[NDArray[np.floating]], NDArray[np.floating]]] = {
    "sign": lambda z: np.where(z > 0, 1, -1).astype(z.dtype),
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
}


def bit_share(net: BooleanNet, table: Table) -> float:
    """Share of correct output bits, in [0, 1]."""
    return float((net.predict(table.inputs) == table.outputs).mean())


def inference(solution: BooleanNet, problem: BooleanProblem, ctx: Any) -> Callable[[], Bits]:
    """What a timing trial times: one forward pass of all training items."""
    return lambda: solution.predict(problem.table.inputs)
