"""AF-KAN in the reference nets, and what its probes say of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from harness_papers.afkan.probes import TOGETHER, measure_batches, measure_flops
from torch import nn

from harness.data.store import load
from harness.lab import Classify, ComponentUse, NetSolution, Unsupported, build_net, cost_component, fit, init_net
from harness.nets import Net, Train

NETS = {"mlp": Net(arch="mlp", width=16, depth=1, activation="identity"), "vit": Net(arch="vit", width=12, depth=2, patch=4)}
VARIANTS = [
    {},
    {"func_norm": "batch"},
    {"func_norm": "none"},
    {"reduction": "multistep"},
    {"reduction": "spatial_attn"},
    {"norm": "batch"},
]


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("params", VARIANTS, ids=str)
def test_it_trains_in_every_net_with_linear_layers(params, net, in_the_lab):
    """Weights and phases move in three steps, and the loss stays finite (the learner would raise)."""
    before, after = in_the_lab("afkan", net, **params)
    moved = [n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not torch.equal(a, b)]

    assert any(n.endswith("low") for n in moved)
    assert any(n.endswith("out.weight") for n in moved)


@pytest.mark.parametrize("name", ["norm-silu-linear", "layernorm-silu"])
def test_the_controls_train(name, in_the_lab):
    before, after = in_the_lab(name, NETS["mlp"])

    assert all(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True) if a.ndim > 1)


def test_the_layernorm_control_is_the_usual_one(in_the_lab):
    """Layer norm and SiLU behind the hidden layer, nothing behind the last."""
    module, _ = in_the_lab("layernorm-silu", NETS["mlp"])
    kinds = [type(part) for part in module.modules() if not list(part.children())]

    assert [k.__name__ for k in kinds] == ["Flatten", "Linear", "LayerNorm", "SiLU", "Linear"]


def trained(catalogue, in_folder, func_norm: str) -> tuple[NetSolution, dict[str, torch.Tensor]]:
    """A net on digits after a short training, and 200 items that it has not seen."""
    from harness.context import Context

    arrays = load("digits")
    x = (torch.tensor(arrays.x).float() - 4.9) / 6.0
    y = torch.tensor(arrays.y)
    spec = catalogue.method("afkan").spec
    use = ComponentUse(
        "afkan", "linear", __import__("harness_papers.afkan.method", fromlist=["build"]).build, spec.params(func_norm=func_norm)
    )
    ctx = Context(device="cpu", dtype="float32", budget={"steps": 150}, root_seed=0, seed=0, task="t", scratch=in_folder,
                  net={}, train=Train(lr=0.01).model_dump())  # fmt: skip
    ctx.stage = "solve"
    ctx._on_offer = lambda solution, at: None
    problem = Classify(x[:1500], y[:1500], 10, tuple(x.shape[1:]))
    module = build_net(Net(arch="mlp", width=32, depth=1, activation="identity"), problem.shape, use)
    init_net(module, ctx, "he", use)
    return fit(problem, ctx, module), {"x": x[1500:1700], "y": y[1500:1700]}


@pytest.mark.parametrize("func_norm", ["sample", "none"])
def test_a_trained_net_is_as_accurate_on_single_items_as_on_a_thousand(func_norm, catalogue, tmp_path):
    """The leakage control: its answers are the same, but for rounding."""
    solution, held = trained(catalogue, tmp_path, func_norm)
    found = measure_batches(held, solution, None)
    with torch.no_grad():
        together = solution.module.eval()(held["x"])
        alone = torch.cat([solution.module(held["x"][i : i + 1]) for i in range(len(held["x"]))])

    assert found["single_accuracy"] == found["together_accuracy"] > 0.5
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)  # float32 logits of some tens


def test_the_public_code_s_scaling_makes_a_trained_net_s_answers_depend_on_the_batch(catalogue, tmp_path):
    """It is measured, not assumed: the same net, the same items, other logits."""
    solution, held = trained(catalogue, tmp_path, "batch")
    found = measure_batches(held, solution, None)
    with torch.no_grad():
        together = solution.module.eval()(held["x"])
        alone = torch.cat([solution.module(held["x"][i : i + 1]) for i in range(len(held["x"]))])

    assert (together - alone).abs().max() > 0.05
    assert {"single_accuracy", "together_accuracy"} == set(found)


def test_the_probe_looks_in_batches_of_one_and_of_a_thousand():
    """A net whose answer is its batch's size is caught by it."""

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.eye(2)[torch.full((len(x),), int(len(x) == TOGETHER))]

    held = {"x": torch.zeros(2 * TOGETHER, 3), "y": torch.ones(2 * TOGETHER, dtype=torch.int64)}

    assert measure_batches(held, NetSolution(Counts()), None) == {"single_accuracy": 0.0, "together_accuracy": 1.0}


def test_the_counted_flops_are_those_of_the_match(catalogue, in_the_lab):
    """The probe counts the step that `match: {flops: ...}` would count."""
    _, net = in_the_lab("afkan", NETS["mlp"])
    spec = catalogue.method("afkan").spec
    use = ComponentUse("afkan", "linear", __import__("harness_papers.afkan.method", fromlist=["build"]).build, spec.params())
    shape = {"inputs": 64, "outputs": 10, "channels": 1, "height": 8, "width": 8}
    cost = cost_component(shape, NETS["mlp"], Train(batch=16), use)
    found = measure_flops({"x": torch.zeros(3, 1, 8, 8)}, NetSolution(net), SimpleNamespace(train={"batch": 16}))

    assert found == {"item_flops": cost["flops"]}
    assert cost["counted"] > 0.99


def test_a_solution_without_a_net_is_refused_by_name():
    with pytest.raises(Unsupported, match="no `module`"):
        measure_batches({"x": torch.zeros(1, 1)}, object(), None)
