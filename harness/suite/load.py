"""`load_suite`: a suite file read, checked and resolved, or all of its mistakes at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.catalogue import Catalogue
from harness.errors import SuiteError
from harness.nets import Net, Train
from harness.specs import Component, Role, Scalar
from harness.suite.names import check_suite
from harness.suite.options import apply_override
from harness.suite.parameters import combine, count_combinations
from harness.suite.schema import (
    BudgetForm,
    Device,
    DimensionForm,
    DType,
    KernelForm,
    MethodForm,
    SuiteForm,
    TaskForm,
    TuningForm,
)  # fmt: skip
from harness.suite.text import Loc, Mistake, Value, read_document
from harness.suite.values import Raw, normalise

MAX_SHOWN = 200  # mistakes; a file with more is another kind of file
MAX_TRIALS = 100_000  # planning them takes 7 s and 120 MB; what a person meant is a tenth of it
TIMING_PROCESSES = 3  # fresh processes of a timing or kernel trial, in place of seeds


@dataclass(frozen=True)
class TaskEntry:
    """A task of the suite. ref: "dist/name", for identities; line: where it stands, 0 where an option gave it."""

    use: str
    ref: str
    params: Mapping[str, Value] = field(default_factory=dict)
    grid: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    zip: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class MethodEntry:
    """A method of the suite. ref: "dist/name", for identities; label: what the suite calls it (`as`, else `use`)."""

    use: str
    ref: str
    label: str
    role: Role = "method"
    params: Mapping[str, Value] = field(default_factory=dict)
    grid: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    zip: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class KernelEntry:
    """A kernel of the suite. implementations: their names, in the kernel's order."""

    use: str
    ref: str
    implementations: tuple[str, ...]
    params: Mapping[str, Value] = field(default_factory=dict)
    grid: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    zip: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Match:
    """Equal parameter counts or training FLOPs, up to a share, with one method. to: its full reference; entry: its line."""

    unit: Literal["params", "flops"]
    tolerance: float
    to: str
    entry: MethodEntry


@dataclass(frozen=True)
class Budget:
    """The most that a trial may spend, by clock. "epochs" may stand among them: the plan turns it into samples_seen."""

    units: Mapping[str, float]
    match: Match | None = None


@dataclass(frozen=True)
class Dimension:
    """One setting to tune: the bounds of a range, or the values themselves."""

    kind: Literal["log", "linear", "values"]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Tuning:
    """trials: points for each method and seed. space: by dotted name, train.NAME or method.NAME. metric: None for the first."""

    trials: int
    space: Mapping[str, Dimension]
    metric: str | None = None

    def rule(self, metric: str) -> dict[str, Any]:
        """What a trial's identity says of it."""
        space = {name: {dimension.kind: list(dimension.values)} for name, dimension in self.space.items()}
        return {"trials": self.trials, "space": space, "metric": metric}


@dataclass(frozen=True)
class Measure:
    """quality: metrics, None for all of each task's own; timing: regions, none by default."""

    quality: tuple[str, ...] | None = None
    timing: tuple[str, ...] = ()
    memory: bool = True


@dataclass(frozen=True)
class Limits:
    """What ends a trial from outside; memory_bytes None: no limit."""

    timeout_s: float
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Suite:
    """A suite file, resolved. net is empty where the suite has only learners; text_sha256 is for records, no identity."""

    path: Path
    name: str
    title: str
    tasks: tuple[TaskEntry, ...]
    methods: tuple[MethodEntry, ...]
    kernels: tuple[KernelEntry, ...]
    net: tuple[Net, ...]
    train: tuple[Train, ...]
    seeds: tuple[int, ...]
    root_seed: int
    devices: tuple[Device, ...]
    dtype: DType
    threads: int
    budget: Budget
    measure: Measure
    exclude: tuple[Mapping[str, Scalar], ...]
    claims: tuple[str, ...]
    limits: Limits
    tuning: Tuning | None = None
    text_sha256: str = field(default="", compare=False)


