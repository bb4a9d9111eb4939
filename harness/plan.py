"""The plan: a suite expanded into trials with their states. Pure: what is done, matched and here is passed in; nothing runs.

Trials are ordered so that whole pairs come first (all methods of one seed, then the next seed), timing trials last; a run
that is cut short, by `--limit` or by Ctrl-C, so leaves complete pairs.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from harness.catalogue import Catalogue, Offer
from harness.errors import HarnessError, MissingError, NothingSelected
from harness.identity import digest, pair_key, series_key, trial_id
from harness.nets import Net, Train
from harness.records import FAILURES, KERNEL_REGIONS, KERNELS, Trial
from harness.specs import Component, Implementation, Kernel, Learner, Method, Metric, Params, Task, Track
from harness.suite import TIMING_PROCESSES, KernelEntry, MethodEntry, Suite, TaskEntry, Tuning, expand, matches, resolve_params
from harness.tuning import Tried, best, points

KINDS = ("tuning", "quality", "timing", "kernel")  # in the order in which they run: what is timed runs when all else is done
State = Literal["done", "missing", "failed", "unsupported"]


@dataclass(frozen=True)
class Here:
    """What the plan must know of this machine. devices: those that can be used; missing_data: data sets not found;
    fetchable: those that `harness data fetch` can bring."""

    torch_version: str
    devices: Mapping[str, str]  # device -> "" if usable, else why not
    missing_data: frozenset[str] = frozenset()
    fetchable: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Done:
    """What the registry knows of a trial: the status of its latest attempt, what that measured, how long it took."""

    status: str
    quantities: frozenset[str]
    wall_s: float | None = None


@dataclass(frozen=True)
class MatchRequest:
    """Find the value of `where` ("net.width" or "method.<knob>") at which the cost of a method meets the baseline's."""

    unit: str
    tolerance: float
    to: str
    where: str
    start: int
    method: str
    method_params: Mapping[str, Any]
    target_method: str
    target_params: Mapping[str, Any]
    net: Mapping[str, Any] | None
    target_net: Mapping[str, Any] | None
    train: Mapping[str, Any] | None
    shape: Mapping[str, int]
    track: str
    code: str

    @property
    def key(self) -> str:
        return digest(asdict(self))


@dataclass(frozen=True)
class Matched:
    """What the search found. value None: cannot be matched, and why.

    counted, target_counted: the share of the method's and of the baseline's work that was counted by formulas, where its FLOPs
    were counted on the module; uncounted: the operations that have none.
    """

    value: int | None
    target: float
    got: float
    reason: str = ""
    counted: float | None = None
    target_counted: float | None = None
    uncounted: tuple[str, ...] = ()

    @property
    def mismatch(self) -> float:
        return self.got / self.target - 1.0 if self.target else math.inf


@dataclass(frozen=True)
class Planned:
    """One trial of the plan. predicted_s: from earlier attempts of this series on this machine, or of its siblings."""

    trial: Trial
    state: State
    predicted_s: float | None = None


@dataclass(frozen=True)
class Note:
    """Trials that the suite asks for and that will not run, why, and the mend."""

    what: str
    mend: str
    trials: int


@dataclass(frozen=True)
class Plan:
    suite: str
    planned: tuple[Planned, ...]
    notes: tuple[Note, ...] = ()
    waiting: tuple[Trial, ...] = ()  # without what tuning will choose, which gives them another trial_id: they cannot run yet
    needs: Mapping[str, Sequence[str]] = field(
        default_factory=dict
    )  # series key -> ids of the tuning trials that choose for it

    def count(self, state: State) -> int:
        return sum(p.state == state for p in self.planned)

    @property
    def predicted_s(self) -> float | None:
        """Predicted seconds of what is missing, one at a time; None where nothing is known."""
        return self.predict([p.trial for p in self.planned if p.state == "missing"])

    def predict(self, trials: Collection[Trial]) -> float | None:
        """Predicted seconds of these trials, one at a time; what never ran takes as long as the others on average."""
        ids = {t.trial_id for t in trials}
        known = [p.predicted_s for p in self.planned if p.trial.trial_id in ids and p.predicted_s is not None]
        return sum(known) * len(ids) / len(known) if known else (0.0 if not ids else None)


@dataclass(frozen=True)
class Ended:
    """What is known of tuning trials, by trial id: how they ended, and the scores of those that ended well."""

    done: Mapping[str, Done]
    scores: Mapping[str, float]


