"""A trained net as a solution: what the `classify` and `regress` tracks score."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

CHUNK = 256  # items a forward pass: larger ones leave the caches of a CPU


class NetSolution:
    """A net in its current state. `module` is the net itself, not a copy: training on changes what `predict` says."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def predict(self, x: Tensor) -> Tensor:
        """The net's output (N, outputs) for x (N, ...), in eval mode, without gradients, on x's device.

        Batched in chunks, which changes nothing but rounding. The mode of every part is as before afterwards.
        """
        like = next(self.module.parameters(), x)
        with torch.no_grad(), eval_mode(self.module):
            chunks = [self.module(part.to(like.device, like.dtype)).to(x.device) for part in torch.split(x, CHUNK)]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """All parts in eval mode inside; each in its own mode again afterwards (a frozen norm stays frozen)."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
