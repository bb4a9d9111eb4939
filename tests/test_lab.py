"""harness.lab: reference nets around components, paired initial weights, the reference learner."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.context import Context
from harness.errors import BudgetSpent
from harness.lab import (
    Classify,
    ComponentUse,
    Conv,
    Diverged,
    Linear,
    Net,
    NetSolution,
    Place,
    Predictor,
    Regress,
    Slot,
    Train,
    Unsupported,
    batch_dependence,
    build_net,
    cost_component,
    count_params,
    fit,
    init_net,
    layer_moments,
    make_norm,
    time_inference,
    train_component,
)
from harness.lab.learner import parameter_groups, rate_at, steps_in

DIGITS = {"inputs": 64, "outputs": 10, "channels": 1, "height": 8, "width": 8, "train_items": 96}
CIFAR = {"inputs": 3072, "outputs": 10, "channels": 3, "height": 32, "width": 32, "train_items": 96}
ARCHS = [
    Net(arch="mlp", width=16, depth=2),
    Net(arch="cnn", width=8, depth=2),
    Net(arch="resnet8", width=8),
    Net(arch="vit", width=12, depth=2),
]


class Scaled(nn.Module):
    """An activation with a parameter of its own, as a paper's plugin brings."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.tensor(0.01))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + self.eps * x


class Drop(nn.Module):
    """An activation that draws from torch's global generator, as dropout does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.relu(x), 0.2, self.training)


def activation(make: Callable[[], nn.Module], **kwargs: Any) -> ComponentUse:
    return ComponentUse("mine", "activation", lambda place, params: make(), **kwargs)


RELU = activation(nn.ReLU)


@pytest.fixture
def make_ctx(tmp_path: Path) -> Callable[..., Context]:
    """Contexts in the stage of `solve`; ctx.offered lists the amounts on the clocks and the weights at each offer."""

    def make(budget: dict[str, float] | None = None, seed: int = 0, dtype: str = "float32", **fields: Any) -> Context:
        budget = {"samples_seen": 320} if budget is None else budget
        ctx = Context(
            device="cpu", dtype=dtype, budget=budget, root_seed=7, seed=seed, task="t/digits", scratch=tmp_path, **fields
        )
        ctx.stage = "solve"
        ctx.offered = []  # type: ignore[attr-defined]
        ctx._on_offer = lambda solution, at: ctx.offered.append(  # type: ignore[attr-defined]
            (at, {name: value.clone() for name, value in solution.module.state_dict().items()})
        )
        ctx.clocks.start()
        return ctx

    return make


@pytest.fixture
def digits(rng: torch.Generator) -> Classify:
    """96 grey 8x8 items of 10 separable classes."""
    y = torch.arange(96) % 10
    centres = torch.randn(10, 1, 8, 8, generator=rng)
    return Classify(centres[y] + 0.3 * torch.randn(96, 1, 8, 8, generator=rng), y, 10, (1, 8, 8))


def settings(net: Net | None = None, **train: Any) -> dict[str, Any]:
    return {"net": (net or ARCHS[0]).model_dump(), "train": Train(**{"batch": 16, **train}).model_dump()}


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Nets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [DIGITS, CIFAR], ids=["8x8", "32x32"])
@pytest.mark.parametrize("net", ARCHS, ids=lambda net: net.arch)
@pytest.mark.parametrize("norm", ["none", "batch", "group", "layer"])
def test_every_net_takes_grey_and_colour_images_with_every_norm(net, shape, norm, make_ctx, rng):
    """One architecture serves digits and CIFAR; all their slots' features are divisible by 8."""
    module = build_net(net.model_copy(update={"norm": norm}), shape)
    init_net(module, make_ctx())
    x = torch.randn(3, shape["channels"], shape["height"], shape["width"], generator=rng)

    logits = module(x)
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()

    assert logits.shape == (3, 10)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def conv_params(before: int, after: int, kernel: int) -> int:
    return before * after * kernel**2 + after


PARAMS_BY_HAND = {
    "mlp": (64 * 16 + 16) + (16 * 16 + 16) + (16 * 10 + 10),
    "cnn": conv_params(1, 8, 3) + conv_params(8, 16, 3) + (16 * 10 + 10),
    "resnet8": conv_params(1, 8, 3)
    + 2 * conv_params(8, 8, 3)
    + conv_params(8, 16, 3) + conv_params(16, 16, 3) + conv_params(8, 16, 1)
    + conv_params(16, 32, 3) + conv_params(32, 32, 3) + conv_params(16, 32, 1)
    + (32 * 10 + 10),
    "vit": (16 * 12 + 12) + 4 * 12
    + 2 * (2 * 24 + (12 * 36 + 36) + (12 * 12 + 12) + (12 * 24 + 24) + (24 * 12 + 12))
    + 24 + (12 * 10 + 10),
}  # fmt: skip


