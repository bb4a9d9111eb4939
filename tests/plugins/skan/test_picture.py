"""The drawing of a pruned net."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest
import torch
from harness_papers.skan import METHODS
from harness_papers.skan.learners import solve_selected
from harness_papers.skan.method import POOL, DenseNet, reset, select_layers
from harness_papers.skan.picture import CELL_HEIGHT, POINTS, to_svg

SELECTED = next(method.params for method in METHODS if method.name == "s-kan")


@pytest.fixture
def pruned(rng, make_ctx):
    net = DenseNet(POOL, (2, 8, 1))
    reset(net, make_ctx())
    net.start(2 * torch.rand(100, 2, generator=rng) - 1)
    first, second = select_layers(net)
    first.choose(torch.tensor([7, 0, 1, 2, 3, 4, 5, 6]))
    second.choose(torch.tensor([5]))
    return net


def test_a_node_is_made_by_the_row_that_its_owner_says(pruned, rng):
    layer = select_layers(pruned)[0]
    x = torch.randn(5, 2, generator=rng)

    for o in range(8):
        name, part, row = layer.owner(o)
        assert name == layer.chosen()[o]
        torch.testing.assert_close(part(x)[:, row], layer(x)[:, o])


def test_every_edge_has_a_curve_and_every_node_its_family(pruned, rng):
    x = 2 * torch.rand(100, 2, generator=rng) - 1

    root = ElementTree.fromstring(to_svg(pruned, x))

    lines = [line.get("points").split() for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(lines) == 2 * 8 + 8
    assert all(len(line) == POINTS for line in lines)
    assert [text for text in texts if text.startswith("h1.3 ")] == ["h1.3 rswaf"]
    assert "h2.0 mexican-hat" in texts
    assert not re.search("script|href", to_svg(pruned, x))


def test_curves_stay_in_their_cells_and_one_fills_its_own(pruned, rng):
    """The largest value of a layer is half a cell from its line."""
    root = ElementTree.fromstring(to_svg(pruned, 2 * torch.rand(100, 2, generator=rng) - 1))
    sides = list(root)
    largest = 0.0
    for path, line in itertools.pairwise(sides):
        if line.tag.endswith("polyline"):
            middle = float(re.match(r"M[\d.]+,([\d.]+)h", path.get("d"))[1])
            largest = max(largest, *(abs(float(point.split(",")[1]) - middle) for point in line.get("points").split()))

    assert largest == pytest.approx(CELL_HEIGHT / 2, abs=0.06)  # coordinates have one decimal


def test_a_mixture_is_not_drawn():
    net = DenseNet(POOL, (1, 2, 1))

    with pytest.raises(ValueError, match="still mixes families"):
        to_svg(net, torch.zeros(3, 1))


def test_the_picture_is_kept_with_the_record_where_it_can_be_read(curve, make_ctx):
    small, large = make_ctx(steps=8), make_ctx(steps=8)

    solve_selected(curve, small, SELECTED(width=3))
    solve_selected(curve, large, SELECTED(width=300))

    assert [(blob["name"], blob["media_type"]) for blob in small.blobs] == [("edges.svg", "image/svg+xml")]
    assert large.blobs == []
