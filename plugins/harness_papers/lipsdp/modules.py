"""A torch.nn.Module as steps: its forward traced by torch.fx, its layers read. In float64, at evaluation."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm

from harness import HarnessError
from harness_papers.lipsdp.activations import Array
from harness_papers.lipsdp.lowering import (
    Affine,
    Elementwise,
    Shape,
    Sorted,
    Step,
    groups_along,
    normalised,
    reshaped,
    scaled,
    shifted,
)

SORTING = ("MaxMin", "GroupSort")  # class names, besides those that say `certify_as = "groupsort"` and those that are named
CONVOLUTIONS = {nn.Conv1d: functional.conv1d, nn.Conv2d: functional.conv2d}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
ACTIVATIONS: dict[Any, str] = {
    nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid",
    torch.relu: "relu", functional.relu: "relu", functional.leaky_relu: "leaky_relu", torch.tanh: "tanh",
    functional.tanh: "tanh", torch.sigmoid: "sigmoid", functional.sigmoid: "sigmoid",
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid",
}  # fmt: skip
RESHAPES = (torch.flatten, torch.reshape, "flatten", "reshape", "view")
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, functional.dropout, "contiguous")
ASIDE = ("size", getattr)  # give no tensor that flows on: x.size(0), x.shape
UNDERSTOOD = (
    "Linear, Conv1d, Conv2d, AvgPool, AdaptiveAvgPool, BatchNorm, Flatten, view, reshape, + and * with constants, ReLU, "
    "LeakyReLU, Tanh, Sigmoid, MaxMin and GroupSort"
)
MENDS = {
    nn.MaxPool2d: "a maximum is not affine; use AvgPool2d or a convolution with a stride",
    nn.Softmax: "leave it out and certify the logits",
    nn.LogSoftmax: "leave it out and certify the logits",
    nn.LayerNorm: "its Lipschitz constant is not finite without its eps; leave it out, or use BatchNorm",
}
PROBES = 8
GLOBAL_HOOKS = (torch_module._global_forward_pre_hooks, torch_module._global_forward_hooks)


def read_module(module: nn.Module, shape: Shape | None, sorting: Sequence[str], group: int | None) -> tuple[list[Step], Shape]:
    """(steps, input shape without the batch) of a module.

    shape: None where its first layer is linear. sorting: names of further classes that sort groups. group: their size, where
    it is not to be found out. Raises HarnessError, which names the layer, for all that is not understood.
    """
    require_as_written(module)
    whole = double(module)
    tracer = Tracer((*SORTING, *sorting))
    try:
        graph = fx.GraphModule(whole, tracer.trace(whole))
    except Exception as exc:  # the user's own forward
        raise HarnessError(
            f"{type(module).__name__}: torch.fx cannot trace its forward: {type(exc).__name__}: {exc}; "
            "write it without branches that depend on the input, name a class that sorts groups (--sorting-class), "
            "or export it to ONNX"
        ) from exc
    for name, layer in graph.named_modules():
        if isinstance(layer, NORMS) and (layer.running_mean is None or layer.running_var is None):
            kind = type(layer).__name__
            raise HarnessError(f"layer {name!r} ({kind}): it keeps no running statistics, so its output depends on the batch")
    given = shape if shape is not None else first_shape(graph)
    try:
        ShapeProp(graph).propagate(torch.zeros(1, *given, dtype=torch.float64))
    except Exception as exc:  # the user's own forward
        cause = " ".join(str(exc.__cause__ or exc).split())
        raise HarnessError(f"{type(module).__name__}: it cannot run on an input of shape (1, {given}): {cause[:300]}") from exc
    return list(Reading(graph, tracer, group).steps()), given


def require_as_written(module: nn.Module) -> None:
    """That a call of each module is its class's `forward` and no more: layers are read by their type, and calls are traced.

    The hook of torch.nn.utils.spectral_norm only sets the weight, before it is read.
    """
    everywhere = [hook for hooks in GLOBAL_HOOKS for hook in hooks.values()]
    if everywhere:
        raise HarnessError(f"a hook on all modules: {named(everywhere)}; remove it, or export the network to ONNX")
    for name, one in module.named_modules():
        kind = type(one)
        where = f"layer {name!r} ({kind.__name__})" if name else kind.__name__
        hooks = [h for h in (*one._forward_pre_hooks.values(), *one._forward_hooks.values()) if not isinstance(h, SpectralNorm)]
        if hooks:
            raise HarnessError(
                f"{where}: a hook that may change what it computes: {named(hooks)}; remove it (prune.remove and "
                "remove_weight_norm keep the weights that it made), use torch.nn.utils.parametrizations, or export to ONNX"
            )
        if kind.__name__ == "OptimizedModule":  # importing the class itself takes a second
            raise HarnessError(f"{where}: compiled; give the module that torch.compile was given")
        own = kind.__module__.startswith("torch.")
        replaced = [key for key in vars(one) if key == "forward" or (own and callable(getattr(kind, key, None)))]
        if kind.__call__ is not nn.Module.__call__ and not isinstance(one, fx.GraphModule):
            replaced.append("__call__")
        if replaced:
            raise HarnessError(f"{where}: its {replaced[0]!r} was replaced; write it as `forward` of a class of its own")


def named(hooks: Sequence[Any]) -> str:
    return ", ".join(getattr(hook, "__qualname__", type(hook).__name__) for hook in hooks)


def double(module: nn.Module) -> nn.Module:
    """A copy in float64, at evaluation. Raises HarnessError for a module that stays in training mode."""
    made = copy.deepcopy(module).cpu().double().eval()
    for name, one in made.named_modules():
        if one.training:
            raise HarnessError(f"layer {name!r} ({type(one).__name__}): it stays in training mode after eval()")
    return made


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, the ones that no checkpoint keeps too."""
    return {name: held.detach().clone() for name, held in (*module.named_parameters(), *module.named_buffers())}