@pytest.mark.parametrize("net", ARCHS, ids=lambda net: net.arch)
def test_the_parameters_are_those_counted_by_hand(net):
    """`match` compares these counts; a forgotten bias would move every matched width."""
    assert count_params(build_net(net, DIGITS, device="meta")) == PARAMS_BY_HAND[net.arch]
    assert cost_component(DIGITS, net, Train(), RELU)["params"] == PARAMS_BY_HAND[net.arch]


def test_building_on_the_meta_device_allocates_nothing_and_draws_no_random_number():
    """Costs of huge nets are found on small machines, and a net's construction disturbs no stream."""
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    huge = build_net(Net(arch="mlp", width=200_000, depth=3), DIGITS, device="meta")
    build_net(ARCHS[2], DIGITS)

    assert all(p.is_meta for p in huge.parameters())
    assert torch.equal(torch.random.get_rng_state(), before)


def places_of(net: Net, kind: str, shape: dict[str, int] = DIGITS) -> list[Place]:
    seen: list[Place] = []

    def build(place: Place, params: None) -> nn.Module:
        seen.append(place)
        return nn.Identity()

    build_net(net, shape, ComponentUse("spy", kind, build))  # type: ignore[arg-type]
    return seen


def test_an_activation_stands_behind_the_nets_norm():
    """Comparing activations must not change the norm."""
    slot = build_net(Net(arch="cnn", width=8, norm="group"), DIGITS, activation(nn.SiLU)).get_submodule("stages.0.slot")

    assert [type(part) for part in slot.children()] == [nn.GroupNorm, nn.SiLU]


def test_a_norm_stands_before_the_nets_activation():
    """Comparing norms must not change the activation."""
    norm = ComponentUse("n", "norm", lambda place, params: nn.InstanceNorm2d(place.features))
    slot = build_net(Net(arch="cnn", width=8, norm="batch", activation="gelu"), DIGITS, norm).get_submodule("stages.1.slot")

    assert [type(part) for part in slot.children()] == [nn.InstanceNorm2d, nn.GELU]


def test_a_norm_act_replaces_both():
    """An EvoNorm is one layer; leaving a ReLU behind it would not be the paper's net."""
    fused = ComponentUse("f", "norm_act", lambda place, params: nn.Identity())
    slot = build_net(Net(arch="mlp", width=8, norm="batch"), DIGITS, fused).get_submodule("hidden.0.slot")

    assert [type(part) for part in slot.children()] == [nn.Identity]


def test_resnet8_asks_a_norm_act_for_its_places_in_the_order_of_the_forward_pass():
    """In front of an addition nothing may be activated; the component is told so."""
    places = places_of(Net(arch="resnet8", width=8), "norm_act")

    assert [place.index for place in places] == list(range(12))
    assert [place.role for place in places] == (
        ["hidden"] + ["hidden", "residual", "join"] + 2 * ["hidden", "residual", "shortcut", "join"]
    )
    assert [place.features for place in places] == [8] + 3 * [8] + 4 * [16] + 4 * [32]
    assert all(place.activated == (place.role in ("hidden", "join")) for place in places)
    assert {place.dims for place in places} == {2}


def test_resnet8_asks_an_activation_only_where_it_activates():
    """An activation in front of a residual addition would be another net."""
    assert [place.role for place in places_of(Net(arch="resnet8", width=8), "activation")] == ["hidden"] + 3 * [
        "hidden",
        "join",
    ]


def test_a_norm_in_the_vit_stands_where_the_layer_norms_stood():
    """Tokens are normalised before attention, before the MLP and before the head."""
    places = places_of(Net(arch="vit", width=12, depth=2), "norm")

    assert [(place.role, place.dims, place.features) for place in places] == 5 * [("pre", 1, 12)]


def test_an_activation_in_the_vit_stands_in_the_mlp():
    assert [(p.dims, p.features) for p in places_of(Net(arch="vit", width=12, depth=2), "activation")] == 2 * [(1, 24)]


@pytest.mark.parametrize("net", [ARCHS[0], ARCHS[3]], ids=["mlp", "vit"])
def test_a_linear_component_replaces_every_linear_layer(net, rng):
    """It sees (N, C) everywhere, tokens included, so a layer written for vectors works in a transformer."""
    seen: list[int] = []

    class Flat(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.ndim)
            return super().forward(x)

    module = build_net(net, DIGITS, ComponentUse("l", "linear", lambda i, o, params: Flat(i, o)))
    logits = module(torch.randn(2, 1, 8, 8, generator=rng))

    assert logits.shape == (2, 10)
    assert not any(isinstance(part, Linear) for part in module.modules())
    assert set(seen) == {2}


