"""What a chain says on its way, on held items and under several draws of the inference noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness import Series
from harness.lab import Unsupported, eval_mode

DRAWS = 5  # as in the paper; they are averaged within a seed, so that seeds alone count as independent
CHUNK = 512


def measure_chain(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float | Series]:
    """Accuracies under DRAWS draws of the noise, of held_part["x"].

    draw_accuracy, draw_accuracy_sd: of the answer, mean and deviation over the draws. state_accuracy, block_accuracy: along the
    chain, of what is read from z_t and of the guess of the block that made it, means over the draws. first_block_accuracy: the
    first of these guesses, for which the chain would not be needed.
    Raises Unsupported for a solution whose module has no `walk`.
    """
    module = getattr(solution, "module", None)
    if not hasattr(module, "walk"):
        raise Unsupported("the probe noprop-chain reads the steps of this paper's chains; the solution has no module.walk")
    like = next(module.parameters())
    x, y = held_part["x"].to(like.device, like.dtype), held_part["y"].to(like.device)
    with torch.no_grad(), eval_mode(module):
        found = [walk_accuracies(module, x, y, draw) for draw in range(DRAWS)]
    times = found[0][0]
    states, blocks = (torch.stack([one[k] for one in found]) for k in (1, 2))
    answers = states[:, -1] if module.answers_by_state else blocks[:, -1]
    return {
        "draw_accuracy": answers.mean().item(),
        "draw_accuracy_sd": answers.std().item(),
        "first_block_accuracy": blocks[:, 0].mean().item(),
        "state_accuracy": Series("t", times, tuple(states.mean(dim=0).tolist())),
        "block_accuracy": Series("t", times, tuple(blocks.mean(dim=0).tolist())),
    }


def walk_accuracies(module: Any, x: Tensor, y: Tensor, draw: int) -> tuple[tuple[float, ...], Tensor, Tensor]:
    """The times of one draw's steps, and the shares of items that state and block get right, (steps,) each."""
    times: tuple[float, ...] = ()
    right = torch.zeros((), dtype=torch.float64)
    for items, labels in zip(x.split(CHUNK), y.split(CHUNK), strict=True):
        steps = list(module.walk(items, draw))
        times = tuple(step.t for step in steps)
        hits = [[(logits.argmax(dim=1) == labels).double().sum() for logits in (step.state, step.block)] for step in steps]
        right = right + torch.tensor(hits, dtype=torch.float64)
    shares = right / len(x)
    return times, shares[:, 0], shares[:, 1]