def first_shape(graph: fx.GraphModule) -> Shape:
    for node in graph.graph.nodes:
        target = graph.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(target, nn.Linear):
            return (target.in_features,)
        if target is not None:
            break
    raise HarnessError("the input's shape is not known; give it without the batch, as in --input-shape 1,28,28")


class Tracer(fx.Tracer):
    """Goes into modules of the user's own, but for those that sort."""

    def __init__(self, sorting: Sequence[str]) -> None:
        super().__init__()
        self.sorting = sorting

    def sorts(self, module: nn.Module) -> bool:
        return type(module).__name__ in self.sorting or getattr(module, "certify_as", None) == "groupsort"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return self.sorts(m) or super().is_leaf_module(m, module_qualified_name)


class Reading:
    """One pass over a traced graph whose shapes are known: a chain, from the input to the output."""

    def __init__(self, graph: fx.GraphModule, tracer: Tracer, group: int | None) -> None:
        self.graph, self.tracer, self.group = graph, tracer, group

    def steps(self) -> Any:
        flowing: fx.Node | None = None
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                if flowing is not None:
                    raise HarnessError(f"{node.name}: a second input; a network with one input can be certified")
                flowing = node
            elif node.op == "get_attr" or node.target in ASIDE or self.is_number(node):
                continue
            elif node.op == "output":
                if node.args[0] is not flowing:
                    raise HarnessError("the output: it is not the last layer's; return one tensor")
            else:
                if all(one.op == "get_attr" for one in node.all_input_nodes):
                    raise HarnessError(
                        f"{told(node)}: it computes weights in forward; keep what it gives as a buffer, or export to ONNX"
                    )
                others = [one for one in node.all_input_nodes if one is not flowing and one.op != "get_attr"]
                if flowing not in node.all_input_nodes or any(not self.is_number(one) for one in others):
                    raise HarnessError(
                        f"{told(node)}: it joins or leaves the chain of layers; skips and branches are not supported"
                    )
                yield from self.step(node, flowing)
                flowing = node

    def is_number(self, node: fx.Node) -> bool:
        """Whether a node gives no tensor: part of a shape."""
        return node.op in ("call_function", "call_method") and "tensor_meta" not in node.meta

    def step(self, node: fx.Node, before: fx.Node) -> Any:
        """The steps of one node: one, or none where it changes nothing."""
        target = self.graph.get_submodule(node.target) if node.op == "call_module" else node.target
        kind = type(target) if isinstance(target, nn.Module) else target
        shape, where = self.shape(node), told(node, target)
        if kind in NOTHING:
            require_nothing(where, kind, node)
            return
        if kind in ACTIVATIONS:
            yield Elementwise(where, ACTIVATIONS[kind], leak_of(where, target, node))
        elif isinstance(target, nn.Module) and self.tracer.sorts(target):
            yield find_groups(where, target, self.shape(before), self.group)
        elif isinstance(target, nn.Module):
            yield read_layer(where, target, shape, self.shape(before))
        elif kind in RESHAPES:
            yield reshaped(where, shape)
        elif kind is functional.linear:
            yield self.linear(where, node, before, shape)
        else:
            yield self.arithmetic(where, node, before, shape)

    def shape(self, node: fx.Node) -> Shape:
        found = tuple(node.meta["tensor_meta"].shape)
        if found[:1] != (1,):
            raise HarnessError(f"{told(node)}: gives shape {found} for a batch of 1; keep the batch as the first axis")
        return found[1:]

    def linear(self, where: str, node: fx.Node, before: fx.Node, shape: Shape) -> Affine:
        """functional.linear with weights of the module's own, as a subclass of nn.Linear calls it."""
        given = dict(zip(("input", "weight", "bias"), node.args, strict=False)) | node.kwargs
        weight, bias = (self.constant(given.get(name)) for name in ("weight", "bias"))
        if given["input"] is not before or weight is None or (bias is None and given.get("bias") is not None):
            raise HarnessError(f"{where}: its weights must be parameters or buffers of a module, not computed in forward")
        return Affine(where, shape, functional.linear, bias, weight, products=weight.shape[-1])

    def arithmetic(self, where: str, node: fx.Node, before: fx.Node, shape: Shape) -> Affine:
        """+, -, * and / with a number or a tensor of the module's."""
        left, right = (self.constant(a) if a is not before else None for a in (*node.args, None)[:2])
        other = right if left is None else left
        of_two = len(node.args) == 2 and not node.kwargs and isinstance(other, Tensor) and (left is None) != (right is None)
        signs: dict[Any, Callable[[Tensor], Affine]] = {
            operator.add: lambda c: shifted(where, shape, c),
            torch.add: lambda c: shifted(where, shape, c),
            operator.mul: lambda c: scaled(where, shape, c),
            torch.mul: lambda c: scaled(where, shape, c),
            operator.sub: lambda c: shifted(where, shape, -c) if left is None else replace(scaled(where, shape, -1.0), bias=c),
            operator.truediv: lambda c: scaled(where, shape, 1.0 / c, rounded=1),
        }
        if not of_two or node.target not in signs or (node.target is operator.truediv and left is not None):
            raise not_understood(where, node.target)
        assert isinstance(other, Tensor)
        return signs[node.target](other)

    def constant(self, argument: Any) -> Tensor | None:
        if isinstance(argument, int | float):
            return torch.tensor(float(argument), dtype=torch.float64)
        if isinstance(argument, fx.Node) and argument.op == "get_attr":
            found: Any = self.graph
            for part in str(argument.target).split("."):
                found = getattr(found, part)
            return found.detach().double() if isinstance(found, Tensor) else None  # plain attributes stay as they were
        return None