def test_a_conv_component_replaces_every_convolution():
    made: list[tuple[int, ...]] = []

    def build(i: int, o: int, kernel: int, stride: int, params: None) -> nn.Module:
        made.append((i, o, kernel, stride))
        return nn.Conv2d(i, o, kernel, stride, kernel // 2)

    module = build_net(Net(arch="resnet8", width=8), DIGITS, ComponentUse("c", "conv", build))

    assert not any(isinstance(part, Conv) for part in module.modules())
    assert made == [
        (1, 8, 3, 1), (8, 8, 3, 1), (8, 8, 3, 1),
        (8, 16, 3, 2), (16, 16, 3, 1), (8, 16, 1, 2),
        (16, 32, 3, 2), (32, 32, 3, 1), (16, 32, 1, 2),
    ]  # fmt: skip


BATCH_NORM_2D = ComponentUse("bn", "norm", lambda place, params: nn.BatchNorm2d(place.features))


@pytest.mark.parametrize(
    ("net", "shape", "component", "says"),
    [
        (ARCHS[0], DIGITS, BATCH_NORM_2D, "component 'bn' in net.arch 'mlp': BatchNorm2d cannot stand.*choose by place.dims"),
        (ARCHS[3], DIGITS, BATCH_NORM_2D, "component 'bn' in net.arch 'vit': BatchNorm2d cannot stand"),
        (ARCHS[0], DIGITS, ComponentUse("c", "conv", Conv), "component 'c' in net.arch 'mlp' has no place.*use another arch"),
        (ARCHS[1], {"inputs": 13, "outputs": 3}, RELU, "'cnn' needs images; the task has 13 flat inputs; use arch 'mlp'"),
        (Net(arch="cnn", depth=5), DIGITS, RELU, "net.depth=5.*8x8"),
        (Net(arch="vit", width=12, patch=3), DIGITS, RELU, "net.patch=3 does not divide 8x8"),
        (Net(arch="vit", width=16, heads=3), DIGITS, RELU, "net.heads=3 does not divide net.width=16"),
        (Net(arch="mlp", activation="rleu"), DIGITS, None, "net.activation: got 'rleu'; use one of identity, relu"),
        (Net(arch="mlp", width=12, norm="group"), DIGITS, RELU, "groups=8 does not divide 12 features"),
    ],
)
def test_what_cannot_be_built_is_unsupported_and_says_the_mend(net, shape, component, says):
    """Such a trial is no failure of the method, and the reader must see why it has no number."""
    with pytest.raises(Unsupported, match=says):
        build_net(net, shape, component)


def test_a_components_own_unsupported_names_the_component_and_the_net():
    def build(place: Place, params: None) -> nn.Module:
        raise Unsupported("only images")

    with pytest.raises(Unsupported, match=r"component 'evo' in net\.arch 'mlp': only images"):
        build_net(ARCHS[0], DIGITS, ComponentUse("evo", "norm_act", build))


@pytest.mark.parametrize("dims", [0, 1, 2])
@pytest.mark.parametrize("kind", ["batch", "group", "layer"])
def test_norms_agree_with_their_formula(kind, dims, rng):
    """(x - mean) / sqrt(var + eps) over the stated axes, features last, in float64."""
    x = 3 + 2 * torch.randn({0: (6, 16), 1: (3, 5, 16), 2: (3, 16, 4, 2)}[dims], generator=rng, dtype=torch.float64)
    got = make_norm(kind, Place(16, dims), groups=4).double()(x)

    wide = x.movedim(1, -1) if dims == 2 else x
    parts = wide.unflatten(-1, (4, 4)) if kind == "group" else wide
    inner = tuple(range(1, wide.ndim - 1)) if dims == 2 else ()
    axes = {"batch": tuple(range(wide.ndim - 1)), "group": (*inner, -1), "layer": (*inner, -1)}[kind]
    centred = parts - parts.mean(axes, keepdim=True)
    expected = (centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt()).reshape(wide.shape)

    torch.testing.assert_close(got, expected.movedim(-1, 1) if dims == 2 else expected, rtol=1e-10, atol=1e-10)


# Initial weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ARCHS, ids=lambda net: net.arch)
def test_swapping_the_activation_leaves_every_other_parameter_bit_equal(net, make_ctx):
    """Else a paired difference would also compare two initialisations."""
    found = {}
    for name, make in {"relu": nn.ReLU, "gelu": nn.GELU, "prelu": nn.PReLU, "scaled": lambda: Scaled(3)}.items():
        component = activation(make)
        module = build_net(net, DIGITS, component)
        init_net(module, make_ctx(), component=component)
        found[name] = weights(module)

    own = [name for name in found["prelu"] if name not in found["relu"]]
    assert len(own) == len(places_of(net, "activation"))
    assert all(torch.equal(found["prelu"][name], torch.tensor([0.25])) for name in own)
    assert same_bits(found["gelu"], found["relu"])
    for name in ("prelu", "scaled"):
        assert same_bits({key: value for key, value in found[name].items() if key in found["relu"]}, found["relu"])


def test_a_component_keeps_the_initial_values_that_it_brings(make_ctx):
    """eps = 0.01 and gamma = 1 are part of the method; in float64 they are not float32's rounding of them."""
    component = activation(lambda: Scaled(3))
    module = build_net(Net(norm="batch"), DIGITS, component, dtype=torch.float64)
    init_net(module, make_ctx(), component=component)
    state = module.state_dict()

    assert state["hidden.0.slot.act.eps"].item() == 0.01
    assert torch.equal(state["hidden.1.slot.norm.weight"], torch.ones(128, dtype=torch.float64))
    assert torch.equal(state["hidden.0.layer.bias"], torch.zeros(128, dtype=torch.float64))


def test_a_weight_depends_on_seed_name_and_shape_only(make_ctx):
    """Another depth leaves the first layer as it was; another seed does not; two layers of one shape differ."""

    def build(depth: int, seed: int) -> dict[str, Tensor]:
        module = build_net(Net(width=64, depth=depth), DIGITS)
        init_net(module, make_ctx(seed=seed))
        return weights(module)

    two, five, other = build(2, 0), build(5, 0), build(2, 1)

    assert torch.equal(two["hidden.0.layer.weight"], five["hidden.0.layer.weight"])
    assert not torch.equal(two["hidden.0.layer.weight"], other["hidden.0.layer.weight"])
    assert not torch.equal(five["hidden.1.layer.weight"], five["hidden.2.layer.weight"])


@pytest.mark.parametrize(("init", "variance"), [("he", 2 / 256), ("lecun", 1 / 256), ("xavier", 2 / 768)])
def test_initial_weights_have_the_schemes_variance(init, variance, make_ctx):
    """512 x 256 normal draws: the variance's standard error is 0.4 %, five of them are allowed."""
    module = build_net(Net(width=512, depth=1), {"inputs": 256, "outputs": 2})
    init_net(module, make_ctx(), init)
    weight = module.get_submodule("hidden.0.layer").weight

    assert weight.var().item() == pytest.approx(variance, rel=0.02)
    assert abs(weight.mean().item()) < 5 * math.sqrt(variance / weight.numel())


def test_the_components_initialisation_comes_before_the_nets(make_ctx):
    """SELU asks for LeCun's; a suite's `init: he` is the default of the others."""
    he, lecun = build_net(ARCHS[0], DIGITS), build_net(ARCHS[0], DIGITS)
    init_net(he, make_ctx(), "he")
    init_net(lecun, make_ctx(), "he", activation(nn.SELU, init="lecun"))

    ratio = he.get_submodule("head").weight / lecun.get_submodule("head").weight
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.sqrt(2)), rtol=1e-6, atol=0)  # float32 rounding


