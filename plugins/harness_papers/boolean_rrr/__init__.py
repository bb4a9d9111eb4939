"""Boolean RRR: circuits of threshold functions found by projections instead of a loss. Declarations only.

Brings the track `boolean`, its tasks, the search itself (method.py) and gradient methods on the same nets (baselines.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from harness import All, Cell, Claim, Diff, Learner, Metric, Paper, Params, Share, Task, Track, Within, given, hookimpl

ARXIV = "https://arxiv.org/abs/2602.17493"
REPOSITORY = "https://github.com/veitelser/boolearn"
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

    norm: float = Field(1e-2, ge=0, description="weight of sum over nodes of (|w|^2 - inputs)^2")
    l1: float = Field(1e-4, ge=0, description="weight of sum |w|")


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


# Claims -----------------------------------------------------------------------------------------------------------------

STEPS = 10_000
SMALLER = "10,000 iterations; the authors run up to a million on larger tasks"
# What the README of this plugin reports was known when the rules were finished.
LOOKED = "Finished with the rates in sight that the README gives (10 to 40 seeds; the suite has draws of its own)"


def cell(method: str, metric: str, task: str = "multiplier", **parameters: Any) -> Cell:
    """A metric after 10,000 steps; parameters of the method as they are, and the margin the task's where it is not given."""
    if method == "rrr":
        parameters = {"sigma": None, **parameters}
    return Cell(method, task, metric, given(budget__steps=STEPS, **{f"method__{name}": v for name, v in parameters.items()}))


CIRCUIT = cell("rrr", "circuit_solved", beta=0.2)
# Only a net whose hidden values saturate can be read as a circuit; the authors' ReLU net would be a rival that cannot win.
READ_BY_SIGN = tuple(cell(rival, "circuit_solved", activation="tanh") for rival in ("adamw-mlp", "adamw-mlp-penalty"))

