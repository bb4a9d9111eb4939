"""A paper with one claim, and a suite that lists it: for tests that fix claims and judge them."""

from __future__ import annotations

from pathlib import Path

from helpers import PluginSite

from harness.catalogue import Catalogue
from harness.claims.fixing import Protocol, Unfixed, find_protocols
from harness.plan import Here, make_plan
from harness.suite import load_suite_text

METHODS = '''
    def near(problem, ctx, params):
        """A threshold close to the right one, at another place with each seed."""
        ctx.spend(steps=1)
        return Threshold(0.05 + 0.05 * float(torch.rand((), generator=ctx.generator("place"))))

    def far(problem, ctx, params):
        ctx.spend(steps=1)
        return Threshold(0.5 * params.scale + 0.1 * float(torch.rand((), generator=ctx.generator("place"))))

    def breaks(problem, ctx, params):
        raise RuntimeError("by intent")
'''
RULE = 'harness.better("near", "far", "signs", "accuracy")'
PAPER = """
    @harness.hookimpl
    def harness_papers():
        claim = harness.Claim(name="near-wins", says="near is more accurate than far", rule=RULE, seeds=10, value="much",
                              place="table 1", source="https://example.org", MORE)
        return [harness.Paper(name="toypaper", title="Toys", arxiv="0000.00000", year=2020, claims=(claim,))]
"""
SUITE = """\
schema: harness/suite/1
name: toys
tasks: [signs]
methods: [near, {use: far, role: baseline}, {use: breaks, role: ablation}]
seeds: 10
budget: {steps: 20}
measure: {quality: [accuracy]}
claims: [toypaper.near-wins]
"""


def write_paper(site: PluginSite, rule: str = RULE, more: str = "") -> Catalogue:
    """The toy plugin with its paper; more: further arguments of its claim."""
    declared = PAPER.replace("RULE", rule).replace("MORE", more)
    site.write_toy(METHODS, ("near", "far", "breaks"), declared=declared)
    return site.catalogue()


def write_suite(folder: Path, text: str = SUITE) -> Path:
    path = folder / "toys.yaml"
    path.write_text(text)
    return path


def found(catalogue: Catalogue, text: str = SUITE) -> list[Protocol | Unfixed]:
    """What the suite's claims would be fixed on."""
    suite = load_suite_text(text, "toys.yaml", catalogue)
    plan = make_plan(suite, catalogue, Here("2.0", {"cpu": "", "cuda": "no GPU"}), {}, {})
    return list(find_protocols(suite, plan, catalogue))


def protocol(catalogue: Catalogue, text: str = SUITE) -> Protocol:
    (one,) = found(catalogue, text)
    assert isinstance(one, Protocol), one
    return one
