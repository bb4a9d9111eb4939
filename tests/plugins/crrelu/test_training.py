"""CRReLU in the reference nets, trained by the reference learner."""

from __future__ import annotations

import pytest
import torch
from harness_papers.crrelu.method import CRReLU

from harness.nets import Net

NETS = {
    "mlp": Net(arch="mlp", width=16),
    "cnn": Net(arch="cnn", width=8),
    "resnet8": Net(arch="resnet8", width=8, norm="batch"),
    "vit": Net(arch="vit", width=12, depth=2, patch=4),
}


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("name", ["crrelu", "crrelu-even"])
def test_every_eps_is_trained_in_every_net(name, net, in_the_lab):
    """Each activation's scalar moves in three steps, and the loss stays finite (the learner would raise)."""
    _, after = in_the_lab(name, net)
    layers = [m for m in after.modules() if isinstance(m, CRReLU)]

    assert len(layers) >= 2
    assert all(m.eps.item() != pytest.approx(0.01, abs=1e-6) for m in layers)


def test_a_frozen_eps_stays(in_the_lab):
    """The ablation; everything else is trained."""
    before, after = in_the_lab("crrelu", NETS["cnn"], eps=0.1, learnable=False)

    assert [m.eps.item() for m in after.modules() if isinstance(m, CRReLU)] == pytest.approx([0.1, 0.1])
    assert all(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_all_other_parameters_start_as_with_relu(in_the_lab):
    """So that a difference is the activation's: the same names, the same bits."""
    ours, _ = in_the_lab("crrelu", NETS["vit"])
    theirs, _ = in_the_lab("relu", NETS["vit"])
    shared = {n: p for n, p in ours.named_parameters() if not n.endswith("eps")}

    assert shared.keys() == dict(theirs.named_parameters()).keys()
    assert all(torch.equal(shared[n], p) for n, p in theirs.named_parameters())


def test_eps_zero_and_frozen_trains_to_the_bits_of_relu(in_the_lab):
    """The strongest check of the hand-written backward pass in place: three steps, no difference."""
    _, ours = in_the_lab("crrelu", NETS["cnn"], eps=0.0, learnable=False)
    _, theirs = in_the_lab("relu", NETS["cnn"])

    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_it_trains_in_half_precision(in_the_lab):
    """bfloat16 weights and a bfloat16 eps."""
    _, after = in_the_lab("crrelu", NETS["mlp"], dtype="bfloat16", eps=0.5)

    assert {p.dtype for p in after.parameters()} == {torch.bfloat16}