PAPER = Paper(
    name="boolean_rrr",
    title="Learning with Boolean threshold functions",
    authors="Veit Elser, Manish Krishan Lal",
    arxiv="2602.17493",
    year=2026,
    claims=(
        Claim(
            name="finds-circuits",
            says=(
                "On the 2-bit multiplier the search at beta 0.2 finds exact circuits in more than 30 % of the seeds, and more "
                "often than the gradient method whose nodes are exactly -1 or +1 while it trains"
            ),
            rule=All((
                Within(Share(CIRCUIT, low=1.0), low=0.3, slack=0.2),
                Within(Diff(CIRCUIT, cell("straight-through", "circuit_solved")), low=0.0),
            )),
            seeds=40,
            value="3 of 5 runs solved, 3561 +- 750 iterations",
            place="README of the authors' program",
            source=REPOSITORY,
            scaled_down=(
                "nothing: the task, the net and the budget are the authors'. 40 seeds show a share above 0.3 from 19 solved; "
                "the authors' program was seen to solve 7 of 20, a rate that 40 seeds leave undecided. After a first look at "
                "10 seeds the nets read by sign were taken out of this rule and made the next claim. " + LOOKED
            ),
            unverified=("the rates in the paper's own figures",),
            effect=0.3,  # the authors' 3 of 5 against the card's limit of 30 %
        ),
        Claim(
            name="beats-gradients-read-by-sign",
            says=(
                "On the 2-bit multiplier the search at beta 0.2 finds exact circuits more often than tanh nets trained by "
                "AdamW, with or without the authors' penalty, whose hidden values are replaced by their signs after training"
            ),
            rule=All(tuple(Within(Diff(CIRCUIT, rival), low=0.0) for rival in READ_BY_SIGN)),
            seeds=40,
            value="threshold functions cannot be trained by gradients without surrogates or smoothing",
            place="README of the authors' program",
            source=REPOSITORY,
            scaled_down=(
                "the stronger form of the comparison is ours, and was added when a first look at 10 seeds had shown the "
                "penalty to do well: such a net is a circuit with nodes exactly -1 or +1, and the task asks for no more. "
                + LOOKED
            ),
            unverified=("whether the paper thresholds a trained net",),
        ),
        Claim(
            name="sparse-by-margin",
            says=(
                "The margin makes the weights sparse: without it, or by a gradient, the share of nodes that become gates of "
                "three inputs is lower by a quarter or more"
            ),
            rule=All(tuple(
                Within(Diff(cell("rrr", "gate_share", beta=0.5), without), low=0.25)
                for without in (
                    cell("rrr", "gate_share", beta=0.5, sigma=1000.0),
                    cell("adamw-mlp", "gate_share", activation="tanh"),
                    cell("adamw-mlp-penalty", "gate_share", activation="tanh"),
                )
            )),
            seeds=20,
            value="three weights near sqrt(m / 3), the rest below 0.02",
            place="example in the README of the authors' program",
            source=REPOSITORY,
            scaled_down=(
                "the threshold and the ablation (sigma 1000: a margin 18 times smaller) are ours. Nodes that a circuit does "
                "not need, or only copies with, do not become clean gates: the share stays well below 1 in solved nets too. "
                + LOOKED
            ),
            unverified=("what share of nodes becomes clean in the paper",),
            because="rrr",  # with sigma 1000
        ),
        Claim(
            name="codes-need-a-small-beta",
            says="For binary codes of 8 random vectors the search reaches the margin at beta 0.2 rather than at beta 0.5",
            rule=Within(
                Diff(cell("rrr", "margin", "autoencoder", beta=0.2), cell("rrr", "margin", "autoencoder", beta=0.5)), low=0.0
            ),
            seeds=20,
            value="beta 0.2: 5 of 5 solved, 55115 +- 11502 iterations; beta 0.5: 0 of 5 in 100,000",
            place="autoencoder page of the documentation, since deleted",
            source=REPOSITORY,
            scaled_down=(
                "8 vectors and 8-3-8-8 instead of 16 and 16-4-16-16; " + SMALLER + ". Solved there means that the gap closed, "
                "so margins are compared, not bits: at beta 0.5 the bits are often all right though the gap stays open. "
                + LOOKED
            ),
            unverified=("whether the paper repeats the figures of the page",),
        ),
        Claim(
            name="reconstructs-random-logic",
            says="A random circuit of ANDs and ORs, 32 wide and 4 deep, is reconstructed from few of its values",
            rule=None,
            seeds=0,
            value="75.26, 86.92 and 99.75 % of the test bits from 64, 128 and 256 items",
            place="page on random logic of the documentation, since deleted",
            source=REPOSITORY,
            unverified=("whether the paper repeats the figures of the page",),
            missing="a task of random logic circuits, and a compiled search for its 10^5 iterations and more",
        ),
        Claim(
            name="learns-rule-30",
            says="One step of rule 30 is learnt from 256 worlds without convolution, and better than by gradients",
            rule=None,
            seeds=0,
            value="99.66 % of the test bits after 755,382 iterations; AdamW 86.06 %, with the penalty 100 % from 160 worlds",
            place="page on cellular automata of the documentation, since deleted; a notebook of the authors",
            source=REPOSITORY,
            unverified=("whether the paper repeats the figures of the page",),
            # 24 ns x 256 items x 2,128 edges x 755,382 iterations
            missing="a compiled search: here a seed would take some three hours on one core, and ten seeds more than a day",
        ),
        Claim(
            name="beats-gradients-on-random-logic",
            says="On random logic of depth 5 the search gives more test bits than gradients do",
            rule=None,
            seeds=0,
            value="of the gradients only: And/Or 88.32 to 94.43 %, majority 73.31 to 81.91 %, 128 to 512 items",
            place="a notebook of the authors, since deleted",
            source=REPOSITORY,
            unverified=("what the search reaches",),
            missing="a task of random logic circuits, and a compiled search for its 10^5 iterations and more",
        ),
        Claim(
            name="learns-digits",
            says="A net 64-64-10 of threshold functions learns the 8x8 digits",
            rule=None,
            seeds=0,
            value="64.1, 81.8 and 90.1 % of the test digits from 128, 256 and 512 items, sigma 5",
            place="page on small MNIST of the documentation, since deleted",
            source=REPOSITORY,
            unverified=("whether the paper repeats the figures of the page",),
            missing="analog inputs and outputs of which one is on, which this track does not have",
        ),
    ),
    notes={
        "notebooks": "the authors' gradient baselines have one seed each",
    },
)  # fmt: skip


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
