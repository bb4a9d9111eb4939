"""NoProp-DT, -CT and -FM as learners of the `classify` track: what each block is trained on, and how the chain is run.

In training a module gives what its heads need of the items; its `loss` adds noise and labels. In evaluation it runs the chain
from noise and gives logits. `walk` yields the chain step by step: the probes read it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.lab import Classify, Diverged, NetSolution, Train, Unsupported, fit
from harness_papers.noprop.blocks import Blocks, BlockSpec
from harness_papers.noprop.method import (
    Codes,
    ItemNoise,
    Schedule,
    cosine_signal,
    noised,
    prior_term,
    snr,
    update_coefficients,
)

IMAGE_DROPOUT = 0.2  # the paper's, behind each convolution


class Step(NamedTuple):
    """Where a chain is at level t in (0, 1]: class logits read from z_t, and those of the block that made it; (B, classes)."""

    t: float
    state: Tensor
    block: Tensor


# NoProp-DT --------------------------------------------------------------------------------------------------------------


class Discrete(nn.Module):
    """NoProp-DT: T blocks, each trained to give u_y from z_{t-1} ~ q(. | y) and x.

    trained: the chain is run over so many blocks; short of T, the last one's own guess is the answer.
    """

    def __init__(self, spec: BlockSpec, params: Any, salt: int = 0, trained: int | None = None) -> None:
        super().__init__()
        self.steps = params.blocks
        self.trained = self.steps if trained is None else trained
        self.blocks = Blocks(spec, self.trained)
        self.codes = Codes(params.embedding, spec.classes, spec.dims)
        abar = cosine_signal(params.blocks, params.signal_low, params.signal_high)
        self.update = update_coefficients(abar)
        self.abar = nn.Buffer(abar[:, None, None])
        self.weights = nn.Buffer(params.blocks / 2 * params.eta * snr(abar).diff())
        self.salt = salt

    @property
    def answers_by_state(self) -> bool:
        return self.trained == self.steps

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.blocks.see(x)
        *_, last = self.walk(x)
        return last.state if self.answers_by_state else last.block

    def loss(self, seen: Tensor, y: Tensor) -> Tensor:
        """The sum over blocks of L_t, each with noise of its own. Equation 8."""
        blocks, items, dims = len(seen), len(y), self.codes.weight.shape[1]
        eps = torch.randn(2, blocks, dims, items, dtype=seen.dtype, device=seen.device)
        return self.losses(seen, y, eps[0], eps[1]).sum()

    def losses(self, seen: Tensor, y: Tensor, eps_in: Tensor, eps_out: Tensor, first: int = 0, part: Any = None) -> Tensor:
        """L_t of blocks first, first + 1 ...: (T,). eps_in and eps_out (T, d, B) make z_{t-1} and z_T from u_y."""
        blocks, u = len(seen), self.codes.of(y)
        z = noised(u, self.abar[first : first + blocks], eps_in)
        guess = self.codes.mixture(self.blocks.logits(seen, z, p=part))
        denoised = (guess - u).square().sum(dim=1).mean(dim=1)
        logits = self.codes.read(noised(u, self.abar[-1], eps_out))
        classified = F.cross_entropy(logits, y.expand(blocks, -1), reduction="none").mean(dim=1)
        total = self.weights[first : first + blocks] * denoised + classified
        return total if self.codes.fixed else total + prior_term(u, self.abar[0, 0]).mean()

    def walk(self, x: Tensor, draw: int = 0) -> Iterator[Step]:
        """From z_0 ~ N(0, I) through the blocks that are trained."""
        noise, dims = ItemNoise(x, self.salt, draw), self.codes.weight.shape[1]
        seen, parts = self.blocks.see(x), self.blocks.each()
        z = noise(0, dims)
        for t, (a, b, c) in enumerate(zip(*(k.tolist() for k in self.update), strict=True), start=1):
            if t > self.trained:
                return
            logits = self.blocks.logits(seen[t - 1 : t], z[None], p=parts[t - 1])
            z = a * self.codes.mixture(logits)[0] + b * z + math.sqrt(c) * noise(t, dims)
            yield Step(t / self.steps, self.codes.read(z).T, logits[0].T)


def solve_discrete(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """NoProp-DT. params.order: all blocks step on each batch together, or one block is trained to its end after the other.

    Raises Unsupported for a budget in FLOPs, and for a learned embedding where the blocks are trained one by one.
    """
    module = prepare(Discrete, problem, ctx, params)
    if params.order == "one-by-one":
        return train_one_by_one(problem, ctx, params, module)
    return train(problem, ctx, params, module, "adamw")


def solve_first_block(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """The control: block 1 of NoProp-DT, trained as there, and its guess from pure noise is the answer."""
    return train(problem, ctx, params, prepare(partial(Discrete, trained=1), problem, ctx, params), "adamw")


def train_one_by_one(problem: Classify, ctx: Any, params: Any, module: Discrete) -> NetSolution:
    """Each block through the whole budget before the next begins, so that gradients and AdamW's state exist for one only.

    An epoch is one pass of every block, as when they step together: every T-th step is charged, one batch for T blocks.
    """
    if not module.codes.fixed:
        raise Unsupported("order: one-by-one needs an embedding that stays as it is (one-hot): the first block would move it")
    module = module.to(ctx.device, ctx.dtype).train()
    x, y = problem.x.to(ctx.device, ctx.dtype), problem.y.to(ctx.device)
    batch, noise = min(params.batch, len(x)), ctx.generator("noise", ctx.device)
    amounts = {"samples_seen": batch, "steps": 1}
    steps = min((int(ctx.budget[unit] // amount) for unit, amount in amounts.items() if unit in ctx.budget), default=0)
    if not steps:
        raise Unsupported(f"order: one-by-one shares out samples_seen or steps; the budget {dict(ctx.budget)!r} gives no step")
    solution, done = NetSolution(module), 0
    readout = torch.optim.AdamW(module.codes.parameters(), lr=params.lr, weight_decay=params.weight_decay, fused=True)
    names = dict(module.blocks.named_parameters())
    for t in range(module.steps):
        part = {k: v[t : t + 1] for k, v in module.blocks.all().items()}
        own = {k: part[k].detach().clone().requires_grad_() for k in names}
        part |= own
        optimizer = torch.optim.AdamW(own.values(), lr=params.lr, weight_decay=params.weight_decay, fused=True)
        order = ctx.generator("order")
        for step in range(steps):
            if done % module.steps == 0:
                ctx.spend(**amounts)
            done += 1
            if step % (len(x) // batch) == 0:
                rows = torch.randperm(len(x), generator=order)[: len(x) // batch * batch].to(x.device).split(batch)
            chosen = rows[step % (len(x) // batch)]
            with ctx.region("train_step"):
                eps = torch.randn(2, 1, module.codes.weight.shape[1], batch, generator=noise, dtype=x.dtype, device=x.device)
                seen = module.blocks.see(x[chosen], part)
                loss = module.losses(seen, y[chosen], eps[0], eps[1], t, part).sum()
                optimizer.zero_grad(set_to_none=True)
                readout.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                readout.step()
        if not torch.isfinite(loss):
            raise Diverged(f"the loss of block {t + 1} is not finite after {steps} steps")
        with torch.no_grad():
            for k, tensor in own.items():
                names[k][t].copy_(tensor[0])
        module.trained = t + 1
        ctx.offer(solution)
    return solution


# NoProp-CT --------------------------------------------------------------------------------------------------------------


class Continuous(nn.Module):
    """NoProp-CT: one block that is told t in [0, 1], and a noise schedule that is learned with it."""

    answers_by_state = True

    def __init__(self, spec: BlockSpec, params: Any, salt: int = 0) -> None:
        super().__init__()
        self.steps, self.eta, self.salt = params.steps, params.eta, salt
        self.blocks = Blocks(spec, 1)
        self.codes = Codes(params.embedding, spec.classes, spec.dims)
        self.schedule = Schedule(params.gamma0, params.gamma1, params.learn_schedule)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.blocks.see(x)
        *_, last = self.walk(x, marks=1)
        return last.state

    def loss(self, seen: Tensor, y: Tensor) -> Tensor:
        """Equation 9, with t ~ U(0, 1), one for each item."""
        shape = (2, self.codes.weight.shape[1], len(y))
        eps = torch.randn(shape, dtype=seen.dtype, device=seen.device)
        t = torch.rand(len(y), dtype=seen.dtype, device=seen.device)
        return self.losses(seen, y, t, eps[0], eps[1]).mean()

    def losses(self, seen: Tensor, y: Tensor, t: Tensor, eps_in: Tensor, eps_out: Tensor) -> Tensor:
        """The loss of each item, (B,), at times t (B,). eps_in and eps_out (d, B) make z_t and z_1."""
        u = self.codes.of(y)
        gamma, falling = self.schedule(torch.cat([t, t.new_tensor([0.0, 1.0])]))
        abar = torch.sigmoid(-gamma)
        z = noised(u, abar[:-2], eps_in)
        guess = self.codes.mixture(self.blocks.logits(seen, z[None], self.blocks.at(t)))[0]
        rise = -falling[:-2] * torch.exp(-gamma[:-2])  # SNR'(t)
        logits = self.codes.read(noised(u, abar[-1], eps_out)).T
        classified = F.cross_entropy(logits, y, reduction="none")
        return 0.5 * self.eta * rise * (guess - u).square().sum(dim=0) + classified + prior_term(u, abar[-2])

    def walk(self, x: Tensor, draw: int = 0, marks: int = 10) -> Iterator[Step]:
        """From z_0 ~ N(0, I) in equal steps of t; yields at `marks` even times. The items are seen once."""
        noise, dims = ItemNoise(x, self.salt, draw), self.codes.weight.shape[1]
        times = torch.arange(self.steps + 1, dtype=torch.float64, device=x.device) / self.steps
        gamma, _ = copy.deepcopy(self.schedule).double()(times)
        a, b, c = (k.tolist() for k in update_coefficients(torch.sigmoid(-gamma)))
        seen, timed = self.blocks.see(x), self.blocks.at(times[:-1]).unbind(dim=2)
        z = noise(0, dims)
        for k in range(self.steps):
            logits = self.blocks.logits(seen, z[None], timed[k][..., None])
            z = a[k] * self.codes.mixture(logits)[0] + b[k] * z + math.sqrt(c[k]) * noise(k + 1, dims)
            if is_mark(k + 1, self.steps, marks):
                yield Step((k + 1) / self.steps, self.codes.read(z).T, logits[0].T)


def solve_continuous(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """NoProp-CT; Adam with L2 decay, as in the paper."""
    return train(problem, ctx, params, prepare(Continuous, problem, ctx, params, time=True), "adam")


# NoProp-FM --------------------------------------------------------------------------------------------------------------


class Flow(nn.Module):
    """NoProp-FM: one block learns the velocity from noise to the class's vector. A fixed embedding needs no readout."""

    answers_by_state = True

    def __init__(self, spec: BlockSpec, params: Any, salt: int = 0) -> None:
        super().__init__()
        self.steps, self.sigma, self.salt = params.steps, params.sigma, salt
        self.blocks = Blocks(spec, 1)
        self.codes = Codes(params.embedding, spec.classes, spec.dims, readout=params.embedding != "one-hot")

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.blocks.see(x)
        *_, last = self.walk(x, marks=1)
        return last.state

    def loss(self, seen: Tensor, y: Tensor) -> Tensor:
        """Equations 12 and 13, with t ~ U(0, 1), one for each item."""
        shape = (2, self.codes.weight.shape[1], len(y))
        eps = torch.randn(shape, dtype=seen.dtype, device=seen.device)
        t = torch.rand(len(y), dtype=seen.dtype, device=seen.device)
        return self.losses(seen, y, t, eps[0], eps[1]).mean()

    def losses(self, seen: Tensor, y: Tensor, t: Tensor, z_0: Tensor, eps: Tensor) -> Tensor:
        """The loss of each item, (B,), from its start z_0 and the spread eps, both (d, B)."""
        u = self.codes.of(y)
        z = t * u + (1 - t) * z_0 + self.sigma * eps
        v = self.velocity(seen, z, self.blocks.at(t))
        error = (v - (u - z_0)).square().sum(dim=0)
        if self.codes.fixed:
            return error
        return error + F.cross_entropy(self.codes.read(z + (1 - t) * v).T, y, reduction="none")

    def velocity(self, seen: Tensor, z: Tensor, timed: Tensor) -> Tensor:
        return self.codes.combination(self.blocks.logits(seen, z[None], timed))[0]

    def walk(self, x: Tensor, draw: int = 0, marks: int = 10) -> Iterator[Step]:
        """Euler's method from z_0 ~ N(0, I); the nearest class answers. The block's guess is where it would land at once."""
        z = ItemNoise(x, self.salt, draw)(0, self.codes.weight.shape[1])
        times = torch.arange(self.steps, dtype=torch.float64, device=x.device) / self.steps
        seen, timed = self.blocks.see(x), self.blocks.at(times).unbind(dim=2)
        for k in range(self.steps):
            v = self.velocity(seen, z, timed[k][..., None])
            guess = z + (1 - k / self.steps) * v
            z = z + v / self.steps
            if is_mark(k + 1, self.steps, marks):
                yield Step((k + 1) / self.steps, self.codes.nearest(z).T, self.codes.nearest(guess).T)