def test_a_linear_component_can_draw_its_own_values_from_a_stream_of_its_own(make_ctx):
    class Mine(nn.Linear):
        def reset(self, generator: torch.Generator) -> None:
            self.weight.copy_(torch.rand(self.weight.shape, generator=generator))

    component = ComponentUse("l", "linear", lambda i, o, params: Mine(i, o))
    first, again = (build_net(ARCHS[0], DIGITS, component) for _ in range(2))
    for module in (first, again):
        init_net(module, make_ctx(), component=component)

    assert torch.equal(first.get_submodule("head").weight, again.get_submodule("head").weight)
    assert first.get_submodule("head").weight.min() >= 0
    assert not torch.equal(first.get_submodule("hidden.0.layer").weight[:, :16], first.get_submodule("hidden.1.layer").weight)


def test_initialising_an_mlp_takes_well_under_5_ms(make_ctx):
    """Thousands of small trials pay it each; process time, best of 20, so that a busy machine does not fail it."""
    module, ctx, taken = build_net(Net(width=128, depth=2), DIGITS), make_ctx(), []
    for _ in range(20):
        start = time.process_time()
        init_net(module, ctx)
        taken.append(time.process_time() - start)

    assert min(taken) < 2.5e-3


# The learner ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ARCHS, ids=lambda net: net.arch)
def test_the_learner_learns(net, digits, make_ctx):
    """Separable classes: 40 epochs leave hardly an item wrong; chance is 0.1."""
    small = net.model_copy(update={"width": 24 if net.arch in ("mlp", "vit") else 8})
    ctx = make_ctx({"samples_seen": 96 * 40}, **settings(small, lr=3e-3))

    solution = train_component(digits, ctx, RELU)

    assert isinstance(solution, Predictor)
    assert (solution.predict(digits.x).argmax(1) == digits.y).float().mean() > 0.95


