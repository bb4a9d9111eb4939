"""LipSDP: certified Lipschitz bounds by semidefinite programming, and the track `certify`. Declarations only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness import Command, Learner, Paper, Params, Task, Track, hookimpl
from harness_papers.lipsdp.claims import ARXIV, NSR, PAPER
from harness_papers.lipsdp.nets import TASKS, RandomNet, TrainedNet, random_net_shape, trained_net_shape

__all__ = [
    "METHODS", "PAPER", "TASKS", "TRACK", "ExactParams", "RandomNet", "SampleParams", "SdpParams", "TrainedNet",
    "random_net_shape", "trained_net_shape",
]  # fmt: skip

HARNESS_API = "0.3"  # commands
HERE = "harness_papers.lipsdp"


class SdpParams(Params):
    """How the semidefinite program is solved. The bound is proved anew, in float64, whatever the solver says."""

    solver: Literal["ours", "clarabel", "scs"] = Field(
        "ours", description="ours: barrier Newton that uses the structure; clarabel, scs: general, through cvxpy (an extra)"
    )
    eps: float = Field(
        1e-6,
        gt=0,
        description="ours: the proved gap of rho, relative; clarabel, scs: their tolerance, 1e-8 and 1e-5 are usual",
    )


class SampleParams(Params):
    """Where a lower bound is looked for."""

    samples: int = Field(20_000, ge=1, description="random inputs at which the Jacobian is taken")
    scale: float = Field(1.0, gt=0, description="their standard deviation")


class ExactParams(Params):
    """The size up to which all patterns of slopes, swaps or reflections are tried."""

    max_units: int = Field(16, ge=1, le=16, description="hidden units in all; groups of units: 2 to this many patterns")


TRACK = Track(
    name="certify",
    version="1",
    problem=f"{HERE}.problems:Network",
    solution=f"{HERE}.problems:LipschitzBound",
    clocks=("solver_iterations",),
    summary="bound the Lipschitz constant of a given network from above (or below), with evidence that is checked",
)

METHODS = [
    Learner(
        "lipsdp-neuron", "certify", f"{HERE}.method:solve_neuron", SdpParams,
        summary="LipSDP, one multiplier per hidden unit", source=ARXIV,
    ),
    Learner(
        "lipsdp-layer", "certify", f"{HERE}.method:solve_layer", SdpParams,
        summary="LipSDP, one multiplier per hidden layer: looser", source=ARXIV,
    ),
    Learner(
        "lipsdp-nsr", "certify", f"{HERE}.method:solve_nsr", SdpParams,
        summary="LipSDP-NSR in chained form, for GroupSort, MaxMin and Householder", source=NSR,
    ),
    Learner(
        "nsr-full", "certify", f"{HERE}.method:solve_nsr_full", SdpParams,
        summary="LipSDP-NSR with T, S and P: tighter, for small nets", source=NSR,
    ),
    Learner(
        "nsr-null", "certify", f"{HERE}.method:solve_nsr_null", SdpParams,
        summary="LipSDP-NSR where groups keep their sum exactly: tightest, for small nets", source=NSR,
    ),
    Learner(
        "lipsdp-rr", "certify", f"{HERE}.method:solve_rr", SdpParams,
        summary="baseline: LipSDP of MaxMin written as residual ReLU", source=NSR,
    ),
    Learner(
        "norm-product", "certify", f"{HERE}.method:solve_norm_product",
        summary="baseline: the product of the layers' norms, l2 or l-infinity", source="textbook",
    ),
    Learner(
        "sampled-lower-bound", "certify", f"{HERE}.method:solve_sampled", SampleParams,
        summary="control: the largest Jacobian norm at random inputs, a lower bound", source="textbook",
    ),
    Learner(
        "exact-masks", "certify", f"{HERE}.method:solve_exact", ExactParams,
        summary="oracle for tiny nets: the largest norm over all slope or swap patterns", source="textbook",
    ),
]  # fmt: skip


@hookimpl
def harness_papers() -> list[Paper]:
    return [PAPER]


@hookimpl
def harness_tracks() -> list[Track]:
    return [TRACK]


@hookimpl
def harness_tasks() -> list[Task]:
    return TASKS


@hookimpl
def harness_methods() -> list[Learner]:
    return METHODS


@hookimpl
def harness_commands() -> list[Command]:
    return [Command("certify", f"{HERE}.command:certify", "Lipschitz bounds of a network of your own, with proofs.")]
