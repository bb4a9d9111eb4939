"""The optimizer as the reference learner asks for it."""

import torch
from lion_pytorch import Lion


def build(groups, params) -> torch.optim.Optimizer:
    """groups: parameter groups with lr and weight_decay, which params have set already."""
    return Lion(groups, lr=params.lr, betas=(params.beta1, params.beta2), weight_decay=params.weight_decay)