@dataclass
class Notes:
    """Counts of skipped trials by reason; the trials that wait, and what each tuned one needs, as in `Plan`."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    waiting: list[Trial] = field(default_factory=list)
    needs: dict[str, Sequence[str]] = field(default_factory=dict)

    def add(self, what: str, mend: str, trials: int = 1) -> None:
        self.counts[what, mend] = self.counts.get((what, mend), 0) + trials

    def made(self) -> tuple[Note, ...]:
        return tuple(Note(what, mend, n) for (what, mend), n in self.counts.items())


def make_plan(
    suite: Suite,
    catalogue: Catalogue,
    here: Here,
    done: Mapping[str, Done],
    matched: Mapping[str, Matched],
    times: Mapping[str, float] | None = None,
    scores: Mapping[str, float] | None = None,
) -> Plan:
    """Expand the suite. done: by trial id; matched: by MatchRequest.key; times: seconds by series key, on this machine.

    scores: of the tuning trials that ended well, on the validation part, by trial id.
    """
    notes = Notes()
    tried = Ended(done, scores or {})
    trials = [
        *expand_trials(suite, catalogue, here, matched, tried, notes),
        *expand_kernel_trials(suite, catalogue, here, notes),
    ]
    trials.sort(key=pairs_first)
    planned = [Planned(t, state_of(t, done), (times or {}).get(t.series_key)) for t in trials]
    return Plan(suite.name, tuple(fill_predictions(planned)), notes.made(), tuple(notes.waiting), notes.needs)


def pairs_first(trial: Trial) -> tuple[Any, ...]:
    """Quality, timing, kernels; then seed, so that a cut leaves whole pairs; the rest only makes the order definite.

    What tuning chose moves no trial: a cut takes the same ones before and after it.
    """
    return (KINDS.index(trial.kind), trial.seed, trial.device, trial.task, trial.pair_key, trial.method, trial.series_key)


def state_of(trial: Trial, done: Mapping[str, Done]) -> State:
    last = done.get(trial.trial_id)
    if last is None or last.status == "interrupted":
        return "missing"
    if last.status == "unsupported":
        return "unsupported"
    if last.status in FAILURES:
        return "failed"
    return "done" if set(trial.measure) <= last.quantities else "missing"


def fill_predictions(planned: Sequence[Planned]) -> Iterator[Planned]:
    """A series never run takes as long as its siblings of other seeds, where there are any."""
    known: dict[tuple[str, ...], list[float]] = {}
    for p in planned:
        if p.predicted_s is not None:
            known.setdefault(sibling(p.trial), []).append(p.predicted_s)
    for p in planned:
        times = known.get(sibling(p.trial))
        yield p if p.predicted_s is not None or not times else Planned(p.trial, p.state, sum(times) / len(times))


def sibling(trial: Trial) -> tuple[str, ...]:
    return (trial.kind, trial.method, trial.task, trial.device, str(trial.net), str(trial.train), str(trial.budget))


# Expansion ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """A method on a task in a net, all parameters filled in, before seeds and devices."""

    method: Offer[Method]
    method_params: Mapping[str, Any]
    role: str
    task: Offer[Task]
    task_params: Mapping[str, Any]
    track: Offer[Track]
    net: Net | None
    train: Train | None


def expand_uses(suite: Suite, catalogue: Catalogue) -> Iterator[Use]:
    """Every method x parameters on every task x parameters of its track, in every net and training (learners: in none)."""
    for task_entry in suite.tasks:
        task = catalogue.task(task_entry.use)
        track = catalogue.track(task.spec.track)
        for task_params in filled(task_entry, task.spec.params):
            for method_entry in suite.methods:
                method = catalogue.method(method_entry.use)
                if isinstance(method.spec, Learner) and catalogue.track(method.spec.track) is not track:
                    continue
                if isinstance(method.spec, Component) and not track.spec.learner:
                    continue
                around: list[tuple[Net | None, Train | None]] = [(None, None)]
                if isinstance(method.spec, Component):
                    around = [(net, train) for net in suite.net for train in suite.train]
                for method_params in filled(method_entry, method.spec.params):
                    for net, train in around:
                        yield Use(method, method_params, method_entry.role, task, task_params, track, net, train)


def filled(entry: MethodEntry | TaskEntry | KernelEntry, model: type[Params]) -> Iterator[dict[str, Any]]:
    """The entry's parameters, grid and zip expanded, with the model's defaults filled in."""
    for params in expand(entry):
        yield resolve_params(model, params)


def expand_trials(
    suite: Suite, catalogue: Catalogue, here: Here, matched: Mapping[str, Matched], tried: Ended, notes: Notes
) -> Iterator[Trial]:
    for use in expand_uses(suite, catalogue):
        for device in suite.devices:
            kept = [(kind, seed) for kind, seed in seeds_of(suite)
                    if not excluded(names_of(use, device=device, kind=kind, seed=seed), suite.exclude)]  # fmt: skip
            if not kept:
                continue
            reason = unavailable(use, device, here)
            if reason:
                notes.add(*reason, trials=len(kept))
                continue
            yield from trials_of(use, device, kept, suite, catalogue, here, matched, tried, notes)


def seeds_of(suite: Suite) -> list[tuple[str, int]]:
    """(kind, seed) of every trial of a use; for timing the seed is the number of the fresh process."""
    timing = range(TIMING_PROCESSES) if timed_regions(suite) else ()
    return [("quality", s) for s in suite.seeds] + [("timing", s) for s in timing]


def timed_regions(suite: Suite) -> tuple[str, ...]:
    """Those of methods: in a suite that has kernels too, theirs are not among them."""
    return tuple(name for name in suite.measure.timing if not (suite.kernels and name in KERNEL_REGIONS))


def unavailable(use: Use, device: str, here: Here) -> tuple[str, str] | None:
    """Why trials of this use cannot run on this machine, and the mend."""
    why = here.devices.get(device, f"no device {device!r}")
    if why:
        return no_device(device, why)
    absent = sorted(set(datasets_of(use.task.spec, use.task_params)) & here.missing_data)
    if absent:
        return f"data {', '.join(absent)} not found", how_to_get(absent, here)
    return None


def how_to_get(absent: Sequence[str], here: Here) -> str:
    """The command that brings all of it, or where to look what has to be placed by hand."""
    by_hand = [name for name in absent if name not in here.fetchable]
    if by_hand:
        return f"put it into the data folder (--data-dir); `harness describe {by_hand[0]}` says where it comes from"
    return f"`harness data fetch {' '.join(absent)}` brings it into the data folder (--data-dir)"


def no_device(device: str, why: str) -> tuple[str, str]:
    return f"device {device}: {why}", f"run on a machine with {device}, or use --device cpu"


def datasets_of(task: Task, params: Mapping[str, Any]) -> tuple[str, ...]:
    return task.datasets if isinstance(task.datasets, tuple) else task.datasets(task.params.model_validate(params))


def trials_of(
    use: Use, device: str, seeds: Sequence[tuple[str, int]], suite: Suite, catalogue: Catalogue, here: Here,
    matched: Mapping[str, Matched], tried: Ended, notes: Notes,
) -> Iterator[Trial]:  # fmt: skip
    if why := unmatchable(use, suite, catalogue):
        notes.add(f"{use.method.name} cannot be matched on {use.task.name}: {why}", "give it both, or exclude it",
                  trials=len(seeds))  # fmt: skip
        return
    request = match_request(use, suite, catalogue)
    match = None
    net, params = (use.net.model_dump(mode="json") if use.net else None), dict(use.method_params)
    if request is not None:
        found = matched.get(request.key)
        if found is None or found.value is None:
            why = found.reason if found else "the search has not run"
            notes.add(f"{use.method.name} cannot be matched to {request.to} on {use.task.name}: {why}",
                      "loosen the tolerance of budget.match, or exclude it", trials=len(seeds))  # fmt: skip
            return
        net, params = placed(request.where, found.value, net, params)
        match = {"where": request.where, "value": found.value, "to": request.to, "unit": request.unit,
                 "target": found.target, "got": found.got, "mismatch": found.mismatch,
                 "net": request.target_net, "train": request.train if request.target_net else None}  # fmt: skip
        if found.counted is not None:
            match |= {"counted": found.counted, "target_counted": found.target_counted, "uncounted": list(found.uncounted)}
    shared: dict[str, Any] = {
        "track": use.track.ref, "method": use.method.ref, "method_params": params, "role": use.role,
        "paper": catalogue.paper_of(use.method.plugin), "task": use.task.ref, "task_params": dict(use.task_params), "net": net,
        "train": use.train.model_dump(mode="json") if use.train else None, "budget": budget_of(use, suite), "tuning": None,
        "device": device, "dtype": suite.dtype, "threads": suite.threads, "root_seed": suite.root_seed, "matched": match,
        "tuned": None,
        "code_digest": catalogue.code_digest(use.method, use.task, use.track),
        "data_digest": data_digest(use, catalogue), "torch_version": here.torch_version,
    }  # fmt: skip
    tuned = Choices()
    if suite.tuning is not None:
        metric = tuning_metric(use, suite.tuning, suite, catalogue)
        if metric is None:
            notes.add(f"{use.method.name} cannot be tuned on {use.task.name}: nothing that ranks is measured there",
                      "name a metric of the task in tuning.metric, or exclude it", trials=len(seeds))  # fmt: skip
            return
        shared = untuned(shared, suite.tuning) | {"tuning": suite.tuning.rule(metric.name)}
        tuned = tune(shared, suite.tuning, tuned_names(use, suite.tuning), metric, tuning_seeds(seeds, suite), tried)
        yield from (trial for trials in tuned.trials.values() for trial in trials)
    for kind, seed in seeds:
        measure = quantities(use, suite, catalogue) if kind == "quality" else timed_regions(suite)
        settings = seed if kind == "quality" else tuning_seeds(seeds, suite)[0]
        if settings in tuned.unsupported:
            notes.add(f"{use.method.name} cannot be tuned on {use.task.name}: every tuning trial is unsupported",
                      "`harness logs` of one of them says why; exclude it, or leave tuning out")  # fmt: skip
            continue
        fields = {**shared, "kind": kind, "seed": seed, "tuned": tuned.chosen.get(settings)}
        trial = Trial(
            **fields, measure=measure, series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair_key(fields)
        )
        if settings in tuned.trials:
            notes.needs[trial.series_key] = [one.trial_id for one in tuned.trials[settings]]
        if settings in tuned.waiting:
            notes.waiting.append(trial)
        else:
            yield trial


# Tuning ---------------------------------------------------------------------------------------------------------------


def tuned_names(use: Use, tuning: Tuning) -> list[str]:
    """The dimensions of the space that a method has: those of the reference training around a component, its own parameters."""
    have = {f"method.{name}" for name in use.method_params} | (
        {f"train.{n}" for n in Train.model_fields} if use.train else set()
    )
    return sorted(have & set(tuning.space))


def tuning_metric(use: Use, tuning: Tuning, suite: Suite, catalogue: Catalogue) -> Metric | None:
    """What points are scored by: the metric that the suite names, else the first that is measured and that ranks."""
    known = {m.name: m for m in use.task.spec.metrics if m.better != "neither"}
    wanted = quantities(use, suite, catalogue) if tuning.metric is None else (tuning.metric,)
    return next((known[name] for name in wanted if name in known), None)


def tuning_seeds(seeds: Sequence[tuple[str, int]], suite: Suite) -> list[int]:
    """Each seed is tuned for by itself, on its own split. What is timed takes the settings of the first one."""
    return [seed for kind, seed in seeds if kind == "quality"] or [suite.seeds[0]]


def untuned(shared: Mapping[str, Any], tuning: Tuning) -> dict[str, Any]:
    """A trial's fields without the settings that its point brings: identities and boards must not depend on what they were."""

    def without(settings: Mapping[str, Any] | None, owner: str) -> dict[str, Any] | None:
        return (
            None
            if settings is None
            else {name: value for name, value in settings.items() if f"{owner}.{name}" not in tuning.space}
        )

    matched = shared["matched"] and {**shared["matched"], "train": without(shared["matched"]["train"], "train")}
    kept = {"train": without(shared["train"], "train"), "method_params": without(shared["method_params"], "method")}
    return {**shared, **kept, "matched": matched}


