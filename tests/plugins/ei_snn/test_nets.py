"""Codings, the shapes of nets, and what a whole net may not depend on."""

from __future__ import annotations

import pytest
import torch
from harness_papers.ei_snn import BatchNormParams, CircuitParams, PlainParams
from harness_papers.ei_snn.coding import Encoder, spike_times
from harness_papers.ei_snn.layers import Circuit, Weights
from harness_papers.ei_snn.learners import init, make
from harness_papers.ei_snn.nets import Block, Spiking

KINDS = {"ei": CircuitParams, "bn": BatchNormParams, "plain": PlainParams}
CODINGS = ["direct", "rate", "latency"]


@pytest.fixture
def ready(make_ctx, clouds):
    """(kind, item shape, dtype, parameters) -> an initialised net and its problem."""

    def build(kind, inputs=(12,), dtype="float32", **params):
        params = KINDS[kind](**({"width": 16, "depth": 3} | params))
        problem, ctx = clouds(inputs=inputs), make_ctx(dtype=dtype)
        net = make(kind, problem, ctx, params)
        init(net, problem, ctx, params)
        return net, problem

    return build


# Codings ----------------------------------------------------------------------------------------------------------------


def encoder(x, steps=4, coding="direct"):
    return Encoder(x, steps, coding, torch.Generator().manual_seed(3))


def test_items_are_scaled_by_the_training_part_and_cut_off_beyond_it():
    """Per feature; a constant one is 0."""
    train = torch.tensor([[0.0, 5.0, 2.0], [4.0, 5.0, -2.0]])

    got = encoder(train)(torch.tensor([[1.0, 5.0, 0.0], [9.0, 7.0, -9.0]]))

    assert got.tolist() == [[[0.25, 0.0, 0.5], [1.0, 0.0, 0.0]]]


def test_images_are_scaled_by_channel(rng):
    """Standardised pixels become what they were in [0, 1], if the channel has its lowest and its highest level."""
    grey = torch.rand(20, 2, 4, 4, generator=rng)
    grey[0, :, 0, 0], grey[0, :, 0, 1] = 0, 1
    standardised = (grey - torch.tensor([0.3, 0.5]).view(2, 1, 1)) / torch.tensor([0.2, 0.4]).view(2, 1, 1)

    torch.testing.assert_close(encoder(standardised)(standardised)[0], grey, rtol=0, atol=1e-6)  # float32


def test_the_latency_code_is_one_spike_the_sooner_the_higher():
    x = torch.tensor([[[1.0, 0.8, 0.75, 0.5, 0.3, 0.01, 0.0]]])

    spikes = spike_times(x, 4)[:, 0]

    assert spikes.sum(dim=0).tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert spikes.argmax(dim=0)[:6].tolist() == [0, 0, 1, 2, 2, 3]


def test_the_rate_code_spikes_with_the_value_as_probability(rng):
    """In training by new draws, in evaluation by fixed thresholds, the same for every item."""
    x = torch.rand(3, 40, generator=rng)
    x[0], x[1] = 0, 1
    code = encoder(x, steps=2000, coding="rate")

    trained, again = code(x), code(x)
    code.eval()

    for spikes in (trained, code(x)):
        # 2000 draws: a standard error of at most 0.011, of which 5
        torch.testing.assert_close(spikes.mean(dim=0)[2], x[2], rtol=0, atol=0.056)
    assert not torch.equal(trained, again)
    assert torch.equal(code(x), code(x))
    assert torch.equal(code(x)[:, 2:3], code(x[2:3]))


# What a net may not depend on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_of_the_item_alone(kind, coding, ready):
    """In evaluation no batch statistics, in float64, where a spike does not hang on rounding."""
    net, problem = ready(kind, dtype="float64", coding=coding)
    x = problem.x[:32].double()
    net.eval()

    with torch.no_grad():
        together, alone = net(x), torch.cat([net(item) for item in x.split(1)])
        among_others = net(torch.cat([x[:4], 50 * x[4:]]))[:4]

    assert together.std() > 0.01
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)
    torch.testing.assert_close(among_others, together[:4], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["ei", "plain"])
def test_without_a_norm_no_item_sees_its_batch_in_training_either(kind, ready):
    """What the paper is for. With batch norm it is not so: the check can fail."""
    net, problem = ready(kind, dtype="float64")
    normed, _ = ready("bn", dtype="float64")
    x = problem.x[:8].double()

    for one, equal in ((net, True), (normed, False)):
        one.train()
        assert torch.allclose(one(x)[:4], one(x[:4]), rtol=0, atol=1e-9) is equal


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_the_first_layers_currents_made_once_change_nothing(kind, training, ready):
    """Against T equal copies of the input: logits, gradients, and the statistics of batch norm."""
    net, problem = ready(kind, dtype="float64")
    x, y = problem.x[:16].double(), problem.y[:16]
    net.train(training)
    results = []
    for copies in (1, 4):
        handle = net.encoder.register_forward_hook(lambda *a, copies=copies: a[2].repeat(copies, *[1] * (a[2].ndim - 1)))
        net.zero_grad()
        before = {name: value.clone() for name, value in net.named_buffers()}
        logits = net(x)
        torch.nn.functional.cross_entropy(logits, y).backward()
        buffers = {name: value.clone() for name, value in net.named_buffers()}
        net.load_state_dict(before, strict=False)
        results.append([logits.detach(), *(p.grad.clone() for p in net.parameters()), *buffers.values()])
        handle.remove()

    for once, each in zip(*results, strict=True):
        torch.testing.assert_close(once, each, rtol=1e-9, atol=1e-10)  # sums over 4 copies, or 4 times one


