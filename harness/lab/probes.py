"""Probes of any predictor: does an item's prediction depend on the items beside it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from harness.context import Context
from harness.lab.problems import Predictor

ITEMS = 32


def batch_dependence(held_part: Mapping[str, Any], solution: Predictor, ctx: Context) -> dict[str, float]:
    """{"batch_dependence": largest |logit in a batch - logit alone|} over the first 32 items of held_part["x"].

    The raw number, in logits: rounding alone gives some 1e-6 in float32; a solution that reads the batch gives far more.
    """
    x = held_part["x"][:ITEMS]
    together = solution.predict(x)
    alone = torch.cat([solution.predict(x[i : i + 1]) for i in range(len(x))])
    return {"batch_dependence": float((together.double() - alone.double()).abs().max())}