@dataclass(frozen=True)
class Choices:
    """By seed, tuning trials and what they chose (`Trial.tuned`). waiting: where some must run; unsupported: where none can."""

    trials: Mapping[int, Sequence[Trial]] = field(default_factory=dict)
    chosen: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    waiting: frozenset[int] = frozenset()
    unsupported: frozenset[int] = frozenset()


def tune(
    shared: Mapping[str, Any], tuning: Tuning, names: Sequence[str], metric: Metric, seeds: Iterable[int], ended: Ended
) -> Choices:
    """A trial for each point and seed, and the best point of each seed whose trials have all ended."""
    found = {seed: list(tuning_trials(shared, tuning, names, metric, seed)) for seed in seeds} if names else {}
    states = {seed: {state_of(trial, ended.done) for trial in trials} for seed, trials in found.items()}
    waiting = frozenset(seed for seed, seen in states.items() if "missing" in seen)
    unsupported = frozenset(seed for seed, seen in states.items() if seen == {"unsupported"})
    chosen = {s: choose(trials, metric, ended) for s, trials in found.items() if s not in waiting | unsupported}
    return Choices(found, chosen, waiting, unsupported)


def tuning_trials(
    shared: Mapping[str, Any], tuning: Tuning, names: Sequence[str], metric: Metric, seed: int
) -> Iterator[Trial]:
    """A trial for each point. Its pair is that of the trial that it tunes for, so that a shard holds both."""
    pair = pair_key({**shared, "kind": "quality", "seed": seed})
    for number, values in enumerate(points(tuning, names, shared["root_seed"], seed)):
        fields = {**shared, "kind": "tuning", "seed": seed, "tuning": {**shared["tuning"], "point": number},
                  "tuned": {"point": number, "values": values}}  # fmt: skip
        yield Trial(**fields, measure=(metric.name,), series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair)


