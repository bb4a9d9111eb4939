"""SELU in the reference nets, trained by the reference learner."""

from __future__ import annotations

import math

import pytest
import torch

from harness.lab import layer_moments
from harness.nets import Net

NETS = {
    "mlp": Net(arch="mlp", width=16),
    "cnn": Net(arch="cnn", width=8),
    "resnet8": Net(arch="resnet8", width=8, norm="batch"),
    "vit": Net(arch="vit", width=12, depth=2, patch=4),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize(
    ("name", "params"), [("selu", {}), ("selu", {"dropout": 0.1}), ("selu-he", {}), ("selu-inverted-dropout", {})]
)
def test_it_trains_in_every_net(name, params, net, in_the_lab):
    """Every weight of every net moves in three steps, and the loss stays finite (the learner would raise)."""
    before, after = in_the_lab(name, net, **params)

    assert all(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True) if a.ndim > 1)


def test_the_weights_are_lecun_s_and_the_ablation_s_are_he_s(in_the_lab):
    """The net's own default is he; the declared init takes its place. Same draws, another scale."""
    net = Net(arch="mlp", width=256)
    lecun, _ = in_the_lab("selu", net)
    he, _ = in_the_lab("selu-he", net)
    weight, other = (m.hidden[1][0].weight for m in (lecun, he))

    assert weight.std().item() == pytest.approx(1 / 16, rel=0.02)  # 65,536 draws: the deviation is known to 0.3 %
    torch.testing.assert_close(other, math.sqrt(2) * weight)


def test_a_deep_reference_net_keeps_the_moments(in_the_lab, rng):
    """Claim S2 in the net that the claims train: depth 32, before training; with He's weights they leave the box."""
    net, x = Net(arch="mlp", width=128, depth=32), torch.randn(512, 1, 8, 8, generator=rng)
    selu, _ = in_the_lab("selu", net, steps=1)
    he, _ = in_the_lab("selu-he", net, steps=1)

    last = layer_moments(selu, x)[-1]
    assert abs(last.mean) < 0.2
    assert 0.7 < last.var < 1.4  # width 128: tau of a unit varies by 12 %
    assert layer_moments(he, x)[-1].var > 3


def test_dropout_repeats_with_the_trial_s_seed(in_the_lab):
    """The masks come from torch's global generator, which the learner seeds: the same trial gives the same bits."""
    _, first = in_the_lab("selu", NETS["mlp"], dropout=0.5)
    torch.rand(7)
    _, second = in_the_lab("selu", NETS["mlp"], dropout=0.5)

    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