def load_suite(path: Path, catalogue: Catalogue, *, overrides: Sequence[str] = ()) -> Suite:
    """Read and check a suite file. overrides: `path=value`, value as YAML; they come after what the file says.

    Raises SuiteError with all mistakes, in the order of the file, those of overrides last.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise SuiteError(f"{path}: cannot be read ({exc.strerror}); `harness list suites` shows what is shipped") from exc
    return load_suite_text(content, path, catalogue, overrides=overrides)


def load_suite_text(text: str | bytes, name: str | Path, catalogue: Catalogue, *, overrides: Sequence[str] = ()) -> Suite:
    """The same for a text; name stands for the path in messages."""
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    document = read_document(content)
    if not isinstance(document.data, dict):
        raise _refusal(document.mistakes, str(name), overrides)
    for option in overrides:
        apply_override(document, option)
    raw = normalise(document)
    form, mistakes = check_suite(raw, catalogue)
    mistakes = document.mistakes + mistakes
    if mistakes or form is None:
        raise _refusal(mistakes, str(name), overrides)
    suite = _resolve(form, raw, catalogue, Path(name), hashlib.sha256(content).hexdigest())
    if (trials := count_trials(suite, catalogue)) > MAX_TRIALS:
        text = f"makes {trials:,} trials; a suite has at most {MAX_TRIALS:,}: give fewer seeds, shorten a grid, or split it"
        raise _refusal([Mistake(document.origin(()), "", text)], str(name), overrides)
    return suite


def _refusal(mistakes: Sequence[Mistake], file: str, overrides: Sequence[str]) -> SuiteError:
    """All mistakes, each once, in the order of the file; those of options last, in the order given."""

    def place(mistake: Mistake) -> tuple[int, int]:
        origin = mistake.origin
        return (0, origin) if isinstance(origin, int) else (1, overrides.index(origin))

    ordered = sorted(mistakes, key=place)
    lines = list(dict.fromkeys(mistake.show(file) for mistake in ordered))
    more = [f"{file}: and {len(lines) - MAX_SHOWN} more"] if len(lines) > MAX_SHOWN else []
    return SuiteError("\n".join(lines[:MAX_SHOWN] + more))


def _resolve(form: SuiteForm, raw: Raw, catalogue: Catalogue, path: Path, sha256: str) -> Suite:
    """The suite of a form in which nothing is wrong."""
    methods = tuple(_method_entry(m, catalogue, _line(raw, ("methods", i))) for i, m in enumerate(form.methods))
    return Suite(
        path=path,
        name=form.name,
        title=form.title,
        tasks=tuple(_task_entry(t, catalogue, _line(raw, ("tasks", i))) for i, t in enumerate(form.tasks)),
        methods=methods,
        kernels=tuple(_kernel_entry(k, catalogue, _line(raw, ("kernels", i))) for i, k in enumerate(form.kernels)),
        net=form.net,
        train=form.train,
        seeds=form.seeds,
        root_seed=form.root_seed,
        devices=form.devices,
        dtype=form.dtype,
        threads=form.threads,
        budget=_budget(form.budget, methods),
        measure=Measure(form.measure.quality, form.measure.timing, form.measure.memory),
        exclude=tuple({key: v for key, v in item.items() if not isinstance(v, list | dict)} for item in form.exclude),
        claims=form.claims,
        limits=Limits(form.limits.timeout, form.limits.memory),
        tuning=_tuning(form.tuning),
        text_sha256=sha256,
    )


def _line(raw: Raw, loc: Loc) -> int:
    origin = raw.document.origin(raw.written(loc))
    return origin if isinstance(origin, int) else 0


def _task_entry(form: TaskForm, catalogue: Catalogue, line: int) -> TaskEntry:
    return TaskEntry(form.use, catalogue.task(form.use).ref, form.params, form.grid, form.zip, line)


def _method_entry(form: MethodForm, catalogue: Catalogue, line: int) -> MethodEntry:
    label = form.label or form.use
    return MethodEntry(form.use, catalogue.method(form.use).ref, label, form.role, form.params, form.grid, form.zip, line)


def _kernel_entry(form: KernelForm, catalogue: Catalogue, line: int) -> KernelEntry:
    offer = catalogue.kernel(form.use)
    names = tuple(i.name for i in offer.spec.implementations if form.implementations is None or i.name in form.implementations)
    return KernelEntry(form.use, offer.ref, names, form.params, form.grid, form.zip, line)


def _budget(form: BudgetForm, methods: Sequence[MethodEntry]) -> Budget:
    units = dict(form.model_extra or {})
    if form.match is None:
        return Budget(units)
    to = form.match.to
    called = [m for m in methods if m.label == to] or [m for m in methods if to in (m.ref, m.ref.rpartition("/")[2])]
    entry = called[0]  # check_match leaves exactly one
    if form.match.params is not None:
        return Budget(units, Match("params", form.match.params, entry.ref, entry))
    assert form.match.flops is not None, "check_match leaves one of the two"
    return Budget(units, Match("flops", form.match.flops, entry.ref, entry))


def _tuning(form: TuningForm | None) -> Tuning | None:
    if form is None:
        return None
    return Tuning(form.trials, {name: _dimension(d) for name, d in form.space.items()}, form.metric)


def _dimension(form: DimensionForm) -> Dimension:
    for kind in ("log", "linear", "values"):
        if (given := getattr(form, kind)) is not None:
            return Dimension(kind, given)
    raise AssertionError("check_tuning leaves one of the three")


# What the plan needs of a suite -----------------------------------------------------------------------------------------


def expand(entry: TaskEntry | MethodEntry | KernelEntry) -> list[dict[str, Value]]:
    """The parameter sets of an entry, as written (no defaults): grid multiplies, zip aligns."""
    return [dict(combination.values) for combination in combine(entry.params, entry.grid, entry.zip)]


def count_trials(suite: Suite, catalogue: Catalogue) -> int:
    """How many trials the suite multiplies to, none of them made; before `exclude` and what cannot run here are taken off."""
    uses = 0
    for task_entry in suite.tasks:
        track = catalogue.track(catalogue.task(task_entry.ref).spec.track)
        for entry in suite.methods:
            spec = catalogue.method(entry.ref).spec
            if isinstance(spec, Component):
                nets = len(suite.net) * len(suite.train) if track.spec.learner else 0
            else:
                nets = int(catalogue.track(spec.track) is track)
            uses += count_sets(task_entry) * count_sets(entry) * nets
    timed = sum(count_sets(entry) * len(entry.implementations) for entry in suite.kernels) * TIMING_PROCESSES
    seeds = len(suite.seeds) * (1 + (suite.tuning.trials if suite.tuning else 0))
    return len(suite.devices) * (timed + uses * (seeds + (TIMING_PROCESSES if suite.measure.timing else 0)))


def count_sets(entry: TaskEntry | MethodEntry | KernelEntry) -> int:
    """How many parameter sets `expand` gives."""
    return count_combinations(entry.grid, entry.zip)
