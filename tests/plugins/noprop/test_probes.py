"""What is measured along a chain."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from harness_papers.noprop import DiscreteParams
from harness_papers.noprop.learners import Step, solve_discrete
from harness_papers.noprop.probes import DRAWS, measure_chain
from torch import Tensor, nn

from harness import Unsupported
from harness.lab import NetSolution


class Scripted(nn.Module):
    """A chain of two steps: states right for the first `draw` + 1 of ten items, blocks for the first 7, then for all."""

    answers_by_state = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def walk(self, x: Tensor, draw: int = 0):
        items = x[:, 0]
        yield Step(0.5, guess(items < 0), guess(items < 7))
        yield Step(1.0, guess(items < draw + 1), guess(items < 10))


def guess(right: Tensor) -> Tensor:
    """Logits of two classes; the label is always 0."""
    return torch.stack([right.float(), 0.5 * torch.ones(len(right))], dim=1)


def part(items: int = 10):
    return {"x": torch.arange(items, dtype=torch.float32)[:, None], "y": torch.zeros(items, dtype=torch.int64)}


def test_accuracies_are_means_over_the_draws():
    """Draws 0 .. 4 get 0.1 .. 0.5 of the items right."""
    got = measure_chain(part(), NetSolution(Scripted()), None)

    assert got["draw_accuracy"] == pytest.approx(0.3)
    assert got["draw_accuracy_sd"] == pytest.approx(0.158113883, abs=1e-7)  # of 0.1, 0.2, 0.3, 0.4, 0.5
    assert got["first_block_accuracy"] == pytest.approx(0.7)
    assert got["state_accuracy"].x == got["block_accuracy"].x == (0.5, 1.0)
    assert got["state_accuracy"].y == pytest.approx((0.0, 0.3))
    assert got["block_accuracy"].y == pytest.approx((0.7, 1.0))


def test_a_chain_that_answers_by_its_last_block_is_judged_by_it():
    """The control with one block."""
    module = Scripted()
    module.answers_by_state = False

    assert measure_chain(part(), NetSolution(module), None)["draw_accuracy"] == 1.0


def test_chunks_change_nothing(monkeypatch):
    """Many items are taken in pieces."""
    whole = measure_chain(part(), NetSolution(Scripted()), None)
    monkeypatch.setattr("harness_papers.noprop.probes.CHUNK", 3)

    assert measure_chain(part(), NetSolution(Scripted()), None) == whole


def test_draw_zero_is_what_the_task_scores(make_ctx, blobs):
    """`predict` is one draw; five draws differ where noise decides."""
    problem = blobs(items=300)
    solution = solve_discrete(problem, make_ctx(steps=12), DiscreteParams(width=8, blocks=3, batch=32))
    held = {"x": problem.x, "y": problem.y}
    predicted = (solution.predict(problem.x).argmax(dim=1) == problem.y).float().mean().item()

    got = measure_chain(held, solution, None)

    assert DRAWS == 5
    assert got["draw_accuracy_sd"] > 0
    assert abs(got["draw_accuracy"] - predicted) < 6 * got["draw_accuracy_sd"]
    assert solution.module.training  # as it was before


def test_a_solution_without_a_chain_is_unsupported():
    """The probe belongs to this paper's methods."""
    with pytest.raises(Unsupported, match=r"no module\.walk"):
        measure_chain(part(), SimpleNamespace(), None)
