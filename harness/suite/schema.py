"""What may be written in a suite file: strict models of its keys, after shorthands, and the JSON Schema for editors.

The models check types, ranges and closed sets; names of methods, tasks, claims and clocks are checked elsewhere, against
the plugins. Units end here: "30m" becomes seconds, "4GiB" bytes, "5%" a share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, WithJsonSchema
from pydantic_core import PydanticCustomError

from harness.nets import Net, Train
from harness.specs import Role
from harness.suite.text import shown

SCHEMA = "harness/suite/1"
MAX_ENTRIES = 1000
MAX_SEEDS = 10_000
MAX_POINTS = 1024  # of tuning, for each method and seed
MAX_DIMENSIONS = 16  # of the space; the Sobol sequence's direction numbers reach as far
MAX_PATTERN = 200  # characters: the time that a pattern takes grows with the square of its brackets
DEFAULT_SEEDS = 10  # a verdict needs ten pairs
DEFAULT_TIMEOUT = "30m"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
BYTES = {
    "B": 1,
    **{f"{k}B": 10 ** (3 * n) for n, k in enumerate("kMGT", 1)},
    **{f"{k}iB": 1 << (10 * n) for n, k in enumerate("KMGT", 1)},
}
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?([A-Za-z]+)")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,12})?) ?%")


# Values with a unit -----------------------------------------------------------------------------------------------------


def mend(text: str) -> PydanticCustomError:
    """A mistake in our own words: what was got, and what to write."""
    return PydanticCustomError("mend", "{text}", {"text": text})


def read_duration(value: Any) -> float:
    """Seconds of "30m". Raises with the allowed units."""
    return _read_quantity(value, SECONDS, "a duration", "30m")


def read_size(value: Any) -> int:
    """Bytes of "4GiB". Raises with the allowed units."""
    return round(_read_quantity(value, BYTES, "a size", "4GiB"))


def _read_quantity(value: Any, units: Mapping[str, int], what: str, example: str) -> float:
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise mend(f"got {shown(value)}; write {what} with its unit, such as {example} (units: {', '.join(units)})")
    if found[2] not in units:
        raise mend(f"got {shown(value)}; {found[2]!r} is no unit of {what}: use {', '.join(units)}, such as {example}")
    amount = float(found[1]) * units[found[2]]
    if amount <= 0:
        raise mend(f"got {shown(value)}; write {what} greater than 0, such as {example}")
    return amount


def read_share(value: Any) -> float:
    """0.05 of "5%" or of 0.05."""
    found = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    share = float(found[1]) / 100 if found else value
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise mend(f"got {shown(value)}; write a share above 0 and up to 1, such as 5% or 0.05")
    return float(share)


def read_seeds(value: Any) -> Any:
    """Seed indices: a number n is 0..n-1; a list stands as it is (its items are checked as whole numbers)."""
    if isinstance(value, list) and value:
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SEEDS:
        raise mend(f"got {shown(value)}; write how many seeds (1 to {MAX_SEEDS}) or a list of seed indices, such as [3, 5]")
    return tuple(range(value))


def _text(pattern: str, *examples: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


Duration = Annotated[float, BeforeValidator(read_duration), _text(f"^[0-9.]+ ?({'|'.join(SECONDS)})$", "30m", "90s")]
Size = Annotated[int, BeforeValidator(read_size), _text(f"^[0-9.]+ ?({'|'.join(BYTES)})$", "4GiB")]
Share = Annotated[
    float,
    BeforeValidator(read_share),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": "^[0-9.]+ ?%$"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]}
    ),
]
Index = Annotated[int, Field(ge=0)]
Seeds = Annotated[
    tuple[Index, ...],
    Field(min_length=1, max_length=MAX_SEEDS),
    BeforeValidator(read_seeds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_SEEDS},
                {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": True},
            ]
        }
    ),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Values = Annotated[tuple[JsonValue, ...], Field(min_length=1)]
Range = tuple[Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]]
Device = Literal["cpu", "cuda"]
DType = Literal["float32", "float64", "bfloat16", "float16"]


# The keys ---------------------------------------------------------------------------------------------------------------


class Form(BaseModel):
    """What is written under one key; read with strict types, so "10" is no number."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskForm(Form):
    """A task of the suite. A bare name is short for {use: name}."""

    use: Text = Field(description="the task's name, or dist/name where two plugins offer one", examples=["digits"])
    params: dict[str, JsonValue] = Field({}, description="parameters of the task; the rest keep their defaults")
    grid: dict[str, Values] = Field({}, description="parameters with a list each: every combination is a trial")
    zip: dict[str, Values] = Field({}, description="parameters with lists of one length: the n-th values go together")


class MethodForm(Form):
    """A method of the suite. A bare name is short for {use: name}."""

    use: Text = Field(description="the method's name, or dist/name where two plugins offer one", examples=["crrelu"])
    role: Role = Field("method", description="what the method is here: the subject, or what it is compared with")
    params: dict[str, JsonValue] = Field({}, description="parameters of the method; the rest keep their defaults")
    grid: dict[str, Values] = Field({}, description="parameters with a list each: every combination is a trial")
    zip: dict[str, Values] = Field({}, description="parameters with lists of one length: the n-th values go together")
    label: Name | None = Field(None, alias="as", description="a name of its own for this line, for `match.to` and `exclude`")


class KernelForm(Form):
    """A kernel of the suite, timed in fresh processes. A bare name is short for {use: name}."""

    use: Text = Field(description="the kernel's name, or dist/name where two plugins offer one", examples=["crrelu"])
    implementations: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_ENTRIES)] | None = Field(
        None, description="which of its implementations (`harness describe NAME`); left out: all"
    )
    params: dict[str, JsonValue] = Field({}, description="its case: elements, layout, ...; the rest keep their defaults")
    grid: dict[str, Values] = Field({}, description="cases with a list each: every combination is timed")
    zip: dict[str, Values] = Field({}, description="cases with lists of one length: the n-th values go together")


