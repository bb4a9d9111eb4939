"""The core's own activations and norms: each against its formula, each in every net, declared without torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.builtin.baselines import METHODS
from harness.lab import ComponentUse, Net, Place, Unsupported, build_net, count_params
from harness.specs import Component

BY_NAME: dict[str, Component] = {method.name: method for method in METHODS if isinstance(method, Component)}
DIGITS = {"inputs": 64, "outputs": 10, "channels": 1, "height": 8, "width": 8}
NETS = [Net(arch="mlp", width=16), Net(arch="cnn", width=8), Net(arch="resnet8", width=8), Net(arch="vit", width=12)]


def resolve(name: str, **params: Any) -> ComponentUse:
    method = BY_NAME[name]
    module, _, function = method.build.partition(":")
    build = getattr(importlib.import_module(module), function)
    return ComponentUse(name, method.kind, build, method.params(**params), method.init)


def build(name: str, place: Place, **params: Any) -> nn.Module:
    use = resolve(name, **params)
    return use.build(place, use.params).double()


def phi(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / 2**0.5))


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


ACTIVATIONS = [
    ("relu", {}, lambda x: (x + x.abs()) / 2),
    ("leaky_relu", {}, lambda x: torch.where(x > 0, x, 0.01 * x)),
    ("leaky_relu", {"slope": 0.2}, lambda x: torch.where(x > 0, x, 0.2 * x)),
    ("elu", {}, lambda x: torch.where(x > 0, x, torch.exp(x) - 1)),
    ("elu", {"alpha": 2.0}, lambda x: torch.where(x > 0, x, 2 * (torch.exp(x) - 1))),
    ("gelu", {}, lambda x: x * phi(x)),
    ("gelu", {"approximate": "tanh"}, lambda x: x / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))),
    ("silu", {}, lambda x: x * sigmoid(x)),
    ("prelu", {}, lambda x: torch.where(x > 0, x, 0.25 * x)),
    ("prelu", {"start": 0.5}, lambda x: torch.where(x > 0, x, 0.5 * x)),
    ("tanh", {}, lambda x: 2 * sigmoid(2 * x) - 1),
]


@pytest.mark.parametrize(("name", "params", "formula"), ACTIVATIONS, ids=[f"{n}-{p}" for n, p, _ in ACTIVATIONS])
def test_an_activation_is_its_formula(name, params, formula):
    """A baseline that is not what its name says would make every comparison with it wrong."""
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)

    torch.testing.assert_close(build(name, Place(1, 0), **params)(x), formula(x), rtol=1e-12, atol=1e-14)


def normalise(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True) + eps).sqrt()


def by_group(x: Tensor, groups: int, eps: float) -> Tensor:
    return normalise(x.unflatten(1, (groups, -1)), (2, 3, 4), eps).flatten(1, 2)


NORMS = [
    ("batchnorm-relu", {}, lambda x: normalise(x, (0, 2, 3), 1e-5)),
    ("batchnorm-silu", {"eps": 0.5}, lambda x: normalise(x, (0, 2, 3), 0.5)),
    ("groupnorm-relu", {}, lambda x: by_group(x, 8, 1e-5)),
    ("groupnorm-silu", {"groups": 2, "eps": 0.5}, lambda x: by_group(x, 2, 0.5)),
    ("layernorm-relu", {"eps": 0.5}, lambda x: normalise(x, (1, 2, 3), 0.5)),
]


@pytest.mark.parametrize(("name", "params", "norm"), NORMS, ids=[name for name, _, _ in NORMS])
def test_a_norm_with_activation_is_its_formula_and_without_it_the_norm_alone(name, params, norm, rng):
    """In front of a residual addition only the norm may stand; behind it only the activation."""
    x = 2 + 3 * torch.randn(5, 16, 3, 2, generator=rng, dtype=torch.float64)
    act = torch.relu if name.endswith("relu") else lambda z: z * sigmoid(z)

    def got(**place: Any) -> Tensor:
        return build(name, Place(16, 2, **place), **params)(x)

    torch.testing.assert_close(got(), act(norm(x)), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got(activated=False, role="residual"), norm(x), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got(role="join"), act(x), rtol=1e-12, atol=1e-14)


def test_batch_norm_keeps_the_share_of_the_newest_batch_that_it_is_told(rng):
    """momentum 0.3: the running mean is 0.3 of the first batch's, since it starts at 0."""
    module = build("batchnorm-relu", Place(4, 0), momentum=0.3)
    x = 5 + torch.randn(50, 4, generator=rng, dtype=torch.float64)
    module(x)

    torch.testing.assert_close(module.state_dict()["0.running_mean"], 0.3 * x.mean(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["groupnorm-relu", "groupnorm-silu"])
def test_groups_that_do_not_divide_the_features_are_unsupported_with_the_mend(name):
    """A group norm with other groups than declared would be another method."""
    with pytest.raises(Unsupported, match="groups=8 does not divide 12 features; use a width that it divides"):
        build(name, Place(12, 2))


OWN_PARAMS = {"prelu": lambda acts, norms: acts, **{n: lambda acts, norms: 2 * norms for n in BY_NAME if "norm" in n}}
# (activation layers, features that are normalised) by net: width 16, 16; 8, 16; 8, 3 blocks with their shortcuts; 24, 24.
PLACES = {"mlp": (2, 32), "cnn": (2, 24), "resnet8": (7, 8 + 2 * 8 + 3 * 16 + 3 * 32), "vit": (2, 48)}


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.arch)
@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_baseline_goes_into_every_net_and_brings_the_parameters_counted_by_hand(name, net, rng):
    """A suite may put any of them anywhere; a norm has a scale and a shift for each feature."""
    use = resolve(name)
    plain = count_params(build_net(net, DIGITS, device="meta"))
    module = build_net(net, DIGITS, use)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1, generator=rng)
    logits = module(torch.randn(4, 1, 8, 8, generator=rng))

    assert torch.isfinite(logits).all()
    assert count_params(module) - plain == OWN_PARAMS.get(name, lambda acts, norms: 0)(*PLACES[net.arch])


def test_the_issue_s_baselines_are_all_declared():
    named = {"relu", "leaky_relu", "elu", "gelu", "silu", "prelu", "tanh"}
    pairs = {"batchnorm-relu", "batchnorm-silu", "groupnorm-relu", "groupnorm-silu", "layernorm-relu"}

    assert named | pairs == BY_NAME.keys()
    assert {name for name, method in BY_NAME.items() if method.kind == "norm_act"} == pairs
    assert all(method.summary for method in BY_NAME.values())


def test_declaring_the_baselines_imports_no_torch():
    """`harness list` reads the declarations only, and torch costs seconds."""
    code = "import sys, harness.builtin.baselines; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