def solve_flow(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """NoProp-FM; Adam with L2 decay, as in the paper."""
    return train(problem, ctx, params, prepare(Flow, problem, ctx, params, time=True), "adam")


# Shared -----------------------------------------------------------------------------------------------------------------


def prepare(kind: Callable[..., Any], problem: Classify, ctx: Any, params: Any, time: bool = False) -> Any:
    """A module of this kind with its initial values. Raises Unsupported for parameters that do not go together."""
    spec = spec_of(problem.shape, params, tuple(problem.inputs), time)
    try:
        module = kind(spec, params, ctx.stream_seed("chain"))
        module.codes.draw(ctx, problem.x, problem.y)
    except ValueError as exc:
        raise Unsupported(str(exc)) from exc
    module.blocks.draw(ctx)
    return module


def spec_of(shape: Any, params: Any, inputs: tuple[int, ...], time: bool = False, z: bool = True) -> BlockSpec:
    """The block that the parameters ask for; shape as in Task.shape, inputs the shape of an item.

    Raises Unsupported where the items do not fit the block.
    """
    own = {"one-hot": shape["outputs"], "prototype": math.prod(inputs)}
    dims = own.get(params.embedding, params.dims) if z else 1
    default = IMAGE_DROPOUT if params.block == "image" else 0.0
    dropout = default if params.dropout is None else params.dropout
    norm = "none" if time else params.norm
    try:
        return BlockSpec(inputs, shape["outputs"], dims, params.width, params.block, norm, dropout, z, time)
    except ValueError as exc:
        raise Unsupported(str(exc)) from exc


def train(problem: Classify, ctx: Any, params: Any, module: Any, optimizer: str) -> NetSolution:
    """The lab's loop on the module's own loss: a constant rate, decay on all parameters, as torch's optimisers have it.

    Raises Unsupported for a budget in FLOPs: the lab would count a module's evaluation, which is not what is trained.
    """
    if "flops" in ctx.budget:
        raise Unsupported("budget.flops: not counted for this method; use samples_seen, epochs, steps or wall_s")
    settings = Train(
        lr=params.lr, weight_decay=params.weight_decay, batch=params.batch, warmup=0.0, schedule="constant",
        evaluations=params.evaluations,
    )  # fmt: skip
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW if optimizer == "adamw" else torch.optim.Adam

    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        tensors = [p for group in groups for p in group["params"]]
        return kind(tensors, lr=params.lr, weight_decay=params.weight_decay, fused=True)

    return fit(problem, ctx, module, loss=module.loss, optimizer=make, train=settings)


def is_mark(step: int, steps: int, marks: int) -> bool:
    """Whether `step` of 1 .. steps is one of `marks` even ones; the last always is."""
    return step * marks // steps > (step - 1) * marks // steps
