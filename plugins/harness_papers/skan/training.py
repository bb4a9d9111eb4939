"""One training loop for all methods of this paper: Adam, a cosine without warm-up, and the drops of S-KAN's schedule.

The lab's own `fit` is not used, because S-KAN changes its net on the way; so that nothing else differs, its rivals are trained
here too. FLOPs are spent on the clock whether the budget names them or not: what a trial spent is its total training compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.lab import Classify, Diverged, NetSolution, Regress, Unsupported, count_params, train_flops
from harness_papers.skan.method import SelectLayer, select_layers


@dataclass(frozen=True)
class Schedule:
    """The three phases, as shares of the budget: all families; from `full` on one drop after the other; one family.

    A reconstruction: the paper's own schedule could not be read. The drops are evenly spaced, the last at `exclusive`.
    """

    full: float = 0.3
    exclusive: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.full <= self.exclusive <= 1:
            raise ValueError(f"schedule: full={self.full}, exclusive={self.exclusive}; give 0 <= full <= exclusive <= 1")

    def due(self, share: float, drops: int) -> int:
        """How many of `drops` are to be done when this share of the budget is spent."""
        if share >= self.exclusive:
            return drops
        if share < self.full:
            return 0
        return int(drops * (share - self.full) / (self.exclusive - self.full))


def train(
    problem: Classify | Regress,
    ctx: Any,
    net: nn.Module,
    lr: float,
    batch: int,
    evaluations: int,
    schedule: Schedule | None = None,
) -> NetSolution:
    """Train the net, in place, until the budget is spent. schedule: when its `SelectLayer`s drop families; None: never.

    Raises Diverged where a loss or a weight is not finite, Unsupported for a budget that steps never spend.
    """
    net = net.to(ctx.device, ctx.dtype).train()
    x, y = problem.x.to(ctx.device, ctx.dtype), problem.y.to(ctx.device)
    labels = isinstance(problem, Classify)
    y = y if labels else y.to(ctx.dtype)
    criterion = F.cross_entropy if labels else F.mse_loss
    batch = min(batch, len(x))
    selection = Selection(net, torch.optim.Adam(net.parameters(), lr=lr, fused=True), schedule)
    solution, batches = NetSolution(net), batches_of(x, y, batch, ctx.generator("order"))
    costs = step_costs(net, tuple(problem.inputs), batch, labels)
    if not set(ctx.budget) & {*costs, "wall_s"}:
        raise Unsupported(f"budget {dict(ctx.budget)!r} never ends training; set steps, samples_seen, flops or wall_s")
    loss, scored, done, offers = torch.zeros((), device=ctx.device), 0, 0, 0
    while affordable(ctx, costs):
        share = spent_share(ctx, costs)
        if selection.advance(share):
            costs = step_costs(net, tuple(problem.inputs), batch, labels)
        ctx.spend(**costs)
        for group in selection.optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
        xs, ys = next(batches)
        with ctx.region("train_step"):
            selection.optimizer.zero_grad(set_to_none=True)
            loss = criterion(net(xs), ys)
            loss.backward()
            selection.optimizer.step()
        done += 1
        if share * evaluations >= offers + 1:
            offers, scored = int(share * evaluations), done
            check_finite(net, loss, done)
            ctx.offer(solution)
    selection.advance(1.0)
    if done > scored or not done:
        check_finite(net, loss, done)
        ctx.offer(solution)
    tell(ctx, net)
    return solution


class Selection:
    """The net's select layers, their optimiser, and how many drops are done."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule | None) -> None:
        self.layers, self.optimizer, self.schedule = select_layers(net), optimizer, schedule
        self.drops = max((len(layer.names) - 1 for layer in self.layers), default=0)
        self.done = 0

    def advance(self, share: float) -> bool:
        """Do the drops that are due; whether there were any."""
        due = self.schedule.due(share, self.drops) if self.schedule else 0
        before = self.done
        while self.done < due:
            for layer in self.layers:
                drop(layer, self.optimizer)
            self.done += 1
        return self.done > before


def drop(layer: SelectLayer, optimizer: torch.optim.Optimizer) -> None:
    """Drop a family from each output, and hand the optimiser the smaller parameters, with the rows of their moments."""
    for old, new, rows in layer.drop_smallest():
        state = optimizer.state.pop(old, {})
        if new is not None and state:
            # Adam counts steps in a scalar, which has no rows.
            optimizer.state[new] = {k: v[rows].clone() if v.shape == old.shape else v for k, v in state.items()}
        for group in optimizer.param_groups:
            group["params"] = [kept for p in group["params"] if (kept := new if p is old else p) is not None]


def affordable(ctx: Any, costs: dict[str, float]) -> bool:
    """Whether one more step fits into what is left. Of a drop that makes steps cheaper the next question knows."""
    return all(ctx.left(unit) >= costs.get(unit, 0.0) for unit in ctx.budget) and ctx.left("wall_s") > 0


def spent_share(ctx: Any, costs: dict[str, float]) -> float:
    """The largest share of a budget unit that is spent in the middle of the next step."""
    units = {unit: amount for unit, amount in ctx.budget.items() if amount > 0}
    return max(((amount - ctx.left(unit) + 0.5 * costs.get(unit, 0.0)) / amount for unit, amount in units.items()), default=1.0)


def step_costs(net: nn.Module, inputs: tuple[int, ...], batch: int, labels: bool) -> dict[str, float]:
    flops = train_flops(net, inputs, batch, labels=labels)
    return {"samples_seen": float(batch), "steps": 1.0, "flops": float(flops)}


def batches_of(x: Tensor, y: Tensor, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for ever, permutation after permutation; what is left over waits for the next. One batch of all has no order."""
    while batch == len(x):
        yield x, y
    while True:
        for rows in torch.randperm(len(x), generator=generator)[: len(x) // batch * batch].to(x.device).split(batch):
            yield x[rows], y[rows]


def check_finite(net: nn.Module, loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss) or not all(bool(torch.isfinite(p).all()) for p in net.parameters()):
        raise Diverged(f"the training loss or a weight is not finite after {step} steps")


def tell(ctx: Any, net: nn.Module) -> None:
    """What the trial's record is to say of the net: parameters that are left, and how many outputs each family has."""
    ctx.log(params_left=count_params(net))
    for k, layer in enumerate(select_layers(net)):
        chosen = layer.chosen()
        ctx.log(**{f"families_{k}": ", ".join(f"{name} {chosen.count(name)}" for name in layer.names if name in chosen)})
