"""What a plugin declares: frozen data, no behaviour, no torch.

Code is named by string, "package.module:function", and resolved in the worker only; so importing a plugin costs nothing
and a broken method breaks its own trials. Functions given directly (`Task.shape`, `Task.datasets`) are the exception: the
plan needs them, so they must run without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from harness.rules import Rule

Scalar = str | int | float | bool | None
Role = Literal["method", "baseline", "ablation", "control", "oracle"]
ComponentKind = Literal["activation", "norm", "norm_act", "linear", "conv", "optimizer", "loss"]


class Params(BaseModel):
    """Typed parameters of a method or a task: subclass it, give every field a type, a default and a description."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoParams(Params):
    """For methods and tasks without parameters."""


@dataclass(frozen=True)
class Metric:
    """A number that a task gives for a solution.

    worst: what a trial that diverged, ran out of memory or time, failed or was invalid counts as; None: it is left out of
    aggregates, and said so.
    """

    name: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    worst: float | None = None


@dataclass(frozen=True)
class Track:
    """A kind of problem. problem and solution name a dataclass and a runtime-checkable Protocol, resolved in the worker.

    clocks: the budget units that mean something here, besides wall_s, which always does.
    matchable: what `match` may equalise ("params", "flops").
    learner: "module:function"(problem, ctx, component) -> solution, for components: trains the reference net around one.
    cost: "module:function"(shape, net, train, component) -> {"params": ..., "flops": ...}, on the meta device.
    inference: "module:function"(solution, problem, ctx) -> callable without arguments, which a timing trial times.
    """

    name: str
    version: str
    problem: str
    solution: str
    clocks: tuple[str, ...]
    summary: str = ""
    matchable: tuple[str, ...] = ()
    learner: str | None = None
    cost: str | None = None
    inference: str | None = None


class Instance(NamedTuple):
    """What a task's `load` returns: `problem` is all that `solve` may see, `held` (part -> anything picklable) only `score`."""

    problem: Any
    held: Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """A metric over a named axis (layer, phase, size): x and y have equal length; y is in the metric's unit."""

    axis: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """One problem of a track.

    load: (params, ctx) -> Instance.   score: (held_part, solution, params, ctx) -> {metric: float | Series}; pure; may raise
    Invalid or Unsupported.   summarise: (curve, params) -> {metric: float}, curve = one part's offers in order, each
    {"at": {clock: amount}, metric: value}.   shape: params -> sizes known without loading ("inputs", "outputs",
    "train_items"; for images also "channels", "height", "width").   datasets: names of the data sets that `load` reads.
    """

    name: str
    track: str
    metrics: tuple[Metric, ...]
    load: str
    score: str
    params: type[Params] = NoParams
    shape: Callable[[Any], Mapping[str, int]] | None = None
    datasets: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ()
    summarise: str | None = None
    summary: str = ""


@dataclass(frozen=True)
class Component:
    """A part that goes into a reference net; the track's one learner trains the net around it.

    build: by kind
      activation, norm, norm_act   (place, params) -> nn.Module; place has `features: int` (channels) and `dims: int`
                                   (0 for (N, C), 1 for (N, T, C), 2 for (N, C, H, W))
      linear                       (in_features, out_features, params) -> nn.Module
      conv                         (in_channels, out_channels, kernel_size, stride, params) -> nn.Module, `same` padding
      optimizer                    (parameter_groups, params) -> torch.optim.Optimizer
      loss                         (params) -> callable(logits, labels) -> scalar
    init: the weight initialisation that the component asks for ("he", "lecun", "xavier"); None keeps the net's.
    """

    name: str
    kind: ComponentKind
    build: str
    params: type[Params] = NoParams
    init: Literal["he", "lecun", "xavier"] | None = None
    summary: str = ""
    source: str = ""


@dataclass(frozen=True)
class Learner:
    """A method that owns its architecture and its training, or that solves a problem of another track.

    solve: (problem, ctx, params) -> solution.   knob: the parameter that `match` may turn.
    cost: (shape, params) -> {"params": ..., "flops": ...} without building on a device.
    """

    name: str
    track: str
    solve: str
    params: type[Params] = NoParams
    knob: str | None = None
    cost: str | None = None
    summary: str = ""
    source: str = ""


Method = Component | Learner


@dataclass(frozen=True)
class Probe:
    """Further metrics of any solution of a track. measure: (held_part, solution, ctx) -> {metric: float | Series}.

    always: measured in every quality trial of the track; otherwise only where a suite names one of its metrics.
    """

    name: str
    track: str
    metrics: tuple[Metric, ...]
    measure: str
    always: bool = False


@dataclass(frozen=True)
class Dataset:
    """Data by name. digest: SHA-256 of its content, declared before it is read. where: "embedded", "folder" or "generated".

    path: the file inside the data folder (where == "folder"), or inside an installed package "pkg:path" (embedded).
    """

    name: str
    where: Literal["embedded", "folder", "generated"]
    digest: str
    summary: str
    licence: str
    source: str
    path: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Claim:
    """A headline of a paper as a rule that can fail, fixed before the first run.

    value: what the paper reports, place: where in it, source: an address. scaled_down: what is smaller here, and what that
    costs. unverified: what the card could not check in the paper.
    """

    name: str
    says: str
    rule: Rule
    seeds: int
    value: str
    place: str
    source: str
    scaled_down: str = ""
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paper:
    """A publication and its claims. One plugin per paper; `name` is the entry point's."""

    name: str
    title: str
    arxiv: str
    year: int
    claims: tuple[Claim, ...] = ()
    authors: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