# Shapes -----------------------------------------------------------------------------------------------------------------

LAYERS = {
    ("mlp", 2): 1, ("mlp", 16): 15, ("vgg", 8): 5, ("vgg", 11): 8, ("vgg", 16): 13, ("vgg", 19): 16,
    ("resnet", 10): 12, ("resnet", 18): 20,
}  # fmt: skip


@pytest.mark.parametrize(("shape", "layers"), LAYERS.items(), ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_nets_have_the_layers_of_their_depth_and_give_logits(kind, shape, layers, ready):
    """The repository's VGG-8 has five convolutions and one affine layer; a ResNet's shortcuts of 1x1 synapses spike too."""
    name, depth = shape
    net, problem = ready(kind, inputs=(2, 9, 8), net=name, depth=depth, width=32 if name == "mlp" else 8)

    with torch.no_grad():
        logits = net(problem.x[:3])

    assert logits.shape == (3, 3)
    assert len(net.spiking_layers()) == layers
    synapses = Circuit if kind == "ei" else Weights
    assert sum(isinstance(part, synapses) for part in net.modules()) == layers + 1


def test_a_vgg_widens_by_its_stages_and_reads_what_the_pools_leave(ready):
    """32x32 through five pools is 1x1, so the last layer has as many inputs as channels."""
    net, _ = ready("plain", inputs=(3, 32, 32), net="vgg", depth=8, width=4)

    assert [layer.synapses.weight.shape[0] for layer in net.spiking_layers()] == [4, 8, 16, 32, 32]
    assert net.readout.synapses.weight.shape == (3, 32)


def test_a_tapered_mlp_has_the_papers_widths(ready):
    net, _ = ready("plain", depth=8, width=500, taper=True)

    assert [layer.synapses.weight.shape[0] for layer in net.spiking_layers()] == [500, 500, 300, 300, 300, 100, 100]


def test_a_block_adds_its_shortcut_to_the_spikes(ready):
    """So what it gives is a whole number up to 2."""
    net, problem = ready("ei", inputs=(2, 9, 8), net="resnet", depth=10, width=8)
    blocks = [part for part in net.layers if isinstance(part, Block)]
    seen = []
    for block in blocks:
        block.register_forward_hook(lambda *a: seen.append(a[2]))

    with torch.no_grad():
        net(problem.x[:16])

    values = torch.cat([out.flatten() for out in seen]).unique()
    assert (values == values.round()).all()
    assert values.max() >= 2
    assert [block.shortcut is None for block in blocks] == [True, False, False, False]


@pytest.mark.parametrize(
    ("inputs", "params", "said"),
    [
        ((12,), {"net": "vgg", "depth": 8}, "needs images"),
        ((2, 9, 8), {"net": "vgg", "depth": 9}, "comes in depth 8, 11, 16, 19, got 9"),
        ((2, 9, 8), {"net": "resnet", "depth": 8}, "comes in depth 10, 18, 34"),
        ((12,), {"depth": 5, "taper": True}, "use taper: false"),
    ],
    ids=str,
)
def test_a_net_that_there_is_not_is_refused(inputs, params, said, ready):
    with pytest.raises(ValueError, match=said):
        ready("plain", inputs=inputs, **params)


# Initial values ---------------------------------------------------------------------------------------------------------


def test_each_layer_is_filled_before_the_next_one_sees_its_spikes(ready):
    """Layer by layer: all of eight layers spike, and each divisor's mean is the root of its input's variance."""
    net, problem = ready("ei", depth=9, width=64)
    rates = []
    for layer in net.spiking_layers():
        layer.register_forward_hook(lambda part, given, out: rates.append(out.mean().item()))
    assert isinstance(net.spiking_layers()[0], Spiking)

    with torch.no_grad():
        net(problem.x)

    assert all(0.02 < rate < 0.6 for rate in rates)


def test_initial_weights_belong_to_a_layers_name(ready):
    """Another arm, another width elsewhere or another seed of nothing else does not move them."""
    first, _ = ready("plain", depth=3)
    deeper, _ = ready("plain", depth=5)
    normed, _ = ready("bn", depth=3)

    for other in (deeper, normed):
        a, b = first.spiking_layers()[0].synapses, other.spiking_layers()[0].synapses
        assert torch.equal(a.weight, b.weight)