def choose(trials: Sequence[Trial], metric: Metric, ended: Ended) -> dict[str, Any]:
    """`Trial.tuned` of the trials that these, which have all ended, were made for."""
    tried = [Tried(t.tuned["point"], t.tuned["values"], ended.scores.get(t.trial_id), ended.done[t.trial_id].wall_s)
             for t in trials if t.tuned]  # fmt: skip
    found = best(tried, "higher" if metric.better == "higher" else "lower")
    return {
        "point": found.point, "values": dict(found.values), "score": found.score, "metric": metric.name, "trials": len(tried),
        "failed": sum(t.score is None for t in tried), "cost_s": sum(t.wall_s or 0.0 for t in tried),
    }  # fmt: skip


# Kernels --------------------------------------------------------------------------------------------------------------


def expand_kernel_trials(suite: Suite, catalogue: Catalogue, here: Here, notes: Notes) -> Iterator[Trial]:
    """Every implementation of every case of a kernel, on every device that it is for, in fresh processes."""
    for entry in suite.kernels:
        kernel = catalogue.kernel(entry.ref)
        for case in filled(entry, kernel.spec.params):
            for name in entry.implementations:
                implementation = kernel.spec.implementation(name)
                assert implementation is not None, "check_kernels leaves only those that there are"
                for device in (d for d in suite.devices if d in implementation.devices):
                    names = names_of_kernel(kernel, implementation, case, device)
                    seeds = [n for n in range(TIMING_PROCESSES) if not excluded({**names, "seed": n}, suite.exclude)]
                    if why := here.devices.get(device, f"no device {device!r}"):
                        notes.add(*no_device(device, why), trials=len(seeds))
                        continue
                    yield from kernel_trials(kernel, implementation, case, device, seeds, suite, catalogue, here)


