"""What NoProp is compared with, made of the same blocks: the paper's back-propagated chain, a neural ODE by the adjoint method,
and an ensemble of blocks that never see z.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.lab import Classify, NetSolution, Unsupported
from harness_papers.noprop.blocks import Blocks, BlockSpec, reads_item
from harness_papers.noprop.learners import Step, prepare, spec_of, train
from harness_papers.noprop.method import Codes, ItemNoise

MEND = "`pip install torchdiffeq`, or the extra paper-harness-papers[ode]"


class Chain(nn.Module):
    """The paper's back-propagated chain: z_t = (1 - g_t) z_{t-1} + g_t u_t(z_{t-1}, x), cross-entropy of f_out(z_T) alone.

    g_t = tanh(w_t), learned, from `gate`. z_0 ~ N(0, I), new in each step of training. Equations 17 to 19.
    """

    answers_by_state = True

    def __init__(self, spec: BlockSpec, params: Any, salt: int = 0) -> None:
        super().__init__()
        self.steps, self.salt = params.blocks, salt
        self.blocks = Blocks(spec, params.blocks)
        self.codes = Codes(params.embedding, spec.classes, spec.dims)
        self.gate = nn.Parameter(torch.full((params.blocks,), params.gate).atanh())

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            *_, last = self.walk(x)
            return last.state
        z = torch.randn(self.codes.weight.shape[1], len(x), dtype=x.dtype, device=x.device)
        *_, (last, _) = self.run(x, z)
        return self.codes.read(last).T

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def run(self, x: Tensor, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """z_t (d, B) and the logits (classes, B) of block t, for t = 1 .. T. What blocks need of x is computed at once."""
        seen, gates = self.blocks.see(x).unbind(0), self.gate.tanh().unbind(0)
        for own, gate, part in zip(seen, gates, self.blocks.each(), strict=True):
            logits = self.blocks.logits(own[None], z[None], p=part)
            z = torch.lerp(z, self.codes.mixture(logits)[0], gate)
            yield z, logits[0]

    def walk(self, x: Tensor, draw: int = 0) -> Iterator[Step]:
        z = ItemNoise(x, self.salt, draw)(0, self.codes.weight.shape[1])
        for t, (z_t, logits) in enumerate(self.run(x, z), start=1):
            yield Step(t / self.steps, self.codes.read(z_t).T, logits.T)


def solve_chain(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """The paper's baseline, AdamW as NoProp-DT has it."""
    return train(problem, ctx, params, prepare(Chain, problem, ctx, params), "adamw")


class Ensemble(nn.Module):
    """The control: blocks that do not read z, each trained on its own cross-entropy. Their mean probability answers."""

    answers_by_state = True

    def __init__(self, spec: BlockSpec, params: Any) -> None:
        super().__init__()
        self.steps = params.blocks
        self.blocks = Blocks(spec, params.blocks)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.blocks.logits(self.blocks.see(x), None)
        *_, last = self.walk(x)
        return last.state

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y.expand(len(logits), -1), reduction="none").mean(dim=1).sum()

    def walk(self, x: Tensor, draw: int = 0) -> Iterator[Step]:
        """After t members: the log of the mean probability of the first t. Nothing is random, so all draws are one."""
        each = self.blocks.logits(self.blocks.see(x), None).log_softmax(dim=1)
        for t in range(1, self.steps + 1):
            yield Step(t / self.steps, each[:t].logsumexp(dim=0).T - torch.tensor(t, dtype=x.dtype).log().item(), each[t - 1].T)


def solve_ensemble(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """The plain ensemble, AdamW as NoProp-DT has it."""
    module = Ensemble(spec_of(problem.shape, params, tuple(problem.inputs), z=False), params)
    module.blocks.draw(ctx)
    return train(problem, ctx, params, module, "adamw")


class NeuralODE(nn.Module):
    """The paper's "adjoint": dz/dt = logits(z, x, t) W from z(0) ~ N(0, I), cross-entropy of f_out(z(1)).

    Gradients are by the adjoint equation, integrated backwards, so that memory does not grow with the number of steps.
    """

    answers_by_state = True

    def __init__(self, spec: BlockSpec, params: Any, salt: int = 0) -> None:
        super().__init__()
        self.steps, self.solver, self.salt = params.steps, params.solver, salt
        self.blocks = Blocks(spec, 1)
        self.codes = Codes(params.embedding, spec.classes, spec.dims)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            *_, last = self.walk(x, marks=1)
            return last.state
        z = torch.randn(self.codes.weight.shape[1], len(x), dtype=x.dtype, device=x.device)
        return self.codes.read(self.integrate(self.blocks.see(x), z, marks=1)[-1]).T

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def velocity(self, t: Tensor, z: Tensor, seen: Tensor) -> Tensor:
        return self.codes.combination(self.blocks.logits(seen, z[None], self.blocks.at(t.reshape(1))))[0]

    def integrate(self, seen: Tensor, z: Tensor, marks: int) -> Tensor:
        """z at `marks` + 1 even times, (marks + 1, d, B). Gradients reach `seen` as they reach a parameter."""
        times = torch.linspace(0, 1, marks + 1, dtype=z.dtype, device=z.device)
        options = {} if self.solver == "dopri5" else {"options": {"step_size": 1 / self.steps}}
        # What reads the items gets its gradient through `seen`. Named here as well, it would get it twice.
        own = [p for name, p in self.blocks.named_parameters() if not reads_item(name)]
        own += [] if self.codes.fixed else [self.codes.weight]
        return integrator()(
            lambda t, z: self.velocity(t, z, seen), z, times, method=self.solver, adjoint_params=(*own, seen), **options
        )

    def walk(self, x: Tensor, draw: int = 0, marks: int = 10) -> Iterator[Step]:
        z = ItemNoise(x, self.salt, draw)(0, self.codes.weight.shape[1])
        seen = self.blocks.see(x)
        for k, z_t in enumerate(self.integrate(seen, z, marks)[1:], start=1):
            t = torch.tensor(k / marks, dtype=z.dtype, device=z.device)
            guess = z_t + (1 - t) * self.velocity(t, z_t, seen)
            yield Step(k / marks, self.codes.read(z_t).T, self.codes.read(guess).T)


def solve_adjoint(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """The neural ODE, AdamW. Raises Unsupported without torchdiffeq."""
    integrator()
    return train(problem, ctx, params, prepare(NeuralODE, problem, ctx, params, time=True), "adamw")


def integrator() -> Any:
    """torchdiffeq's odeint_adjoint, imported when it is needed."""
    try:
        from torchdiffeq import odeint_adjoint
    except ImportError as exc:
        raise Unsupported(f"the adjoint method needs torchdiffeq, which is not installed; {MEND}") from exc
    return odeint_adjoint