@pytest.mark.parametrize("net", [ARCHS[0], Net(arch="resnet8", width=8, norm="batch")], ids=["mlp", "resnet8"])
@pytest.mark.parametrize("make", [nn.ReLU, Drop], ids=["relu", "dropout"])
def test_the_same_trial_twice_gives_the_same_bits(net, make, digits, make_ctx):
    """Resume, merge and paired statistics rest on it; what ran before in the process must not matter."""
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        torch.randn(noise)
        found.append(weights(train_component(digits, make_ctx(**settings(net)), activation(make)).module))

    assert same_bits(*found)
    other = weights(train_component(digits, make_ctx(seed=1, **settings(net)), activation(make)).module)
    assert not same_bits(found[0], other)


def test_training_leaves_torchs_global_generator_as_it_was(digits, make_ctx):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    train_component(digits, make_ctx(**settings()), activation(Drop))

    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("budget", [{"samples_seen": 330}, {"steps": 21}, {"flops": 1e6}, {"samples_seen": 1000, "steps": 7}])
def test_the_budget_is_used_up_and_never_exceeded(budget, digits, make_ctx):
    """One more step of the same cost would not have fitted, on the unit that binds."""
    ctx = make_ctx(budget, **settings())
    train_component(digits, ctx, RELU)

    spent = ctx.clocks.spent
    step = {unit: amount / spent["steps"] for unit, amount in spent.items()}
    assert spent["samples_seen"] == 16 * spent["steps"] > 0
    assert all(spent[unit] <= limit for unit, limit in budget.items())
    assert any(spent[unit] + step[unit] > limit for unit, limit in budget.items())


def test_a_budget_in_seconds_ends_training_with_an_offer(digits, make_ctx):
    """The schedule follows the clock; the last offer is the returned state."""
    ctx = make_ctx({"wall_s": 0.25}, **settings(evaluations=4))
    solution = train_component(digits, ctx, RELU)

    assert ctx.clocks.spent["steps"] > 10
    assert 1 <= len(ctx.offered) <= 5
    assert same_bits(ctx.offered[-1][1], weights(solution.module))


def test_a_budget_that_allows_no_step_returns_the_untrained_net(digits, make_ctx):
    """A budget of 0 is the honest starting point of a curve."""
    ctx = make_ctx({"samples_seen": 15}, **settings())
    solution = train_component(digits, ctx, RELU)
    fresh = build_net(ARCHS[0], digits.shape, RELU)
    init_net(fresh, make_ctx())

    assert same_bits(weights(solution.module), weights(fresh))
    assert ctx.clocks.spent == {}
    assert ctx.offered == []


def test_a_budget_without_an_end_is_refused(digits, make_ctx):
    with pytest.raises(Unsupported, match="never ends training; set samples_seen, steps, flops or wall_s"):
        train_component(digits, make_ctx({}, **settings()), RELU)


def test_offers_lie_evenly_over_the_budget_and_the_last_is_the_solution(digits, make_ctx):
    ctx = make_ctx({"samples_seen": 640}, **settings(evaluations=4))
    solution = train_component(digits, ctx, RELU)

    assert [at["samples_seen"] for at, _ in ctx.offered] == [160, 320, 480, 640]
    assert same_bits(ctx.offered[-1][1], weights(solution.module))
    assert not same_bits(ctx.offered[0][1], ctx.offered[1][1])


def test_more_evaluations_than_steps_offer_after_each_step(digits, make_ctx):
    ctx = make_ctx({"steps": 3}, **settings(evaluations=20))
    train_component(digits, ctx, RELU)

    assert [at["steps"] for at, _ in ctx.offered] == [1, 2, 3]


@pytest.mark.parametrize("make", [nn.ReLU, Drop], ids=["relu", "dropout"])
def test_being_scored_does_not_change_training(make, digits, make_ctx):
    """1 or 20 evaluations, even ones that draw random numbers: the final weights are bit-equal, batch statistics included."""
    found = []
    for evaluations in (1, 20):
        ctx = make_ctx(**settings(Net(width=16, norm="batch"), evaluations=evaluations))

        def score(solution: NetSolution, at: object) -> None:
            solution.predict(digits.x)
            torch.randn(9)

        ctx._on_offer = score
        found.append(weights(train_component(digits, ctx, activation(make)).module))

    assert same_bits(*found)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_divergence_is_raised(optimizer, digits, make_ctx):
    """A rate of 1e30 overflows: a status of its own, not a score of garbage."""
    ctx = make_ctx(**settings(optimizer=optimizer, lr=1e30))

    with pytest.raises(Diverged, match=r"is not finite after \d+ steps"):
        train_component(digits, ctx, RELU)


