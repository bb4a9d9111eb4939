"""The core's own tracks and their probe, declared; no torch."""

from __future__ import annotations

from harness.specs import Metric, Probe, Track

CLASSIFY = Track(
    name="classify",
    version="1",
    problem="harness.lab.problems:Classify",
    solution="harness.lab.problems:Predictor",
    clocks=("samples_seen", "steps", "flops"),
    summary="items with labels; the solution gives logits",
    matchable=("params", "flops"),
    learner="harness.lab.learner:train_component",
    cost="harness.lab.cost:cost_component",
    inference="harness.lab.inference:time_inference",
)
REGRESS = Track(
    name="regress",
    version="1",
    problem="harness.lab.problems:Regress",
    solution="harness.lab.problems:Regressor",
    clocks=("samples_seen", "steps", "flops"),
    summary="items with real targets; the solution gives targets",
    matchable=("params", "flops"),
    learner="harness.lab.learner:train_component",
    cost="harness.lab.cost:cost_regressor",
    inference="harness.lab.inference:time_inference",
)
TRACKS = [CLASSIFY, REGRESS]

PROBES = [
    Probe(
        name="batch-dependence",
        track="classify",
        metrics=(Metric("batch_dependence", "1", "lower"),),
        measure="harness.lab.probes:batch_dependence",
        always=True,
    ),
]
