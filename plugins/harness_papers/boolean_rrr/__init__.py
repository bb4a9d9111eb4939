"""Boolean RRR: circuits of threshold functions found by projections instead of a loss. Declarations only.

Brings the track `boolean`, its tasks, the search (learner.py; c_search.py in C, method.py in torch), gradient methods on the
same nets (baselines.py), and circuits as texts and drawings (circuit.py). What the paper claims stands in claims.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from harness import Learner, Metric, Paper, Params, Task, Track, hookimpl
from harness_papers.boolean_rrr.claims import ARXIV, PAPER, REPOSITORY

HERE = "harness_papers.boolean_rrr"


# Track and tasks --------------------------------------------------------------------------------------------------------

TRACK = Track(
    name="boolean",
    version="1",
    problem=f"{HERE}.problem:BooleanProblem",
    solution=f"{HERE}.problem:BooleanNet",
    clocks=("steps", "items_edges"),
    summary="find a layered net of Boolean threshold functions for given bits; items_edges: items x edges x steps",
    inference=f"{HERE}.problem:inference",
)

# `worst` is 0, not the 0.5 of a coin: no trial that failed may count for more than one that finished.
METRICS = (
    Metric("solved", "1", "higher", 0.0),  # every output bit of the training items is right, by the method's own forward pass
    Metric("circuit_solved", "1", "higher", 0.0),  # the same with the weights run as threshold functions, all nodes -1 or +1
    Metric("train_bits", "1", "higher", 0.0),  # share of correct output bits, training items
    Metric("test_bits", "1", "higher", 0.0),  # share of correct output bits, test items
    Metric("gate_share", "1", "higher", 0.0),  # share of nodes whose 4th largest |weight| is below a tenth of the 3rd
    # Smallest |w.x| of a node, |w|^2 = fan-in, in units of sqrt(fan-in / sigma); 0 where the circuit gives a wrong bit.
    Metric("margin", "1", "higher", 0.0),
)

# Share of items whose right class has its bit on, divided by how many bits are on: the authors' accuracy.
CLASS_SHARE = Metric("class_share", "1", "higher", 0.0)


class MultiplierParams(Params):
    """Two numbers of `bits` bits to their product. 2: net 4-4-4-4, 16 items; 3: net 6-12-12-12-6, 64 items."""

    bits: Literal[2, 3] = Field(2, description="bits of each factor")


class AutoencoderParams(Params):
    """Random vectors to themselves through a layer that has just enough codes: 8-3-8-8, 16-4-16-16 or 32-5-32-32."""

    bits: Literal[8, 16, 32] = Field(8, description="bits of a vector, and number of vectors")
    encoder: bool = Field(False, description="a layer more in front of the codes, as on the authors' page: 16-16-4-16-16")


class Rule30Params(Params):
    """Rule 30 on a ring of 16 cells. Test worlds differ from all training worlds."""

    steps: Literal[1, 2] = Field(1, description="of the automaton; 1: net 16-32-32-16, 2: 16-48-48-48-16")

    n_train: int = Field(256, gt=0, le=32_768, description="worlds to learn from")
    n_test: int = Field(2_000, gt=0, le=32_768, description="worlds to be judged by")


class RandomLogicParams(Params):
    """A random circuit 32 wide, half of its nodes gates and half copies; the net is as wide and as deep."""

    gates: Literal["and-or", "majority"] = Field("and-or", description="gates of two inputs, or of three")
    depth: int = Field(3, gt=0, le=8, description="layers of the circuit")
    n_train: int = Field(256, gt=0, le=100_000, description="values to learn from")
    n_test: int = Field(2_000, gt=0, le=100_000, description="values to be judged by")


class BooleanDigitsParams(Params):
    """The 8x8 digits with a net 64-64-10, sigma 5. The digits that are not learnt from are the test."""

    n_train: int = Field(128, gt=0, le=1_500, description="digits to learn from")
    ink: Literal["grey", "binary"] = Field(
        "grey", description="grey: analog inputs, as the authors'; binary: from half of the ink on"
    )


def check_table(text: str) -> str:
    """A table that can be solved, as it is. Raises ValueError with the certificate where one input has two outputs."""
    rows = [row.split(":") for row in text.split()]
    if not rows or any(len(row) != 2 or not all(row) or set("".join(row)) - {"0", "1"} for row in rows):
        raise ValueError(f"{text!r} is no truth table; write rows of bits in:out, as in '00:0 01:1 10:1 11:0'")
    if len({tuple(map(len, row)) for row in rows}) > 1:
        raise ValueError(f"{text!r}: the rows differ in how many bits they have")
    seen: dict[str, str] = {}
    for bits, wanted in rows:
        if seen.setdefault(bits, wanted) != wanted:
            raise ValueError(f"input {bits} has the outputs {seen[bits]} and {wanted}; no circuit gives both, remove one")
    return text


class TruthTableParams(Params):
    """Any function that is written down row by row; rows that are left out are free."""

    table: Annotated[str, AfterValidator(check_table)] = Field(
        "00:0 01:1 10:1 11:0", description="rows of bits in:out, between them a space"
    )
    hidden: str = Field("2", pattern=r"^[1-9]\d*(-[1-9]\d*)*$", description="widths of the hidden layers, as in 4-4")


def multiplier_shape(params: MultiplierParams) -> dict[str, int]:
    return sizes(2 * params.bits, 2 * params.bits, 4**params.bits)


def autoencoder_shape(params: AutoencoderParams) -> dict[str, int]:
    return sizes(params.bits, params.bits, params.bits)


def rule30_shape(params: Rule30Params) -> dict[str, int]:
    return sizes(16, 16, params.n_train)


def random_logic_shape(params: RandomLogicParams) -> dict[str, int]:
    return sizes(32, 32, params.n_train)


def boolean_digits_shape(params: BooleanDigitsParams) -> dict[str, int]:
    return sizes(64, 10, params.n_train)


def truth_table_shape(params: TruthTableParams) -> dict[str, int]:
    rows = params.table.split()
    return sizes(*map(len, rows[0].split(":")), len(rows))


def sizes(inputs: int, outputs: int, train_items: int) -> dict[str, int]:
    return {"inputs": inputs, "outputs": outputs, "train_items": train_items}


def task(name: str, params: type[Params], shape: Any, summary: str, score: str = "score", **more: Any) -> Task:
    load = f"{HERE}.tasks:load_{name.replace('-', '_')}"
    return Task(
        name, "boolean", load=load, score=f"{HERE}.scoring:{score}", params=params, shape=shape, summary=summary,
        **{"metrics": METRICS, **more},
    )  # fmt: skip


TASKS = [
    task("multiplier", MultiplierParams, multiplier_shape, "synthesis: the whole truth table is given, and is the test too"),
    task("autoencoder", AutoencoderParams, autoencoder_shape, "binary codes: the vectors given are the test too"),
    task("rule30", Rule30Params, rule30_shape, "a cellular automaton from few worlds, judged on others"),
    task("random-logic", RandomLogicParams, random_logic_shape, "a random circuit from few of its values, judged on others"),
    task(
        "boolean-digits", BooleanDigitsParams, boolean_digits_shape, "8x8 digits, of ten output bits one is on",
        "score_classes", metrics=(*METRICS, CLASS_SHARE), datasets=("digits",),
    ),
    task("truth-table", TruthTableParams, truth_table_shape, "synthesis of any table written in the suite"),
]  # fmt: skip


# Methods ----------------------------------------------------------------------------------------------------------------


class RRRParams(Params):
    """The search. The values are the authors'; which beta is better depends on the task."""

    beta: float = Field(0.2, gt=0, lt=2, description="step of RRR; 1 is Douglas-Rachford")
    gamma: float = Field(1e-3, ge=0, lt=1, description="rate of the metric's relaxation; 0 leaves all metric weights at 1")
    sigma: float | None = Field(None, gt=0, description="margin = sqrt(fan-in / sigma); null: the task's (3)")
    gapstop: float | None = Field(None, gt=0, description="gap that ends the search; null: the task's (0.01 to 0.1)")
    starts: int = Field(1, gt=0, description="searches side by side, each from a draw of its own; the first to close ends all")
    implementation: Literal["auto", "c", "torch"] = Field(
        "auto", description="auto: C on the CPU in float64 where there is a compiler, else torch; the record says which"
    )