def kernel_trials(
    kernel: Offer[Kernel], implementation: Implementation, case: Mapping[str, Any], device: str, seeds: Sequence[int],
    suite: Suite, catalogue: Catalogue, here: Here,
) -> Iterator[Trial]:  # fmt: skip
    asked = tuple(region for region in suite.measure.timing if region in KERNEL_REGIONS) or KERNEL_REGIONS
    shared: dict[str, Any] = {
        "kind": "kernel", "track": KERNELS, "method": f"{kernel.ref}/{implementation.name}", "method_params": {},
        "role": "method" if implementation.kind == "ours" else "baseline", "paper": catalogue.paper_of(kernel.plugin),
        "task": kernel.ref, "task_params": dict(case), "net": None, "train": None, "budget": {}, "tuning": None,
        "device": device, "dtype": suite.dtype, "threads": suite.threads, "root_seed": suite.root_seed, "matched": None,
        "code_digest": catalogue.kernel_digest(kernel), "data_digest": digest({}), "torch_version": here.torch_version,
    }  # fmt: skip
    measure = tuple(region for region in asked if kernel.spec.backward or region == "forward")
    for seed in seeds if measure else ():
        fields = {**shared, "seed": seed}
        yield Trial(
            **fields, measure=measure, series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair_key(fields)
        )