def test_a_single_nan_long_before_the_offer_is_seen(digits, make_ctx):
    """No step is watched on its own, so what happens in one must still show at the end."""
    calls = iter(range(1000))

    class Once(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (math.nan if next(calls) == 3 else 1.0)

    with pytest.raises(Diverged, match="not finite after 20 steps"):
        train_component(digits, make_ctx(**settings(evaluations=1)), activation(Once))


def test_every_epoch_is_a_new_permutation_of_whole_batches(rng, make_ctx):
    """Each item at most once an epoch; 10 items in batches of 4 leave 2 over, other ones each time."""
    x = torch.arange(10.0)[:, None]
    problem = Regress(x, torch.zeros(10, 1), (1,), 1)
    seen: list[list[int]] = []

    class Spy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x[:, 0].int().tolist())
            return super().forward(x)

    fit(problem, make_ctx({"steps": 40}), Spy(1, 1), train=Train(batch=4))

    epochs = [a + b for a, b in zip(seen[::2], seen[1::2], strict=True)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs) == 20
    assert {item for epoch in epochs for item in epoch} == set(range(10))


def test_a_batch_larger_than_the_data_takes_all_of_it(digits, make_ctx):
    ctx = make_ctx({"steps": 2}, **settings(batch=1000))
    train_component(digits, ctx, RELU)

    assert ctx.clocks.spent["samples_seen"] == 2 * 96


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_agrees_with_a_loop_written_out(optimizer, digits, make_ctx):
    """The oracle: plain tensors, the textbook's update, the schedule by its formula; float64, so only rounding differs."""
    lr, decay, steps, warmup = 1e-2, 0.1, 12, 0.25
    start = {"weight": torch.full((10, 64), 0.01, dtype=torch.float64), "bias": torch.zeros(10, dtype=torch.float64)}
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, dtype=torch.float64))
    module[1].load_state_dict(start)
    ctx = make_ctx({"steps": steps}, dtype="float64")
    train = Train(optimizer=optimizer, lr=lr, weight_decay=decay, batch=32, warmup=warmup, clip=0.5)

    fit(digits, ctx, module, train=train)

    generator, order = ctx.generator("order"), []
    while len(order) < steps:
        order += list(torch.randperm(96, generator=generator).split(32))
    value = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    first, second = ({name: torch.zeros_like(v) for name, v in value.items()} for _ in range(2))
    for step, items in enumerate(order):
        logits = digits.x.double().flatten(1)[items] @ value["weight"].T + value["bias"]
        grads = dict(
            zip(value, torch.autograd.grad(F.cross_entropy(logits, digits.y[items]), list(value.values())), strict=True)
        )
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads.values()))
        share = (step + 0.5) / steps
        rate = share / warmup if share < warmup else 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
        for name, v in value.items():
            g, wd = grads[name] * min(1.0, 0.5 / (norm + 1e-6)), decay if name == "weight" else 0.0
            with torch.no_grad():
                if optimizer == "adamw":
                    v -= lr * rate * wd * v
                    first[name] = 0.9 * first[name] + 0.1 * g
                    second[name] = 0.999 * second[name] + 0.001 * g.square()
                    root = (second[name] / (1 - 0.999 ** (step + 1))).sqrt()
                    v -= lr * rate * first[name] / (1 - 0.9 ** (step + 1)) / (root + 1e-8)
                else:
                    g = g + wd * v
                    first[name] = 0.9 * first[name] + g
                    v -= lr * rate * (g + 0.9 * first[name])
    for name, v in value.items():
        torch.testing.assert_close(module[1].get_parameter(name), v, rtol=1e-9, atol=1e-12, check_dtype=True)


@pytest.mark.parametrize(
    ("progress", "schedule", "rate"),
    [(0.0, "cosine", 0.0), (0.05, "cosine", 0.5), (0.1, "cosine", 1.0), (0.55, "cosine", 0.5), (1.0, "cosine", 0.0),
     (0.05, "constant", 0.5), (0.7, "constant", 1.0)],
)  # fmt: skip
def test_the_rate_rises_linearly_then_follows_the_schedule(progress, schedule, rate):
    assert rate_at(progress, Train(warmup=0.1, schedule=schedule)) == pytest.approx(rate, abs=1e-12)


def test_only_tensors_with_two_axes_decay():
    """Decaying a component's scalar or a norm's gamma would change the method."""
    module = build_net(Net(width=8, norm="batch"), DIGITS, activation(lambda: Scaled(3)))
    decaying, others = parameter_groups(list(module.parameters()), Train(weight_decay=0.3))

    assert decaying["weight_decay"] == 0.3
    assert [p.ndim for p in decaying["params"]] == [2, 2, 2]
    assert others["weight_decay"] == 0.0
    assert {p.ndim for p in others["params"]} == {0, 1}


