"""PolyCom's claims: they name what exists, and each can come out both ways."""

from __future__ import annotations

import pytest
from harness_papers.polycom import FITTED, PAPER, SAMPLES, VIT, WIDTHS

from harness.lab import ComponentUse, Net, count_params
from harness.lab.nets import build_net
from harness.rules import Cell, cells

CLAIMS = {claim.name: claim for claim in PAPER.claims}
TESTABLE = [claim for claim in PAPER.claims if claim.rule is not None]
POLYCOM = ("polynorm", "polyrelu")


def made_up(**methods: float):
    """A value by method; methods not named have 0.5."""
    return lambda cell: methods.get(cell.method.replace("-", "_"), 0.5)


def frozen_at(frozen: float, learned: float):
    """Losses of the method with frozen and with learned weights."""
    return lambda cell: learned if ("method.learnable", True) in cell.given else frozen


def falling(**slopes: float):
    """rmse that falls with the parameters at a method's slope."""

    def value(cell: Cell) -> float:
        width = dict(cell.given)["net.width"]
        return (width**2 + 7 * width + 1) ** slopes[cell.method]

    return value


@pytest.mark.parametrize("claim", PAPER.claims, ids=CLAIMS)
def test_every_cell_names_what_is_declared(claim, unknown_names):
    """A rule about a method, metric or clock that nothing offers could never be judged."""
    assert unknown_names(claim) == []


@pytest.mark.parametrize("claim", TESTABLE, ids=[claim.name for claim in TESTABLE])
def test_a_claim_says_what_is_smaller_and_what_is_not_verified(claim):
    """A verdict on digits is not one on language, and a number that nobody read is not the paper's."""
    assert claim.scaled_down
    assert claim.unverified
    assert claim.seeds >= 10


CASES = {
    "polynorm is lowest": (made_up(polynorm=0.4), "polynorm-lowers-the-loss", "supported"),
    "polynorm is equal": (made_up(), "polynorm-lowers-the-loss", "inconclusive"),
    "polynorm is above gelu alone": (made_up(polynorm=0.4, gelu=0.3), "polynorm-lowers-the-loss", "refuted"),
    "polynorm is above squared relu alone": (made_up(polynorm=0.4, squared_relu=0.3), "polynorm-lowers-the-loss", "refuted"),
    "polyrelu is lowest": (made_up(polyrelu=0.4), "polyrelu-lowers-the-loss", "supported"),
    "polyrelu is above relu alone": (made_up(polyrelu=0.4, relu=0.3), "polyrelu-lowers-the-loss", "refuted"),
    "composed is better": (made_up(polynorm=0.9, polyrelu=0.8, polynomial=0.7), "because-of-the-composition", "supported"),
    "one composed is not": (made_up(polynorm=0.9, polyrelu=0.7, polynomial=0.7), "because-of-the-composition", "inconclusive"),
    "a diverged polynomial": (made_up(polynomial=0.0), "because-of-the-composition", "supported"),
    "learned is lower": (frozen_at(0.5, 0.4), "because-the-weights-are-learned", "supported"),
    "frozen is lower": (frozen_at(0.4, 0.5), "because-the-weights-are-learned", "refuted"),
    "both raise the rank": (made_up(polynorm=40, polyrelu=41, gelu=39), "raises-the-effective-rank", "supported"),
    "one lowers it": (made_up(polynorm=40, polyrelu=38, gelu=39), "raises-the-effective-rank", "refuted"),
    "polyrelu falls faster": (falling(relu=-0.5, polyrelu=-0.8), "approximates-at-a-steeper-rate", "supported"),
    "relu falls faster": (falling(relu=-0.8, polyrelu=-0.5), "approximates-at-a-steeper-rate", "refuted"),
}


@pytest.mark.parametrize(("values", "claim", "expected"), CASES.values(), ids=CASES)
def test_a_rule_has_its_signs_right(values, claim, expected, verdict):
    """Made-up values on both sides of each threshold."""
    assert verdict(CLAIMS[claim].rule, values) == expected


def test_the_budgets_are_ten_passes_over_digits_and_two_hundred_over_sines(catalogue):
    """The numbers of train items are written into the declaration; here they are compared with the tasks'."""
    digits, sines = catalogue.task("digits").spec, catalogue.task("sines").spec

    assert {"budget__samples_seen": 10 * digits.shape(digits.params())["train_items"]} == SAMPLES
    assert FITTED["budget__samples_seen"] == 200 * sines.shape(sines.params(noise=0.0))["train_items"]


def test_the_sizes_of_the_approximation_claim_are_the_nets(catalogue):
    """The slope is over parameters; a wrong count would bend it. PolyReLU's four scalars a layer are left out."""
    sines = catalogue.task("sines").spec
    shape = sines.shape(sines.params())
    relu = catalogue.method("relu").spec
    points = CLAIMS["approximates-at-a-steeper-rate"].rule.node.a.points

    built = [build_net(Net(arch="mlp", depth=2, width=w), shape, device="meta") for w in WIDTHS]

    assert relu.kind == "activation"
    assert [x for x, _ in points] == [count_params(net) for net in built]


def test_methods_of_a_claim_meet_the_same_net_and_budget():
    """Otherwise the difference would not be the activation's. Only the method's own parameters may differ."""
    for claim in TESTABLE:
        settings = {
            tuple((k, v) for k, v in cell.given if not k.startswith("method.") and k != "net.width")
            for cell in cells(claim.rule)
        }
        widths = {m: [dict(c.given).get("net.width") for c in cells(claim.rule) if c.method == m] for m in POLYCOM}
        assert len(settings) == 1
        assert all(len(set(w)) in (0, 1, len(WIDTHS)) for w in widths.values())


def test_the_vit_of_the_claims_has_a_place_for_each_method(catalogue):
    """A shape that a component refuses would make the claim untestable."""
    digits = catalogue.task("digits").spec
    net = Net(**{k.removeprefix("net__"): v for k, v in VIT.items() if k.startswith("net__")})
    for name in ("polynorm", "polyrelu", "polynomial", "squared-relu"):
        spec = catalogue.method(name).spec
        use = ComponentUse(spec.name, spec.kind, resolve(spec.build), spec.params())

        module = build_net(net, digits.shape(digits.params()), use, device="meta")

        scalars = [n for n, _ in module.named_parameters() if ".act." in n]
        assert len(scalars) == (0 if name == "squared-relu" else 2 * net.depth)


def resolve(name: str):
    module, _, function = name.partition(":")
    return getattr(__import__(module, fromlist=[function]), function)