class GradientParams(Params):
    """AdamW, full batch, constant rate, as in the authors' notebooks."""

    lr: float = Field(1e-3, gt=0, description="learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's decoupled decay")
    check_every: int = Field(25, gt=0, description="steps between two looks at whether all training bits are right")


class MLPParams(GradientParams):
    """The authors' baseline has ReLU; a tanh net is nearer to a circuit."""

    activation: Literal["relu", "tanh"] = Field("relu", description="of the hidden nodes")


class PenaltyParams(MLPParams):
    """The authors' penalty; their weights."""

    norm: float = Field(1e-2, ge=0, description="weight of (|w|^2 - inputs)^2 over the nodes of a layer")
    l1: float = Field(1e-4, ge=0, description="weight of |w| over the weights of a layer")
    over: Literal["mean", "sum"] = Field(
        "mean", description="mean: as the authors; sum: as many times harder as there are nodes"
    )


METHODS = [
    Learner(
        "rrr", "boolean", f"{HERE}.learner:solve", RRRParams,
        summary="RRR on divide-and-concur constraints, nodes exactly -1 or +1, no loss", source=ARXIV,
    ),
    Learner(
        "adamw-mlp", "boolean", f"{HERE}.baselines:solve_mlp", MLPParams,
        summary="an MLP of the same widths, AdamW on cross-entropy", source=REPOSITORY,
    ),
    Learner(
        "adamw-mlp-penalty", "boolean", f"{HERE}.baselines:solve_mlp_penalty", PenaltyParams,
        summary="the same with a penalty towards few weights of equal size", source=REPOSITORY,
    ),
    Learner(
        "straight-through", "boolean", f"{HERE}.baselines:solve_straight_through", GradientParams,
        summary="a sign net with the straight-through gradient, AdamW", source="https://arxiv.org/abs/1308.3432",
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
