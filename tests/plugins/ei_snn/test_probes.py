"""What is counted of a spiking net, against counting one by one, and its drawings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from harness_papers.ei_snn import CircuitParams, PlainParams
from harness_papers.ei_snn.layers import Circuit, Weights
from harness_papers.ei_snn.learners import init, make
from harness_papers.ei_snn.pictures import draw_raster, draw_rates
from harness_papers.ei_snn.probes import draw_activity, look, measure_activity, operations, spread
from torch.nn import functional as F

from harness import Unsupported
from harness.lab import NetSolution
from harness.report.artefacts import clean_svg

KINDS = {"ei": CircuitParams, "plain": PlainParams}


@pytest.fixture
def ready(make_ctx, clouds):
    """(kind, item shape, parameters) -> an initialised net and a held part."""

    def build(kind="ei", inputs=(12,), **params):
        chosen = KINDS[kind](**({"width": 16, "depth": 3} | params))
        problem, ctx = clouds(inputs=inputs), make_ctx()
        net = make(kind, problem, ctx, chosen)
        init(net, problem, ctx, chosen)
        return net, {"x": problem.x, "y": problem.y, "classes": 3}

    return build


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("fan", [(6,), (3, 3, 3)], ids=str)
def test_operations_are_counted_synapse_by_synapse(fan, stride, rng):
    """Each patch of a convolution laid out: a spike meets every output once, and so does a mean of spikes, as a product."""
    stride = 1 if len(fan) == 1 else stride
    levels = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.25])
    x = levels[torch.randint(5, (5, *fan[:1], *((7, 6) if len(fan) == 3 else ())), generator=rng)]
    patches = x if len(fan) == 1 else F.unfold(x, 3, padding=1, stride=stride).transpose(1, 2)
    spikes, means, positions = (patches == 1).sum().item(), (patches == 0.25).sum().item(), patches[..., 0].numel()

    assert min(spikes, means) > 0
    assert operations(Weights(fan, 8, stride), x) == (spikes * 8, means * 8)
    assert operations(Circuit(fan, 8, stride), x) == (spikes * 10, means * 10 + positions * 2 * 2 * 8)
    assert operations(Circuit(fan, 8, stride, output=True), x) == (spikes * 10, means * 10 + positions * 2 * 8)


@pytest.mark.parametrize("coding", ["direct", "latency"])
def test_rates_and_operations_of_a_net_are_those_of_its_spikes(coding, ready, monkeypatch):
    """By hand, layer by layer, whatever the chunks; the first layer's products are real where its input is no spike."""
    net, held = ready(coding=coding)
    net.eval()
    with torch.no_grad():
        coded = net.layers[0](net.encoder(held["x"]))
        first = net.layers[1](coded)
        second = net.layers[2](first)
    items, per_row = len(held["x"]), 2 * 4 * 16  # n_I = 4
    reached = (coded != 0).sum().item() * 20
    events = first.sum().item() * 20 + second.sum().item() * 3 + second.sum().item()  # 3 classes and one inhibitory unit
    macs = (len(coded) + 4) * items * per_row + 4 * items * 3
    if coding == "direct":
        macs += reached
    else:
        events += reached
    monkeypatch.setattr("harness_papers.ei_snn.probes.CHUNK", 50)

    layers, spent = look(net, held["x"])

    assert [layer.rate for layer in layers] == pytest.approx([first.mean().item(), second.mean().item()], rel=1e-5)
    assert spent == pytest.approx((events / items, macs / items), rel=1e-12)


def test_the_probe_reports_silence_and_chance(ready):
    """A threshold that nothing reaches: every unit dead, every logit equal."""
    net, held = ready("plain", theta=1e6)

    got = measure_activity(held, NetSolution(net), None)

    assert (got["firing_rate"], got["dead_units"], got["above_chance"]) == (0.0, 1.0, 0.0)
    assert got["layer_rate"].y == (0.0, 0.0)
    assert got["layer_dead"].x == (1, 2)


def test_dead_units_of_a_convolution_are_channels(ready):
    net, held = ready("plain", inputs=(2, 8, 8), net="vgg", depth=8, width=8, init="unit-variance")
    first = net.spiking_layers()[0].synapses
    with torch.no_grad():
        first.weight.fill_(1)
        first.weight[:2] = 0

    assert measure_activity(held, NetSolution(net), None)["layer_dead"].y[0] == pytest.approx(2 / 8)


def test_above_chance_is_more_than_twice_as_many_right(ready):
    net, held = ready()
    solution = NetSolution(net)
    right = solution.predict(held["x"]).argmax(dim=1)

    for share, above in ((1.0, 1.0), (0.7, 1.0), (0.6, 0.0)):  # twice chance is two thirds
        y = torch.where(torch.arange(len(right)) < share * len(right), right, (right + 1) % 3)
        assert measure_activity({**held, "y": y}, solution, None)["above_chance"] == above


class Saves:
    """Of a context what the drawings need."""

    def __init__(self) -> None:
        self.blobs: list[dict[str, Any]] = []

    def save(self, name: str, content: bytes, media_type: str) -> None:
        self.blobs.append({"name": name, "content": content, "media_type": media_type})


@pytest.mark.parametrize("params", [{}, {"inputs": (2, 8, 8), "net": "resnet", "depth": 18, "width": 8}], ids=str)
def test_drawings_are_kept_once_and_fit_a_report(params, ready):
    """The probe is asked for each part; the report takes an SVG apart and refuses what is no drawing."""
    net, held = ready(**params)
    ctx = Saves()

    told = [draw_activity(held, NetSolution(net), ctx) for _ in range(2)]

    assert told[0] == told[1]
    assert [blob["name"] for blob in ctx.blobs] == ["raster.svg", "firing-rates.svg"]
    for blob in ctx.blobs:
        assert len(blob["content"]) < 150_000
        assert clean_svg(blob["content"].decode()).count("<text") >= len(net.spiking_layers())


def test_a_raster_has_a_stroke_for_each_spike():
    spikes = torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])

    drawn = draw_raster([("layer 1", spikes), ("layer 2", torch.zeros(1, 4))], steps=2)

    assert drawn.count("v4") == 3
    assert drawn.index("layer 2") < drawn.index("layer 1")  # the first layer at the bottom


def test_items_of_a_raster_follow_one_another():
    """(T, B, units) -> a row a unit: the steps of the first item, then those of the second."""
    spikes = torch.arange(12.0).view(3, 2, 2)

    assert spread(spikes).tolist() == [[0, 4, 8, 2, 6, 10], [1, 5, 9, 3, 7, 11]]


def test_bars_are_as_long_as_the_mean_rates():
    drawn = draw_rates([("layer 1", [0.1, 0.2, 0.3], 0.0), ("layer 2", [0.0, 0.0, 0.3], 2 / 3)])

    assert "0.200, 0% silent" in drawn
    assert "0.100, 67% silent" in drawn
    assert clean_svg(drawn)


def test_a_silent_net_has_drawings_too(ready):
    net, held = ready("plain", theta=1e6)
    ctx = Saves()

    assert draw_activity(held, NetSolution(net), ctx) == {"raster_spikes": 0.0}
    assert all(clean_svg(blob["content"].decode()) for blob in ctx.blobs)


def test_another_solution_is_unsupported():
    with pytest.raises(Unsupported, match="none of these nets"):
        measure_activity({}, SimpleNamespace(module=torch.nn.Linear(2, 2)), None)
