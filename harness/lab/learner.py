"""The one reference learner: trains the reference net around a component, or any module, on a Classify or Regress problem.

The same loop for all: one order of the data, one schedule, one optimiser, one budget. It does not know the held parts; it
offers its net to be scored, evenly over the budget.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.context import Context
from harness.errors import BudgetSpent, Diverged, Unsupported
from harness.lab.component import ComponentUse
from harness.lab.cost import train_flops
from harness.lab.init import init_net
from harness.lab.nets import build_net
from harness.lab.problems import Classify, Regress
from harness.lab.solution import NetSolution
from harness.nets import Net, Train

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
GATHER_BYTES = 16 << 20  # shuffled items that are copied at once: one copy for many small batches, and no second data set


def train_component(problem: Classify | Regress, ctx: Context, component: ComponentUse) -> NetSolution:
    """Build the suite's net around the component, initialise it, train it. See `fit`.

    Raises Unsupported where the component cannot be placed, Diverged where the loss does not stay finite.
    """
    net, train = Net(**(ctx.net or {})), Train(**(ctx.train or {}))
    with own_randomness(ctx, "build"):
        module = build_net(net, problem.shape, component, ctx.dtype)
    init_net(module, ctx, net.init, component)
    loss = component.build(component.params) if component.kind == "loss" else None
    return fit(problem, ctx, module, loss=loss, optimizer=_component_optimizer(component), train=train)


def fit(
    problem: Classify | Regress,
    ctx: Context,
    module: nn.Module,
    *,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    train: Train | None = None,
) -> NetSolution:
    """Train `module`, in place, until the budget is spent; the last offer is the solution that is returned.

    loss: (logits or outputs, labels or targets) -> scalar; cross-entropy for Classify and squared error for Regress unless
    given. optimizer: parameter groups -> optimizer; AdamW or SGD by `train` unless given; its learning rates are scaled by
    the schedule. train: the settings; ctx.train, else the defaults, unless given.
    An epoch is a new permutation cut into batches of train.batch items (all items where there are fewer); what is left over
    waits for the next permutation, so every step costs the same. Where the budget allows no step, the net stays untrained.
    Raises Diverged where a loss or a weight is not finite (seen at the next offer), Unsupported for a budget without an end.
    """
    train = train or Train(**(ctx.train or {}))
    module = module.to(ctx.device, ctx.dtype).train()
    x = problem.x.to(ctx.device, ctx.dtype)
    y = problem.y.to(ctx.device) if isinstance(problem, Classify) else problem.y.to(ctx.device, ctx.dtype)
    batch = min(train.batch, len(x))
    criterion = loss or (F.cross_entropy if isinstance(problem, Classify) else F.mse_loss)
    if isinstance(criterion, nn.Module):
        criterion.to(ctx.device, ctx.dtype)
    costs = {"samples_seen": float(batch), "steps": 1.0}
    if "flops" in ctx.budget:
        costs["flops"] = float(train_flops(module, tuple(problem.inputs), batch, labels=y.dtype == torch.int64, loss=loss))
    solution = NetSolution(module)
    with own_randomness(ctx, "noise"):
        _train(ctx, solution, _batches(x, y, batch, ctx.generator("order")), criterion, optimizer, train, costs)
    return solution


def _train(
    ctx: Context,
    solution: NetSolution,
    batches: Iterator[tuple[Tensor, Tensor]],
    criterion: Loss,
    make_optimizer: MakeOptimizer | None,
    train: Train,
    costs: Mapping[str, float],
) -> None:
    module = solution.module
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = (make_optimizer or _reference_optimizer(train))(parameter_groups(parameters, train))
    peaks = [(group, group["lr"]) for group in optimizer.param_groups if "lr" in group]
    steps = steps_in(ctx.budget, costs)
    if steps == math.inf and "wall_s" not in ctx.budget:
        raise Unsupported(f"budget {dict(ctx.budget)!r} never ends training; set samples_seen, steps, flops or wall_s")
    timed = "wall_s" in ctx.budget
    loss = torch.zeros((), device=ctx.device)
    done = scored = offers = 0
    try:
        while done < steps:
            ctx.spend(**costs)
            share = (done + 0.5) / steps
            rate = rate_at(max(share, wall_share(ctx)) if timed else share, train)
            for group, peak in peaks:
                group["lr"] = peak * rate
            x, y = next(batches)
            with ctx.region("train_step"):
                optimizer.zero_grad(set_to_none=True)
                loss = criterion(module(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                if train.clip:
                    nn.utils.clip_grad_norm_(parameters, train.clip)
                optimizer.step()
            done += 1
            share = max(done / steps, wall_share(ctx)) if timed else done / steps
            if done < steps and share * train.evaluations >= offers + 1:
                offers, scored = int(share * train.evaluations), done
                check_finite(loss, parameters, done)
                _offer(ctx, solution)
    except BudgetSpent:
        pass  # the seconds ran out, or a timing trial knows enough: what is trained so far is the result
    if done > scored:
        check_finite(loss, parameters, done)
        _offer(ctx, solution)


def wall_share(ctx: Context) -> float:
    """The share of the budget's seconds that is spent."""
    return 1.0 - ctx.left("wall_s") / ctx.budget["wall_s"]


