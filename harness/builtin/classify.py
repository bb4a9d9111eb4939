"""The classify track's tasks at work: load, score, summarise. Imports torch; resolved in workers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.builtin.supervised import arrays_of, inputs_of, parts_of, predict_all
from harness.context import Context
from harness.lab.problems import Classify, Predictor
from harness.specs import Instance

ECE_BINS = 15
CLOCKS = ("samples_seen", "steps", "flops", "wall_s")  # what a curve is laid over: the first that its points have


def load(name: str, params: Any, ctx: Context) -> Instance:
    """The named task. problem on the trial's device; held parts {"x", "y", "classes"} on the CPU, ready to be sealed.

    Raises DataError where the data are absent or not what they should be.
    """
    arrays = arrays_of(name, params, ctx)
    parts = parts_of(name, params, arrays, ctx)
    x = inputs_of(arrays, parts, params.standardize, ctx.dtype)
    y = {part: torch.tensor(arrays.y[getattr(parts, part)]) for part in x}
    classes = arrays.classes
    assert classes is not None, f"{name} has labels"
    problem = Classify(x["train"].to(ctx.device), y["train"].to(ctx.device), classes, tuple(x["train"].shape[1:]))
    held = {part: {"x": x[part], "y": y[part], "classes": classes} for part in x if part != "train"}
    return Instance(problem, held)


load_digits = partial(load, "digits")
load_wine = partial(load, "wine")
load_breast_cancer = partial(load, "breast_cancer")
load_iris = partial(load, "iris")
load_moons = partial(load, "moons")
load_parity = partial(load, "parity")
load_mnist = partial(load, "mnist")
load_fashion_mnist = partial(load, "fashion-mnist")
load_kmnist = partial(load, "kmnist")
load_cifar10 = partial(load, "cifar10")
load_cifar100 = partial(load, "cifar100")
load_cifar10_jpeg = partial(load, "cifar10-jpeg")
load_fsdd = partial(load, "fsdd")
load_higgs_7500 = partial(load, "higgs-7500")
load_covertype_15120 = partial(load, "covertype-15120")
load_table = partial(load, "table")


def score(part: Mapping[str, Any], solution: Predictor, params: Any, ctx: Context) -> dict[str, float]:
    """accuracy, error, nll (nats an item) and ece of a held part, in float64 from the logits.

    Every value is NaN where a logit is NaN or +inf: such a trial diverged, whatever its arg max happens to be.
    """
    logits = predict_all(solution, part["x"], part["classes"], ctx)
    labels = part["y"].to(logits.device)
    if bool((logits.isnan() | logits.isposinf()).any()):
        return dict.fromkeys(("accuracy", "error", "nll", "ece"), float("nan"))
    log_p = torch.log_softmax(logits, dim=1)
    confidence, predicted = log_p.max(dim=1)
    right = predicted == labels
    nll = -log_p.gather(1, labels[:, None]).mean()
    accuracy = right.double().mean()
    ece = calibration_error(confidence.exp(), right)
    values = torch.stack([accuracy, 1 - accuracy, nll, ece]).tolist()
    return dict(zip(("accuracy", "error", "nll", "ece"), values, strict=True))


def calibration_error(confidence: Tensor, right: Tensor, bins: int = ECE_BINS) -> Tensor:
    """Expected calibration error: sum over bins of share * |accuracy - mean confidence|. confidence, right: (N,).

    Bins of equal width over (0, 1], each closed above. Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    bin_of = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    gaps.index_add_(0, bin_of, right.double() - confidence)
    return gaps.abs().sum() / len(confidence)


def summarise(curve: Sequence[Mapping[str, Any]], params: Any) -> dict[str, float]:
    """auc_accuracy: mean accuracy over the training, in [0, 1].

    The area under the accuracy of the latest offer, from 0 to the last offer, over its clock. Before the first offer nothing
    is known, and that counts as 0: so offering late, or only the best, gains nothing. 0 where there was no offer.
    """
    if not curve:
        return {"auc_accuracy": 0.0}
    clock = next(name for name in CLOCKS if all(name in point["at"] for point in curve))
    ends = [float(point["at"][clock]) for point in curve]
    if ends[-1] <= 0:
        return {"auc_accuracy": 0.0}
    area = sum(p["accuracy"] * (end - start) for p, start, end in zip(curve[:-1], ends[:-1], ends[1:], strict=True))
    return {"auc_accuracy": area / ends[-1]}
