"""Counting the FLOPs of what runs inside a block: a `FlopCount` sees every operation that torch dispatches.

Matrix products, convolutions and attention by the formulas of torch's own flop counter (a multiply-add is 2; a bias is free).
What works on elements is counted by the tables here: an arithmetic step, a comparison, a choice or an elementary function (exp,
erf, tanh, a root) is 1 for each element; what only moves, views or fills memory is free. An operation that a plugin brings is
counted by the formula that it declares with `torch.utils.flop_counter.register_flop_formula`. What has no formula is named, and
the elements that it writes are the least that it can have cost: `FlopCount.counted` is the share that is not such a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

# Steps for each element that is written, where they are not 1. Composite functions count the steps of their definition.
PER_OUTPUT = {
    "sigmoid": 4, "silu": 4, "gelu": 4, "elu": 3, "celu": 3, "selu": 4, "softplus": 3, "mish": 6, "log_sigmoid_forward": 4,
    "hardtanh": 2, "hardsigmoid": 4, "hardswish": 5, "leaky_relu": 2, "_prelu_kernel": 2, "clamp": 2, "softshrink": 3,
    "addcmul": 2, "addcdiv": 2, "lerp": 3, "logit": 3, "sigmoid_backward": 3, "silu_backward": 7, "gelu_backward": 8,
    "elu_backward": 3, "tanh_backward": 3, "softplus_backward": 5, "mish_backward": 10, "log_sigmoid_backward": 5,
    "leaky_relu_backward": 2, "_prelu_kernel_backward": 4, "hardtanh_backward": 3, "hardsigmoid_backward": 3,
    "hardswish_backward": 5, "mse_loss_backward": 2, "smooth_l1_loss_backward": 4, "native_dropout": 2,
    "native_dropout_backward": 2, "cumsum": 1, "cumprod": 1, "masked_fill": 1, "logaddexp": 4,
}  # fmt: skip
# Steps for each element of the first argument: what reduces, and what normalises (mean 1, variance 3, scale and shift 4).
PER_INPUT = {
    "sum": 1, "mean": 1, "prod": 1, "amax": 1, "amin": 1, "max": 1, "min": 1, "argmax": 1, "argmin": 1, "any": 1, "all": 1,
    "var": 4, "std": 4, "var_mean": 4, "std_mean": 4, "logsumexp": 4, "norm": 2, "linalg_vector_norm": 2,
    "_softmax": 5, "_safe_softmax": 5, "_log_softmax": 5, "_softmax_backward_data": 4, "_log_softmax_backward_data": 4,
    "native_batch_norm": 8, "_native_batch_norm_legit": 8, "cudnn_batch_norm": 8, "native_layer_norm": 8,
    "native_group_norm": 8, "_fused_rms_norm": 5, "native_batch_norm_backward": 10, "cudnn_batch_norm_backward": 10,
    "native_layer_norm_backward": 10, "native_group_norm_backward": 10, "_fused_rms_norm_backward": 10,
    "mse_loss": 3, "smooth_l1_loss": 5, "_adaptive_avg_pool2d": 1, "_adaptive_avg_pool2d_backward": 1,
}  # fmt: skip
# A loss looks at one logit for each label. Where the labels stand among the arguments:
PER_LABEL = {"nll_loss_forward": 1, "nll_loss2d_forward": 1, "nll_loss_backward": 2, "nll_loss2d_backward": 2}
# A pooled element is made of a window. Where its sides stand among the arguments:
POOLS = {"avg_pool2d": 1, "max_pool2d_with_indices": 1, "avg_pool2d_backward": 2, "max_pool2d_with_indices_backward": 2}
# Memory is moved or filled, also at random; nothing is computed.
FREE = frozenset(
    """
    _assert_async _local_scalar_dense _reshape_alias _to_copy _unsafe_index _unsafe_view alias arange as_strided bernoulli
    bernoulli_ cat clone constant_pad_nd copy copy_ embedding empty empty_like empty_strided exponential_ eye fill fill_ flip
    full full_like gather geometric_ index index_put index_put_ index_select lift lift_fresh lift_fresh_copy new_empty
    new_empty_strided new_full new_ones new_zeros normal_ one_hot ones ones_like pixel_shuffle pixel_unshuffle rand rand_like
    randint randint_like randn randn_like random_ randperm reflection_pad1d reflection_pad2d repeat repeat_interleave roll
    scalar_tensor scatter scatter_ select_backward select_scatter set_ slice_backward slice_scatter split_with_sizes_copy stack
    tril tril_ triu triu_ unbind_copy unfold_backward uniform_ upsample_nearest2d zero_ zeros zeros_like
    """.split()  # noqa: SIM905  (a list of sixty quoted names would be harder to read)
)


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside `with FlopCount() as count:` every operation is counted, those of autograd's backward pass too.

    flops: so far.   uncounted: operations without a formula -> elements that they wrote.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.uncounted: dict[str, int] = {}

    @property
    def counted(self) -> float:
        """The share of the work that formulas account for; an operation without one is taken as 1 FLOP an element."""
        guessed = sum(self.uncounted.values())
        return self.flops / (self.flops + guessed) if guessed else 1.0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        amount = count_call(func, args, kwargs, out)
        if amount is None:
            name = str(func._overloadpacket)
            self.uncounted[name] = self.uncounted.get(name, 0) + written(out)
        else:
            self.flops += amount
        return out


def count_call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int | None:
    """FLOPs of one call of a torch operation; None where no formula is known."""
    packet = func._overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    namespace, _, name = func._schema.name.partition("::")
    if namespace in ("aten", "prims"):
        plain = name if name in FREE else name.rstrip("_")
        if name in FREE:
            return 0
        if plain in PER_INPUT:
            return PER_INPUT[plain] * written(args[0])
        if plain in PER_LABEL:
            return written(args[PER_LABEL[plain]])
        if plain in POOLS:
            return count_pool(plain, args, out)
        if plain in PER_OUTPUT or torch.Tag.pointwise in func.tags:
            return PER_OUTPUT.get(plain, 1) * written(out)
    return 0 if func.is_view else None


def count_pool(name: str, args: Sequence[Any], out: Any) -> int:
    """A window for each element that the forward pass writes: additions or comparisons."""
    sides = args[POOLS[name]]
    height, width = (sides[0], sides[-1]) if isinstance(sides, list | tuple) else (sides, sides)
    elements = written(args[0]) if name.endswith("_backward") else written(out[0] if isinstance(out, tuple) else out)
    return int(elements * height * width)


def written(value: Any) -> int:
    """Numbers in a tensor, or in all of several."""
    if isinstance(value, Tensor):
        return value.numel()
    return sum(map(written, value)) if isinstance(value, list | tuple) else 0