def test_the_steps_of_a_budget_are_those_of_the_unit_that_binds():
    assert steps_in({"samples_seen": 130, "steps": 9}, {"samples_seen": 64.0, "steps": 1.0}) == 2
    assert steps_in({"wall_s": 3.0}, {"samples_seen": 64.0, "steps": 1.0}) == math.inf


class OptimizerParams:
    lr = 0.5


def test_an_optimizer_component_trains_with_its_own_rate_and_the_suites_schedule(digits, make_ctx):
    """Its lr is its own where its parameters name one; the decay is then still the suite's."""
    rates: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            rates.append(self.param_groups[0]["lr"])
            assert [group["weight_decay"] for group in self.param_groups] == [0.01, 0.0]
            super().step()

    component = ComponentUse("mine", "optimizer", lambda groups, params: Spy(groups, lr=params.lr), OptimizerParams())
    train_component(digits, make_ctx({"steps": 4}, **settings(warmup=0.0)), component)

    assert rates == pytest.approx([0.5 * 0.5 * (1 + math.cos(math.pi * (k + 0.5) / 4)) for k in range(4)])


def test_a_loss_component_is_what_is_minimised(digits, make_ctx):
    """A loss that wants class 3 everywhere gets it."""
    wants_three = ComponentUse("mine", "loss", lambda params: lambda logits, labels: F.cross_entropy(logits, 0 * labels + 3))
    solution = train_component(digits, make_ctx({"steps": 200}, **settings(lr=1e-2)), wants_three)

    assert (solution.predict(digits.x).argmax(1) == 3).all()


def test_regression_minimises_the_squared_error(rng, make_ctx):
    """A linear map on linear targets: the residual falls under 1 % of the targets' variance."""
    x = torch.randn(200, 5, generator=rng)
    y = x @ torch.randn(5, 2, generator=rng)
    problem = Regress(x, y, (5,), 2)
    solution = fit(problem, make_ctx({"steps": 600}), nn.Linear(5, 2), train=Train(batch=50, lr=3e-2))

    assert (solution.predict(x) - y).square().mean() < 0.01 * y.var()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_training_keeps_the_trials_dtype(dtype, digits, make_ctx):
    """Also the parameters that a component made in its own, and the running statistics."""
    ctx = make_ctx(dtype=dtype, **settings(Net(width=16, norm="batch")))
    solution = train_component(digits, ctx, activation(lambda: Scaled(3)))

    assert {p.dtype for p in solution.module.parameters()} == {getattr(torch, dtype)}
    assert solution.predict(digits.x).dtype == getattr(torch, dtype)


def test_each_step_is_a_train_step_region(digits, make_ctx):
    """Timing trials read their samples from it; a region that ends the trial leaves a usable solution."""
    entered: list[str] = []

    @contextlib.contextmanager
    def region(name: str) -> Any:
        entered.append(name)
        yield
        if len(entered) == 5:
            raise BudgetSpent("precise")

    ctx = make_ctx(**settings())
    ctx._region = region
    solution = train_component(digits, ctx, RELU)

    assert entered == 5 * ["train_step"]
    assert solution.predict(digits.x).shape == (96, 10)


# Solutions, probes, inference -----------------------------------------------------------------------------------------


def test_predicting_leaves_the_mode_of_every_part_and_the_running_statistics(digits):
    """A norm that is frozen in eval mode stays frozen; a prediction is no training step."""
    module = build_net(Net(width=8, norm="batch"), DIGITS)
    init = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    module.load_state_dict(init)
    frozen = module.get_submodule("hidden.1.slot").eval()
    modes = [part.training for part in module.modules()]

    logits = NetSolution(module).predict(digits.x)

    assert [part.training for part in module.modules()] == modes
    assert not frozen.training
    assert same_bits(weights(module), init)
    assert not logits.requires_grad


def test_predicting_in_chunks_is_predicting_at_once(make_ctx, rng):
    """600 items cross two borders; float64, so only the order of a product's sums may differ."""
    module = build_net(Net(arch="cnn", width=8, norm="batch"), DIGITS, dtype=torch.float64)
    init_net(module, make_ctx())
    x = torch.randn(600, 1, 8, 8, generator=rng, dtype=torch.float64)

    torch.testing.assert_close(NetSolution(module).predict(x), module.eval()(x).detach(), rtol=1e-12, atol=1e-12)


class Peeks:
    """A predictor that reads its batch: each logit is centred over the items beside it."""

    def predict(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)[:, :10]
        return flat - flat.mean(0)


def test_batch_dependence_tells_a_predictor_that_reads_the_batch_from_one_that_does_not(digits, make_ctx):
    module = build_net(Net(width=16, norm="batch"), DIGITS)
    init_net(module, make_ctx())
    held = {"x": digits.x, "y": digits.y}
    flat = digits.x[:32].flatten(1)[:, :10]

    honest = batch_dependence(held, NetSolution(module), make_ctx())["batch_dependence"]
    peeks = batch_dependence(held, Peeks(), make_ctx())["batch_dependence"]

    assert honest < 1e-5  # float32 rounding of logits of size 1
    assert peeks == pytest.approx((flat - flat.mean(0)).abs().max().item(), rel=1e-6)