def told(node: fx.Node, target: object = None) -> str:
    """A node as its author knows it."""
    kind = type(target).__name__ if isinstance(target, nn.Module) else getattr(node.target, "__name__", str(node.target))
    return f"layer {node.target if node.op == 'call_module' else node.name!r} ({kind})".replace("''", "'")


def not_understood(where: str, kind: object) -> HarnessError:
    mend = MENDS.get(kind) if isinstance(kind, type) else None
    return HarnessError(f"{where}: not supported; {mend or f'use {UNDERSTOOD}'}")


def require_nothing(where: str, kind: Any, node: fx.Node) -> None:
    """That functional.dropout, which drops unless it is told otherwise, is told."""
    if kind is functional.dropout and node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True) is not False:
        raise HarnessError(f"{where}: in training mode; write functional.dropout(x, p, self.training), or nn.Dropout")


def leak_of(where: str, target: Any, node: fx.Node) -> float:
    """Of leaky_relu; of no meaning for others."""
    if isinstance(target, nn.LeakyReLU):
        return float(target.negative_slope)
    if target is not functional.leaky_relu:
        return 0.01
    given = node.kwargs.get("negative_slope", node.args[1] if len(node.args) > 1 else 0.01)
    if not isinstance(given, int | float):
        raise HarnessError(f"{where}: its negative_slope is computed; write a number")
    return float(given)