class MatchForm(Form):
    """What the harness equalises by turning a width, against which method."""

    params: Share | None = Field(None, description="equal parameter counts, up to this share")
    flops: Share | None = Field(None, description="equal training FLOPs, up to this share")
    to: Text = Field(description="the method of this suite that the others are matched to", examples=["relu"])


class BudgetForm(BaseModel):
    """Amounts on the track's clocks, and what is matched."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[float, Field(ge=0)]]

    match: MatchForm | None = Field(None, description="makes components and learners comparable")


class DimensionForm(Form):
    """The values of one setting that tuning may try: write one of the three."""

    log: Range | None = Field(None, description="from the lower to the upper bound, each ratio alike", examples=[[1e-4, 1e-1]])
    linear: Range | None = Field(None, description="from the lower to the upper bound, each difference alike")
    values: Annotated[tuple[JsonValue, ...], Field(min_length=2, max_length=MAX_POINTS)] | None = Field(
        None, description="one of these, each alike; for whole numbers, names and switches"
    )


class TuningForm(Form):
    """Quasi-random trials that choose settings: as many for each method and seed, scored on the validation part only."""

    trials: Annotated[int, Field(ge=2, le=MAX_POINTS)] = Field(
        description="points that are tried for each method and seed; powers of 2 cover the space evenly", examples=[8]
    )
    space: Annotated[dict[str, DimensionForm], Field(min_length=1, max_length=MAX_DIMENSIONS)] = Field(
        description="what is tuned: train.NAME for the reference learner, method.NAME for methods with that parameter",
        examples=["{train.lr: {log: [1e-4, 1e-1]}}"],
    )
    metric: Text | None = Field(None, description="what the points are scored by; left out: the first that is measured")


class MeasureForm(Form):
    """What is measured."""

    quality: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        None, description="metrics of the tasks or of probes; left out: all of the tasks'", examples=[["accuracy", "nll"]]
    )
    timing: tuple[Text, ...] = Field(
        (), description="regions to time alone, in fresh processes", examples=[["train_step", "inference"]]
    )
    memory: bool = Field(True, description="peak memory of each trial")


class LimitsForm(Form):
    """What ends a trial from outside."""

    timeout: Duration = Field(read_duration(DEFAULT_TIMEOUT), description="wall time of a trial, with its unit: s, m, h or d")
    memory: Size | None = Field(None, description="memory of a trial, such as 4GiB; left out: no limit")


class SuiteForm(Form):
    """A suite: tasks x methods x parameters x devices x seeds, with net, budget and what to measure; or kernels, or both."""

    schema_: Literal["harness/suite/1"] = Field(alias="schema", description="the format of this file", examples=[SCHEMA])
    name: Name = Field(description="what records call the suite", examples=["vision"])
    title: Annotated[str, Field(max_length=200)] = Field("", description="one line for people; no part of any identity")
    tasks: Annotated[tuple[TaskForm, ...], Field(min_length=1, max_length=MAX_ENTRIES)] = Field(
        (), description="the problems (`harness list tasks`)", examples=[["digits"]]
    )
    methods: Annotated[tuple[MethodForm, ...], Field(min_length=1, max_length=MAX_ENTRIES)] = Field(
        (), description="the methods (`harness list methods`)", examples=[["relu"]]
    )
    kernels: Annotated[tuple[KernelForm, ...], Field(min_length=1, max_length=MAX_ENTRIES)] = Field(
        (), description="hot operations to check and time (`harness list kernels`), beside tasks and methods or alone",
        examples=[["crrelu"]],
    )  # fmt: skip
    net: Annotated[tuple[Net, ...], Field(min_length=1, max_length=MAX_ENTRIES)] = Field(
        (), description="the reference net around each component; a list multiplies; learners bring their own"
    )
    train: Annotated[tuple[Train, ...], Field(min_length=1, max_length=MAX_ENTRIES)] = Field(
        (Train(),), description="the reference learner's settings, the same for every component; a list multiplies"
    )
    seeds: Seeds = Field(
        tuple(range(DEFAULT_SEEDS)), description=f"how many, or which seed indices ({DEFAULT_SEEDS} where left out)"
    )
    root_seed: Index = Field(0, description="what all streams are drawn from, with the seed index")
    devices: Annotated[tuple[Device, ...], Field(min_length=1)] = Field(
        ("cpu",), description="cpu, cuda or both; cuda is skipped with a note where there is none"
    )
    dtype: DType = Field("float32", description="the type of data and parameters")
    threads: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="threads of one trial on the CPU")
    budget: BudgetForm = Field(
        BudgetForm(), description="what a trial may spend, by clock, such as samples_seen, epochs or wall_s"
    )
    tuning: TuningForm | None = Field(
        None, description="settings are chosen by trials of their own before the others run; left out: they are as written"
    )
    measure: MeasureForm = Field(MeasureForm(), description="what is measured")
    exclude: Annotated[tuple[dict[str, JsonValue], ...], Field(max_length=MAX_ENTRIES)] = Field(
        (), description="trials to leave out: patterns over dotted names; all names of one item must match",
        examples=[[{"method": "evonorm-*", "net.arch": "mlp"}]],
    )  # fmt: skip
    claims: tuple[Text, ...] = Field((), description="claims to judge, as paper.claim (`harness list claims`)")
    limits: LimitsForm = Field(LimitsForm(), description="what ends a trial from outside")
