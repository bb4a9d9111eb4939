"""PolyCom in the reference nets, trained by the reference learner."""

from __future__ import annotations

import pytest
import torch
from harness_papers.polycom.method import PolyNorm, PolyReLU

from harness.nets import Net

NETS = {
    "mlp": Net(arch="mlp", width=16),
    "cnn": Net(arch="cnn", width=8),
    "resnet8": Net(arch="resnet8", width=8, norm="batch"),
    "vit": Net(arch="vit", width=12, depth=2, patch=4),
}
LAYERS = {"polyrelu": PolyReLU, "polynorm": PolyNorm}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_weight_is_trained_in_every_net(name, net, in_the_lab):
    """Each layer's four scalars move in three steps, and the loss stays finite (the learner would raise)."""
    _, after = in_the_lab(name, net)
    layers = [m for m in after.modules() if isinstance(m, LAYERS[name])]

    assert len(layers) >= 2
    for layer in layers:
        assert bool(((layer.weight - 1 / 3).abs() > 1e-6).all())
        assert layer.bias.item() != 0


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_trial_twice_gives_the_same_bits(name, in_the_lab):
    """Quality records are compared by their digests; the plain formula runs in one order."""
    _, one = in_the_lab(name, NETS["vit"])
    _, two = in_the_lab(name, NETS["vit"])

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_frozen_weights_stay(name, in_the_lab):
    """The ablation; everything else is trained."""
    before, after = in_the_lab(name, NETS["cnn"], learnable=False)

    assert {tuple(m.weight.tolist()) for m in after.modules() if isinstance(m, LAYERS[name])} == {
        tuple(torch.full((3,), 1 / 3).tolist())
    }
    assert all(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize("name", ["polyrelu", "polynorm", "polynomial", "squared-relu"])
def test_all_other_parameters_start_as_with_relu(name, in_the_lab):
    """So that a difference is the activation's: the same names, the same bits."""
    ours, _ = in_the_lab(name, NETS["vit"])
    theirs, _ = in_the_lab("relu", NETS["vit"])
    shared = {n: p for n, p in ours.named_parameters() if ".act." not in n}

    assert shared.keys() == dict(theirs.named_parameters()).keys()
    assert all(torch.equal(shared[n], p) for n, p in theirs.named_parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_it_trains_in_half_precision(name, in_the_lab):
    """bfloat16 weights; powers in float32."""
    _, after = in_the_lab(name, NETS["mlp"], dtype="bfloat16")

    assert {p.dtype for p in after.parameters()} == {torch.bfloat16}
    assert all(bool(p.isfinite().all()) for p in after.parameters())