def placed(
    where: str, value: int, net: dict[str, Any] | None, params: dict[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """net and parameters with the matched knob turned."""
    owner, _, knob = where.partition(".")
    return ({**(net or {}), knob: value}, params) if owner == "net" else (net, {**params, knob: value})


def budget_of(use: Use, suite: Suite) -> dict[str, float]:
    """The budget's units that the track declares; epochs become samples seen."""
    clocks = {*use.track.spec.clocks, "wall_s"}
    units = {u: float(v) for u, v in suite.budget.units.items() if u in clocks}
    if "epochs" in suite.budget.units and "samples_seen" in clocks:
        items = shape_of(use).get("train_items")
        if items is None:
            raise HarnessError(f"budget.epochs: task {use.task.name!r} declares no train_items; give samples_seen instead")
        units["samples_seen"] = min(units.get("samples_seen", math.inf), float(suite.budget.units["epochs"]) * items)
    return units


def shape_of(use: Use) -> Mapping[str, int]:
    spec = use.task.spec
    return spec.shape(spec.params.model_validate(use.task_params)) if spec.shape else {}


def quantities(use: Use, suite: Suite, catalogue: Catalogue) -> tuple[str, ...]:
    """What a quality trial must measure: the suite's choice among the task's metrics and its track's probes, else all metrics.

    In the suite's order, or the task's: the first is what a leaderboard ranks by.
    """
    own = [m.name for m in use.task.spec.metrics]
    probed = [m.name for o in catalogue.probes if catalogue.track(o.spec.track) is use.track for m in o.spec.metrics]
    chosen = suite.measure.quality
    return tuple(own if chosen is None else (name for name in chosen if name in {*own, *probed}))


def data_digest(use: Use, catalogue: Catalogue) -> str:
    from harness.data import data_digest as digest_of  # some of it opens files: not for who only validates

    return digest_of(catalogue.dataset(name).spec for name in datasets_of(use.task.spec, use.task_params))


def excluded(names: Mapping[str, Any], patterns: Iterable[Mapping[str, Any]]) -> bool:
    """A trial is left out if every entry of one pattern fits: {"method": "evonorm-*", "net.arch": "mlp"}.

    names: what is known of the trial. A pattern over a name that is not among them fits nothing yet.
    """
    return any(all(fits(names, name, wanted) for name, wanted in pattern.items()) for pattern in patterns)


def fits(names: Mapping[str, Any], name: str, wanted: Any) -> bool:
    if name not in names:
        return False
    value = names[name]
    if name in ("method", "task", "track", "kernel") and "/" not in str(wanted):
        value = str(value).rpartition("/")[2]
    return matches(value, wanted)


def names_of(use: Use, **more: Any) -> dict[str, Any]:
    """What `exclude` may name of a use, by dotted name; more: device, kind and seed, where they are known."""
    net = use.net.model_dump(mode="json") if use.net else {}
    train = use.train.model_dump(mode="json") if use.train else {}
    return {
        "method": use.method.ref, "task": use.task.ref, "track": use.track.ref, "role": use.role,
        **{f"method.{k}": v for k, v in use.method_params.items()},
        **{f"task.{k}": v for k, v in use.task_params.items()},
        **{f"net.{k}": v for k, v in net.items()},
        **{f"train.{k}": v for k, v in train.items()}, **more,
    }  # fmt: skip


def names_of_kernel(
    kernel: Offer[Kernel], implementation: Implementation, case: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """What `exclude` may name of a kernel's trial, but its seed."""
    role = "method" if implementation.kind == "ours" else "baseline"
    named = {"kernel": kernel.ref, "implementation": implementation.name, "kind": "kernel", "device": device, "role": role}
    return named | {f"case.{name}": value for name, value in case.items()}


# Matching -------------------------------------------------------------------------------------------------------------


def match_requests(suite: Suite, catalogue: Catalogue) -> list[MatchRequest]:
    """The searches that the suite's `match` needs, each once."""
    found = {}
    for use in expand_uses(suite, catalogue):
        if excluded(names_of(use), suite.exclude) or unmatchable(use, suite, catalogue):
            continue
        request = match_request(use, suite, catalogue)
        if request is not None:
            found[request.key] = request
    return list(found.values())


def unmatchable(use: Use, suite: Suite, catalogue: Catalogue) -> str:
    """Why the suite's `match` can do nothing with a method; "" where it can, and where it has nothing to do."""
    if not isinstance(use.method.spec, Learner) or not is_matched(use, suite, catalogue):
        return ""
    lacks = [name for name in ("knob", "cost") if getattr(use.method.spec, name) is None]
    return f"the learner declares no {' and no '.join(lacks)}" if lacks else ""


def is_matched(use: Use, suite: Suite, catalogue: Catalogue) -> bool:
    """Whether the suite matches something, the track can, and the method is not the baseline itself."""
    match = suite.budget.match
    if match is None or match.unit not in use.track.spec.matchable:
        return False
    target = catalogue.method(match.to)
    return target.ref != use.method.ref or next(filled(match.entry, target.spec.params)) != use.method_params


def match_request(use: Use, suite: Suite, catalogue: Catalogue) -> MatchRequest | None:
    """None where nothing is to be matched."""
    match = suite.budget.match
    if match is None or not is_matched(use, suite, catalogue):
        return None
    target = catalogue.method(match.to)
    target_params = next(filled(match.entry, target.spec.params))
    target_net = suite.net[0] if use.net is None and isinstance(target.spec, Component) and suite.net else use.net
    if isinstance(use.method.spec, Component):
        where, start = "net.width", use.net.width if use.net else 1
    else:
        where, start = f"method.{use.method.spec.knob}", int(use.method_params[str(use.method.spec.knob)])
    return MatchRequest(
        unit=match.unit, tolerance=match.tolerance, to=match.to, where=where, start=start,
        method=use.method.ref, method_params=use.method_params,
        target_method=target.ref, target_params=target_params,
        net=use.net.model_dump(mode="json") if use.net else None,
        target_net=target_net.model_dump(mode="json") if target_net else None,
        train=(use.train or suite.train[0]).model_dump(mode="json"), shape=shape_of(use), track=use.track.ref,
        code=catalogue.code_digest(use.method, use.task, use.track),
    )  # fmt: skip


# Selection ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """What the command line narrows: globs on names, share or number of trials, which states run again."""

    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    limit: float | None = None
    retry_failed: bool = False
    force: bool = False
    shard: tuple[int, int] | None = None  # 1-based I of N


def narrow(plan: Plan, selection: Selection) -> Plan:
    """The plan with only what the filters leave, and the tuning trials that it needs: a limit does not count these.

    Raises NothingSelected if that is nothing, MissingError if none can run.
    """
    if not plan.planned and plan.notes:
        raise MissingError("\n".join(f"{plan.suite}: {n.trials} trials: {n.what}; {n.mend}" for n in plan.notes))
    named = [t for t in (*(p.trial for p in plan.planned), *plan.waiting)
             if glob_match(t.method, selection.methods) and glob_match(t.task, selection.tasks)]  # fmt: skip
    finals = sorted((t for t in named if t.kind != "tuning"), key=pairs_first)
    if selection.limit is not None:
        finals = finals[: math.ceil(selection.limit * len(finals)) if selection.limit < 1 else int(selection.limit)]
    all_tuning = selection.limit is None or not finals  # also what no trial needs, because none of its points can run
    finals = [t for t in finals if in_shard(t, selection.shard)]
    ids = {t.trial_id for t in finals} | {needed for t in finals for needed in plan.needs.get(t.series_key, ())}
    if all_tuning:
        ids |= {t.trial_id for t in named if t.kind == "tuning" and in_shard(t, selection.shard)}
    kept = tuple(p for p in plan.planned if p.trial.trial_id in ids)
    if not kept:
        raise NothingSelected(f"nothing selected: the suite has {len(plan.planned)} trials, and the filters leave none")
    return replace(plan, planned=kept, waiting=tuple(t for t in plan.waiting if t.trial_id in ids))


def in_shard(trial: Trial, shard: tuple[int, int] | None) -> bool:
    """By pair: a shard holds whole pairs."""
    return shard is None or int(trial.pair_key[:8], 16) % shard[1] == shard[0] - 1


def glob_match(ref: str, globs: Sequence[str]) -> bool:
    name = ref.rpartition("/")[2]
    return not globs or any(fnmatch.fnmatchcase(ref if "/" in g else name, g) for g in globs)


def to_run(plan: Plan, selection: Selection) -> list[Trial]:
    """The trials that a run executes, in order."""
    again = {"missing"} | ({"failed", "unsupported"} if selection.retry_failed else set())
    return [p.trial for p in plan.planned if selection.force or p.state in again]
