"""The drawings of a KAN: what they show, that they are the same for the same numbers, and that a report lets them through."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from harness_papers.kan.families import FAMILIES, make_layer
from harness_papers.kan.layers import KANLinear
from harness_papers.kan.pictures import (
    KINDS,
    MOST_CURVES,
    MOST_LINES,
    Edges,
    draw_curves,
    draw_graph,
    edges_of,
    look_at,
    measure_edges,
    name_of,
    save_pictures,
    strong_edges,
)
from harness_papers.kan.splines import Grid
from torch import nn

from harness.report.artefacts import MOST_BYTES, clean_svg

SVG = "{http://www.w3.org/2000/svg}"


def started(layer: nn.Module, rng: torch.Generator) -> nn.Module:
    layer.reset(rng)
    return layer.double()


def layers_of_all_kinds(rng: torch.Generator) -> list[nn.Module]:
    spline = started(KANLinear(3, 4, Grid(5, 3, -2.0, 2.0)), rng)
    return [spline, *(started(make_layer(family, 3, 4), rng) for family in FAMILIES)]


def edges(*sizes: list[list[float]]) -> list[Edges]:
    """Layers of straight lines with these slopes (out, in)."""
    found = []
    for slopes in map(np.array, sizes):
        x = np.linspace(-1, 1, 21)[:, None] * np.ones(slopes.shape[1])
        found.append(Edges(x, x[:, None, :] * slopes))
    return found


def tags(svg: str, name: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}{name}"))


def test_the_edges_of_a_layer_sum_to_its_output(rng):
    """Of every family: what is drawn is what is computed. Behind a norm the base is left out, and a bias belongs to no edge."""
    x = torch.randn(20, 3, generator=rng, dtype=torch.float64)
    for layer in layers_of_all_kinds(rng):
        out = layer(x)
        if getattr(layer, "norm", False) and layer.base is not None:
            out = out - torch.nn.functional.silu(x) @ layer.base.T
        summed = edges_of(layer, x).values.sum(-1)

        np.testing.assert_allclose(summed, out.detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=repr(layer))


def test_a_net_is_looked_at_as_it_computes_and_left_as_it_was(rng):
    """Layer by layer, in eval mode, with no hook left behind."""
    net = nn.Sequential(*(started(KANLinear(a, b), rng) for a, b in ((3, 4), (4, 2)))).train()
    x = torch.randn(200, 3, generator=rng, dtype=torch.float64)
    first, second = look_at(net, x)

    np.testing.assert_allclose(first.values.sum(-1), second.x)
    assert len(first.x) == 128
    assert net.training
    assert not any(part._forward_hooks for part in net.modules())
    assert look_at(nn.Linear(3, 2), torch.zeros(2, 3)) == []


def test_weak_edges_go_and_so_does_what_hangs_on_nothing():
    """A unit that weak edges alone reach loses its strong way out; one that leads nowhere loses its way in."""
    layers = edges([[1.0, 0.02], [0.03, 0.04], [0.9, 0.5]], [[1.0, 0.9, 0.01]])

    first, second = strong_edges(layers)
    assert first.tolist() == [[True, False], [False, False], [False, False]]
    assert second.tolist() == [[True, False, False]]
    assert [kept.any() for kept in strong_edges(edges([[0.0]]))] == [False]


def test_the_pruned_graph_shows_the_strong_edges_and_their_units():
    svg = draw_graph(edges([[1.0, 0.02], [0.03, 0.04], [0.9, 0.5]], [[1.0, 0.9, 0.01]]))
    named = [e.text for e in tags(svg, "text")]

    assert len(tags(svg, "path")) == 2
    assert named == ["1 of 6 edges", "1 of 3 edges", "x0", "h1_0", "y0"]
    assert len(tags(svg, "circle")) == 3
    assert [float(e.attrib["stroke-width"]) for e in tags(svg, "path")] == [3.0, 3.0]


def test_the_curves_are_those_of_the_largest_edges_each_on_its_scale():
    """A line of slope 2 over [-1, 1] runs from corner to corner; the largest comes first."""
    svg = draw_curves(edges([[0.5, 2.0], [0.0, -1.0]]))
    (largest, *others), named = tags(svg, "polyline"), [e.text for e in tags(svg, "text")]
    points = [tuple(map(float, p.split(","))) for p in largest.attrib["points"].split()]
    box = tags(svg, "rect")[1].attrib

    assert len(others) == 3
    assert named[:3] == ["layer 1: all edges, the largest first", "x1 to y0", "x -1 to 1, y -2 to 2"]
    assert named[3] == "x1 to y1"
    left, top, width, height = (float(box[name]) for name in ("x", "y", "width", "height"))
    assert points[0] == (left, top + height)
    assert points[-1] == (left + width, top)


def test_large_nets_are_cut_to_their_strongest_edges_and_say_so(rng):
    """A layer of 4,096 edges gives a page a picture, not a megabyte."""
    net = nn.Sequential(*(started(KANLinear(a, b), rng) for a, b in ((64, 64), (64, 10))))
    found = look_at(net, torch.randn(50, 64, generator=rng, dtype=torch.float64))
    curves, graph = draw_curves(found), draw_graph(found)

    assert f"layer 1: the {MOST_CURVES} largest of 4,096 edges" in curves
    assert f"edges, {MOST_LINES} drawn" in graph
    assert len(tags(curves, "polyline")) == 2 * MOST_CURVES
    assert max(len(curves), len(graph)) < MOST_BYTES["picture"] / 3


def test_the_same_numbers_give_the_same_drawing_and_a_report_lets_it_through(rng):
    for layer in layers_of_all_kinds(rng):
        for draw in (draw_curves, draw_graph):
            x = torch.linspace(-1, 1, 30, dtype=torch.float64)[:, None].expand(-1, 3)
            svg = draw([edges_of(layer, x)])

            assert draw([edges_of(layer, x)]) == svg
            assert len(tags(clean_svg(svg), "text")) == len(tags(svg, "text")) > 0


def test_constant_edges_and_single_items_are_drawn_too():
    one = Edges(np.zeros((1, 2)), np.full((1, 3, 2), 0.7))

    assert "nan" not in draw_curves([one]) + draw_graph([one])
    assert len(tags(draw_curves([one]), "polyline")) == 6


@pytest.mark.parametrize(
    ("layer", "unit", "side", "name"), [(1, 3, "in", "x3"), (1, 2, "out", "h1_2"), (2, 2, "in", "h1_2"), (2, 0, "out", "y0")]
)
def test_a_unit_has_one_name_on_both_sides(layer, unit, side, name):
    assert name_of(layer, unit, 2, side) == name


class Saves:
    """Of a context what the pictures need."""

    def __init__(self) -> None:
        self.blobs: list[dict[str, object]] = []

    def save(self, name: str, content: bytes, media_type: str) -> None:
        self.blobs.append({"name": name, "content": content, "media_type": media_type})


def test_the_probe_counts_strong_edges_and_keeps_the_drawings_once(rng):
    """It is asked for the validation and for the test part; a net without edges has none, and no picture."""
    net = nn.Sequential(*(started(KANLinear(a, b), rng) for a, b in ((3, 4), (4, 2))))
    ctx, held = Saves(), {"x": torch.randn(40, 3, generator=rng, dtype=torch.float64)}
    found = [measure_edges(held, SimpleNamespace(module=net), ctx) for _ in range(2)]
    left = strong_edges(look_at(net, held["x"]))

    assert found == [{"edges": 20.0, "strong_edges": sum(int(kept.sum()) for kept in left) / 20}] * 2
    assert [blob["name"] for blob in ctx.blobs] == ["edge-functions.svg", "pruned-graph.svg"]
    assert measure_edges(held, SimpleNamespace(module=nn.Linear(3, 2)), ctx) == {"edges": 0.0, "strong_edges": 0.0}
    assert measure_edges(held, object(), ctx) == {"edges": 0.0, "strong_edges": 0.0}
    assert len(ctx.blobs) == 2


def test_layers_that_are_no_chain_have_curves_and_no_graph(rng):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = started(KANLinear(3, 4), rng), started(KANLinear(3, 4), rng)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) + self.b(x)

    ctx = Saves()
    save_pictures(ctx, Two(), torch.randn(40, 3, generator=rng, dtype=torch.float64))

    assert [blob["name"] for blob in ctx.blobs] == ["edge-functions.svg"]


def test_what_has_no_edges_is_refused_by_name():
    with pytest.raises(TypeError, match="Linear has no edges"):
        edges_of(nn.Linear(2, 2), torch.zeros(1, 2))
    assert KANLinear in KINDS
