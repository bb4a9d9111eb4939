"""How a kernel's data lie in memory: `lay_out` puts the same values into a contiguous, a strided or an unaligned tensor.

What lies between the elements of a strided tensor is NaN, so an implementation that does not look at the strides gives NaN.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import torch
from torch import Tensor

Layout = Literal["contiguous", "strided", "unaligned"]
POISON = 0xFF  # this byte throughout is a NaN in every floating dtype


def lay_out(inputs: Mapping[str, Tensor], data: Collection[str], layout: Layout) -> dict[str, Tensor]:
    """The same inputs, those named in data re-laid; each a new leaf in storage of its own, with requires_grad as before."""
    return {
        name: relaid(t, layout if name in data else "contiguous").requires_grad_(t.requires_grad) for name, t in inputs.items()
    }


def relaid(tensor: Tensor, layout: Layout) -> Tensor:
    """A copy of a tensor's values in a layout. Tensors of 0 and 1 elements and of no axes are legal in each."""
    match layout:
        case "contiguous":
            room = tensor.new_empty(tensor.shape)
        case "strided":
            room = every_second(tensor)
        case "unaligned":
            # Allocators align to 64 bytes or more; one element past that is not a multiple of 16 for any dtype up to 8 bytes.
            room = tensor.new_empty(tensor.numel() + 1)[1:].view(tensor.shape)
    return room.copy_(tensor.detach())


def every_second(tensor: Tensor) -> Tensor:
    """Room for a tensor: every second element of the last axis of a buffer twice as long, all of it poisoned."""
    shape = tensor.shape if tensor.dim() else torch.Size((1,))
    buffer = tensor.new_empty((*shape[:-1], 2 * shape[-1]))
    storage_bytes(buffer).fill_(POISON)
    return buffer[..., ::2].view(tensor.shape) if tensor.dim() == 0 else buffer[..., ::2]


def storage_bytes(tensor: Tensor) -> Tensor:
    """All bytes of the tensor's storage, also those that it does not show; a view, on the tensor's device."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
