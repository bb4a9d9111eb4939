"""Inference as a timing trial measures it: one batch through `predict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.context import Context
from harness.lab.problems import Classify, Predictor, Regress, Regressor
from harness.lab.solution import NetSolution
from harness.nets import Train


def time_inference(solution: Predictor | Regressor, problem: Classify | Regress, ctx: Context) -> Callable[[], Tensor]:
    """A call without arguments that predicts the first train.batch items of the problem, already on the device.

    A net is called directly, in eval mode and without gradients; other solutions through their `predict`. On CUDA the call
    returns before the work is done: the timer waits.
    """
    settings: Mapping[str, Any] = ctx.train or {}
    x = problem.x[: Train(**settings).batch].to(ctx.device, ctx.dtype)
    if not isinstance(solution, NetSolution):
        return lambda: solution.predict(x)
    module = solution.module.eval()
    # `predict` looks through all modules for their mode: a tenth of a small net's time, and none of the method's.
    return torch.no_grad()(lambda: module(x))