def kind_of(layer: nn.Module) -> type:
    """Its class; what was parametrised has one of its own, whose weights are read as they are."""
    return type(layer).__bases__[0] if parametrize.is_parametrized(layer) else type(layer)


@torch.no_grad()
def read_layer(where: str, layer: Any, shape: Shape, before: Shape) -> Affine:
    """An affine layer of torch.nn, from shape before to shape. Raises HarnessError for any other."""
    kind = kind_of(layer)
    if kind is nn.Linear:
        weight = layer.weight.detach()
        return Affine(where, shape, functional.linear, detached(layer.bias), weight, products=weight.shape[-1])
    if kind in CONVOLUTIONS:
        return read_convolution(where, layer, shape)
    if kind in NORMS:
        ones = torch.ones_like(layer.running_mean)
        gain, shift = (ones if p is None else p.detach() for p in (layer.weight, layer.bias))
        shift = torch.zeros_like(ones) if layer.bias is None else shift
        return normalised(where, shape, layer.running_mean, layer.running_var, layer.eps, gain, shift)
    if kind in POOLS:
        return Affine(where, shape, lambda x, _: layer(x), products=prod(before), rounded=2)
    if kind in (nn.Flatten, nn.Unflatten):
        return reshaped(where, shape)
    raise not_understood(where, type(layer))


def read_convolution(where: str, layer: Any, shape: Shape) -> Affine:
    if layer.padding_mode != "zeros":
        raise HarnessError(f"{where}: padding_mode={layer.padding_mode!r}; only zeros are implemented")
    run, weight, bias = CONVOLUTIONS[kind_of(layer)], layer.weight.detach(), detached(layer.bias)
    how = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    shift = None if bias is None else bias.reshape(1, -1, *[1] * (len(shape) - 1))
    return Affine(where, shape, lambda x, w: run(x, w, **how), shift, weight, products=weight[0].numel())


def detached(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach()


@torch.no_grad()
def find_groups(where: str, layer: nn.Module, shape: Shape, group: int | None) -> Sorted:
    """Which groups a layer sorts, found out by random inputs: along the first axis, neighbours or strides, down or up.

    Raises HarnessError for a layer that does something else.
    """
    rng = np.random.default_rng(0)
    probes = torch.as_tensor(rng.standard_normal((PROBES, *shape)))
    outputs = layer(probes)
    sizes = [n for n in range(2, shape[0] + 1) if shape[0] % n == 0 and group in (None, n)]
    if tuple(outputs.shape) == tuple(probes.shape):
        x, y = (t.reshape(PROBES, -1).numpy() for t in (probes, outputs))
        for size in sizes:
            for places in (groups_along(shape, 0, size), groups_along(shape, 0, size, strided=True)):
                for put in (places, places[:, ::-1]):
                    if sorts(x, y, places, put):
                        return Sorted(where, places, put)
    asked = f"groups of {group}" if group is not None else "groups of one size"
    raise HarnessError(
        f"{where}: it does not sort {asked} along the first axis of {shape}, neighbours or strided; nothing else is"
    )


def sorts(x: Array, y: Array, taken: Array, put: Array) -> bool:
    return bool((y[:, put] == -np.sort(-x[:, taken], axis=2)).all())
