"""What a plugin declares: frozen data, no behaviour, no torch.

Code is named by string, "package.module:function", and resolved in the worker only; so importing a plugin costs nothing
and a broken method breaks its own trials. Functions given directly (`Task.shape`, `Task.datasets`) are the exception: the
plan needs them, so they must run without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

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
    cost: "module:function"(shape, net, train, component) -> {"params": ..., "flops": ...}, on the meta device; flops: of
    training on one item, forward and backward. Where it counts operations, also "counted" (the share that formulas account for)
    and "uncounted" (the names of the others); where it cannot count FLOPs, "no_flops": why, in their place.
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
    cost: (shape, params) -> {"params": ..., "flops": ...} as `Track.cost` gives them, without building on a device.
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


class KernelCase(Params):
    """The sizes of a kernel's inputs: subclass it where a kernel has more to choose than these.

    elements: of the main input; a kernel whose shape has several axes takes the nearest that divide it, and says which.
    """

    elements: int = Field(1_000_000, ge=0, description="elements of the main input")
    layout: Literal["contiguous", "strided", "unaligned"] = Field(
        "contiguous", description="strided: every second element of the last axis; unaligned: one element past the alignment"
    )


ImplementationKind = Literal["eager", "compiled", "ours", "peer"]


@dataclass(frozen=True)
class Implementation:
    """One way to compute a kernel.

    run: "module:function"(inputs, case) -> Tensor, or a tuple of them; inputs: name -> Tensor. Where the kernel has gradients,
    autograd must be able to go through it.
    kind: eager: plain torch operations; compiled: `run` is eager code, which the harness hands to torch.compile; ours:
    hand-written; peer: of another library.
    fallback: "module:function"(inputs, case) -> str: why eager code would run instead of ours, "" where ours does; then the
    row is labelled so, and not ranked as ours.
    requires: modules that must be importable, for peers; "module:package" where pip knows it by another name. devices: where it
    can run.
    """

    name: str
    kind: ImplementationKind
    run: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    fallback: str | None = None
    requires: tuple[str, ...] = ()
    summary: str = ""


# Of sums over many elements too: a few units in the last place of the dtype, times a reserve for the order of summation.
TOLERANCES: Mapping[str, float] = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


@dataclass(frozen=True)
class Kernel:
    """One hot operation: inputs, implementations, a float64 reference, and its minimal work as functions of its case.

    inputs: "module:function"(case, generator, device, dtype) -> {name: Tensor}: contiguous leaves on the device; those that the
    backward pass differentiates have requires_grad. generator is a CPU torch.Generator.
    data: the inputs that `layout` re-lays and whose elements count; the others are parameters.
    reference: "module:function"(inputs, case) -> Tensor, or a tuple: the same in float64, by plain torch operations that
    autograd differentiates.
    flops, bytes: (case, itemsize) -> {"forward": n, "backward": n}: the least that any implementation must do; no torch.
    tolerance: dtype -> largest error of an output or a gradient, over the largest absolute value of its reference.
    """

    name: str
    inputs: str
    implementations: tuple[Implementation, ...]
    reference: str
    flops: Callable[[Any, int], Mapping[str, int]]
    bytes: Callable[[Any, int], Mapping[str, int]]
    params: type[KernelCase] = KernelCase
    data: tuple[str, ...] = ("x",)
    backward: bool = True
    tolerance: Mapping[str, float] = field(default_factory=lambda: dict(TOLERANCES))
    summary: str = ""
    source: str = ""

    def implementation(self, name: str) -> Implementation | None:
        return next((i for i in self.implementations if i.name == name), None)


@dataclass(frozen=True)
class Command:
    """A command that the plugin brings: `harness NAME ...`. Since API 0.3.

    run: "module:name" of a click.Command or click.Group, imported when it is called or asked for its help. Its long options
    are also read from HARNESS_<OPTION> and [tool.harness], as those of every command. Results go to stdout, progress to stderr;
    a `HarnessError` ends it with its message and exit code. summary: its line in `harness --help`.
    """

    name: str
    run: str
    summary: str = ""


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
    seeds: the pairs at which it is looked at, at least 10; 1 is enough where its sample is the tasks. extension: how many more
    may be run, once, where the first look is inconclusive; the error rate is then split between both looks.
    effect: the difference (in the unit of the rule's number) that the test is to find with a power of 80 %; None: not stated.
    because: the method that lacks what the claim says is the cause; the rule must compare with it.
    missing: what it would take to test it; such a claim has no rule, and is not testable here.
    """

    name: str
    says: str
    rule: Rule | None
    seeds: int
    value: str
    place: str
    source: str
    scaled_down: str = ""
    unverified: tuple[str, ...] = ()
    effect: float | None = None
    because: str = ""
    extension: int = 0
    missing: str = ""


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
