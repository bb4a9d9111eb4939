"""The components in reference nets: they train, they start alike, they are what they say."""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from harness_papers.kan import METHODS, BSplineActivationParams, KANConvParams, KANParams
from harness_papers.kan.components import BSplineActivation, build_bspline_activation
from harness_papers.kan.families import BasisLayer
from harness_papers.kan.layers import BasisConv2d, KANLinear
from harness_papers.kan.probes import measure_kernel
from harness_papers.kan.splines import Grid, bases_by_recursion
from pydantic import ValidationError

from harness.lab import Net, NetSolution

LINEAR = [m.name for m in METHODS if m.kind == "linear"]
KANS = {"arch": "mlp", "width": 6, "depth": 1, "activation": "identity"}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("arch", ["mlp", "vit"])
def test_a_layer_stands_for_every_linear_layer_and_learns(name, arch, in_the_lab):
    """Embeddings, attention and head of a transformer too; every weight moves."""
    net = Net(**{**KANS, "arch": arch, "patch": 4, "heads": 2})
    before, after = in_the_lab(name, net, steps=20)

    layers = [part for part in after.modules() if isinstance(part, KANLinear | BasisLayer)]
    assert len(layers) == (2 if arch == "mlp" else 6)
    assert not [part for part in after.modules() if type(part) is torch.nn.Linear]
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    assert [n for (n, a), b in pairs if torch.equal(a, b) or not bool(b.isfinite().all())] == []


@pytest.mark.parametrize("name", LINEAR)
def test_a_net_of_it_is_saved_and_read_again(name, in_the_lab):
    """A solution is kept with its record: a family that holds a lambda could not be."""
    net, _ = in_the_lab(name, Net(**KANS))

    again = pickle.loads(pickle.dumps(net))

    assert [*again.state_dict()] == [*net.state_dict()]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), net.parameters(), strict=True))


@pytest.mark.parametrize("functions", get_args(KANConvParams.model_fields["functions"].annotation))
def test_the_convolution_stands_in_a_cnn(functions, in_the_lab):
    """Strides and all; the head stays linear. Each kind has as many functions as the splines."""
    net = Net(arch="cnn", width=4, depth=2, activation="identity")
    before, after = in_the_lab("kan-conv", net, functions=functions)

    assert {part.basis.size for part in after.modules() if isinstance(part, BasisConv2d)} == {5 + 3}
    assert sum(isinstance(part, BasisConv2d) for part in after.modules()) == 2
    assert all(bool(p.isfinite().all()) for p in after.parameters())
    assert not torch.equal(next(before.parameters()), next(after.parameters()))


@pytest.mark.parametrize("arch", ["mlp", "cnn", "resnet8"])
def test_learned_activations_stand_where_activations_do(arch, in_the_lab):
    """One curve a unit, or a channel; the linear layers are those of any other activation, bit by bit."""
    net = Net(arch=arch, width=4, depth=2)
    splines, _ = in_the_lab("bspline-activation", net)
    plain, _ = in_the_lab("relu", net)

    assert any(isinstance(part, BSplineActivation) for part in splines.modules())
    ours = dict(splines.named_parameters())
    assert all(torch.equal(p, ours[name]) for name, p in plain.named_parameters())


def test_a_learned_activation_follows_its_formula(rng):
    """w silu(z) + sum_j c_j B_j(z), a curve a feature, also over the channels of an image."""
    module = BSplineActivation(3, Grid(5, 3, -2.0, 2.0)).double()
    with torch.no_grad():
        module.base_weight.normal_(generator=rng)
        module.spline_weight.normal_(generator=rng)
    z = torch.randn(20, 3, generator=rng, dtype=torch.float64) * 2
    found = bases_by_recursion(z, module.grid.knots(torch.float64), 3)
    expected = torch.stack(
        [module.base_weight[c] * F.silu(z[:, c]) + found[:, c] @ module.spline_weight[c] for c in range(3)], 1
    )

    torch.testing.assert_close(module(z), expected, atol=1e-13, rtol=0)  # float64
    images = z.view(5, 2, 2, 3).movedim(-1, 1)
    torch.testing.assert_close(module(images).movedim(1, -1).reshape(20, 3), expected, atol=1e-13, rtol=0)


def test_a_learned_activation_starts_near_silu():
    """The public control starts near 0, for it has no base."""
    z = torch.linspace(-3, 3, 50)[:, None]
    place = SimpleNamespace(features=1)

    with_base = build_bspline_activation(place, BSplineActivationParams())
    without = build_bspline_activation(place, BSplineActivationParams(base=False))

    assert float((with_base(z) - F.silu(z)).detach().abs().max()) < 0.02  # the noise is 0.1 / 5 / 2
    assert float(without(z).detach().abs().max()) < 0.02
    assert sum(p.numel() for p in with_base.parameters()) == 9
    assert sum(p.numel() for p in without.parameters()) == 8


@pytest.mark.parametrize("name", [m.name for m in METHODS if m.kind != "conv"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_trial_s_dtype_holds(name, dtype, in_the_lab):
    """No buffer of another dtype slips into the products."""
    net = Net(**KANS) if name in LINEAR else Net(arch="mlp", width=6, depth=1)

    _, after = in_the_lab(name, net, dtype=dtype)

    assert {p.dtype for p in after.parameters()} == {getattr(torch, dtype)}


def test_a_range_without_width_is_refused():
    """With the mend."""
    with pytest.raises(ValidationError, match="give a range that has a width"):
        KANParams(low=1.0, high=-1.0)


def test_declaring_imports_no_torch():
    """`harness list` must not wait for it."""
    code = "import sys, harness_papers.kan; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Which code runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "kernel"), [("float32", "auto"), ("float32", "formula"), ("float64", "auto")])
def test_the_record_says_which_code_computed_the_splines(dtype, kernel, in_the_lab, rng):
    """The fused code for float32 where a compiler is; the formula where it was asked for, and for float64."""
    _, net = in_the_lab("kan", Net(**KANS), dtype=dtype, kernel=kernel)
    x = torch.randn(5, 1, 8, 8, generator=rng)
    layer = next(part for part in net.modules() if isinstance(part, KANLinear))
    expected = 0 if layer.why_eager(x.flatten(1).to(getattr(torch, dtype))) else 2

    found = measure_kernel({"x": x}, NetSolution(net), None)

    assert found == {"fused_layers": expected, "formula_layers": 2 - expected}
    assert expected == 0 or (dtype, kernel) == ("float32", "auto")
    assert measure_kernel({"x": x}, SimpleNamespace(predict=None), None) == {"fused_layers": 0, "formula_layers": 0}


def test_fused_and_formula_train_alike(in_the_lab):
    """Twenty steps of both end at the same weights, but for rounding in float32."""
    _, auto = in_the_lab("kan", Net(**KANS), steps=20)
    _, formula = in_the_lab("kan", Net(**KANS), steps=20, kernel="formula")

    for a, b in zip(auto.parameters(), formula.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)  # twenty steps of AdamW, which divides by small numbers
