"""EvoNorm in the reference nets, trained by the reference learner."""

from __future__ import annotations

import pytest
import torch
from harness_papers.evonorm import METHODS
from harness_papers.evonorm.method import Affine, EvoNormB, EvoNormS
from torch import nn

from harness.lab import Unsupported, batch_dependence
from harness.lab.solution import NetSolution
from harness.nets import Net

NAMES = [m.name for m in METHODS]
NETS = {"cnn": Net(arch="cnn", width=8), "resnet8": Net(arch="resnet8", width=16)}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_in_nets_of_maps(name, net, in_the_lab):
    """Every parameter moves, v, gamma and beta included, and the loss stays finite (the learner would raise)."""
    before, after = in_the_lab(name, net, steps=4)

    still = [n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if torch.equal(a, b)]
    assert still == []


@pytest.mark.parametrize("arch", ["mlp", "vit"])
@pytest.mark.parametrize("name", NAMES)
def test_nets_without_maps_are_refused(name, arch, in_the_lab):
    """The trial ends as unsupported, with the component, the net and the mend in its error."""
    with pytest.raises(Unsupported, match=rf"component '{name}' in net.arch '{arch}'.*use net.arch cnn or resnet8"):
        in_the_lab(name, Net(arch=arch, width=12))


@pytest.mark.parametrize(("name", "layer"), [("evonorm-b0", EvoNormB), ("evonorm-s0", EvoNormS)])
def test_resnet8_has_the_authors_layers_in_their_places(name, layer, in_the_lab):
    """Four EvoNorms (stem, and the inner layer of each block), affine maps before the sums, ReLU behind them, no other norm."""
    net, _ = in_the_lab(name, NETS["resnet8"])
    kinds = [type(m) for m in net.modules()]

    assert kinds.count(layer) == 4
    assert kinds.count(Affine) == 5  # three residual branches, two projection shortcuts
    assert kinds.count(nn.ReLU) == 3
    assert not any(isinstance(m, nn.BatchNorm2d | nn.GroupNorm) for m in net.modules())


def test_all_other_parameters_start_as_with_batch_norm(in_the_lab):
    """So that a difference is the layer's: convolutions and head are bit-equal."""
    ours, _ = in_the_lab("evonorm-b0", NETS["resnet8"])
    theirs, _ = in_the_lab("batchnorm-relu", NETS["resnet8"])
    shared = [n for n, p in theirs.named_parameters() if p.ndim > 1]

    assert len(shared) == 10  # stem, six convolutions, two projections, head
    assert all(torch.equal(ours.get_parameter(n), theirs.get_parameter(n)) for n in shared)


@pytest.mark.parametrize("name", NAMES)
def test_a_trained_net_predicts_each_item_by_itself(name, in_the_lab, rng):
    """No layer reads the batch in evaluation."""
    _, after = in_the_lab(name, NETS["cnn"])

    got = batch_dependence({"x": torch.randn(8, 1, 8, 8, generator=rng)}, NetSolution(after), None)

    assert got["batch_dependence"] < 1e-5  # logits of order 1 in float32; convolutions sum in another order


def test_a_batch_of_two_trains(in_the_lab):
    """The smallest batch of the sweep: statistics of 2 x 2 x 2 values in the last stage."""
    _, after = in_the_lab("evonorm-b0", NETS["resnet8"], batch=2)

    assert all(p.isfinite().all() for p in after.parameters())


def test_it_trains_in_half_precision(in_the_lab):
    """bfloat16 maps, statistics in float32."""
    for name in ("evonorm-b0", "evonorm-s0"):
        _, after = in_the_lab(name, NETS["cnn"], dtype="bfloat16")

        assert {p.dtype for p in after.parameters()} == {torch.bfloat16}
