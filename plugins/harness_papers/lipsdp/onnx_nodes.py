"""The nodes of an ONNX model as steps: one chain from the input to the output, read in float64.

Nodes are looked up by their type; only index arithmetic and what is constant is left to onnx's own evaluator.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness import HarnessError
from harness_papers.lipsdp.activations import Array
from harness_papers.lipsdp.lowering import (
    MOST_ENTRIES,
    Affine,
    Elementwise,
    Shape,
    Sorted,
    Step,
    groups_along,
    normalised,
    require_size,
    reshaped,
    scaled,
    shifted,
)
from harness_papers.lipsdp.onnx_files import BROKEN, import_onnx, to_array

ELEMENTWISE = {"Relu": "relu", "LeakyRelu": "leaky_relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
# What may be computed from constants alone: how exporters write shapes and transposed weights.
GROWING = {"Gather", "Add", "Sub", "Mul", "Div"}  # their result has at most the product of the inputs' numbers
FOLDED = GROWING | {"Constant", "Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Concat", "Shape"}
OLDEST = 7  # before it, Add and Mul had axes of their own, and Dropout dropped
UNDERSTOOD = (
    "Gemm, MatMul, Add, Sub, Mul, Div, Conv, AveragePool, GlobalAveragePool, BatchNormalization, Flatten, Reshape, Squeeze, "
    "Unsqueeze, Relu, LeakyRelu, Tanh, Sigmoid; GroupSort as Reshape, TopK of all, Reshape, and MaxMin as Split or Slice, Max "
    "and Min, Concat"
)
MENDS = {
    "MaxPool": "a maximum is not affine; use AveragePool, or a Conv with strides",
    "Softmax": "leave it out: export the network that gives logits",
    "LogSoftmax": "leave it out: export the network that gives logits",
    "If": "export the network without branches", "Loop": "export the network without loops",
    "Gelu": "its slopes are not implemented", "Elu": "its slopes are not implemented", "Selu": "its slopes are not implemented",
}  # fmt: skip


def read_graph(model: Any, path: Path, shape: Shape | None) -> tuple[list[Step], Shape]:
    """(steps, input shape without the batch) of a parsed file. shape: where the file leaves it open.

    Raises HarnessError, which names file, node and type, for all that is not understood.
    """
    graph = model.graph
    require_plain(model, path)
    constants = {t.name: to_array(t, f"{path}: weight {t.name!r}") for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise HarnessError(
            f"{path}: {len(inputs)} inputs and {len(graph.output)} outputs; a network with one of each can be certified"
        )
    given = input_shape(inputs[0], path, shape)
    reading = Reading(model, path, constants, inputs[0].name, given)
    try:
        steps = list(reading.steps())
    except BROKEN as exc:
        raise HarnessError(f"{reading.where}: its inputs do not fit together: {' '.join(str(exc).split())[:300]}") from exc
    if reading.flowing != graph.output[0].name:
        raise HarnessError(f"{path}: the output {graph.output[0].name!r} is not what the last node gives")
    return steps, given


def require_plain(model: Any, path: Path) -> None:
    """That types and names mean what the tables here say. Raises HarnessError."""
    standard = ("", "ai.onnx")
    opsets = [one.version for one in model.opset_import if one.domain in standard]
    if len(opsets) != 1 or opsets[0] < OLDEST:
        said = " and ".join(map(str, opsets)) or "none"
        raise HarnessError(f"{path}: opset {said}, whose operators mean something else; export it with {OLDEST} or later")
    replaced = [one.name for one in model.functions if one.domain in standard]
    if replaced:
        raise HarnessError(f"{path}: it has functions in place of ONNX's own {replaced}; export the network without them")
    names = [tensor.name for tensor in model.graph.initializer]
    if len(set(names)) < len(names) or model.graph.sparse_initializer:
        raise HarnessError(f"{path}: a weight that is given twice, or is sparse; write each once, with all its numbers")
    proto = import_onnx().TensorProto
    for value in model.graph.input:
        if value.type.tensor_type.elem_type not in (proto.FLOAT, proto.DOUBLE, proto.FLOAT16, proto.BFLOAT16):
            raise HarnessError(f"{path}: input {value.name!r} holds no floating-point numbers; export it with those")


def input_shape(value: Any, path: Path, shape: Shape | None) -> Shape:
    """Without the batch, which must be the first axis and open or 1."""
    dims = value.type.tensor_type.shape.dim
    known = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    where = f"{path}: input {value.name!r}"
    if shape is None:
        if len(known) < 2:
            raise HarnessError(f"{where}: of shape {list(known)}; a batch of 1 must be its first axis (or give --input-shape)")
        if any(n is None or n < 1 for n in known[1:]):
            raise HarnessError(f"{where}: shape {list(known)} is open; give it without the batch, as in --input-shape 1,28,28")
        shape = tuple(int(n) for n in known[1:] if n is not None)
    if known and known[0] not in (None, 0, 1):
        raise HarnessError(f"{where}: a batch of {known[0]}; export the network with a batch of 1, or an open one")
    fits = len(known) == len(shape) + 1 and all(n in (None, m) for n, m in zip(known[1:], shape, strict=True))
    if known and not fits:
        raise HarnessError(f"{where}: of shape {list(known)}, and {list(shape)} was asked for")
    require_size(shape, shape, where)
    return shape


class Reading:
    """One pass over the nodes, in their order: a chain from the input to the output, beside it what is constant."""

    def __init__(self, model: Any, path: Path, constants: dict[str, Array], start: str, shape: Shape) -> None:
        self.path, self.constants, self.flowing, self.shape = path, constants, start, shape
        self.nodes, self.opsets, self.where = list(model.graph.node), list(model.opset_import), f"{path}"
        self.shapes = {start: shape}  # of all that flowed
        self.named = {start, *constants}
        # Parts of what flows now, and no longer than it flows: places in its flattened shape, before Max and Min.
        self.taken: dict[str, Array] = {}
        self.pairs: dict[str, tuple[str, Array]] = {}  # ("Max" or "Min", (pairs, 2) places)
        self.chosen: dict[str, Shape] = {}  # their shapes

    def steps(self) -> Iterator[Step]:
        for index, node in enumerate(self.nodes):
            self.where = f"{self.path}: node {node.name or index!r} ({node.op_type})"
            if node.domain not in ("", "ai.onnx"):
                raise HarnessError(f"{self.where}: of the domain {node.domain!r}; only ONNX's own operators are understood")
            self.require_new(node.output)
            if len({a.name for a in node.attribute}) < len(node.attribute):
                raise HarnessError(f"{self.where}: an attribute that is given twice; give each once")
            if not self.fold(node) and not self.select(node):
                yield from self.flow(node)

    def require_new(self, names: Sequence[str]) -> None:
        """A name stands for one tensor: looked up by it, one that is given twice could be the wrong one."""
        for name in filter(None, names):
            if name in self.named:
                raise HarnessError(f"{self.where}: it gives {name!r}, a name that is taken; give each tensor a name of its own")
            self.named.add(name)

    def fold(self, node: Any) -> bool:
        """Compute a node of constants, or the shape of what flows."""
        if node.op_type == "Shape" and node.input[0] in self.shapes:
            whole = (1, *self.shapes[node.input[0]])
            start, end = (self.attribute(node, name, None) for name in ("start", "end"))
            self.constants[node.output[0]] = np.array(whole[slice(start, end)], dtype=np.int64)
            return True
        if any(name and name not in self.constants for name in node.input):
            return False
        if node.op_type not in FOLDED:
            raise self.refused(node)
        if node.op_type == "Constant":
            self.constants[node.output[0]] = self.constant(node)
            return True
        sizes = [self.constants[name].size for name in node.input if name]
        if (prod(sizes) if node.op_type in GROWING else sum(sizes)) > MOST_ENTRIES:
            raise HarnessError(f"{self.where}: constants of {sizes} numbers; the limit is {MOST_ENTRIES}")
        (made,) = self.evaluate(node, {})
        self.constants[node.output[0]] = made.astype(np.float64) if made.dtype.kind == "f" else made
        return True

    def evaluate(self, node: Any, feeds: dict[str, Array]) -> list[Array]:
        """What onnx's own evaluator makes of one node, of constants and `feeds`."""
        onnx = import_onnx()
        feeds = {name: self.constants[name] for name in node.input if name in self.constants} | feeds
        undefined = onnx.TensorProto.UNDEFINED
        inputs, outputs = (
            [onnx.helper.make_tensor_value_info(name, undefined, None) for name in names if name]
            for names in (node.input, node.output)
        )
        alone = onnx.helper.make_model(onnx.helper.make_graph([node], "alone", inputs, outputs), opset_imports=self.opsets)
        return [np.asarray(made) for made in onnx.reference.ReferenceEvaluator(alone).run(None, feeds)]

    def constant(self, node: Any) -> Array:
        (given,) = node.attribute
        if given.name == "value":
            return to_array(given.t, self.where)
        return np.asarray(import_onnx().helper.get_attribute_value(given))

    # MaxMin: parts of what flows, their maxima and minima, put together ------------------------------------------------------

    def select(self, node: Any) -> bool:
        """Follow Split, Slice, Max and Min, up to the Concat that `flow` sees."""
        if node.op_type in ("Split", "Slice") and node.input[0] == self.flowing:
            places = np.arange(prod(self.shape)).reshape(1, *self.shape)
            for name, part in zip(node.output, self.parts(node, places), strict=True):
                self.taken[name], self.chosen[name] = part.ravel(), part.shape[1:]
            return True
        if node.op_type in ("Max", "Min") and len(node.input) == 2 and set(node.input) <= set(self.taken):
            one, other = (self.taken[name] for name in sorted(node.input))
            if self.chosen[node.input[0]] != self.chosen[node.input[1]]:
                raise HarnessError(f"{self.where}: of parts of different shapes")
            self.pairs[node.output[0]] = (node.op_type, np.stack([one, other], axis=1))
            self.chosen[node.output[0]] = self.chosen[node.input[0]]
            return True
        return False

    def parts(self, node: Any, places: Array) -> list[Array]:
        """What Split or Slice takes of an array. Their own evaluator does it: it is all index arithmetic."""
        return self.evaluate(node, {node.input[0]: places})

    def joined(self, node: Any) -> Sorted:
        """Max and Min of the same pairs, put one behind the other."""
        (kind, pairs), (other, same) = (self.pairs[name] for name in node.input)
        if {kind, other} != {"Max", "Min"} or not np.array_equal(pairs, same) or len(np.unique(pairs)) != prod(self.shape):
            raise HarnessError(f"{self.where}: not the maxima and the minima of the same pairs of all units")
        places = {}
        axis = self.attribute(node, "axis", 0)
        whole = np.concatenate([np.full((1, *self.chosen[n]), i) for i, n in enumerate(node.input)], axis=axis)
        for i, name in enumerate((kind, other)):
            places[name] = np.flatnonzero(whole.ravel() == i)
        self.shape = whole.shape[1:]
        return Sorted(self.where, pairs, np.stack([places["Max"], places["Min"]], axis=1))

    # What flows -------------------------------------------------------------------------------------------------------------

    def flow(self, node: Any) -> Iterator[Step]:
        """The step of a node that takes what flows, and nothing else that is not constant."""
        if node.op_type == "Concat" and len(node.input) == 2 and set(node.input) <= set(self.pairs):
            yield self.joined(node)
        else:
            unknown = [name for name in node.input if name and name not in self.constants and name != self.flowing]
            if unknown or self.flowing not in node.input:
                raise HarnessError(
                    f"{self.where}: it takes {unknown or list(node.input)}, which is not what the node before gives; "
                    "networks with skips or branches are not supported"
                )
            yield from self.step(node)
        self.flowing = node.output[0]
        self.shapes[self.flowing] = self.shape
        for parts in (self.taken, self.pairs, self.chosen):
            parts.clear()

    def step(self, node: Any) -> Iterator[Step]:
        kind = node.op_type
        if kind in ("Identity", "Dropout", "Cast"):
            self.require_nothing(node)
            return
        if kind in ELEMENTWISE:
            yield Elementwise(self.where, ELEMENTWISE[kind], float(self.attribute(node, "alpha", 0.01)))
            return
        readers: dict[str, Callable[[Any], Step]] = {
            "Gemm": self.gemm, "MatMul": self.matmul, "Add": self.arithmetic, "Sub": self.arithmetic, "Mul": self.arithmetic,
            "Div": self.arithmetic, "Neg": self.negative, "Conv": self.convolution, "AveragePool": self.pool,
            "GlobalAveragePool": self.pool_all, "BatchNormalization": self.normalisation, "Flatten": self.flatten,
            "Reshape": self.reshape, "Squeeze": self.reshape, "Unsqueeze": self.reshape, "TopK": self.top,
        }  # fmt: skip
        if kind not in readers:
            raise self.refused(node)
        yield readers[kind](node)

    def refused(self, node: Any) -> HarnessError:
        return HarnessError(f"{self.where}: not supported; {MENDS.get(node.op_type, f'use {UNDERSTOOD}')}")

    def require_nothing(self, node: Any) -> None:
        """That Dropout drops nothing and that a Cast keeps numbers."""
        self.require_unused(node.output[1:])
        if node.op_type == "Dropout" and len(node.input) > 2 and self.tensor(node, 2).any():
            raise HarnessError(f"{self.where}: in training mode; export the network at evaluation")
        proto = import_onnx().TensorProto
        if node.op_type == "Cast" and self.attribute(node, "to", 0) not in (proto.FLOAT, proto.DOUBLE):
            raise HarnessError(f"{self.where}: to a type that rounds what flows; only float and double keep it")

    def require_unused(self, names: Sequence[str]) -> None:
        used = {name for node in self.nodes for name in node.input}
        if any(name in used for name in names if name):
            raise HarnessError(f"{self.where}: its second output is used; only the first one can be")

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        found = next((a for a in node.attribute if a.name == name), None)
        return default if found is None else import_onnx().helper.get_attribute_value(found)

    def tensor(self, node: Any, index: int, default: Tensor | None = None) -> Tensor:
        """A constant input as float64. Raises HarnessError where it is none."""
        name = node.input[index] if index < len(node.input) else ""
        if not name and default is not None:
            return default
        if name not in self.constants:
            raise HarnessError(f"{self.where}: its input {index} must be a constant; a product of what flows is not affine")
        return torch.as_tensor(np.array(self.constants[name], dtype=np.float64))

    def to(self, *shape: int) -> Shape:
        """The new shape of what flows, once it is known to fit."""
        require_size(self.shape, shape, self.where)
        self.shape = shape
        return shape

    def gemm(self, node: Any) -> Affine:
        if self.attribute(node, "transA", 0) or node.input[0] != self.flowing or len(self.shape) != 1:
            raise HarnessError(f"{self.where}: only input times weight, (1, n) times (n, m), is understood; not transA")
        alpha = float(self.attribute(node, "alpha", 1.0))
        weight = self.tensor(node, 1) * alpha
        weight = weight.T if self.attribute(node, "transB", 0) else weight
        if weight.ndim != 2 or weight.shape[0] != self.shape[0]:
            raise HarnessError(f"{self.where}: {self.shape[0]} numbers times a weight of shape {tuple(weight.shape)}")
        bias = self.tensor(node, 2, torch.zeros(1, dtype=torch.float64)) * float(self.attribute(node, "beta", 1.0))
        return Affine(
            self.where, self.to(weight.shape[1]), operator.matmul, bias.expand(1, weight.shape[1]), weight,
            products=len(weight), rounded=int(alpha != 1.0),
        )  # fmt: skip

    def matmul(self, node: Any) -> Affine:
        weight = self.tensor(node, 1)
        if node.input[0] != self.flowing or weight.ndim != 2 or weight.shape[0] != self.shape[-1]:
            raise HarnessError(
                f"{self.where}: {self.shape} times {tuple(weight.shape)}; only (..., n) times (n, m) is understood"
            )
        shape = self.to(*self.shape[:-1], weight.shape[1])
        return Affine(self.where, shape, operator.matmul, weight=weight, products=len(weight))

    def arithmetic(self, node: Any) -> Affine:
        first = node.input[0] == self.flowing
        other = self.tensor(node, 1 if first else 0)
        whole = (1, *self.shape)
        if np.broadcast_shapes(whole, tuple(other.shape)) != whole:
            raise HarnessError(f"{self.where}: {whole} with {tuple(other.shape)}, which gives another shape")
        kind = node.op_type
        if kind == "Add":
            return shifted(self.where, self.shape, other)
        if kind == "Sub":
            return shifted(self.where, self.shape, -other) if first else replace(self.negative(node), bias=other)
        if kind == "Div" and not (first and bool((other != 0).all())):
            raise HarnessError(f"{self.where}: only a division by constants that are not 0 is affine")
        return (
            scaled(self.where, self.shape, other) if kind == "Mul" else scaled(self.where, self.shape, 1.0 / other, rounded=1)
        )

    def negative(self, node: Any) -> Affine:
        return scaled(self.where, self.shape, -1.0)

    def convolution(self, node: Any) -> Affine:
        weight = self.tensor(node, 1)
        spatial = weight.ndim - 2
        if spatial not in (1, 2) or len(self.shape) != spatial + 1:
            raise HarnessError(
                f"{self.where}: weight {tuple(weight.shape)} on {self.shape}; 1 or 2 spatial axes are understood"
            )
        bias = self.tensor(node, 2, torch.zeros(weight.shape[0], dtype=torch.float64))
        strides, dilations = self.window(node, "strides", spatial), self.window(node, "dilations", spatial)
        before, after = self.padding(node, weight.shape[2:], strides, dilations)
        groups = int(self.attribute(node, "group", 1))
        if (
            groups < 1
            or weight.shape[1] * groups != self.shape[0]
            or weight.shape[0] % groups
            or bias.shape != weight.shape[:1]
        ):
            raise HarnessError(f"{self.where}: weight {tuple(weight.shape)} in {groups} groups on {self.shape[0]} channels")
        sizes = [
            (n + p + q - d * (k - 1) - 1) // s + 1
            for n, p, q, d, k, s in zip(self.shape[1:], before, after, dilations, weight.shape[2:], strides, strict=True)
        ]
        self.require_positive(sizes)
        run = functional.conv1d if spatial == 1 else functional.conv2d
        pads = torch_pads(before, after)
        return Affine(
            self.where, self.to(weight.shape[0], *sizes),
            lambda x, w: run(functional.pad(x, pads), w, stride=strides, dilation=dilations, groups=groups),
            bias.reshape(1, -1, *[1] * spatial), weight, products=weight[0].numel(),
        )  # fmt: skip

    def window(self, node: Any, name: str, spatial: int) -> list[int]:
        given = [int(n) for n in self.attribute(node, name, [1] * spatial)]
        if len(given) != spatial or min(given) < 1:
            raise HarnessError(f"{self.where}: {name}={given}; {spatial} numbers above 0 are wanted")
        return given

    def padding(
        self, node: Any, kernel: Sequence[int], strides: list[int], dilations: list[int]
    ) -> tuple[list[int], list[int]]:
        """(before, after) along each axis, from pads or auto_pad."""
        auto = self.attribute(node, "auto_pad", b"NOTSET").decode()
        spatial = len(kernel)
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
                     for n, s, d, k in zip(self.shape[1:], strides, dilations, kernel, strict=True)]  # fmt: skip
            less, more = [t // 2 for t in total], [t - t // 2 for t in total]
            return (less, more) if auto == "SAME_UPPER" else (more, less)
        pads = [int(n) for n in self.attribute(node, "pads", [0] * 2 * spatial)] if auto == "NOTSET" else [0] * 2 * spatial
        if len(pads) != 2 * spatial or min(pads) < 0 or auto not in ("NOTSET", "VALID"):
            raise HarnessError(f"{self.where}: pads={pads}, auto_pad={auto!r}; {2 * spatial} numbers from 0 are wanted")
        return pads[:spatial], pads[spatial:]

    def require_positive(self, sizes: Sequence[int]) -> None:
        if min(sizes) < 1:
            raise HarnessError(f"{self.where}: its window does not fit into {self.shape}")

    def pool(self, node: Any) -> Affine:
        kernel = [int(n) for n in self.attribute(node, "kernel_shape", [])]
        spatial = len(kernel)
        plain = not self.attribute(node, "ceil_mode", 0) and set(self.attribute(node, "dilations", [1])) == {1}
        if spatial not in (1, 2) or len(self.shape) != spatial + 1 or min(kernel) < 1 or not plain:
            raise HarnessError(f"{self.where}: 1 or 2 spatial axes without ceil_mode and dilations are understood")
        strides = self.window(node, "strides", spatial)
        before, after = self.padding(node, kernel, strides, [1] * spatial)
        sizes = [(n + p + q - k) // s + 1 for n, p, q, k, s in zip(self.shape[1:], before, after, kernel, strides, strict=True)]
        self.require_positive(sizes)
        run, pads = functional.avg_pool1d if spatial == 1 else functional.avg_pool2d, torch_pads(before, after)
        inside = torch.ones(1, *self.shape, dtype=torch.float64)
        require_size(
            (1,), (self.shape[0], *[n + p + q for n, p, q in zip(self.shape[1:], before, after, strict=True)]), self.where
        )
        share = run(functional.pad(inside, pads), kernel, strides)
        share = torch.ones_like(share) if self.attribute(node, "count_include_pad", 0) else share
        return Affine(
            self.where, self.to(self.shape[0], *sizes), lambda x, _: run(functional.pad(x, pads), kernel, strides) / share,
            products=prod(kernel), rounded=4,
        )  # fmt: skip

    def pool_all(self, node: Any) -> Affine:
        axes, products = tuple(range(2, len(self.shape) + 1)), prod(self.shape[1:])
        shape = self.to(self.shape[0], *[1] * len(axes))
        return Affine(self.where, shape, lambda x, _: x.mean(dim=axes, keepdim=True), products=products, rounded=2)

    def normalisation(self, node: Any) -> Affine:
        if self.attribute(node, "training_mode", 0) or any(node.output[1:]):  # before opset 14 the outputs said so
            raise HarnessError(f"{self.where}: in training mode; export the network at evaluation")
        gain, shift, mean, var = (self.tensor(node, i) for i in range(1, 5))
        if {t.shape for t in (gain, shift, mean, var)} != {(self.shape[0],)} or bool((var < 0).any()):
            raise HarnessError(f"{self.where}: its statistics do not fit {self.shape[0]} channels")
        return normalised(self.where, self.shape, mean, var, float(self.attribute(node, "epsilon", 1e-5)), gain, shift)

    def flatten(self, node: Any) -> Affine:
        if self.attribute(node, "axis", 1) != 1:
            raise HarnessError(f"{self.where}: only axis=1 keeps the batch")
        return reshaped(self.where, self.to(prod(self.shape)))

    def reshape(self, node: Any) -> Affine:
        """Reshape, Squeeze, Unsqueeze: their own evaluator says what becomes of the shape."""
        (made,) = self.evaluate(node, {node.input[0]: np.zeros((1, *self.shape))})
        if made.shape[:1] != (1,) or made.ndim < 2:
            raise HarnessError(f"{self.where}: gives shape {made.shape}; a batch of 1 must stay the first axis")
        return reshaped(self.where, self.to(*made.shape[1:]))

    def top(self, node: Any) -> Sorted:
        self.require_unused(node.output[1:])
        axis = int(self.attribute(node, "axis", -1)) % (len(self.shape) + 1)
        k = int(self.tensor(node, 1).ravel()[0])
        if axis == 0 or k != self.shape[axis - 1] or k < 2 or not self.attribute(node, "sorted", 1):
            raise HarnessError(f"{self.where}: {k} of {(1, *self.shape)} along axis {axis}; only a sort of all is 1-Lipschitz")
        places = groups_along(self.shape, axis - 1, k)
        return Sorted(self.where, places, places if self.attribute(node, "largest", 1) else places[:, ::-1])


def torch_pads(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """As functional.pad wants them: the last axis first."""
    return [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