def steps_in(budget: Mapping[str, float], costs: Mapping[str, float]) -> float:
    """The whole steps that a budget pays for; inf where no unit of it is spent by steps."""
    return min((budget[unit] // cost for unit, cost in costs.items() if unit in budget), default=math.inf)


def rate_at(progress: float, train: Train) -> float:
    """The learning rate as a share of its peak: linear warm-up, then the cosine's half wave to 0, or constant.

    progress: the share of the budget that is spent in the middle of the step, in [0, 1].
    """
    if progress < train.warmup:
        return progress / train.warmup
    if train.schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - train.warmup) / (1.0 - train.warmup))))


def parameter_groups(parameters: list[nn.Parameter], train: Train) -> list[dict[str, Any]]:
    """Two groups: tensors with two or more axes decay, the others (biases, scales, a component's scalars) do not."""
    matrices = [p for p in parameters if p.ndim >= 2]
    others = [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [{**group, "lr": train.lr} for group in groups if group["params"]]


def check_finite(loss: Tensor, parameters: list[nn.Parameter], step: int) -> None:
    """Raises Diverged where the latest loss or a weight is not finite. Waits for the device, so it is called at offers only.

    No step need be watched in between: a gradient that is not finite makes its weight so, and updates never mend it.
    """
    with torch.no_grad():
        sizes = torch._foreach_norm(list[Tensor](parameters), math.inf)
        largest = torch.stack([loss.detach().float(), *(size.float() for size in sizes)])
    found = torch.isfinite(largest).tolist()
    if not all(found):
        raise Diverged(f"{'a weight' if found[0] else 'the training loss'} is not finite after {step} steps")


@contextlib.contextmanager
def own_randomness(ctx: Context, stream: str) -> Iterator[None]:
    """Torch's global generators at the stream's seed inside (dropout draws from them), as before afterwards."""
    devices = [ctx.device] if ctx.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        seed = ctx.stream_seed(stream)
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


def _offer(ctx: Context, solution: NetSolution) -> None:
    # Scoring may draw random numbers; training must not notice how often it was scored.
    devices = [ctx.device] if ctx.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        ctx.offer(solution)


def _batches(x: Tensor, y: Tensor, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for ever. The order is drawn on the CPU, so it is the same on every device."""
    items = len(x) // batch * batch
    item_bytes = x[0].numel() * x.element_size()
    gathered = max(1, GATHER_BYTES // (batch * item_bytes)) * batch
    while True:
        order = torch.randperm(len(x), generator=generator)[:items].to(x.device)
        for part in torch.split(order, gathered):
            xs, ys = torch.split(x.index_select(0, part), batch), torch.split(y.index_select(0, part), batch)
            yield from zip(xs, ys, strict=True)


def _reference_optimizer(train: Train) -> MakeOptimizer:
    # fused: one call for all tensors, on CPU and CUDA; on a CPU 3 times faster for small nets than the foreach form.
    if train.optimizer == "adamw":
        return lambda groups: torch.optim.AdamW(groups, fused=True)
    return lambda groups: torch.optim.SGD(groups, lr=train.lr, momentum=0.9, nesterov=True, fused=True)


def _component_optimizer(component: ComponentUse) -> MakeOptimizer | None:
    """The component's optimiser. Where its parameters name `lr` or `weight_decay`, these hold, not the suite's `train`."""
    if component.kind != "optimizer":
        return None
    own = {name for name in ("lr", "weight_decay") if hasattr(component.params, name)}

    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        kept = [{name: value for name, value in group.items() if name not in own} for group in groups]
        made: torch.optim.Optimizer = component.build(kept, component.params)
        return made

    return make