class Other:
    """Any other learner's solution: it has `predict` and nothing else."""

    def __init__(self, inner: NetSolution) -> None:
        self.inner = inner

    def predict(self, x: Tensor) -> Tensor:
        return self.inner.predict(x)


@pytest.mark.parametrize("kind", [NetSolution, Other])
def test_inference_predicts_one_batch_of_the_training_size(kind, digits, make_ctx):
    """What is timed is a prediction: the same numbers, dropout off, no graph kept."""
    ctx = make_ctx(**settings(batch=24))
    solution = train_component(digits, ctx, activation(Drop))
    call = time_inference(solution if kind is NetSolution else Other(solution), digits, ctx)

    assert torch.equal(call(), solution.predict(digits.x[:24]))
    assert torch.equal(call(), call())
    assert not call().requires_grad


def test_layer_moments_are_those_behind_each_slot(make_ctx, rng):
    """SELU's claim is read from them. A net without layers between says what a slot puts out."""
    module = build_net(Net(width=32, depth=3, activation="selu"), DIGITS)
    init_net(module, make_ctx(), "lecun")
    x = torch.randn(50, 64, generator=rng)

    found = layer_moments(module, x)

    out = x
    for moments, block in zip(found, module.get_submodule("hidden").children(), strict=True):
        out = block(out).detach()
        assert moments.mean == pytest.approx(out.double().mean().item(), abs=1e-12)
        assert moments.var == pytest.approx(out.double().var(unbiased=False).item(), rel=1e-12)
    assert [moments.name for moments in found] == ["hidden.0.slot", "hidden.1.slot", "hidden.2.slot"]
    assert module.training
    assert all(not part._forward_hooks for part in module.modules() if isinstance(part, Slot))


# Problems -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Classify(torch.zeros(3, 4), torch.zeros(3), 2, (4,)), "give labels .*int64"),
        (lambda: Classify(torch.zeros(3, 4), torch.zeros(2, dtype=torch.int64), 2, (4,)), "3 items in x, 2 in y"),
        (lambda: Classify(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), 2, (5,)), r"\(4,\), inputs says \(5,\)"),
        (lambda: Regress(torch.zeros(3, 4), torch.zeros(3), (4,), 1), r"give \(N, 1\)"),
    ],
)
def test_a_problem_whose_parts_disagree_is_refused(make, says):
    """A task that loads labels as floats fails where it is written, not deep in a loss."""
    with pytest.raises(ValueError, match=says):
        make()


def test_a_problem_knows_the_sizes_that_a_net_needs(digits):
    assert digits.shape == DIGITS


# CUDA -----------------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("net", ARCHS, ids=lambda net: net.arch)
def test_no_training_step_waits_for_the_gpu(net, clip, digits, tmp_path):
    """A single .item() a step would halve the speed of a small net; torch raises where one hides in a step."""

    @contextlib.contextmanager
    def strict(name: str) -> Any:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    ctx = Context(
        device="cuda", dtype="float32", budget={"steps": 40}, root_seed=7, seed=0, task="t", scratch=tmp_path,
        **settings(net, clip=clip),
    )  # fmt: skip
    ctx.stage, ctx._region, ctx._on_offer = "solve", strict, lambda solution, at: None
    ctx.clocks.start()
    solution = train_component(digits, ctx, RELU)

    assert ctx.clocks.spent["steps"] == 40
    assert solution.module.get_submodule("head").weight.is_cuda
    assert solution.predict(digits.x).device == digits.x.device


@pytest.mark.cuda
def test_a_gpu_trial_starts_from_the_cpu_trials_weights_and_order(digits, tmp_path):
    """Devices are compared on the same problem: after one step the weights differ by rounding only."""

    def one_step(device: str) -> dict[str, Tensor]:
        ctx = Context(
            device=device, dtype="float64", budget={"steps": 1}, root_seed=7, seed=0, task="t", scratch=tmp_path, **settings()
        )
        ctx.stage, ctx._on_offer = "solve", lambda solution, at: None
        ctx.clocks.start()
        return {name: value.cpu() for name, value in weights(train_component(digits, ctx, RELU).module).items()}

    on_cpu, on_gpu = one_step("cpu"), one_step("cuda")

    for name, value in on_cpu.items():
        # Adam's first step has size lr whatever the gradient's, so rounding is magnified where a gradient is near eps.
        torch.testing.assert_close(on_gpu[name], value, rtol=1e-6, atol=1e-8)
